"""Thresholds reach what is required of them on the rows that chose them, and nothing is met that is not reached."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from sklearn import metrics as sk

from mmfuse.metrics.operating import choose_point, choose_threshold, measure_point, read_point, read_requirement
from mmfuse.types import MmfuseError


def rows(seed, n=60, levels=None):
    rng = np.random.default_rng(seed)
    truth = (rng.random(n) < 0.3).astype(float)
    truth[:2] = [0, 1]
    scores = 1 / (1 + np.exp(-(2 * truth - 1 + rng.normal(0, 1.5, n))))
    if levels:
        scores = np.round(scores * levels) / levels
    truth[rng.random(n) < 0.1] = np.nan
    return scores, truth


def rates(scores, truth, threshold):
    known = ~np.isnan(truth)
    (tn, fp), (fn, tp) = sk.confusion_matrix(truth[known], scores[known] >= threshold, labels=[0, 1])
    return {
        "sensitivity": tp / (tp + fn),
        "specificity": tn / (tn + fp),
        "precision": tp / max(tp + fp, 1),
        "fn": fn,
        "fp": fp,
    }


@pytest.mark.parametrize("levels", [None, 4])
@pytest.mark.parametrize("rate", ["sensitivity", "specificity", "precision"])
@pytest.mark.parametrize("value", [0.5, 0.8, 0.95, 1.0])
def test_a_threshold_reaches_what_is_required_and_leaves_most_of_the_other(rate, value, levels):
    for seed in range(10):
        scores, truth = rows(seed, levels=levels)
        threshold = choose_threshold(scores, truth, {rate: value})
        every = [rates(scores, truth, t) for t in [*np.unique(scores), 2.0]]
        enough = [r for r in every if r[rate] >= value and (rate != "precision" or r["sensitivity"] > 0)]
        if threshold is None:
            assert rate == "precision"
            assert not enough
            continue
        other = {"sensitivity": "specificity"}.get(rate, "sensitivity")
        found = rates(scores, truth, threshold)
        assert found[rate] >= value
        assert found[other] == max(r[other] for r in enough)


def test_the_least_cost():
    for seed in range(10):
        scores, truth = rows(seed)
        costs = {"false_negative": 5, "false_positive": 1}
        every = [5 * r["fn"] + r["fp"] for r in (rates(scores, truth, t) for t in [*np.unique(scores), 2.0])]
        found = rates(scores, truth, choose_threshold(scores, truth, {"cost": costs}))
        assert 5 * found["fn"] + found["fp"] == min(every)


def test_without_positives_or_precision_nothing_is_reached():
    assert choose_threshold([0.1, 0.9], [0, np.nan], {"sensitivity": 0.9}) is None
    assert choose_threshold([0.1, 0.9], [1, 1], {"specificity": 0.9}) is None
    assert choose_threshold([0.1, 0.9], [1, 0], {"precision": 0.9}) is None


def test_a_point_of_labels_tells_what_it_gave_and_what_it_did_not_reach():
    a, b = rows(0), rows(1)
    probabilities, target = np.stack([a[0], b[0], a[0]], 1), np.stack([a[1], b[1], np.full(60, np.nan)], 1)
    labels, groups = ["x", "y", "z"], [str(i // 2) for i in range(60)]
    requires, chosen = read_requirement({"sensitivity": 0.9}, labels, False, "w")
    point = choose_point(requires, chosen, labels, probabilities, target, groups, 200)
    assert point.unreached() == ["z"]
    assert list(point.validation) == ["x", "y"]
    for i, label in enumerate("xy"):
        found, official = point.validation[label], rates(probabilities[:, i], target[:, i], point.thresholds[i])
        assert found["sensitivity"]["value"] == pytest.approx(official["sensitivity"])
        assert found["ppv"]["value"] == pytest.approx(official["precision"])
        assert found["sensitivity"]["low"] <= found["sensitivity"]["value"] <= found["sensitivity"]["high"]
    assert read_point(json.loads(json.dumps(asdict(point))), labels, False, "w") == point


@pytest.mark.parametrize("positive", [None, "no"])
def test_of_two_classes_the_second_or_the_named_one_is_positive(positive):
    scores, truth = rows(3)
    probabilities = np.stack([1 - scores, scores], 1)
    target = np.where(np.isnan(truth), -100, truth).astype(int)
    given = {"specificity": 0.9} | ({"positive": positive} if positive else {})
    requires, chosen = read_requirement(given, ["no", "yes"], True, "w")
    point = choose_point(requires, chosen, ["no", "yes"], probabilities, target, [str(i) for i in range(60)], 0)
    assert (requires, point.labels) == ({"specificity": 0.9}, [positive or "yes"])
    column = 0 if positive else 1
    own = np.where(np.isnan(truth), np.nan, truth == column)
    assert rates(probabilities[:, column], own, point.thresholds[0])["specificity"] >= 0.9
    again = measure_point(point, ["no", "yes"], probabilities, target, ["g"] * 60, 0)
    assert again == point.validation


@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [
        (
            {"sensitivity": 0.9},
            "captioning",
            "p: operating points are for .*; the task has neither",
        ),
        ({"sensitivity": 0.9}, "classification", "there are 3"),
        ({"sensitivity": 90}, "multilabel", r"p.sensitivity: 90: a number above 0, at most 1"),
        ({"sensitivity": 0.9, "precision": 0.9}, "multilabel", "one of sensitivity, specificity, precision, cost"),
        ({"sensitivity": 0.9, "positive": "a"}, "multilabel", "one of sensitivity"),
        ({"recal": 0.9}, "multilabel", "'recal' is not legal; legal: sensitivity"),
        ({"cost": {"false_negative": 5}}, "multilabel", "p.cost: .*false_positive: 1"),
        (0.9, "multilabel", "one of sensitivity"),
    ],
)
def test_what_is_wrong_with_a_requirement(given, kind, message):
    with pytest.raises(MmfuseError, match=message):
        read_requirement(given, [] if kind == "captioning" else ["a", "b", "c"], kind == "classification", "p")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"thresholds": ["0.5", None]}, "thresholds: .*2 numbers or null"),
        ({"thresholds": [0.5]}, "2 numbers or null"),
        ({"labels": ["a", "c"]}, "labels: .*labels of the task"),
        ({"validation": {"a": {"sensitivity": 1}}}, "validation: .*scores of the labels"),
        ({"requires": {}}, "requires: "),
        ({"more": 1}, "an operating point is expected"),
    ],
)
def test_a_point_of_a_strange_model_folder_is_checked(change, message):
    given = {"requires": {"sensitivity": 0.9}, "labels": ["a", "b"], "thresholds": [0.5, None], "validation": {}}
    read_point(given, ["a", "b"], False, "p")
    with pytest.raises(MmfuseError, match=message):
        read_point(given | change, ["a", "b"], False, "p")
