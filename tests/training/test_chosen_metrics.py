"""Metrics and operating points that a config chooses: in training, report and card, and at predict."""

import json
from typing import Any

import numpy as np
import pytest
import yaml
from typed_results import assert_typed

import mmfuse
from mmfuse.cli import app
from mmfuse.evaluation.evaluate import evaluate, format_report
from mmfuse.metrics.labels import METRICS as STANDARD
from mmfuse.metrics.results import Report
from mmfuse.model import FusionModel
from mmfuse.predict import Predictor, fingerprint
from mmfuse.types import MmfuseError

POINTS = {
    "sens95": {"sensitivity": 0.95},
    "ppv99": {"precision": 0.999},
    "cheap": {"cost": {"false_negative": 3, "false_positive": 1}},
}


@pytest.fixture(scope="module")
def two_tasks(phantom, tmp_path_factory):
    """The phantom with a multi-label task and one of two classes."""
    manifest = yaml.safe_load(phantom.read_text())
    manifest["rows"] = str(phantom.parent / "data.csv")
    manifest["image"]["root"] = str(phantom.parent)
    manifest["tasks"]["sex"] = {"column": "sex", "label_origin": "synthetic"}
    path = tmp_path_factory.mktemp("two") / "manifest.yaml"
    path.write_text(yaml.safe_dump(manifest))
    return path


@pytest.fixture
def chosen(tiny, two_tasks):
    def make(*overrides, **changes):
        config = tiny(f"data.manifest={two_tasks}", "training.epochs=1", *overrides)
        values = mmfuse.config.config_to_dict(config)
        values["tasks"] = {
            "findings": {"metrics": ["mcc", "recall", "f1_macro"], "operating_points": POINTS},
            "sex": {"operating_points": {"sens95": {"sensitivity": 0.95, "positive": "F"}}},
        } | changes
        return mmfuse.config.config_from_dict(values)

    return make


def test_they_are_monitored_reported_kept_and_picked(chosen, two_tasks, tmp_path, capsys):
    run = mmfuse.train(chosen("training.monitor=findings/balanced_accuracy + 0.5 * sex/cohen_kappa"))
    lines = [json.loads(line) for line in (run.dir / "metrics.jsonl").read_text().splitlines()]
    validation = next(line["validation"] for line in lines if "validation" in line)
    assert {"findings/balanced_accuracy", "findings/mcc", "findings/f1_macro"} <= validation.keys()
    findings = run.report["tasks"]["findings"]
    assert list(findings["metrics"]) == [*STANDARD, "mcc", "balanced_accuracy"]
    assert all("recall" in label for label in findings["per_label"].values())

    assert_typed(json.loads((run.model_dir / "metrics.json").read_text()), Report)

    model: Any = FusionModel.from_pretrained(run.model_dir)
    assert list(model.operating_points["findings"]) == list(POINTS)
    told = findings["operating_points"]["sens95"]["labels"]
    reached = [label for label, found in told.items() if found["threshold"] is not None]
    assert reached
    for label in reached:
        assert told[label]["validation"]["sensitivity"]["value"] >= 0.95
        assert set(told[label]["scored"]) == {"sensitivity", "specificity", "ppv", "npv"}
    card = (run.model_dir / "README.md").read_text()
    assert "Operating point sens95: sensitivity 0.95 on validation" in card
    assert "not reached" in format_report(run.report)  # a precision of 0.999

    # decisions at the point are those of its thresholds
    usual = evaluate(run.model_dir, two_tasks, split="validation", metrics=["sensitivity"], resamples=0)
    there = evaluate(
        run.model_dir, two_tasks, split="validation", metrics=["sensitivity"], resamples=0, operating_point="sens95",
        out=tmp_path / "out",
    )  # fmt: skip
    assert there["operating_point"] == "sens95"
    assert "operating_point" not in usual
    for label in reached:
        assert there["tasks"]["findings"]["per_label"][label]["sensitivity"]["value"] >= 0.95
        assert there["tasks"]["findings"]["per_label"][label]["threshold"] == told[label]["threshold"]
    assert there["tasks"]["sex"]["per_label"]["F"]["sensitivity"]["value"] >= 0.95
    written = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    confusion = np.array(there["tasks"]["sex"]["confusion"])
    labels = model.heads["sex"].labels
    assert confusion[:, labels.index("F")].sum() == sum(line["tasks"]["sex"]["label"] == "F" for line in written)
    assert there["tasks"]["sex"]["metrics"]["auroc_macro"] == usual["tasks"]["sex"]["metrics"]["auroc_macro"]

    # at predict, from Python and from the command line
    at, plain = (Predictor.from_pretrained(run.model_dir, operating_point=name) for name in ("sens95", None))
    assert at.decides_at[0].startswith("operating point sens95, findings: sensitivity 0.95")
    sample = {"id": "1", "text": "SYNTHETIC. No effusion.", "image": np.zeros((40, 40), np.uint8)}
    (high,), (low,) = at([sample]), plain([sample])
    said = high.tasks["findings"]
    head: Any = at.model.heads["findings"]
    thresholds = dict(zip(head.labels, head.thresholds, strict=True))
    assert said["probabilities"] == low.tasks["findings"]["probabilities"]
    assert set(said["labels"]) == {name for name, p in said["probabilities"].items() if p >= thresholds[name]}
    with pytest.raises(MmfuseError, match="the model has no such operating point; legal: cheap, ppv99, sens95"):
        Predictor.from_pretrained(run.model_dir, operating_point="sens9")
    with pytest.raises(MmfuseError, match="cannot be combined with --operating-point"):
        Predictor.from_pretrained(run.model_dir, operating_point="sens95", abstain=0.9)
    assert "operating_points" in json.loads((run.model_dir / "config.json").read_text())

    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("SYNTHETIC. No effusion.")
    words = ["predict", str(run.model_dir), str(tmp_path / "in"), "--missing", "allow", "--operating-point", "sens95"]
    app([*words, "--out", str(tmp_path / "p.jsonl")], standalone_mode=False)
    assert "operating point sens95, findings: sensitivity 0.95" in capsys.readouterr().err
    assert len({fingerprint(plain.model, "error", None, name) for name in (None, "sens95", "cheap")}) == 3


def test_what_is_not_chosen_leaves_model_and_report_as_they_were(tiny):
    run = mmfuse.train(tiny("training.epochs=1", "training.max_steps=1"))
    assert "operating_points" not in json.loads((run.model_dir / "config.json").read_text())
    assert list(run.report["tasks"]["findings"]["metrics"]) == list(STANDARD)
    assert "operating_points" not in run.report["tasks"]["findings"]


@pytest.mark.parametrize(
    ("findings", "message"),
    [
        ({"metrics": ["mc"]}, "tasks.findings.metrics: unknown metric 'mc'.*did you mean 'mcc'"),
        ({"operating_points": {"s": {"sensitivity": 2}}}, "tasks.findings.operating_points.s.sensitivity: 2: a number"),
    ],
)
def test_a_wrong_choice_is_told_before_training(chosen, findings, message):
    with pytest.raises(MmfuseError, match=message):
        mmfuse.train(chosen(findings=findings))


@pytest.mark.parametrize(
    ("monitor", "message"),
    [("findings/recall", "'findings/recall' does not exist"), ("sexes/mcc", "'sexes/mcc' does not exist")],
)
def test_a_monitor_is_one_number_of_a_task(chosen, monitor, message):
    with pytest.raises(MmfuseError, match=message):
        mmfuse.train(chosen(f"training.monitor={monitor}"))
