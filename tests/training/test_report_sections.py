"""A model that reads one section of reports: the same from a table, a folder of whole reports, and in training."""

import contextlib
import csv
import io
import json
import sys

import numpy as np
import pytest
import yaml
from PIL import Image

import mmfuse
from mmfuse.cli import main
from mmfuse.data.load import load_table
from mmfuse.data.shards.write import write_shards
from mmfuse.data.tables.manifest import load_manifest
from mmfuse.predict import Predictor, open_studies, predict_to_file
from mmfuse.types import Failure, Sample

WORDS = ["cough", "fever", "pain", "fall", "trauma", "dyspnea", "edema", "syncope"]


def report(i, findings="Clear."):
    words = " ".join(WORDS[(i * k) % 8] for k in (1, 3, 5))
    return (
        f"CHEST X-RAY\n\nINDICATION: {words} " + "pain " * (i % 3 * 9) + f"\n\nFINDINGS: {findings}\nIMPRESSION: {i}."
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A run on 24 studies, of which one report has no indication, with tokens for half of the longest indications."""
    folder = tmp_path_factory.mktemp("sections")
    (folder / "films").mkdir()
    rng = np.random.default_rng(0)
    with (folder / "rows.csv").open("w", newline="") as handle:
        writer = csv.DictWriter(handle, ["id", "image", "text", "y", "split"])
        writer.writeheader()
        for i in range(24):
            Image.fromarray(rng.integers(0, 255, (32, 32), dtype=np.uint8)).save(folder / "films" / f"{i:02}.png")
            text = "All is well." if i == 7 else report(i)
            (folder / "films" / f"{i:02}.txt").write_text(text)
            split = ("train", "train", "validation", "test")[i % 4]
            writer.writerow(
                {"id": f"{i:02}", "image": f"films/{i:02}.png", "text": text, "y": "ab"[i // 4 % 2], "split": split}
            )
    manifest = {
        "name": "reports",
        "rows": "rows.csv",
        "id": "id",
        "image": {"column": "image"},
        "text": {"columns": ["text"], "section": "indication"},
        "tasks": {"y": {"column": "y"}},
        "splits": {"column": "split"},
    }
    (folder / "m.yaml").write_text(yaml.safe_dump(manifest))
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    vit = {"depth": 1, "embed_dim": 16, "num_heads": 2}
    text = {"name": "bert", "pretrained": False, "options": sizes, "max_length": 12, "truncation": "head_tail"}
    image = {"name": "vit_tiny_patch16_224", "pretrained": False, "size": [32, 32], "options": vit}
    config = {
        "name": "sections",
        "output_dir": str(folder / "run"),
        "data": {"manifest": str(folder / "m.yaml"), "num_workers": 0},
        "text_encoder": text,
        "image_encoder": image,
        "training": {"epochs": 1, "batch_size": 8, "trackers": [], "modality_dropout": {"text": 0.2}},
    }
    log = io.StringIO()
    with contextlib.redirect_stderr(log):
        run = mmfuse.train(config)
    return folder, run, Predictor.from_pretrained(run.model_dir), log.getvalue()


def probabilities(results):
    assert not [r for r in results if isinstance(r, Failure)]
    return np.array([list(r.tasks["y"]["probabilities"].values()) for r in results])


def test_a_table_a_folder_shards_and_training_agree(world):
    folder, run, predictor, _ = world
    write_shards(load_table(load_manifest(folder / "m.yaml")), folder / "shards")
    opened = [open_studies(str(folder / name), model=predictor.model) for name in ("films", "rows.csv", "shards")]
    from_folder, from_table, from_shards = (
        sorted(predictor(studies.read(0, len(studies))), key=lambda result: result.id) for studies in opened
    )
    assert [r.id for r in from_folder] == [r.id for r in from_table] == [f"{i:02}" for i in range(24)]
    np.testing.assert_array_equal(probabilities(from_folder), probabilities(from_table))
    np.testing.assert_allclose(probabilities(from_folder), probabilities(from_shards), atol=2e-6)
    tested = [json.loads(line) for line in (run.dir / "test" / "predictions.jsonl").read_text().splitlines()]
    expected = [list(line["tasks"]["y"]["probabilities"].values()) for line in tested]
    np.testing.assert_allclose(probabilities(from_folder)[3::4], expected, atol=1e-5)
    assert from_folder[7].present == ("image",)  # as in training, where its text was missing


def test_only_that_section_moves_a_prediction(world):
    folder, _, predictor, _ = world
    film = (str(folder / "films" / "00.png"),)
    texts = [report(0), report(0, "Large effusion.\n\nFracture."), report(1)]
    same, findings, indication = probabilities(list(predictor(Sample(t, film, t) for t in texts)))
    np.testing.assert_array_equal(same, findings)
    assert np.abs(same - indication).max() > 1e-5


def test_a_report_without_it_is_a_missing_text(world):
    folder, run, _, _ = world
    predictor = Predictor.from_pretrained(run.model_dir)
    predictor.model.accepts_missing = []
    (result,) = predictor([Sample("x", (str(folder / "films" / "00.png"),), "All is well.")])
    assert result.reason.startswith("no text (indication of a report), and the model was trained without missing text")


def test_what_was_cut_is_told(world, tmp_path, monkeypatch, capsys):
    folder, run, predictor, log = world
    metrics = json.loads((run.model_dir / "metrics.json").read_text())["cut_texts"]
    assert metrics == {"texts": 5, "cut": 3, "max_length": 12, "truncation": "head_tail"}  # 11, 19 and 23 of the test
    assert "15 of 23 reports were longer than 12 tokens and cut (head_tail)" in log
    card = (run.model_dir / "README.md").read_text()
    assert "3 of 5 reports were longer than 12 tokens and cut (head_tail)." in card
    assert "of each report, the text is: indication" in card
    counts = predict_to_file(predictor, open_studies(str(folder / "films")), tmp_path / "p.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    notices = [notice for line in lines for notice in line["notices"]]
    assert (counts.texts, counts.cut) == (23, len(notices))
    assert set(notices) == {"report truncated at 12 tokens (head_tail kept)"}
    argv = ["mmfuse", "predict", str(run.model_dir), str(folder / "films"), "--out", str(tmp_path / "q.jsonl")]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit, match="0"):
        main()
    assert "15 of 23 reports were longer than 12 tokens and cut (head_tail)" in capsys.readouterr().out
