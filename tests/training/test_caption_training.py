"""Captioning from a manifest to a model folder: alone, beside labels, killed, moved, explained."""

import dataclasses
import json
import shutil
import socket

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from test_processes import launch, losses, write_config

import mmfuse
from mmfuse.data.load import load_table
from mmfuse.data.rows.folder import find_study
from mmfuse.data.synthetic.phantom import write_pairs
from mmfuse.data.synthetic.phantom_findings import write_language
from mmfuse.evaluation.explain import explain, explain_caption
from mmfuse.predict import Predictor, SampleStudies, predict_to_file
from mmfuse.training import loop
from mmfuse.types import Failure, MmfuseError

DECODER = (
    "tasks.report.decoder={hidden_dim: 16, num_layers: 1, num_heads: 2, max_length: 24, vocab_size: 200, "
    "options: {resid_pdrop: 0.0, embd_pdrop: 0.0, attn_pdrop: 0.0}}"
)


@pytest.fixture(scope="session")
def captions(phantom):
    return write_language(phantom.parent, 0)[0]


@pytest.fixture
def captioner(tiny, captions):
    """A config of seconds with labels and captions; `report` alone with `data.tasks=[report]`."""

    def make(*overrides, run="run"):
        return tiny(f"data.manifest={captions}", DECODER, "training.epochs=1", *overrides, run=run)

    return make


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("pairs") / "pairs", 5, seed=9)


def lines(run_dir):
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def captions_of(model_dir, pairs, **options):
    predictor = Predictor.from_pretrained(model_dir, **options)
    samples = [find_study(path).sample() for path in sorted(pairs.glob("*.png"))]
    return [prediction.tasks["report"]["caption"] for prediction in predictor(samples)]


def test_labels_and_captions_from_one_model(captioner, pairs, tmp_path, monkeypatch):
    run = mmfuse.train(captioner())
    steps = [line for line in lines(run.dir) if "loss" in line]
    for line in steps:
        assert line["loss"] == pytest.approx(line["losses"]["findings"] + line["losses"]["report"], rel=1e-5)
    validation = next(line["validation"] for line in lines(run.dir) if "validation" in line)
    wanted = (validation["findings/auroc_macro"] + validation["report/rouge_l"]) / 2
    assert validation["monitored"] == pytest.approx(wanted)
    scores = run.report["tasks"]
    assert scores["findings"]["metrics"]["auroc_macro"]["value"] is not None
    assert set(scores["report"]["baselines"]) == {"consensus", "retrieval"}
    for found in scores["report"]["baselines"].values():
        for name in ("bleu4", "cider_d"):
            ours, theirs = scores["report"]["metrics"][name]["value"], found["metrics"][name]["value"]
            assert found["difference"][name]["value"] == pytest.approx(ours - theirs, abs=1e-9)
    said = [json.loads(line) for line in (run.dir / "test" / "predictions.jsonl").read_text().splitlines()]
    assert all(isinstance(row["tasks"]["report"]["caption"], str) for row in said)
    assert all(len(row["tasks"]["report"]["target"]) == 1 for row in said)

    # elsewhere, without a network and without what it was made from
    here = captions_of(run.model_dir, pairs)
    for generation in ({}, {"num_beams": 2}):
        half = captions_of(run.model_dir, pairs, precision="bf16", generation=generation)
        assert all(isinstance(caption, str) for caption in half)
    moved = tmp_path / "elsewhere" / "model"
    shutil.copytree(run.model_dir, moved)
    shutil.rmtree(run.dir)
    monkeypatch.setattr(socket, "socket", None)
    assert captions_of(moved, pairs) == here


def test_label_smoothing_is_no_part_of_the_validation_loss(captioner):
    """So that curves of runs with other smoothing can be compared."""
    first = [
        next(line["validation_loss"] for line in lines(mmfuse.train(c).dir) if "validation_loss" in line)
        for c in (
            captioner("data.tasks=[report]", "training.learning_rate=0.0", run="plain"),
            captioner("data.tasks=[report]", "training.learning_rate=0.0", "tasks.report.decoder.label_smoothing=0.3"),
        )
    ]
    assert first[0] == pytest.approx(first[1])


