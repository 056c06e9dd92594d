"""Names to classes: nothing is taken silently, and every error tells the legal names."""

import sys

import pytest

from mmfuse.fusion import FUSIONS
from mmfuse.heads import HEADS
from mmfuse.registry import Registry, load_plugin, nearest
from mmfuse.tasks import TASKS
from mmfuse.types import MmfuseError, first_line

PLUGIN = """
from mmfuse.fusion import FUSIONS
from mmfuse.fusion.concat import ConcatFusion

@FUSIONS.register("mine")
class MyFusion(ConcatFusion):
    "A plug-in."
"""


@pytest.fixture
def registry():
    registry = Registry("thing", reserved=("text_dim",))

    @registry.register("gated")
    class Gated:
        def __init__(self, text_dim, *, dropout=0.1):
            if dropout > 1:
                raise ValueError("dropout is a share\nof 1")

    @registry.register("pickled")
    class Pickled:
        def __init__(self, text_dim, acid):
            pass

    return registry


@pytest.fixture
def own_fusions(monkeypatch):
    """What a test registers as a fusion is gone after it."""
    monkeypatch.setattr(FUSIONS, "_classes", dict(FUSIONS._classes))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("mmfuse_plugin_"):
            del sys.modules[name]


@pytest.mark.parametrize(
    ("name", "legal", "sentence"),
    [
        ("gatd", ["concat", "gated"], "legal: concat, gated (did you mean 'gated'?)"),
        ("xyz", ["concat", "gated"], "legal: concat, gated"),
        ("xyz", [], "legal: nothing"),
        (7, ["7a"], "legal: 7a (did you mean '7a'?)"),
    ],
)
def test_nearest_tells_the_legal_names_and_a_like_one(name, legal, sentence):
    assert nearest(name, legal) == sentence


def test_a_registered_class_is_found_by_its_name(registry):
    assert registry.names() == ["gated", "pickled"]
    assert registry.get("gated").__name__ == "Gated"


def test_an_unknown_name_tells_the_nearest_and_how_a_plugin_is_loaded(registry):
    with pytest.raises(
        MmfuseError, match=r"unknown thing 'gate'; legal: gated, pickled \(did you mean 'gated'\?\); .*--plugin"
    ):
        registry.get("gate")


def test_a_name_is_not_taken_twice_but_a_reloaded_class_is_itself(registry):
    again = registry.get("gated")
    assert registry.register("gated")(again) is again
    with pytest.raises(MmfuseError, match=r"thing 'gated' is registered twice: by .*test_registry and builtins"):
        registry.register("gated")(int)
    assert registry.get("gated") is again


def test_options_are_the_constructors_signature(registry):
    registry.check_options("gated", {"dropout": 0.5})
    with pytest.raises(MmfuseError, match=r"thing.droput is not an option of thing 'gated'; .*did you mean 'dropout'"):
        registry.check_options("gated", {"droput": 0.5})
    with pytest.raises(MmfuseError, match=r"thing.text_dim is not an option"):
        registry.check_options("gated", {"text_dim": 3})
    with pytest.raises(MmfuseError, match=r"thing 'pickled' needs the option acid"):
        registry.check_options("pickled", {})
    registry.check_options("pickled", {"acid": 1})


@pytest.mark.parametrize("name", [["gated", "other"], "a/b", "a.b", "a b", "", lambda cls: cls])
def test_what_is_no_name_is_refused(registry, name):
    with pytest.raises(MmfuseError, match="cannot be the name of a thing"):
        registry.register(name)


def test_a_function_is_no_class(registry):
    with pytest.raises(MmfuseError, match="thing 'fun' is no class"):
        registry.register("fun")(lambda: 1)
    Registry("thing", functions=True).register("fun")(lambda: 1)


def test_a_value_that_a_constructor_refuses_is_one_line(registry):
    assert registry.build("gated", "training.thing", 3, dropout=0.5)
    for value in (2, "a"):
        with pytest.raises(MmfuseError, match=r"^training\.thing: thing 'gated' cannot be built with") as error:
            registry.build("gated", "training.thing", 3, dropout=value)
        assert "\n" not in str(error.value)


