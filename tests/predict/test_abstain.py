"""Holding back what the model is not sure of: the numbers of a hand-made example, through to the files."""

import csv
import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.special import logit

from mmfuse.data.rows.folder import pair_folder
from mmfuse.model import FusionModel
from mmfuse.predict import Predictor, SampleStudies, predict_to_file
from mmfuse.predict.abstain import plan_abstention
from mmfuse.tasks import build_task
from mmfuse.training.calibrate import calibrate
from mmfuse.types import MmfuseError, SelectiveCurve

SURE_OF_SEX = SelectiveCurve(rows=10, confidence=[0.5, 0.6, 0.8], coverage=[1.0, 0.6, 0.2], accuracy=[0.7, 0.9, 1.0])


@pytest.fixture
def model(model_dir):
    return FusionModel.from_pretrained(model_dir)


def test_confidence_of_a_label_is_its_way_from_the_threshold_to_certainty():
    task = build_task("multilabel", list("abcd"))
    task.thresholds = [0.5, 0.2, 1.0, 0.0]
    probabilities = np.array([[0.7, 0.6, 1.0, 0.0], [0.1, 0.1, 0.25, 1.0], [0.5, 0.2, 0.0, 0.5]])
    expected = [[0.7, 0.75, 1.0, 0.5], [0.9, 0.75, 0.875, 1.0], [0.5, 0.5, 1.0, 0.75]]
    assert task.confidences(probabilities) == pytest.approx(np.array(expected))
    assert build_task("classification", list("abc")).confidences(np.array([[0.2, 0.5, 0.3]])).tolist() == [[0.5]]


def test_calibration_keeps_what_abstaining_would_keep_of_validation(model, tmp_path):
    """Of five rows of `sex` the fourth is wrong and the fifth not labelled; of `findings` one label is labelled."""
    logits = {
        "sex": logit(np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.4, 0.6], [0.5, 0.5]])),
        "findings": np.zeros((5, len(model.heads["findings"].labels))),
    }
    logits["findings"][:, 0] = [-1, -2, -3, -4, 2]  # the threshold that F1 chooses lies between -3 and -2
    targets = {"sex": np.array([0, 1, 0, 0, -100]), "findings": np.full_like(logits["findings"], np.nan)}
    targets["findings"][:, 0] = [1, 1, 0, 0, 0]
    calibrate(model, SimpleNamespace(table=SimpleNamespace(targets=targets)), list(range(5)), logits)
    (sex,) = model.selective["sex"]
    assert (sex.rows, sex.coverage, sex.accuracy) == (4, [1.0, 0.75, 0.5, 0.25], [0.75, 1.0, 1.0, 1.0])
    temperature = model.heads["sex"].temperature
    odds = np.array([0.6 / 0.4, 0.7 / 0.3, 0.8 / 0.2, 0.9 / 0.1]) ** (2 / temperature)
    assert sex.confidence == pytest.approx((odds / (1 + odds)).tolist())
    first, *others = model.selective["findings"]
    assert others == [None] * len(others)
    assert (first.rows, first.coverage[0], first.accuracy[0]) == (5, 1.0, 0.8)
    model.save_pretrained(tmp_path)
    assert FusionModel.from_pretrained(tmp_path).selective == model.selective


def test_the_smallest_confidence_that_is_accurate_enough(model):
    rising = SelectiveCurve(rows=10, confidence=[0.5, 0.7], coverage=[1.0, 0.5], accuracy=[0.8, 1.0])
    never = SelectiveCurve(rows=20, confidence=[0.5], coverage=[1.0], accuracy=[0.6])
    labels = model.heads["findings"].labels
    model.selective = {"sex": [SURE_OF_SEX], "findings": [rising, never, *[None] * (len(labels) - 2)]}
    plans = plan_abstention(model, 0.9)
    assert plans["sex"].below.tolist() == [0.6]
    assert plans["sex"].mark(model.heads["sex"], np.array([[0.6, 0.4], [0.41, 0.59]])) == [False, True]
    assert plans["sex"].about == "abstain, sex: keeps 60% of 10 validation rows at accuracy 0.900"
    assert plans["findings"].below.tolist() == [0.7] + [np.inf] * (len(labels) - 1)
    assert "keeps 17% of 30 validation decisions at accuracy 1.000; never reached by" in plans["findings"].about
    assert plan_abstention(model, 0.7)["sex"].below.tolist() == [0.5]
    model.selective["findings"] = [never] * len(labels)
    plans = plan_abstention(model, 0.95)
    assert plans["findings"].about.endswith("keeps 0% of 140 validation decisions, as none reaches 0.95")
    model.selective["sex"] = [never]
    with pytest.raises(MmfuseError, match=r"0.95: never reached on validation; at best: findings 0.600, sex 0.600"):
        plan_abstention(model, 0.95)
    for wanted in (0, 1.01, 95, float("nan")):
        with pytest.raises(MmfuseError, match="out of range"):
            plan_abstention(model, wanted)
    del model.selective["sex"]
    with pytest.raises(MmfuseError, match=r"how often 'sex' was right.*train it again"):
        plan_abstention(model, 0.95)


def test_every_prediction_is_written_and_marked(model, pairs, tmp_path):
    """Thresholds in the middle of what the model says: half are held back, none is dropped."""
    entries, _ = pair_folder(pairs)
    samples = [entry.sample() for entry in entries]
    labels = model.heads["findings"].labels
    said = [p.tasks for p in Predictor(model)(samples) if hasattr(p, "tasks")]
    sure = [max(tasks["sex"]["probabilities"].values()) for tasks in said]
    opacity = [max(p, 1 - p) for tasks in said for p in [tasks["findings"]["probabilities"][labels[0]]]]
    at = [float(np.sort(values)[27:29].mean()) for values in (sure, opacity)]  # files round to 6 digits
    curves = [SelectiveCurve(4, [0.5, value], [1.0, 0.5], [0.5, 1.0]) for value in at]
    model.selective = {"sex": curves[:1], "findings": [curves[1], *[None] * (len(labels) - 1)]}
    predictor = Predictor(model, abstain=0.9)
    for suffix in ("jsonl", "csv", "parquet"):
        out = tmp_path / suffix / f"out.{suffix}"
        counts = predict_to_file(predictor, SampleStudies(samples), out)
        assert (counts.predictions, counts.errors) == (57, 3)
    rows = [json.loads(line) for line in (tmp_path / "jsonl" / "out.jsonl").read_text().splitlines()]
    sex = [row["tasks"]["sex"]["abstained"] for row in rows]
    findings = [row["tasks"]["findings"]["abstained"] for row in rows]
    assert sex == [confidence < at[0] for confidence in sure]
    assert findings == [([labels[0]] if c < at[1] else []) + labels[1:] for c in opacity]
    assert counts.abstained == {"sex": sum(sex), "findings": sum(map(len, findings))}
    assert sum(sex) == 28
    assert [row["tasks"]["sex"]["probabilities"] for row in rows] == [tasks["sex"]["probabilities"] for tasks in said]
    with (tmp_path / "csv" / "out.csv").open(newline="") as handle:
        table = list(csv.DictReader(handle))
    frame = pd.read_parquet(tmp_path / "parquet" / "out.parquet")
    assert [row["sex.abstained"] for row in table] == [str(held) for held in sex]
    assert frame["sex.abstained"].tolist() == sex
    assert [row["findings.abstained"] for row in table] == [";".join(held) for held in findings]
    assert frame["findings.abstained"].tolist() == [";".join(held) for held in findings]