@pytest.mark.parametrize("at", [2, 6])
def test_a_killed_run_goes_on_to_the_same_bits(captioner, killed_at, at):
    options = (
        "training.epochs=2",
        "training.checkpoint_every=2",
        "training.task_weights=uncertainty",
        "tasks.report.decoder.scheduled_sampling=0.3",
        "tasks.report.decoder.options={resid_pdrop: 0.2}",
    )
    whole = mmfuse.train(captioner(*options, run="whole"))
    again = killed_at(captioner(*options, run="killed"), at)
    assert losses(again.dir) == losses(whole.dir)
    a, b = (load_file(run.model_dir / "model.safetensors") for run in (whole, again))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_weights_of_tasks_are_learned_and_not_saved(captioner, monkeypatch):
    seen = []
    step = loop.Trainer.step

    def watching(self, batches):
        found = step(self, batches)
        seen.append(
            {task: float(s.detach()) for task, s in self.learner.objectives["uncertainty"].log_variances.items()}
        )
        return found

    monkeypatch.setattr(loop.Trainer, "step", watching)
    run = mmfuse.train(captioner("training.task_weights=uncertainty", "training.learning_rate=0.01"))
    # the gradient of exp(-s) l + s / 2 at 0 is 1/2 - l: a task with a loss above a half counts less
    assert seen[-1]["report"] > 0
    assert seen[-1]["findings"] > 0
    first = lines(run.dir)[0]
    assert first["loss"] == pytest.approx(sum(first["losses"].values()), rel=1e-5)
    assert not any("log_variances" in name for name in load_file(run.model_dir / "model.safetensors"))
    mmfuse.FusionModel.from_pretrained(run.model_dir)


def test_stopping_on_a_combination(captioner):
    run = mmfuse.train(captioner("training.monitor=findings/f1_micro + 0.1 * report/cider_d"))
    found = next(line["validation"] for line in lines(run.dir) if "validation" in line)
    assert found["monitored"] == pytest.approx(found["findings/f1_micro"] + 0.1 * found["report/cider_d"])


@pytest.mark.parametrize(
    ("monitor", "words"), [("report/cider", "did you mean 'report/cider_d'"), ("x * report/cider_d", "NUMBER \\* TASK")]
)
def test_a_monitor_that_is_not_there(captioner, monitor, words):
    with pytest.raises(MmfuseError, match=words):
        mmfuse.train(captioner(f"training.monitor={monitor}"))


def test_another_reference_each_epoch(captioner, captions, tmp_path):
    rows = [dict(line) for line in _rows(captions)]
    for row in rows:
        row["report"] = [f"first {row['id'][-2:]} one", f"second {row['id'][-2:]} two", "third"]
    manifest = yaml.safe_load(captions.read_text())
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    manifest |= {"rows": str(tmp_path / "rows.jsonl"), "image": {"column": "image", "root": str(captions.parent)}}
    (tmp_path / "m.yaml").write_text(yaml.safe_dump(manifest))
    config = captioner(f"data.manifest={tmp_path / 'm.yaml'}", "data.tasks=[report]")
    table = load_table(mmfuse.load_manifest(tmp_path / "m.yaml"), tasks=["report"])
    from mmfuse.predict import prepare_pairs
    from mmfuse.training.build import build_model

    pairs = prepare_pairs(build_model(config, table), table)
    drawn = [pairs.at(epoch)[list(range(20))]["target.report"].tolist() for epoch in range(6)]
    firsts = [[tuple(row[:3]) for row in epoch] for epoch in drawn]
    assert len({tuple(epoch) for epoch in firsts}) == 6
    assert pairs.plain()[[0]]["target.report"][0].tolist() == pairs.captions["report"][0][0]


def _rows(captions):
    import csv

    with (captions.parent / "captions.csv").open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_captions_in_every_format_and_as_files(captioner, pairs, tmp_path, suffix):
    run = mmfuse.train(captioner("training.max_steps=1"))
    predictor = Predictor.from_pretrained(run.model_dir, generation={"max_length": 6})
    samples = [find_study(path).sample() for path in sorted(pairs.glob("*.png"))]
    out, folder = tmp_path / f"p{suffix}", tmp_path / "captions"
    predict_to_file(predictor, SampleStudies(samples), out, captions_dir=folder)
    said = [p.tasks["report"]["caption"] for p in predictor(samples)]
    assert [(folder / f"{s.id}.txt").read_text().rstrip("\n") for s in samples] == said
    import pandas as pd

    if suffix == ".jsonl":
        found = [json.loads(line)["tasks"]["report"]["caption"] for line in out.read_text().splitlines()]
    else:
        frame = (
            pd.read_csv(out, keep_default_na=False, dtype={"report.caption": str})
            if suffix == ".csv"
            else pd.read_parquet(out)
        )
        found = list(frame["report.caption"])
        assert {"findings.labels", "report.score"} <= set(frame.columns)
    assert found == said


