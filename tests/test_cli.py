"""The command line as a newcomer meets it: right and wrong, each answered by one line."""

import json
import re
import sys
from pathlib import Path

import pytest
import torch
import typer
import yaml
from child_processes import run_child

from mmfuse import __version__, cli
from mmfuse.data.synthetic.phantom import write_pairs, write_phantom
from mmfuse.encoders.cache import build_cache
from mmfuse.fusion import FUSIONS
from mmfuse.metrics import METRICS
from mmfuse.types import Features

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


@pytest.fixture
def mmfuse(mmfuse, monkeypatch):
    """As everywhere; and plug-ins are forgotten."""
    monkeypatch.setattr(FUSIONS, "_classes", dict(FUSIONS._classes))
    yield mmfuse
    sys.modules.pop("mmfuse_plugin_my_fusion", None)


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """A phantom, a folder of pairs, a config of seconds, and the plug-in of the README."""
    root = tmp_path_factory.mktemp("world")
    write_phantom(root / "phantom", 60, seed=0)
    write_pairs(root / "pairs", 6, seed=1)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    vit = {"depth": 1, "embed_dim": 16, "num_heads": 2}
    config = {
        "name": "tiny",
        "output_dir": str(root / "run"),
        "data": {"manifest": str(root / "phantom" / "manifest.yaml"), "num_workers": 0},
        "text_encoder": {"name": "bert", "pretrained": False, "options": sizes, "max_length": 48},
        "image_encoder": {"name": "vit_tiny_patch16_224", "pretrained": False, "size": [32, 32], "options": vit},
        "fusion": {"name": "concat", "out_dim": 16},
        "training": {"epochs": 1, "batch_size": 16, "trackers": []},
    }
    (root / "config.yaml").write_text(yaml.safe_dump(config))
    plugin = re.search(r"```python\n(# my_fusion.py\n.*?)```", README, re.DOTALL)
    (root / "my_fusion.py").write_text(plugin.group(1))
    return root


def test_train_evaluate_predict(mmfuse, world, monkeypatch):
    code, out, err = mmfuse("train", world / "config.yaml", "seed=3", f"output_dir={world / 'run'}")
    assert code == 0
    assert "samples/s" in err
    assert str(world / "run" / "model") in out
    code, out, _ = mmfuse(
        "evaluate",
        world / "run/model",
        world / "phantom/manifest.yaml",
        "--out",
        world / "scores",
        "--split=validation",
    )
    assert code == 0
    assert "auroc_macro" in out
    scores = json.loads((world / "scores" / "metrics.json").read_text())
    assert scores["split"] == "validation"
    monkeypatch.setenv("MMFUSE_CACHE", str(world / "features"))
    again = ("evaluate", world / "run/model", world / "phantom/manifest.yaml", "--split=validation", "--cache")
    for _ in range(2):
        assert mmfuse(*again, "--out", world / "again")[0] == 0
        cached = json.loads((world / "again" / "metrics.json").read_text())["tasks"]["findings"]["metrics"]
        for name, score in scores["tasks"]["findings"]["metrics"].items():
            assert cached[name]["value"] == pytest.approx(score["value"], abs=1e-4)
    assert len(list((world / "features" / "features").iterdir())) == 2  # one folder a tower
    code, out, _ = mmfuse("predict", world / "run/model", world / "pairs", "--out", world / "p.jsonl")
    assert code == 0
    assert "6 studies: 6 predictions" in out
    table = world / "phantom" / "data.csv"
    code, out, _ = mmfuse("predict", world / "run/model", table, "--out", world / "t.csv")
    assert code == 0
    assert "60 studies: 60 predictions" in out


def test_a_plugin_in_a_scratch_file(mmfuse, world, tmp_path):
    """The README's fusion: listed, checked, trained, and its model predicted with."""
    plugin = ("--plugin", world / "my_fusion.py")
    assert "product: Multiply projected text and image vectors." in mmfuse("list", "fusions", *plugin)[1]
    code, out, _ = mmfuse("check", "product", *plugin)
    assert code == 0
    assert "FAILED" not in out
    options = ("fusion={name: product, out_dim: 16}", f"output_dir={tmp_path / 'run'}")
    assert mmfuse("train", world / "config.yaml", *options, *plugin)[0] == 0
    model = tmp_path / "run" / "model"
    assert mmfuse("predict", model, world / "pairs", "--out", tmp_path / "p.jsonl", *plugin)[0] == 0
    alone = [sys.executable, "-m", "mmfuse.cli", "predict", model, world / "pairs", "--out", tmp_path / "q.jsonl"]
    done = run_child(alone)
    assert done.returncode == 2
    assert done.stderr.strip().count("\n") == 0
    assert "needs the 'fusion product' from the plug-in 'my_fusion'" in done.stderr


