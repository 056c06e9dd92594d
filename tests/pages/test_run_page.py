"""The page of a run: measured by hand-made games, written by a real run, and never at the model's cost."""

import json
import re
import shutil

import numpy as np
import pytest
import yaml
from run_folders import write_run

from mmfuse.data.synthetic.phantom import write_phantom
from mmfuse.evaluation.contribution import encode_rows, shapley
from mmfuse.evaluation.run_page import measure_run, write_page
from mmfuse.evaluation.run_page.probes import fit_probe
from mmfuse.model import FusionModel
from mmfuse.predict import prepare_pairs
from mmfuse.tasks import build_task
from mmfuse.types import MmfuseError


def text_of(path):
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", ["classes", "labels", "number", "text"])
def test_a_page_is_written_from_the_folder_alone(tmp_path, kind):
    text = text_of(write_page(write_run(tmp_path / "run", kind)))
    assert not re.search(r"url\(|@import|https?://|<img", text)
    assert "--with-examples" in text
    assert "r17" not in text  # no row of the data


def test_the_first_sentence_says_how_good_and_against_what(tmp_path):
    text = text_of(write_page(write_run(tmp_path / "run", "classes")))
    strong = re.search(r"<strong>(.*?)</strong>", text)[1]
    assert re.match(
        r"Right for \d+(\.\d)? % of 60 test rows .*; always saying the most frequent class is right", strong
    )


def test_what_is_said_by_others_is_text(tmp_path):
    folder = write_run(tmp_path / "run", "classes")
    config = (folder / "config.yaml").read_text().replace("run of classes", "<script>alert(1)</script>")
    (folder / "config.yaml").write_text(config)
    assert "<script>alert" not in text_of(write_page(folder))


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(MmfuseError, match="no folder of a finished run"):
        write_page(tmp_path)
    folder = write_run(tmp_path / "run", "labels")
    (folder / "test/predictions.jsonl").write_text('{"id": ')
    with pytest.raises(MmfuseError, match="damaged"):
        write_page(folder)


def test_a_probe_is_the_ridge_that_left_out_rows_choose():
    draw = np.random.default_rng(0)
    features, weights = draw.normal(size=(80, 5)), draw.normal(size=(5, 3))
    target = (features @ weights + 0.1 * draw.normal(size=(80, 3))).argmax(axis=1)
    kind = build_task("classification", ["a", "b", "c"])
    said = fit_probe(kind, features[:60], target[:60], features[60:])
    assert said.shape == (20, 3)
    assert said.sum(axis=1) == pytest.approx(np.ones(20))
    assert (said.argmax(axis=1) == target[60:]).mean() > 0.7
    wide = np.concatenate([features, draw.normal(size=(80, 200))], axis=1)  # more features than rows
    assert np.isfinite(fit_probe(kind, wide[:60], target[:60], wide[60:])).all()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of seconds, with modality dropout: its missing tokens are trained."""
    from mmfuse.config import config_from_dict
    from mmfuse.training import train

    folder = tmp_path_factory.mktemp("page")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    image = {"name": "vit_tiny_patch16_224", "pretrained": False, "size": [32, 32]}
    values = {
        "name": "tiny",
        "output_dir": str(folder / "run"),
        "data": {"manifest": str(write_phantom(folder / "phantom", 90, seed=0)), "num_workers": 0},
        "text_encoder": {"name": "bert", "pretrained": False, "options": sizes, "max_length": 48},
        "image_encoder": image | {"options": {"depth": 1, "embed_dim": 16, "num_heads": 2}},
        "fusion": {"name": "concat", "out_dim": 16},
        "training": {"epochs": 1, "batch_size": 16, "modality_dropout": {"text": 0.3, "image": 0.3}},
    }
    return train(config_from_dict(values, []))


def test_a_run_leaves_its_page(run):
    measured = json.loads((run.dir / "page.json").read_text())
    assert measured["hidden_by"] == "token"
    text = text_of(run.dir / "report.html")
    assert "Contribution of text and image" in text
    assert "Scores alone." not in text
    assert "<img" not in text


def test_a_page_without_measurements_says_why(run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run.dir, folder)
    (folder / "page.json").unlink()
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["data"]["manifest"] = str(tmp_path / "moved.yaml")
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    text = text_of(write_page(folder))
    assert "Baselines and contributions were not measured: " in text
    assert "moved.yaml" in text


def test_examples_are_shown_where_they_are_asked_for(run):
    text = text_of(write_page(run.dir, with_examples=True))
    assert 1 <= text.count("<img") <= 48
    assert "THIS PAGE HOLDS ROWS" in text
    write_page(run.dir)
    assert "<img" not in text_of(run.dir / "report.html")


def test_the_contribution_is_the_exact_one(run):
    from mmfuse.data.load import load_table
    from mmfuse.data.tables.manifest import load_manifest

    config = json.loads((run.dir / "model/config.json").read_text())
    manifest = json.loads((run.dir / "environment.json").read_text())["manifest"]["path"]
    labels = {task: of["labels"] for task, of in config["tasks"].items()}
    table = load_table(load_manifest(manifest), tasks=list(labels), labels=labels)
    model = FusionModel.from_pretrained(run.model_dir).eval()
    pairs = prepare_pairs(model, table)
    found = measure_run(model, pairs, "test")["tasks"]["findings"]["contribution"]
    data = encode_rows(model, pairs, table.indices("test"))
    exact = shapley(model, data, {"findings": table.targets_of("findings", "train")})["tasks"]["findings"][
        "auroc_macro"
    ]
    for name in ("none", "text", "image", "both"):
        assert found[name] == pytest.approx(exact[name])
    for name in ("phi_text", "phi_image", "interaction"):
        assert found[name]["value"] == pytest.approx(exact[name])
    total = found["phi_text"]["value"] + found["phi_image"]["value"]
    assert total == pytest.approx(found["both"] - found["none"])


def test_a_page_that_fails_costs_no_model(run, monkeypatch, capsys):
    from rich.console import Console

    from mmfuse.training import page

    def fail(*args, **options):
        raise RuntimeError("no room")

    monkeypatch.setattr(page, "measure_run", fail)
    settings = type("Config", (), {"training": type("T", (), {"batch_size": 8, "epochs": 1})()})()
    page.leave_page(None, None, run.dir, settings, {"split": "test"}, {}, 0, Console(soft_wrap=True))
    assert "report.html could not be written: no room; the model is whole" in capsys.readouterr().out
    assert FusionModel.from_pretrained(run.model_dir) is not None