class TestCaptionsFolder:
    @pytest.fixture
    def predict(self, captioner, pairs, tmp_path):
        run = mmfuse.train(captioner("training.max_steps=1"))
        predictor = Predictor.from_pretrained(run.model_dir, generation={"max_length": 4})
        samples = [find_study(path).sample() for path in sorted(pairs.glob("*.png"))]

        def run_into(folder, ids=None, **options):
            names = ids or [s.id for s in samples]
            named = [dataclasses.replace(s, id=name) for s, name in zip(samples, names, strict=False)]
            out = tmp_path / "predictions.jsonl"
            predict_to_file(predictor, SampleStudies(named), out, captions_dir=folder, **options)

        return run_into

    def test_reports_that_are_named_alike_are_not_overwritten(self, predict, pairs, tmp_path):
        before = {path: path.read_text() for path in pairs.glob("*.txt")}
        for options in ({}, {"overwrite": True}):
            with pytest.raises(MmfuseError, match="not empty, and not one of mmfuse"):
                predict(pairs, **options)
        assert {path: path.read_text() for path in pairs.glob("*.txt")} == before
        assert not (tmp_path / "predictions.jsonl").exists()

    def test_another_runs_captions_are_replaced_only_if_asked(self, predict, tmp_path):
        predict(tmp_path / "c")
        (tmp_path / "predictions.jsonl").unlink()
        with pytest.raises(MmfuseError, match="captions of another run"):
            predict(tmp_path / "c")
        predict(tmp_path / "c", ids=["x"], overwrite=True)
        assert [path.name for path in (tmp_path / "c").glob("*.txt")] == ["x.txt"]

    def test_ids_of_sub_folders(self, predict, tmp_path):
        predict(tmp_path / "c", ids=["ward/a", "ward/b", "c"])
        assert {str(p.relative_to(tmp_path / "c")) for p in (tmp_path / "c").rglob("*.txt")} == {
            "ward/a.txt",
            "ward/b.txt",
            "c.txt",
        }
        for id in ("../a", "/etc/a", "a//b", "a/./b", "..", "a\\b", "a" * 250, "ward/" + "é" * 130):
            with pytest.raises(MmfuseError, match="cannot be a file's name"):
                predict(tmp_path / "d", ids=[id])
        assert not (tmp_path / "d").exists()


def test_rows_without_a_caption(captioner, captions, tmp_path):
    """Half of the rows have none, and with batches of one row, so has a whole batch."""
    rows = [dict(line) for line in _rows(captions)]
    for i, row in enumerate(rows):
        row["report"] = [row["report"]] if i % 2 else []
    manifest = yaml.safe_load(captions.read_text())
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    manifest |= {"rows": str(tmp_path / "rows.jsonl"), "image": {"column": "image", "root": str(captions.parent)}}
    (tmp_path / "m.yaml").write_text(yaml.safe_dump(manifest))
    run = mmfuse.train(captioner(f"data.manifest={tmp_path / 'm.yaml'}", "training.batch_size=1"))
    empty = [line for line in lines(run.dir) if line.get("losses", {}).get("report") == 0.0]
    assert len(empty) > 10
    assert run.report["tasks"]["report"]["n"] < run.report["rows"]
    evaluated = mmfuse.evaluate(run.model_dir, tmp_path / "m.yaml", batch_size=1, resamples=10)
    assert evaluated["tasks"]["report"]["n"] == run.report["tasks"]["report"]["n"]


class TestPredictorsOptions:
    def test_unknown_or_illegal_generation(self, captioner, pairs):
        run = mmfuse.train(captioner("training.max_steps=1"))
        with pytest.raises(MmfuseError, match=r"num_beam: no such key.*num_beams"):
            Predictor.from_pretrained(run.model_dir, generation={"num_beam": 3})
        with pytest.raises(MmfuseError, match="num_beams: 0 is out of range"):
            Predictor.from_pretrained(run.model_dir, generation={"num_beams": 0})
        begun = captions_of(run.model_dir, pairs, generation={"prefix": "no opacity"})
        assert all(caption.startswith("no opacity") for caption in begun)

    def test_a_model_without_captions(self, tiny, tmp_path):
        run = mmfuse.train(tiny("training.max_steps=1", "training.epochs=1"))
        with pytest.raises(MmfuseError, match="writes no captions"):
            Predictor.from_pretrained(run.model_dir, generation={"num_beams": 3})
        predictor = Predictor.from_pretrained(run.model_dir)
        with pytest.raises(MmfuseError, match="writes no captions"):
            predict_to_file(predictor, SampleStudies([]), tmp_path / "x.jsonl", captions_dir=tmp_path / "c")
        with pytest.raises(MmfuseError, match="writes no captions"):
            explain(predictor, mmfuse.Sample("x"), tmp_path)