CONSTANT = """
import numpy as np
from mmfuse.metrics import METRICS

@METRICS.register("_constant")
class Constant:
    kinds, needs, larger_is_better = ("classification",), frozenset({"decisions"}), True
    range, per_label = (0.0, 2.0), False

    def __init__(self, value: float):
        self.value = value

    def __call__(self, scored, weights):
        return np.full(len(weights) + 1, self.value)
"""


def test_options_are_checked_with_and_one_fault_is_told_once(mmfuse, tmp_path, monkeypatch):
    monkeypatch.setattr(METRICS, "_classes", dict(METRICS._classes))
    (tmp_path / "constant.py").write_text(CONSTANT)
    plugin = ("--plugin", tmp_path / "constant.py")
    _, listed, _ = mmfuse("list", "metrics", *plugin)
    assert "_constant: no docstring\n    options: value\n" in listed
    code, _, err = mmfuse("check", "_constant", *plugin)
    assert (code, err) == (2, "error: metric '_constant' needs the option value, which has no default\n")
    code, out, _ = mmfuse("check", "_constant", "value=1", *plugin)
    assert code == 2
    assert "its docstring has no `Reference:`" in out
    assert out.count("it gives (2,), not (1,)") == 1
    assert "FAILED  needs: as " in out
    sys.modules.pop("mmfuse_plugin_constant")


def test_a_plugin_in_a_scratch_package(world, tmp_path):
    """An installed package's entry point is found by the command line, the config and the suite, with no --plugin."""
    (tmp_path / "scratch_fusion.py").write_text((world / "my_fusion.py").read_text().replace('"product"', '"scratch"'))
    info = tmp_path / "scratch_fusion-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: scratch-fusion\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[mmfuse.fusions]\nscratch = scratch_fusion:ProductFusion\n")
    code = (
        "import sys; from mmfuse import cli\n"
        f"for args in (['list', 'fusions'], ['check', 'scratch'], ['train', {str(world / 'config.yaml')!r},"
        f" 'fusion={{name: scratch, out_dim: 16}}', 'output_dir={tmp_path / 'run'}']):\n"
        "    sys.argv = ['mmfuse', *args]\n"
        "    try: cli.main()\n"
        "    except SystemExit as leaving: assert not leaving.code, args\n"
    )
    environment = {"PYTHONPATH": str(tmp_path), "HF_HUB_OFFLINE": "1", "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = run_child([sys.executable, "-c", code], env=environment)
    assert done.returncode == 0, done.stderr
    assert "scratch: Multiply" in done.stdout
    assert "FAILED" not in done.stdout
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (("train", "{w}/confg.yaml"), "no such file.*did you mean 'config.yaml'"),
        (("train", "{w}/config.yaml", "training.epoch=1"), "training.epoch: no such key.*did you mean 'epochs'"),
        (("train", "{w}/config.yaml", "training.epochs=many"), "training.epochs"),
        (("train", "{w}/config.yaml", "epochs"), "an override is key=value"),
        (("train", "{w}/config.yaml", "fusion.name=conct"), "unknown fusion 'conct'.*did you mean 'concat'"),
        (("train", "{w}/config.yaml", "fusion.dropuot=0.1"), "fusion.dropuot.*did you mean 'dropout'"),
        (("train", "{w}/config.yaml", "data.manifest={w}/none.yaml"), "none.yaml: no such file"),
        (("train", "{w}/config.yaml", "data.tasks=[finding]"), "no task 'finding'.*did you mean 'findings'"),
        (("train", "{w}/config.yaml", "image_encoder.name=resnet81"), "image_encoder.name: 'resnet81'"),
        (("train", "{w}/config.yaml", "text_encoder.name=/no/where"), "text_encoder.name: '/no/where'"),
        (("evaluate", "{w}/nothing", "{w}/phantom/manifest.yaml"), "nothing: no such model folder"),
        (("evaluate", "{w}/pairs", "{w}/phantom/manifest.yaml"), "config.json is missing"),
        (("predict", "{w}/pairs", "{w}/empty", "--out", "{w}/x.jsonl"), "empty"),
        (
            ("predict", "{w}/pairs", "{w}/pairs", "--layout", "stems"),
            "--layout 'stems' is not legal; legal: auto, stem",
        ),
        (("train", "{w}/phantom"), "phantom: a folder; name a file in it: manifest.yaml"),
        (("check", "concatt"), "did you mean 'concat'"),
        (("check", "concat", "--plugin", "{w}/none.py"), "not a Python file"),
        (("list", "fusion"), "legal: .*fusions, .*heads"),
        (("data", "check", "{w}/config.yaml"), "name|no such key"),
        (
            ("data", "check", "{w}/phantom/manifest.yaml", "--out", "{w}/config.yaml/x"),
            "--out .*config.yaml is not a folder",
        ),
        (("evaluate", "{w}/run", "{w}/phantom/manifest.yaml", "--out", "{w}/config.yaml"), "--out .* is not a folder"),
        (("data", "prepare", "open-i", "--from", "{w}", "--out", "{w}/x"), "did you mean 'open_i'"),
        (("data", "prepare", "open_i", "--from", "{w}", "--out", "{w}/x"), "not the download of open_i"),
        (("data", "sources", "coco"), "legal: .*coco_captions"),
        (("predict", "{w}/pairs", "x" * 5000), "no such model|config.json is missing|too long"),
        (("data", "phantom", "{w}/pairs"), "not a phantom"),
    ],
)
def test_an_error_is_one_line(mmfuse, world, tmp_path, args, complaint):
    args = [a.format(w=world) for a in args]
    if args[0] == "train":
        args.append(f"output_dir={tmp_path / 'out'}")
    code, _, err = mmfuse(*args)
    said = [line for line in err.splitlines() if line.startswith("error:")]
    assert code == 2
    assert len(said) == 1
    assert re.search(complaint, said[0])
    assert "Traceback" not in err


