import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from mmfuse.metrics.basis import LabelBasis, basis_of_rows
from mmfuse.metrics.bootstrap import GroupBootstrap, GroupJackknife, interval, paired_difference
from mmfuse.metrics.calibration import expected_calibration_error
from mmfuse.metrics.decisions import decision_replicates
from mmfuse.metrics.intervals import score_of
from mmfuse.metrics.labels import (
    METRICS,
    MOST_SURPRISE,
    PER_LABEL,
    classification_replicates,
    multilabel_replicates,
    score_classification,
    score_multilabel,
)
from mmfuse.types import MmfuseError

pytestmark = pytest.mark.heavy

CLASSES = ["cat", "dog", "eel", "fox"]
FINDINGS = ["edema", "mass", "node"]
THRESHOLDS = np.array([0.5, 0.4, 0.6])


def classification(seed=0, n=120, levels=None, missing=True):
    """Rows of a four-class task; with few `levels` nearly all scores are tied."""
    rng = np.random.default_rng(seed)
    target = rng.choice(4, n, p=[0.5, 0.3, 0.15, 0.05])
    weights = np.exp(np.eye(4)[target] + rng.normal(0, 1, (n, 4)))
    if levels:
        weights = np.ceil(weights / weights.max() * levels)
    probabilities = weights / weights.sum(axis=1, keepdims=True)
    if missing:
        target[rng.random(n) < 0.1] = -100
    return probabilities, target, rng.integers(0, n // 3, n).astype(str)


def multilabel(seed=0, n=120, levels=None, missing=True):
    rng = np.random.default_rng(seed)
    target = (rng.random((n, 3)) < [0.5, 0.2, 0.05]).astype(float)
    probabilities = 1 / (1 + np.exp(-(2 * target - 1 + rng.normal(0, 1.5, (n, 3)))))
    if levels:
        probabilities = np.round(probabilities * levels) / levels
    if missing:
        target[rng.random((n, 3)) < 0.1] = np.nan
    return probabilities, target, rng.integers(0, n // 3, n).astype(str)


def official_classification(probabilities, target):
    """Every metric by scikit-learn, on rows that all have a target and with all classes among them."""
    predicted, one_hot, classes = probabilities.argmax(axis=1), np.eye(4)[target], range(4)
    return {
        "accuracy": sk.accuracy_score(target, predicted),
        "f1_macro": sk.f1_score(target, predicted, average="macro"),
        "f1_micro": sk.f1_score(target, predicted, average="micro"),
        "auroc_macro": sk.roc_auc_score(target, probabilities, multi_class="ovr", average="macro"),
        "average_precision_macro": sk.average_precision_score(one_hot, probabilities, average="macro"),
        "brier": sk.brier_score_loss(target, probabilities, labels=classes, scale_by_half=True),
        "nll": sk.log_loss(target, probabilities, labels=classes),
        "auroc": sk.roc_auc_score(one_hot, probabilities, average=None),
        "average_precision": sk.average_precision_score(one_hot, probabilities, average=None),
        "f1": sk.f1_score(target, predicted, average=None, labels=classes),
    }


def official_multilabel(probabilities, target):
    """Every metric by scikit-learn, on rows whose labels may be missing, with both classes of each label among them."""
    known = ~np.isnan(target)
    predicted = (probabilities >= THRESHOLDS).astype(int)
    columns = [(target[k, i], probabilities[k, i], predicted[k, i]) for i, k in enumerate(known.T)]
    result = {
        "accuracy": sk.accuracy_score(target[known], predicted[known]),
        "f1_micro": sk.f1_score(target[known], predicted[known]),
        "brier": sk.brier_score_loss(target[known], probabilities[known]),
        "nll": sk.log_loss(target[known], probabilities[known]),
        "auroc": np.array([sk.roc_auc_score(y, p) for y, p, _ in columns]),
        "average_precision": np.array([sk.average_precision_score(y, p) for y, p, _ in columns]),
        "f1": np.array([sk.f1_score(y, hat, zero_division=0) for y, _, hat in columns]),
    }
    return result | {f"{name}_macro": result[name].mean() for name in PER_LABEL}


def resampled_rows(bootstrap, replicate):
    times = bootstrap.multiplicities(replicate, replicate + 1)[0].astype(int)
    return np.repeat(np.arange(len(bootstrap.row_group)), times[bootstrap.row_group])


def points(result):
    """The `value` of every metric, in the form of the official ones."""
    per_label = {k: np.array([score[k]["value"] for score in result["per_label"].values()]) for k in PER_LABEL}
    return {name: score["value"] for name, score in result["metrics"].items()} | per_label


def assert_same(ours, official):
    for name, value in official.items():
        np.testing.assert_allclose(ours[name], value, rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("levels", [None, 3])
def test_classification_is_what_scikit_learn_says(levels):
    probabilities, target, groups = classification(levels=levels)
    result = score_classification(probabilities, target, CLASSES, groups, resamples=0)
    there = target != -100
    assert_same(points(result), official_classification(probabilities[there], target[there]))
    assert result["n"] == there.sum()
    assert result["groups"] == len(set(groups[there]))
    assert result["confusion"] == sk.confusion_matrix(target[there], probabilities[there].argmax(1)).tolist()
    positives = [result["per_label"][name]["positives"] for name in CLASSES]
    assert positives == np.bincount(target[there]).tolist()


@pytest.mark.parametrize("levels", [None, 5])
def test_multilabel_is_what_scikit_learn_says(levels):
    probabilities, target, groups = multilabel(levels=levels)
    target[7] = np.nan
    result = score_multilabel(probabilities, target, FINDINGS, groups, THRESHOLDS, resamples=0)
    assert_same(points(result), official_multilabel(probabilities, target))
    assert result["n"] == len(target) - 1
    for i, score in enumerate(result["per_label"].values()):
        assert (score["positives"], score["negatives"]) == ((target[:, i] == 1).sum(), (target[:, i] == 0).sum())
        assert score["threshold"] == THRESHOLDS[i]


@pytest.mark.parametrize("levels", [None, 3])
def test_classification_replicates_are_scikit_learn_on_resampled_rows(levels):
    probabilities, target, groups = classification(levels=levels)
    bootstrap = GroupBootstrap(groups, resamples=40)
    replicates = classification_replicates(probabilities, target, CLASSES, bootstrap)
    there, compared = target != -100, 0
    for replicate in range(40):
        rows = resampled_rows(bootstrap, replicate)
        rows = rows[there[rows]]
        if set(target[rows]) == {0, 1, 2, 3}:
            ours = {name: values[replicate] for name, values in replicates.items()}
            assert_same(ours, official_classification(probabilities[rows], target[rows]))
            compared += 1
    assert compared > 20


@pytest.mark.parametrize("levels", [None, 5, 1])
def test_multilabel_replicates_are_scikit_learn_on_resampled_rows(levels):
    probabilities, target, groups = multilabel(levels=levels)
    bootstrap = GroupBootstrap(groups, resamples=40)
    replicates = multilabel_replicates(probabilities, target, FINDINGS, THRESHOLDS, bootstrap)
    compared = 0
    for replicate in range(40):
        rows = resampled_rows(bootstrap, replicate)
        if (np.nanmax(target[rows], axis=0) == 1).all():
            ours = {name: values[replicate] for name, values in replicates.items()}
            assert_same(ours, official_multilabel(probabilities[rows], target[rows]))
            compared += 1
    assert compared > 20


def test_ece_replicates_keep_the_bins_of_all_rows():
    probabilities, target, groups = classification(missing=False)
    bootstrap = GroupBootstrap(groups, resamples=5)
    replicates = classification_replicates(probabilities, target, CLASSES, bootstrap)
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == target
    for replicate, ours in enumerate(replicates["ece"]):
        weights = bootstrap.multiplicities(replicate, replicate + 1)[0][bootstrap.row_group]
        assert ours == pytest.approx(expected_calibration_error(confidence, correct, weights))
    value = score_classification(probabilities, target, CLASSES, groups, 0)["metrics"]["ece"]["value"]
    assert value == pytest.approx(expected_calibration_error(confidence, correct))


@pytest.mark.parametrize("task", ["classification", "multilabel"])
def test_missing_rows_change_nothing(task):
    make, score, extra, missing = {
        "classification": (classification, score_classification, (), -100),
        "multilabel": (multilabel, score_multilabel, (THRESHOLDS,), np.nan),
    }[task]
    labels = CLASSES if task == "classification" else FINDINGS
    probabilities, target, groups = make(missing=False)
    more = np.full_like(target, missing)
    with_missing = score(
        np.concatenate([probabilities, probabilities[::-1]]),
        np.concatenate([target, more]),
        labels,
        [*groups, *(f"other {i}" for i in range(len(more)))],
        *extra,
        resamples=50,
    )
    assert with_missing == score(probabilities, target, labels, groups, *extra, resamples=50)


def test_interval_of_the_score_is_that_of_scores_without_each_group():
    probabilities, target, groups = classification(missing=False)
    jackknife = GroupJackknife(groups)
    left_out = classification_replicates(probabilities, target, CLASSES, jackknife)
    result = score_classification(probabilities, target, CLASSES, groups)
    basis = LabelBasis(np.eye(4)[target], np.eye(4)[probabilities.argmax(axis=1)], CLASSES, jackknife)
    for name in set(METRICS) - {"ece"}:
        score, bounds = result["metrics"][name], (0.0, MOST_SURPRISE if name == "nll" else 1.0)
        of = "labels" if name == "f1_macro" else "rankings" if name.endswith("macro") else "rows"
        assert score == score_of(score["value"], left_out[name], basis(of)[0], bounds), name
        assert score["low"] < score["value"] < score["high"]
    for i, label in enumerate(CLASSES):
        for name, of in (("f1", "true"), ("auroc", "ranking"), ("average_precision", "ranking")):
            score = result["per_label"][label][name]
            assert score == score_of(score["value"], left_out[name][:, i], basis(of)[i], (0.0, 1.0))


@pytest.mark.parametrize("sure", [0.0, 0.25])
def test_the_interval_of_ece_holds_its_value_and_0_where_nothing_but_chance_is_seen(sure):
    rng = np.random.default_rng(1)
    p = rng.uniform(0.5, 0.75, 600)
    right = rng.random(600) < p
    said = np.stack([p + sure, 1 - p - sure], axis=1)
    groups = [str(i // 2) for i in range(600)]
    ece = score_classification(said, np.where(right, 0, 1), ["a", "b"], groups)["metrics"]["ece"]
    assert ece["low"] < ece["value"] < ece["high"] < 1
    assert (ece["low"] == 0) == (sure == 0)
    assert ece["low"] <= sure <= ece["high"]


def test_chunks_do_not_change_the_draws():
    groups = np.arange(60_000).astype(str)  # four replicates a chunk
    right = np.arange(60_000) % 3 > 0
    probabilities, target = np.full((60_000, 2), 0.5), np.where(right, 0, 1)
    bootstrap = GroupBootstrap(groups, resamples=6)
    accuracy = classification_replicates(probabilities, target, ["a", "b"], bootstrap)["accuracy"]
    expected = [right[resampled_rows(bootstrap, replicate)].mean() for replicate in range(6)]
    np.testing.assert_allclose(accuracy, expected)
    np.testing.assert_array_equal(bootstrap.multiplicities(0, 6)[4:], bootstrap.multiplicities(4, 6))
    assert (bootstrap.multiplicities(0, 6).sum(axis=1) == 60_000).all()


def test_label_without_positives_is_undefined_and_said_to_be():
    probabilities, target, groups = multilabel(missing=False)
    target[:, 1], target[:, 2] = 0, 1
    result = score_multilabel(probabilities, target, FINDINGS, groups, THRESHOLDS, resamples=20)
    nothing = {"value": None, "low": None, "high": None}
    assert result["undefined_labels"] == ["mass", "node"]
    for label in ("mass", "node"):
        assert result["per_label"][label]["auroc"] == nothing
        assert result["per_label"][label]["average_precision"] == nothing
    assert result["metrics"]["auroc_macro"] == result["per_label"]["edema"]["auroc"]
    assert result["per_label"]["mass"]["f1"] == nothing
    f1 = [result["per_label"][label]["f1"]["value"] for label in ("edema", "node")]
    assert result["metrics"]["f1_macro"]["value"] == pytest.approx(np.mean(f1))
    assert result["macro_over"] == {"f1_macro": 2, "auroc_macro": 1, "average_precision_macro": 1}
    json.dumps(result, allow_nan=False)


def test_label_without_any_target_is_left_out_of_every_mean():
    probabilities, target, groups = multilabel(missing=False)
    target[:, 1] = np.nan
    result = score_multilabel(probabilities, target, FINDINGS, groups, THRESHOLDS, resamples=20)
    assert result["per_label"]["mass"]["f1"] == {"value": None, "low": None, "high": None}
    others = score_multilabel(
        probabilities[:, [0, 2]], target[:, [0, 2]], ["edema", "node"], groups, THRESHOLDS[[0, 2]], resamples=20
    )
    assert result["metrics"] == others["metrics"]


def test_macro_f1_leaves_out_classes_that_do_not_occur():
    probabilities, target, groups = classification(missing=False)
    unused = np.insert(probabilities, 2, 0, axis=1)
    result = score_classification(unused, target + (target >= 2), ["a", "b", "unused", "c", "d"], groups, 50)
    without = score_classification(probabilities, target, ["a", "b", "c", "d"], groups, 50)
    assert result["undefined_labels"] == ["unused"]
    assert result["metrics"] == without["metrics"]
    assert result["per_label"]["unused"]["f1"]["value"] is None
    assert result["macro_over"] == {"f1_macro": 4, "auroc_macro": 4, "average_precision_macro": 4}


@pytest.mark.parametrize("said", [False, True])
def test_f1_of_a_class_that_no_row_has_is_undefined_whether_or_not_it_was_said(said):
    probabilities, target, groups = classification(missing=False)
    unused = np.insert(probabilities, 2, 0, axis=1)
    if said:  # and a false alarm of it costs the class that is true
        unused[:9] = np.eye(5)[2]
    moved, there = target + (target >= 2), [0, 1, 3, 4]
    result = score_classification(unused, moved, ["a", "b", "unused", "c", "d"], groups, 50)
    assert result["per_label"]["unused"]["f1"] == {"value": None, "low": None, "high": None}
    official = sk.f1_score(moved, unused.argmax(1), labels=there, average="macro")
    assert result["metrics"]["f1_macro"]["value"] == pytest.approx(official, rel=1e-12)
    bootstrap = GroupBootstrap(groups, resamples=30)
    usual = classification_replicates(unused, moved, list("abcde"), bootstrap)["f1_macro"]
    fast = decision_replicates("f1_macro", unused.argmax(1)[None], moved, list("abcde"), bootstrap)[0]
    np.testing.assert_allclose(fast, usual, rtol=1e-12)
    for replicate in range(30):
        rows = resampled_rows(bootstrap, replicate)
        true, guess = moved[rows], unused.argmax(1)[rows]
        assert usual[replicate] == pytest.approx(sk.f1_score(true, guess, labels=np.unique(true), average="macro"))


def test_f1_of_a_label_that_is_there_and_never_said_is_0():
    probabilities, target, groups = classification(missing=False)
    probabilities[:, 3] = 0
    result = score_classification(probabilities / probabilities.sum(1, keepdims=True), target, CLASSES, groups, 0)
    assert result["per_label"]["fox"]["f1"]["value"] == 0
    assert result["macro_over"]["f1_macro"] == 4


def test_replicates_without_positives_are_nan():
    probabilities, target = np.array([[0.9], [0.2], [0.4], [0.1]]), np.array([[1.0], [0], [0], [0]])
    bootstrap = GroupBootstrap(list("abcd"), resamples=200)
    auroc = multilabel_replicates(probabilities, target, ["x"], [0.5], bootstrap)["auroc"][:, 0]
    drawn = bootstrap.multiplicities(0, 200)
    np.testing.assert_array_equal(np.isnan(auroc), (drawn[:, 0] == 0) | (drawn[:, 0] == 4))


def test_one_group_has_no_interval():
    probabilities, target, groups = classification()
    result = score_classification(probabilities, target, CLASSES, ["patient"] * len(groups))
    assert {(score["low"], score["high"]) for score in result["metrics"].values()} == {(None, None)}
    assert {score["note"] for score in result["metrics"].values()} == {"one group holds 100% of the rows"}


def test_rows_of_a_group_stay_together():
    """Ten copies of each row in one group say no more than the row; in groups of their own they seem to."""
    probabilities, target, _ = classification(missing=False)
    groups = np.arange(len(target)).astype(str)
    ten = (np.repeat(probabilities, 10, axis=0), np.repeat(target, 10), CLASSES)
    score = score_classification(probabilities, target, CLASSES, groups, 200)["metrics"]["accuracy"]
    assert score_classification(*ten, np.repeat(groups, 10), 200)["metrics"]["accuracy"] == pytest.approx(score)
    alone = score_classification(*ten, np.arange(10 * len(target)).astype(str), 200)["metrics"]["accuracy"]
    assert (alone["high"] - alone["low"]) < 0.5 * (score["high"] - score["low"])


def test_interval_of_accuracy_covers_the_truth():
    """100 groups of three rows whose success rate is the group's own: 95 % intervals cover 0.97 about that often."""
    rng, covered = np.random.default_rng(0), 0
    groups = np.repeat(np.arange(100), 3).astype(str)
    probabilities = np.tile([0.6, 0.4], (300, 1))
    jackknife = GroupJackknife(groups)
    for _ in range(200):
        right = rng.random(300) < np.repeat(rng.beta(1.94, 0.06, 100), 3)  # mean 0.97
        target = np.where(right, 0, 1)
        left_out = classification_replicates(probabilities, target, ["a", "b"], jackknife)["accuracy"]
        score = score_of(right.mean(), left_out, basis_of_rows(jackknife), (0, 1))
        covered += score["low"] <= 0.97 <= score["high"]
    assert 0.92 <= covered / 200 <= 0.99


def test_paired_difference_sees_what_separate_intervals_hide():
    probabilities, target, groups = classification(n=600, missing=False)
    better = probabilities.copy()
    better[:60] = np.eye(4)[target[:60]]
    bootstrap = GroupBootstrap(groups, resamples=500)
    a, b = (classification_replicates(p, target, CLASSES, bootstrap)["accuracy"] for p in (better, probabilities))
    result = paired_difference(a, b)
    assert result["low"] > 0
    assert result["p"] == pytest.approx(2 / 501)
    assert interval(a)[0] < interval(b)[1]
    assert result["value"] == pytest.approx(np.mean(a - b))
    back = paired_difference(b, a, value=-0.05)
    assert back == pytest.approx({"value": -0.05, "low": -result["high"], "high": -result["low"], "p": result["p"]})


def test_paired_difference_by_hand():
    # Of nine differences one is below 0 and one is 0, which counts on both sides.
    assert paired_difference([1, 0, *[3] * 7], [1] * 9)["p"] == pytest.approx(2 * (1 + 2) / (9 + 1))
    assert paired_difference([1, 1], [1, 1])["p"] == 1
    assert paired_difference([1, np.nan, 3], [0, 0, np.nan]) == pytest.approx({"value": 1, "low": 1, "high": 1, "p": 1})
    assert np.isnan(paired_difference([np.nan], [0.5])["p"])
    with pytest.raises(ValueError, match="same bootstrap"):
        paired_difference([1, 2], [1, 2, 3])


def test_paired_p_values_are_uniform_without_a_difference():
    rng, ps = np.random.default_rng(1), []
    for seed in range(100):
        target, bootstrap = rng.integers(0, 2, 80), GroupBootstrap(np.arange(80).astype(str), 100, seed)
        a, b = (
            classification_replicates(np.eye(2)[rng.integers(0, 2, 80)], target, ["a", "b"], bootstrap)["accuracy"]
            for _ in range(2)
        )
        ps.append(paired_difference(a, b)["p"])
    assert 0.0 < np.mean(np.array(ps) < 0.1) < 0.2
    assert 0.35 < np.mean(ps) < 0.65


def test_errors_say_what_is_wrong():
    probabilities, target, groups = classification()
    nan = probabilities.copy()
    nan[3, 1] = np.nan
    with pytest.raises(ValueError, match="row 3, 'dog', is nan"):
        score_classification(nan, target, CLASSES, groups)
    with pytest.raises(ValueError, match=r"must be \(N, 3\)"):
        score_classification(probabilities, target, CLASSES[:3], groups)
    with pytest.raises(ValueError, match="must be int"):
        score_classification(probabilities, target[:-1], CLASSES, groups)
    with pytest.raises(ValueError, match="must be int"):
        score_classification(probabilities, target.astype(float), CLASSES, groups)
    with pytest.raises(ValueError, match="groups are"):
        score_classification(probabilities, target, CLASSES, groups[:-1])
    with pytest.raises(ValueError, match="row 0 is 4; legal: 0 to 3"):
        score_classification(probabilities, np.full_like(target, 4), CLASSES, groups)
    with pytest.raises(ValueError, match="sum to"):
        score_classification(probabilities / 2, target, CLASSES, groups)
    with pytest.raises(ValueError, match="not unique"):
        score_classification(probabilities, target, ["a", "b", "c", "a"], groups)
    with pytest.raises(ValueError, match="groups for 5 rows"):
        classification_replicates(probabilities, target, CLASSES, GroupBootstrap(list("abcde")))
    with pytest.raises(MmfuseError, match="nothing to score"):
        score_classification(probabilities, np.full_like(target, -100), CLASSES, groups)

    probabilities, target, groups = multilabel()
    with pytest.raises(ValueError, match=r"not in \[0, 1\]"):
        score_multilabel(probabilities * 5, target, FINDINGS, groups, THRESHOLDS)
    with pytest.raises(ValueError, match="as the probabilities"):
        score_multilabel(probabilities, target[:, :2], FINDINGS, groups, THRESHOLDS)
    with pytest.raises(ValueError, match="neither 0, nor 1"):
        score_multilabel(probabilities, target + 1, FINDINGS, groups, THRESHOLDS)
    with pytest.raises(ValueError, match="thresholds"):
        score_multilabel(probabilities, target, FINDINGS, groups, [0.5])
    with pytest.raises(MmfuseError, match="nothing to score"):
        score_multilabel(probabilities, np.full_like(target, np.nan), FINDINGS, groups, THRESHOLDS)


@given(seed=st.integers(0, 2**16), n=st.integers(3, 30), levels=st.sampled_from([None, 1, 4]))
@settings(max_examples=25, deadline=None)
def test_scores_are_in_range_and_the_order_of_rows_does_not_matter(seed, n, levels):
    order = np.random.default_rng(seed).permutation(n)
    for make, score, labels, extra in (
        (classification, score_classification, CLASSES, ()),
        (multilabel, score_multilabel, FINDINGS, (THRESHOLDS,)),
    ):
        probabilities, target, groups = make(seed, n, levels)
        if (target == -100).all() or np.isnan(target).all():
            continue
        result = score(probabilities, target, labels, groups, *extra, resamples=20)
        shuffled = score(probabilities[order], target[order], labels, groups[order], *extra, resamples=20)
        scores = result["metrics"] | {
            (label, name): result["per_label"][label][name] for label in labels for name in PER_LABEL
        }
        again = shuffled["metrics"] | {
            (label, name): shuffled["per_label"][label][name] for label in labels for name in PER_LABEL
        }
        for name, values in scores.items():
            assert values.pop("note", "") == again[name].pop("note", ""), name
            assert values == pytest.approx(again[name], abs=1e-9), name
            defined = [value for value in values.values() if value is not None]
            assert all(0 <= value <= (37 if name == "nll" else 1) for value in defined), name
            assert values["value"] is not None or not defined
            assert values["low"] is None or values["low"] <= values["high"]