def test_one_task_of_a_config_for_two(captioner):
    """What is said of a task that `data.tasks` leaves out waits; one that the manifest does not know is a mistake."""
    run = mmfuse.train(captioner("data.tasks=[findings]", "training.max_steps=1"))
    assert set(run.report["tasks"]) == {"findings"}
    with pytest.raises(MmfuseError, match=r"tasks\.reprot: no such task"):
        mmfuse.train(captioner("tasks.reprot.weight=2", run="other"))


def test_missing_context_text(captioner, pairs):
    run = mmfuse.train(captioner("training.modality_dropout.text=0.5", "training.max_steps=2"))
    predictor = Predictor.from_pretrained(run.model_dir)
    bare = [mmfuse.Sample("bare", images=(str(next(iter(sorted(pairs.glob("*.png"))))),))]
    found = next(iter(predictor(bare)))
    assert not isinstance(found, Failure)
    assert isinstance(found.tasks["report"]["caption"], str)


class TestExplain:
    @pytest.fixture
    def predictor(self, captioner):
        run = mmfuse.train(captioner("training.max_steps=2", "fusion={name: cross_attention, out_dim: 16}"))
        return Predictor.from_pretrained(run.model_dir)

    def test_shares_and_pictures(self, predictor, pairs, tmp_path):
        sample = find_study(sorted(pairs.glob("*.png"))[0]).sample()
        words, pixels = explain_caption(predictor, sample, "report")
        assert pixels.shape == (1, 32, 32, 3)
        caption = next(iter(predictor([sample]))).tasks["report"]["caption"]
        assert "".join(w.word for w in words if w.word != "(end)") == caption.replace(" ", "")
        for word in words:
            assert word.images.shape == (1, 2, 2)
            assert word.images.sum() + word.rest == pytest.approx(1, abs=1e-5)
            assert 0 < word.rest < 1
        written = explain(predictor, sample, tmp_path / "out")
        assert [path.suffix for path in written] == [".png", ".json"]
        with Image.open(written[0]) as picture:
            assert picture.width > 500

    def test_patches_are_found_where_they_are(self, predictor, pairs):
        """A decoder that looks at one fused token only: that of patch 2."""
        sample = find_study(sorted(pairs.glob("*.png"))[0]).sample()
        head = predictor.model.heads["report"]
        image_tokens = 1 + 4 + 1  # pooled, class token of the ViT, four patches: cross_attention puts pooled in front

        def only_one(memory, mask, ids, known):
            weights = torch.zeros(1, ids.shape[1], memory.shape[1])
            weights[..., memory.shape[1] - image_tokens + 2 + 2] = 1.0
            return weights

        head.decoder.attention = only_one
        words, _ = explain_caption(predictor, sample, "report")
        for word in words:
            assert np.array_equal(word.images[0], [[0, 0], [1, 0]])

    @pytest.mark.parametrize("fusion", ["perceiver", "gated_cross_attention"])
    def test_tokens_that_are_no_patches(self, captioner, pairs, fusion):
        run = mmfuse.train(captioner("training.max_steps=1", f"fusion={{name: {fusion}, out_dim: 16}}"))
        sample = find_study(sorted(pairs.glob("*.png"))[0]).sample()
        with pytest.raises(MmfuseError, match=f"fusion '{fusion}' gives no token for each patch"):
            explain_caption(Predictor.from_pretrained(run.model_dir), sample, "report")


def test_a_study_by_any_of_its_names(pairs):
    path = sorted(pairs.glob("*.png"))[0]
    wanted = (path.stem, (str(path),), (str(path.with_suffix(".txt")),))
    for name in (path, path.with_suffix(".txt"), path.with_suffix("")):
        found = find_study(name)
        assert (found.id, found.images, found.texts) == wanted
    assert len(find_study(pairs).images) == 5
    with pytest.raises(MmfuseError, match="no image and no report of this name"):
        find_study(pairs / "nobody")


def test_two_processes_train_and_caption_as_one(captioner, tmp_path):
    options = ("training.task_weights=uncertainty", "training.epochs=2")
    one = write_config(tmp_path, captioner(*options, "training.batch_size=4", run="one"))
    launch(1, "train", one)
    two = write_config(tmp_path, captioner(*options, "training.batch_size=2", run="two"))
    assert "num_processes: 2" in launch(2, "train", two)
    first, second = losses(tmp_path / "one")[:20], losses(tmp_path / "two")[:20]
    assert len(first) == 20
    assert np.allclose(first, second, rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("tasks.findings.decoder.num_layers=1", r"tasks\.findings\.decoder: only a captioning task has one"),
        ("tasks.report.class_weights=balanced", "balanced is not for captioning"),
        ("tasks.report.decoder.num_heads=3", "does not divide hidden_dim"),
    ],
)
def test_a_config_that_makes_no_sense(captioner, override, words):
    with pytest.raises(MmfuseError, match=words):
        mmfuse.train(captioner(override))