def test_nothing_readable_is_exit_code_3(mmfuse, world, tmp_path):
    mmfuse("train", world / "config.yaml", f"output_dir={tmp_path / 'run'}", "training.max_steps=1")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_bytes(b"no")
    (tmp_path / "broken" / "a.txt").write_text("Cough.")
    code, out, _ = mmfuse("predict", tmp_path / "run/model", tmp_path / "broken", "--out", tmp_path / "p.jsonl")
    assert code == 3
    assert "0 predictions" in out


def test_data_check_tells_what_is_there_and_what_is_wrong(mmfuse, world, tmp_path):
    code, out, _ = mmfuse("data", "check", world / "phantom" / "manifest.yaml")
    assert code == 0
    assert "60 rows" in out
    assert "0 errors" in out
    write_phantom(tmp_path / "dirty", 20, seed=0)
    victim = sorted((tmp_path / "dirty" / "images").iterdir())[2]
    victim.write_bytes(b"")
    manifest = tmp_path / "dirty" / "manifest.yaml"
    code, out, _ = mmfuse("data", "check", manifest, "--out", tmp_path / "audit")
    assert code == 4
    assert out.startswith("ERROR   images.unreadable")
    assert f"rows: {victim.stem}" in out
    found = json.loads((tmp_path / "audit" / "audit.json").read_text())
    assert found["findings"][0]["rows"] == [[victim.stem]]
    assert victim.stem in (tmp_path / "audit" / "audit.html").read_text()


def test_data_check_knows_the_kinds_of_tasks(mmfuse, world, tmp_path):
    text = (world / "phantom" / "manifest.yaml").read_text()
    wrong = world / "phantom" / "wrong.yaml"
    wrong.write_text(text.replace("type: multilabel", "type: multilabels"))
    code, _, err = mmfuse("data", "check", wrong)
    assert code == 2
    assert (
        "tasks.findings.type: unknown task 'multilabels'; legal: captioning, classification, multilabel, regression"
        in err
    )


def test_data_check_fails_on_warnings_where_it_is_strict_and_writes_a_copy_without_names(mmfuse, tmp_path):
    rows = ["id,text,y"] + [f"{i},unlike number{i}" + " Dr. Quill" * (i == 7) + f",{'ab'[i % 2]}" for i in range(60)]
    (tmp_path / "rows.csv").write_text("\n".join(rows))
    manifest = tmp_path / "m.yaml"
    manifest.write_text("{name: n, rows: rows.csv, id: id, text: {columns: [text]}, tasks: {y: {column: y}}}")
    code, out, _ = mmfuse("data", "check", manifest, "--redact", tmp_path / "copy")
    assert code == 0
    assert "identifiers.name: 1 in 1 row(s)" in out
    assert "replaced: 1 NAME" in out
    assert "Quill" not in out
    assert mmfuse("data", "check", manifest, "--strict")[0] == 4
    assert mmfuse("data", "check", manifest, "--strict", "--identifiers", "off")[0] == 0
    assert mmfuse("data", "check", tmp_path / "copy" / "manifest.yaml", "--strict")[0] == 0
    code, _, err = mmfuse("data", "check", manifest, "--identifiers", "rule")
    assert (code, "did you mean 'rules'" in err) == (2, True)