def test_a_class_that_does_not_exist_has_no_options(registry):
    with pytest.raises(MmfuseError, match="unknown thing"):
        registry.check_options("nothing", {})


@pytest.mark.parametrize("registry", [FUSIONS, HEADS, TASKS], ids=lambda r: r.kind)
def test_own_classes_need_no_plugin(registry):
    assert {name: registry.origin(name) for name in registry.names()} == dict.fromkeys(registry.names(), "")


@pytest.mark.parametrize("name", FUSIONS.names())
def test_no_strategy_lets_the_user_set_what_the_model_sets(name):
    for reserved in ("text_dim", "image_dim"):
        with pytest.raises(MmfuseError, match=reserved):
            FUSIONS.check_options(name, {reserved: 3})


def test_a_plugin_file_registers_its_classes_once(tmp_path, own_fusions):
    path = tmp_path / "plug.py"
    path.write_text(PLUGIN)
    load_plugin(path)
    first = FUSIONS.get("mine")
    load_plugin(path)
    assert FUSIONS.get("mine") is first
    assert FUSIONS.origin("mine") == "plug"
    assert "mine" in FUSIONS.names()


def test_two_plugins_do_not_share_a_name(tmp_path, own_fusions):
    for name in ("one", "two"):
        (tmp_path / f"{name}.py").write_text(PLUGIN)
    load_plugin(tmp_path / "one.py")
    with pytest.raises(MmfuseError, match="'mine' is registered twice"):
        load_plugin(tmp_path / "two.py")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("absent.py", None, "absent.py: not a Python file"),
        ("plug.txt", "x = 1", "plug.txt: not a Python file"),
        ("broken.py", "import nothing_of_this_name", "broken.py: ModuleNotFoundError: No module named"),
        ("typo.py", "def f(:", "typo.py: SyntaxError"),
        ("leaves.py", "raise SystemExit(3)", "leaves.py: SystemExit: 3"),
        (
            "same.py",
            'from mmfuse.metrics import METRICS\n@METRICS.register("mcc")\nclass Mine:\n    pass',
            r"--plugin \S*same.py: metric 'mcc' is registered twice: by mmfuse.metrics.confusion and same.py",
        ),
    ],
)
def test_a_plugin_that_cannot_be_loaded_is_one_line_and_leaves_nothing(tmp_path, own_fusions, name, text, message):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(MmfuseError, match=message) as error:
        load_plugin(tmp_path / name)
    assert "\n" not in str(error.value)
    assert f"mmfuse_plugin_{name.split('.')[0]}" not in sys.modules


def test_installed_packages_register_through_their_entry_points(monkeypatch, registry):
    loads = []

    class Point:
        name = "theirs"

        def load(self):
            loads.append(self.name)
            return dict

    groups = []

    def entry_points(*, group):
        groups.append(group)
        return [Point()]

    monkeypatch.setattr("importlib.metadata.entry_points", entry_points)
    assert registry.get("theirs") is dict
    assert registry.names() == ["gated", "pickled", "theirs"]
    assert registry.origin("theirs") == "builtins"
    assert (groups, loads) == (["mmfuse.things"], ["theirs"])


def test_a_heading_of_a_foreign_error_is_told_with_what_is_below_it():
    assert first_line(ValueError("Validation error:\n  expected int, got list\nmore")) == (
        "Validation error: expected int, got list"
    )
    assert first_line(ValueError("it ends:")) == "it ends:"
    assert first_line(ValueError("one\ntwo")) == "one"


def test_what_is_registered_for_later_is_imported_when_asked_for(registry):
    registry.register_later("decoder", "decimal:Decimal")
    assert registry.names() == ["decoder", "gated", "pickled"]
    assert "decoder" not in registry._classes
    with pytest.raises(MmfuseError, match="registered twice: by mmfuse and "):
        registry.register("decoder")(dict)
    assert registry.get("decoder") is __import__("decimal").Decimal
