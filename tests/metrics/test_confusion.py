"""Metrics that are chosen by name are scikit-learn's, for every weighting of the rows; undefined is undefined."""

import warnings
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sk

from mmfuse.evaluation.evaluate import format_report
from mmfuse.metrics import METRICS, choose_metrics, metrics_for
from mmfuse.metrics.bootstrap import GroupJackknife
from mmfuse.metrics.chosen import add_metrics, bases_of, evaluate_metrics
from mmfuse.metrics.intervals import score_of
from mmfuse.metrics.labels import METRICS as STANDARD
from mmfuse.metrics.labels import PER_LABEL, score_classification, score_multilabel
from mmfuse.metrics.scored import Scored
from mmfuse.types import MmfuseError

NAN = float("nan")


def case(seed):
    """Random decisions of both kinds with weights of rows; by turns one row, an absent class, and so on."""
    rng = np.random.default_rng(seed)
    n, k = [1, 2, 7, 40, 150][seed % 5], [2, 3, 5][seed % 3]
    shares = rng.dirichlet(np.ones(k))
    if seed % 4 == 1:
        shares[0] = 0  # a class that is not in the targets
    target = rng.choice(k, n, p=shares / shares.sum())
    probabilities = rng.dirichlet(np.ones(k), n) + np.eye(k)[target] * rng.choice([0, 1])
    if seed % 6 == 5:
        probabilities[:, -1] = 0  # a class that is never said
    probabilities = (probabilities + 1e-9) / (probabilities + 1e-9).sum(axis=1, keepdims=True)
    labels = (rng.random((n, k)) < rng.choice([0.0, 0.3, 0.6, 1.0], k)).astype(float)  # no positive, no negative
    labels[rng.random((n, k)) < 0.2] = np.nan
    if seed % 7 == 3:
        labels[:, 0] = np.nan  # all missing
    weights = rng.integers(0, 4, n).astype(float)
    weights[rng.integers(n)] = 1
    return probabilities, target, rng.random((n, k)), labels, weights