def test_no_text_of_a_report_is_printed(mmfuse, world, tmp_path):
    """A report is nobody's business but the model's: not in logs, not in errors, not in predictions."""
    secret = "Zyxomma petiolatum"
    (tmp_path / "in").mkdir()
    for i, data in enumerate((b"\xff\xd8broken", next((world / "pairs").glob("*.png")).read_bytes())):
        (tmp_path / "in" / f"{i}.png").write_bytes(data)
        (tmp_path / "in" / f"{i}.txt").write_text(secret)
    mmfuse("train", world / "config.yaml", f"output_dir={tmp_path / 'run'}", "training.max_steps=1")
    _, out, err = mmfuse("predict", tmp_path / "run/model", tmp_path / "in", "--out", tmp_path / "p.jsonl")
    written = "".join(path.read_text() for path in tmp_path.glob("p.*"))
    assert secret not in out + err + written


def test_help_imports_no_torch():
    code = "import sys; from mmfuse import cli; sys.argv = ['mmfuse', '--help']\n"
    code += "try: cli.main()\nexcept SystemExit: pass\n"
    code += "print('torch' in sys.modules, file=sys.stderr)"
    done = run_child([sys.executable, "-c", code])
    assert done.stderr.strip() == "False"
    assert "Text-image fusion" in done.stdout


def test_the_schema_is_a_config(mmfuse, tmp_path):
    """`mmfuse config` prints what load_config reads, once the keys without a default are filled in."""
    from mmfuse.config import config_from_dict, load_config

    _, out, _ = mmfuse("config")
    (tmp_path / "c.yaml").write_text(out.replace("???", "x"))
    assert load_config(tmp_path / "c.yaml") == config_from_dict({"name": "x", "data": {"manifest": "x"}})


def test_the_version_needs_no_command(mmfuse):
    assert mmfuse("--version")[:2] == (0, f"mmfuse {__version__}\n")


def test_the_readmes_commands_exist():
    """Every mmfuse command that the README names is there, and every make target that it, CONTRIBUTING and CI name."""
    makefile = (ROOT / "Makefile").read_text()
    contributing, workflow = (ROOT / "CONTRIBUTING.md", ROOT / ".github" / "workflows" / "ci.yml")
    for text in (README, contributing.read_text(), workflow.read_text()):
        targets = re.findall(r"^(?: *- run: )?make ((?:[a-z-]+ ?)+)", text, re.MULTILINE)
        assert targets
        for target in " ".join(targets).split():
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    commands = set(typer.main.get_command(cli.app).commands)
    for command in re.findall(r"^mmfuse ([a-z]+)", README, re.MULTILINE):
        assert command in commands


def test_the_readmes_yaml_trains(mmfuse, world, tmp_path):
    """The two files of "Five minutes", with data of that layout and small encoders in place of the Hub's."""
    blocks = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    import csv

    (tmp_path / "films").symlink_to(world / "phantom" / "images")
    rows = list(csv.DictReader((world / "phantom" / "data.csv").read_text().splitlines()))
    with (tmp_path / "studies.csv").open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["id", "patient", "film", "note", "finding"])
        writer.writerows([r["id"], r["patient"], Path(r["image"]).name, r["text"], r["findings"]] for r in rows)
    manifest = yaml.safe_load(blocks[0])
    config = yaml.safe_load(blocks[1])
    small = yaml.safe_load((world / "config.yaml").read_text())
    config |= {key: small[key] for key in ("text_encoder", "image_encoder")}
    config["training"] |= {"epochs": 1, "trackers": []}
    config |= {"output_dir": str(tmp_path / "run")}
    config["data"] = {"manifest": str(tmp_path / "studies.yaml"), "num_workers": 0}
    (tmp_path / "studies.yaml").write_text(yaml.safe_dump(manifest))
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(config))
    assert mmfuse("data", "check", tmp_path / "studies.yaml")[0] == 0
    assert mmfuse("train", tmp_path / "train.yaml")[0] == 0


def test_the_cache_is_shown_and_pruned(mmfuse, tmp_path):
    there = torch.ones(1, dtype=torch.bool)
    features = Features(torch.ones(1, 1, 2), there[None], torch.ones(1, 2), there)
    identity = {"tower": "text", "spec": {"architecture": {"model_type": "bert"}}}
    build_cache(tmp_path, identity, ["a"], lambda items: [(list(items), features)], True)
    here = ("--dir", tmp_path)
    assert "text bert: 1 items, tokens and pooled, float32" in mmfuse("cache", "show", *here)[1]
    assert "0 deleted" in mmfuse("cache", "prune", *here)[1]  # it was used today
    assert "1 deleted" in mmfuse("cache", "prune", "--unused-days", 0, *here)[1]
    assert "0 encoder(s)" in mmfuse("cache", "show", *here)[1]
