"""Every YAML that is shipped loads, and fits the code and its neighbours."""

import ast
import re
from pathlib import Path

import pytest

from mmfuse.benchmarking.config import is_built_in, load_benchmark_config
from mmfuse.cli.shipped import copy_shipped, shipped, shipped_lines
from mmfuse.config import load_config
from mmfuse.data.public.cards import card_text, source_lines
from mmfuse.data.public.sources import READY
from mmfuse.data.tables.manifest import load_manifest
from mmfuse.fusion import FUSIONS
from mmfuse.heads import HEADS
from mmfuse.tasks import TASKS
from mmfuse.training.launch import RULES
from mmfuse.types import MmfuseError

ROOT = Path(__file__).parents[1]
SHIPPED = sorted((ROOT / "configs").glob("*.y*ml"))
BENCHMARKS = [path for path in SHIPPED if path.stem.startswith("benchmark_")]
CONFIGS = [path for path in SHIPPED if path not in BENCHMARKS]
ACCELERATE = sorted((ROOT / "configs" / "accelerate").glob("*.yaml"))
MANIFESTS = sorted((ROOT / "data_manifests").glob("*.y*ml"))
DATA_ROOT = "/somewhere"


def name_of(path):
    return path.stem


def test_there_is_something_to_load():
    assert CONFIGS
    assert BENCHMARKS
    assert MANIFESTS


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_a_config_loads_and_its_strategy_takes_its_options(path):
    config = load_config(path)
    assert config.name == path.stem
    options = {key: value for key, value in config.fusion.items() if key != "name"}
    FUSIONS.check_options(config.fusion["name"], options)


@pytest.mark.parametrize("path", BENCHMARKS, ids=name_of)
def test_a_benchmarks_config_loads(path):
    config = load_benchmark_config(path, ["preset=quick"])
    assert config.name == path.stem
    assert is_built_in(config) or config.data.manifest.startswith("data_manifests/")


@pytest.mark.parametrize("path", SHIPPED, ids=name_of)
def test_a_config_begins_with_what_it_does(path):
    assert path.read_text(encoding="utf-8").startswith("# ")


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_a_configs_manifest_has_its_tasks(path):
    config = load_config(path)
    manifest = ROOT / config.data.manifest
    if manifest.parent != ROOT / "data_manifests":
        # written by `mmfuse data phantom`, or by the user: tests/test_recipes.py
        assert "phantom" in config.data.manifest or config.data.manifest == "reviews.yaml"
        return
    tasks = load_manifest(manifest, DATA_ROOT).tasks
    assert set(config.data.tasks or tasks) <= set(tasks)
    assert set(config.tasks) <= set(config.data.tasks or tasks)


@pytest.mark.parametrize("path", MANIFESTS, ids=name_of)
def test_a_manifest_loads_and_says_what_a_user_must_know(path):
    manifest = load_manifest(path, DATA_ROOT)
    assert manifest.name == path.stem
    assert manifest.rows.startswith(DATA_ROOT)
    for field in ("about", "homepage", "licence", "citation", "obtain"):
        assert getattr(manifest, field), f"{field} is empty"
    for task in manifest.tasks.values():
        assert task.type in TASKS.names()


def test_every_task_kind_has_a_head_and_every_head_its_task():
    assert TASKS.names() == HEADS.names()


def test_every_shipped_file_is_listed_with_what_it_is():
    files = {
        path.relative_to(ROOT) for folder in ("configs", "data_manifests") for path in (ROOT / folder).rglob("*.*")
    }
    assert {path.relative_to(ROOT) for path in shipped().values()} == files
    assert [line.split()[1] for line in list(shipped_lines())[1:]] == list(shipped())
    assert any("demo " in line and "SYNTHETIC chest phantoms" in line for line in shipped_lines())


def test_a_copy_lies_where_docs_and_configs_name_it(mmfuse, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = mmfuse("config", "--copy", "emoji_finetune")
    assert (code, out) == (0, "written: configs/emoji_finetune.yaml\nwritten: data_manifests/emoji_google.yaml\n")
    assert load_config("configs/emoji_finetune.yaml") == load_config(ROOT / "configs/emoji_finetune.yaml")
    Path("data_manifests/emoji_google.yaml").write_text("mine")
    assert mmfuse("config", "--copy", "configs/emoji_google.yaml")[1] == "written: configs/emoji_google.yaml\n"
    assert Path("data_manifests/emoji_google.yaml").read_text() == "mine"
    assert mmfuse("config", "--copy", "accelerate/fsdp2")[1] == "written: configs/accelerate/fsdp2.yaml\n"
    before = sorted(tmp_path.rglob("*"))
    code, _, err = mmfuse("config", "--copy", "emoji_google")
    assert code == 2
    assert (
        "--copy emoji_google: configs/emoji_google.yaml is there already; remove it, or copy in another folder" in err
    )
    assert mmfuse("config", "--copy", "../pyproject.toml")[0] == 2
    assert sorted(tmp_path.rglob("*")) == before


def test_a_name_that_is_not_shipped_is_refused(tmp_path):
    with pytest.raises(MmfuseError, match=r"--copy 'dmo': there is none; legal: .*did you mean 'demo'"):
        copy_shipped("dmo", tmp_path)


@pytest.mark.parametrize("path", SHIPPED + ACCELERATE, ids=name_of)
def test_the_commands_of_a_config_name_it_where_its_copy_lies(path):
    named = re.findall(r"(?:train|benchmark|--config_file) (configs/\S+)", path.read_text(encoding="utf-8"))
    assert set(named) <= {path.relative_to(ROOT).as_posix()}


def test_no_message_names_a_file_that_only_a_checkout_has():
    """A docstring may; README.md is also a model folder's."""
    for path in (ROOT / "mmfuse").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        found = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in docstrings]
        texts = "\n".join(node.value for node in found if isinstance(node.value, str))
        named = re.findall(r"(?:docs|benchmarks|configs|data_manifests)/\w+\S*|[A-Z]\w+\.md", texts)
        assert set(named) <= {"README.md"}, path


def test_what_messages_say_to_copy_is_shipped():
    texts = [*(rule.otherwise for rule in RULES.values()), *source_lines(), *map(card_text, READY)]
    named = set(re.findall(r"config --copy ([\w/]+)", "\n".join(texts)))
    assert {"accelerate/fsdp2", "accelerate/deepspeed_zero2", "covid_cxr", "data_manifests/covid_cxr"} <= named
    assert named <= set(shipped())