def reported(y, said, weights, average, classes):
    """Precision, recall and F1."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = sk.precision_recall_fscore_support(
            y, said, labels=classes, sample_weight=weights, average=average, zero_division=np.nan
        )
    return dict(zip(("precision", "recall", "f1"), found, strict=False))


def balanced(y, said, weights):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a class is said that is not in the targets
        return sk.balanced_accuracy_score(y, said, sample_weight=weights)


def agreement(y, said, weights, classes):
    varied = len(set(y)) > 1 and len(set(said)) > 1
    alone = len(set(y) | set(said)) == 1
    return {
        "mcc": sk.matthews_corrcoef(y, said, sample_weight=weights) if varied else NAN,
        "cohen_kappa": NAN if alone else sk.cohen_kappa_score(y, said, labels=classes, sample_weight=weights),
    }


def weighted(each, positives):
    there = ~np.isnan(each) & (positives > 0)  # with all weights 0 scikit-learn leaves them out
    return np.average(each[there], weights=positives[there]) if there.any() else NAN


def nan_mean(values):
    values = np.asarray(values)[~np.isnan(values)]
    return values.mean() if len(values) else NAN


def official_classes(y, said, weights, k):
    kept = weights > 0
    y, said, weights = y[kept], said[kept], weights[kept]
    found = reported(y, said, weights, None, range(k))
    for average in ("micro", "macro", "weighted"):
        averaged = reported(y, said, weights, average, range(k))
        found |= {f"{name}_{average}": value for name, value in averaged.items()}
    if np.isnan(found["precision"][np.unique(y)]).all():
        found["precision_weighted"] = NAN
    tables = sk.multilabel_confusion_matrix(y, said, labels=range(k), sample_weight=weights)
    with np.errstate(invalid="ignore"):
        found["specificity"] = tables[:, 0, 0] / tables[:, 0].sum(axis=1)
        found["npv"] = tables[:, 0, 0] / tables[:, :, 0].sum(axis=1)
    accuracy = sk.accuracy_score(y, said, sample_weight=weights)
    others = {"accuracy": accuracy, "balanced_accuracy": balanced(y, said, weights)}
    return found | others | agreement(y, said, weights, range(k))


def official_labels(truth, said, weights):
    columns = []
    for y, hat in zip(truth.T, said.T, strict=True):
        kept = ~np.isnan(y) & (weights > 0)
        y, hat, w = y[kept], hat[kept], weights[kept]
        both = reported(y, hat, w, None, [0, 1]) if len(y) else dict.fromkeys(("precision", "recall", "f1"), [NAN] * 2)
        column = {name: value[1] for name, value in both.items()}
        column |= {"specificity": both["recall"][0], "npv": both["precision"][0], "positives": w @ y}
        column["balanced_accuracy"] = balanced(y, hat, w) if len(set(y)) == 2 else NAN
        columns.append(column | (agreement(y, hat, w, [0, 1]) if len(y) else {"mcc": NAN, "cohen_kappa": NAN}))
    each = {name: np.array([column[name] for column in columns]) for name in columns[0]}
    found = {name: nan_mean(each.pop(name)) for name in ("balanced_accuracy", "mcc", "cohen_kappa")}
    row, column = np.nonzero(~np.isnan(truth) & (weights > 0)[:, None])
    y, hat, w = truth[row, column], said[row, column], weights[row]
    pooled = reported(y, hat, w, "binary", None) if len(y) else {}
    for name in ("precision", "recall", "f1"):
        found[f"{name}_micro"] = pooled.get(name, NAN)
        found[f"{name}_macro"] = nan_mean(each[name])
        found[f"{name}_weighted"] = weighted(each[name], each["positives"])
    return found | each | {"accuracy": sk.accuracy_score(y, hat, sample_weight=w) if len(y) else NAN}


NAMES = [
    *(f"{name}_{average}" for name in ("precision", "recall") for average in ("micro", "macro", "weighted")),
    *(
        "precision",
        "recall",
        "specificity",
        "npv",
        "f1_weighted",
        "accuracy",
        "balanced_accuracy",
        "mcc",
        "cohen_kappa",
    ),
]


def test_they_are_scikit_learn_s_on_200_random_cases():
    metrics = {name: METRICS.get(name)() for name in NAMES}
    undefined = 0
    for seed in range(200):
        p, target, scores, truth, weights = case(seed // 2)
        k = p.shape[1]
        if seed % 2:
            scored = Scored.of_classes(p, target, list("abcde")[:k])
            official = official_classes(target, p.argmax(axis=1), weights, k)
        else:
            scored = Scored.of_labels(scores, truth, list("abcde")[:k], [0.5] * k)
            weights = weights[scored.rows]
            official = official_labels(truth[scored.rows], scored.said, weights)
        both = np.stack([weights, np.zeros(len(scored))])
        for name, metric in metrics.items():
            ours = metric(scored, both)
            what = f"{name}, case {seed}"
            theirs: Any = official[name]
            np.testing.assert_allclose(ours[0], theirs, rtol=1e-9, atol=1e-12, err_msg=what)
            assert np.isnan(ours[1]).all()
            undefined += int(np.isnan(ours[0]).any())
    assert undefined > 300  # the edges were there


@pytest.mark.parametrize("kind", ["classification", "multilabel"])
def test_those_of_every_report_are_the_same_by_name(kind):
    p, target, scores, truth, _ = case(43)
    names, groups = ["a", "b", "c"][: p.shape[1]], [str(i // 2) for i in range(len(p))]
    if kind == "classification":
        scored, report = Scored.of_classes(p, target, names), score_classification(p, target, names, groups, 0)
    else:
        scored = Scored.of_labels(scores, truth, names, [0.5] * len(names))
        report = score_multilabel(scores, truth, names, groups, [0.5] * len(names), 0)
    found = evaluate_metrics(scored, {n: METRICS.get(n)() for n in [*STANDARD, *PER_LABEL]}, groups, 0)
    for name in STANDARD:
        assert found[name][0]["value"] == pytest.approx(report["metrics"][name]["value"], abs=1e-12)
    for name in PER_LABEL:
        assert [one["value"] for one in found[name]] == [
            v[name]["value"] if v[name]["value"] is None else pytest.approx(v[name]["value"])
            for v in report["per_label"].values()
        ]


def test_what_is_chosen_is_added_with_intervals_of_the_same_groups():
    p, target, *_ = case(13)
    names, groups = ["a", "b", "c"][: p.shape[1]], [str(i // 3) for i in range(len(p))]
    target[::7] = -100
    report = score_classification(p, target, names, groups, 200)
    before = {name: dict(score) for name, score in report["metrics"].items()}
    scored = Scored.of_classes(p, target, names)
    metrics = choose_metrics(["mcc", "accuracy", "recall", "recall_micro", "ppv"], "classification", "metrics")
    add_metrics(report, scored, metrics, groups, 200)
    assert list(report["metrics"]) == [*STANDARD, "mcc", "recall_micro"]
    assert {name: report["metrics"][name] for name in STANDARD} == before
    assert report["metrics"]["recall_micro"] == pytest.approx(before["accuracy"])  # of classes they are the same
    assert list(report["per_label"][names[0]])[-2:] == ["recall", "ppv"]
    jackknife = GroupJackknife(np.array(groups)[target != -100])
    rows = np.flatnonzero(target != -100)
    left_out = []
    for times in jackknife.multiplicities(0, jackknife.num_groups):
        chosen = np.repeat(rows, times[jackknife.row_group].astype(int))
        left_out.append(sk.matthews_corrcoef(target[chosen], p[chosen].argmax(axis=1)))
    (basis,) = bases_of(scored, jackknife)(metrics["mcc"])
    expected = score_of(report["metrics"]["mcc"]["value"], left_out, basis, (-1, 1))
    assert report["metrics"]["mcc"] == pytest.approx(expected)
    assert -1 < expected["low"] < expected["value"] <= expected["high"] <= 1


def test_undefined_is_none_and_one_group_has_no_interval():
    report = {"metrics": {}, "per_label": {"a": {}, "b": {}}}
    scored = Scored.of_classes([[0.9, 0.1]] * 2, [0, 0], ["a", "b"])
    metrics = choose_metrics(["mcc", "precision", "recall_macro"], "classification", "metrics")
    add_metrics(report, scored, metrics, ["g", "g"], 100)
    nothing = {"value": None, "low": None, "high": None}
    told = {"value": 1.0, "low": None, "high": None, "note": "one group holds 100% of the rows"}
    assert report["metrics"] == {"mcc": nothing, "recall_macro": told}
    assert report["per_label"]["b"] == {"precision": nothing}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["mc"], "tasks.t.metrics: unknown metric 'mc'.*did you mean 'mcc'"),
        ([{"name": "mcc", "beta": 2}], "metric.beta is not an option"),
        (["mcc", "mcc"], "tasks.t.metrics: mcc is named twice"),
        ([["mcc"]], "the name of a metric"),
    ],
)
def test_a_choice_that_is_not_legal(given, message):
    with pytest.raises(MmfuseError, match=message):
        choose_metrics(given, "classification", "tasks.t.metrics")


def test_a_metric_of_another_kind_of_task_is_refused():
    with pytest.raises(MmfuseError, match="m: mcc is not for captioning; legal: nothing"):
        choose_metrics(["mcc"], "captioning", "m")
    assert "recall" in metrics_for("multilabel")
    assert "recall" not in metrics_for("multilabel", per_label=False)


def test_means_over_labels_tell_over_how_many_they_are():
    truth = np.array([[1.0, 0, 0], [0, 0, 1], [1, 0, 1], [0, 0, 1]])
    scored = Scored.of_labels(np.array([[0.9, 0.1, 0.2]] * 4), truth, ["a", "b", "c"], [0.5] * 3)
    scores = score_multilabel(scored.probabilities, truth, ["a", "b", "c"], list("wxyz"), [0.5] * 3, 0)
    names = ["precision_macro", "recall_macro", "balanced_accuracy", "mcc", "recall_micro"]
    add_metrics(scores, scored, choose_metrics(names, "multilabel", "m"), list("wxyz"), 0)
    # nobody has b; a alone is ever said; of a model that says the same of every row there is no correlation
    ranked = {"f1_macro": 2, "auroc_macro": 2, "average_precision_macro": 2}
    assert scores["macro_over"] == {**ranked, "precision_macro": 1, "recall_macro": 2, "balanced_accuracy": 2, "mcc": 0}
    report = {"split": "test", "missing": {}, "tasks": {"y": scores}}
    assert "| f1_macro (over 2 of 3 labels) | " in format_report(report)
    assert "| recall_micro | " in format_report(report)
    classes = Scored.of_classes(np.eye(3)[[0, 0, 1]], [0, 1, 1], ["a", "b", "c"])
    chosen = choose_metrics(["balanced_accuracy", "mcc"], "classification", "m")
    assert [metric.over(classes) for metric in chosen.values()] == [2, None]
