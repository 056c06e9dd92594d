"""Scores of classification and multi-label predictions, with intervals that respect groups.

Point values are scikit-learn's. Replicates are our own code, tested against scikit-learn on resampled rows: a resample
of groups is one multiplicity for each group, so every metric is a weighted one, and no row is ever copied.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array
from sklearn.metrics import average_precision_score, confusion_matrix, f1_score, roc_auc_score

from mmfuse.metrics.basis import LabelBasis
from mmfuse.metrics.bootstrap import GroupBootstrap, GroupJackknife
from mmfuse.metrics.calibration import equal_mass_bins, expected_calibration_error, least_calibration_error
from mmfuse.metrics.intervals import score_of
from mmfuse.metrics.ranking import Ranking, mean_over_labels, ratio
from mmfuse.types import MISSING_CLASS, MmfuseError

LOWER_IS_BETTER = frozenset({"ece", "brier", "nll"})
PER_LABEL = ("auroc", "average_precision", "f1")
METRICS = ("accuracy", "f1_macro", "f1_micro", "auroc_macro", "average_precision_macro", "ece", "brier", "nll")
COUNTS = {
    "f1_macro": "labels",
    "auroc_macro": "rankings",
    "average_precision_macro": "rankings",
    "auroc": "ranking",
    "average_precision": "ranking",
    "f1": "true",
}
"""What each score is of, for its interval (`mmfuse.metrics.basis`); the others are of all rows."""
MOST_SURPRISE = float(-np.log(np.finfo(np.float64).eps))
"""The largest `nll`, in nats."""

Array = NDArray[np.float64]


def score_classification(
    probabilities: ArrayLike,
    target: ArrayLike,
    labels: Sequence[str],
    groups: Sequence[str],
    resamples: int = 1000,
    seed: int = 0,
    decided: ArrayLike | None = None,
) -> dict[str, Any]:
    """Score predictions of one class for each row, with 95 % intervals.

    F1 of a class that no row has is undefined, whether or not it was said; `f1_macro` averages over the others.
    `auroc_macro` and `average_precision_macro` are one-vs-rest and leave out the `undefined_labels`: those without
    positives or negatives. `ece` takes the highest probability as confidence (see `expected_calibration_error`),
    `brier` is half the squared distance to the one-hot target (in [0, 1], the usual one for two classes), `nll` is in
    nats.

    Reference: scikit-learn for values; `mmfuse.metrics.intervals` for intervals.
    Differs: scikit-learn's `f1_macro` counts 0 for a class that was said though no row has it.
    Prefer when: exactly one label is true for a row.

    Args:
        probabilities: `(N, K)` in [0, 1], rows sum to 1.
        target: `(N,)` class ids, -100 where missing.
        labels: The K names.
        groups: `(N,)`; rows of one group are no independent ones.
        resamples: 0 for no intervals.
        seed: Of the lot by which groups are left out together, where there are many.
        decided: `(N,)` class ids, where not the most probable class was said (an operating point).

    Returns:
        `n` labelled rows, their `groups`, `metrics`, `per_label`, `undefined_labels`, `macro_over` (by macro average
        over how many labels it is), and `confusion` (rows are truth). A score is `{"value", "low", "high"}`, None where
        undefined, and a `note` where there is something to say.

    Raises:
        ValueError: Shapes do not match, or a probability or a target is not legal.
        MmfuseError: No row has a target.
    """
    probabilities, target = _check_classification(probabilities, target, labels)
    row_groups = _check_groups(groups, len(target))
    there = target != MISSING_CLASS
    if not there.any():
        raise MmfuseError(f"nothing to score: none of the {len(target)} rows has a target")
    said = probabilities.argmax(axis=1) if decided is None else np.asarray(decided)
    probabilities, target, row_groups, said = probabilities[there], target[there], row_groups[there], said[there]

    left_out = GroupJackknife(row_groups, resamples, seed)
    outcomes = classification_outcomes(probabilities, target, said)
    result = _report(outcomes, labels, left_out)
    for name, positives in zip(labels, np.bincount(target, minlength=len(labels)), strict=True):
        result["per_label"][name] = {"positives": int(positives), **result["per_label"][name]}
    confusion = confusion_matrix(target, said, labels=range(len(labels)))
    return {"n": len(target), "groups": left_out.num_groups, **result, "confusion": confusion.tolist()}


def score_multilabel(
    probabilities: ArrayLike,
    target: ArrayLike,
    labels: Sequence[str],
    groups: Sequence[str],
    thresholds: ArrayLike,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Score predictions of any number of labels for each row, with 95 % intervals.

    `accuracy`, `f1_micro`, `ece` (probability against frequency), `brier` and `nll` (in nats) are over all labelled
    entries together. F1 of a label without positives is undefined, whether or not it was said, and `f1_macro` leaves it
    out. `auroc_macro` and `average_precision_macro` leave out the `undefined_labels`: those without positives or
    negatives.

    Reference: scikit-learn for values; `mmfuse.metrics.intervals` for intervals.
    Differs: F1 without positives is undefined; scikit-learn says 0.
    Prefer when: labels do not exclude each other, or some are unknown for some rows.

    Args:
        probabilities: `(N, L)` in [0, 1].
        target: `(N, L)` 0, 1, or NaN where missing.
        labels: The L names.
        groups: `(N,)`; rows of one group are resampled together.
        thresholds: `(L,)`; a probability at or above it is a yes.
        resamples: Of the groups; 0 for no intervals.
        seed: Of the resampling.

    Returns:
        As `score_classification`, without `confusion`; `n` counts rows with a labelled entry.

    Raises:
        ValueError: Shapes do not match, or a probability, a target or a threshold is not legal.
        MmfuseError: No entry has a target.
    """
    probabilities, target, thresholds = _check_multilabel(probabilities, target, labels, thresholds)
    row_groups = _check_groups(groups, len(target))
    there = ~np.isnan(target).all(axis=1)
    if not there.any():
        raise MmfuseError(f"nothing to score: none of the {len(target)} rows has a target")
    probabilities, target, row_groups = probabilities[there], target[there], row_groups[there]

    left_out = GroupJackknife(row_groups, resamples, seed)
    result = _report(multilabel_outcomes(probabilities, target, probabilities >= thresholds), labels, left_out)
    for label, name in enumerate(labels):
        counts = {"positives": int((target[:, label] == 1).sum()), "negatives": int((target[:, label] == 0).sum())}
        result["per_label"][name] = {**counts, **result["per_label"][name], "threshold": float(thresholds[label])}
    return {"n": len(target), "groups": left_out.num_groups, **result}


def classification_replicates(
    probabilities: ArrayLike, target: ArrayLike, labels: Sequence[str], bootstrap: GroupBootstrap
) -> dict[str, Array]:
    """Every metric of `score_classification` under each resample.

    Call it for two models with one bootstrap (of the groups of all N rows), and their differences are paired.

    Returns:
        `(B,)` for each of `METRICS`, `(B, K)` for each of `PER_LABEL`; NaN where a replicate leaves a metric undefined.
    """
    probabilities, target = _check_classification(probabilities, target, labels)
    return _replicates(classification_outcomes(probabilities, target, probabilities.argmax(axis=1)), bootstrap)


def multilabel_replicates(
    probabilities: ArrayLike, target: ArrayLike, labels: Sequence[str], thresholds: ArrayLike, bootstrap: GroupBootstrap
) -> dict[str, Array]:
    """Every metric of `score_multilabel` under each resample; see `classification_replicates`."""
    probabilities, target, thresholds = _check_multilabel(probabilities, target, labels, thresholds)
    return _replicates(multilabel_outcomes(probabilities, target, probabilities >= thresholds), bootstrap)


def bounds_of(name: str) -> tuple[float, float]:
    """The lowest and highest value of one of `METRICS`."""
    return (0.0, MOST_SURPRISE) if name == "nll" else (0.0, 1.0)


class Outcomes(NamedTuple):
    """What both kinds of task are scored from.

    Of all rows, label by label: `scores (N, L)`, `truth (N, L)` 0, 1 or NaN where missing, `predicted (N, L)` 0 or 1.
    Of the E labelled entries (rows, or row and label): `rows`, `confidence`, `correct` and what is `averaged`, `(E,)`.
    """

    scores: Array
    truth: Array
    predicted: Array
    rows: NDArray[np.int64]
    confidence: Array
    correct: Array
    averaged: dict[str, Array]


def classification_outcomes(probabilities: Array, target: NDArray[np.int64], decided: NDArray[Any]) -> Outcomes:
    """What is scored of one class for each row: `(N, K)`, `(N,)` with -100 where missing, and the classes said `(N,)`.

    `ece` takes the probability of what was said as confidence.
    """
    rows = np.flatnonzero(target != MISSING_CLASS)
    one_hot = np.eye(probabilities.shape[1])
    truth = np.full(probabilities.shape, np.nan)
    truth[rows] = one_hot[target[rows]]
    predicted = one_hot[decided]
    correct = (truth * predicted)[rows].sum(axis=1)
    averaged = {
        "accuracy": correct,
        "brier": ((probabilities - truth)[rows] ** 2).sum(axis=1) / 2,
        "nll": _surprise(probabilities[rows, target[rows]]),
    }
    confidence = np.take_along_axis(probabilities, decided[:, None], axis=1)[:, 0]
    return Outcomes(probabilities, truth, predicted, rows, confidence[rows], correct, averaged)


def multilabel_outcomes(probabilities: Array, target: Array, decided: NDArray[Any]) -> Outcomes:
    """What is scored of labels: each `(N, L)`, targets NaN where missing, `decided` a yes or a no."""
    rows, columns = np.nonzero(~np.isnan(target))
    predicted = decided.astype(np.float64)
    scores, truth = probabilities[rows, columns], target[rows, columns]
    averaged = {
        "accuracy": (predicted[rows, columns] == truth).astype(np.float64),
        "brier": (scores - truth) ** 2,
        "nll": _surprise(np.where(truth == 1, scores, 1 - scores)),
    }
    return Outcomes(probabilities, target, predicted, rows, scores, truth, averaged)


def _surprise(probability: Array) -> Array:
    return -np.log(np.maximum(probability, np.finfo(np.float64).eps))


def _f1(truth: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> float:
    """NaN without positives: a false alarm more or less must not decide between undefined and 0."""
    return float(f1_score(truth, predicted)) if truth.any() else np.nan


def _values(outcomes: Outcomes) -> dict[str, Any]:
    """The point values, by scikit-learn: floats, and `(L,)` for `PER_LABEL`; NaN where undefined."""
    known = ~np.isnan(outcomes.truth)
    truth, predicted = outcomes.truth == 1, outcomes.predicted == 1
    auroc, average_precision, f1 = (np.full(known.shape[1], np.nan) for _ in range(3))
    for label, there in enumerate(known.T):
        y, hat, score = truth[there, label], predicted[there, label], outcomes.scores[there, label]
        f1[label] = _f1(y, hat)
        if y.any() and not y.all():
            auroc[label] = roc_auc_score(y, score)
            average_precision[label] = average_precision_score(y, score)
    return {
        **{name: float(terms.mean()) for name, terms in outcomes.averaged.items()},
        "ece": expected_calibration_error(outcomes.confidence, outcomes.correct),
        "f1_micro": _f1(truth[known], predicted[known]),
        "f1_macro": mean_over_labels(f1),
        "auroc_macro": mean_over_labels(auroc),
        "average_precision_macro": mean_over_labels(average_precision),
        "auroc": auroc,
        "average_precision": average_precision,
        "f1": f1,
    }


def _replicates(outcomes: Outcomes, bootstrap: GroupBootstrap) -> dict[str, Array]:
    """What `_values` would give on the rows of each resample."""
    return bootstrap.replicate(weighted_scores(outcomes, bootstrap))


def weighted_scores(outcomes: Outcomes, bootstrap: GroupBootstrap) -> Callable[[Array], dict[str, Array]]:
    """What gives every metric under multiplicities `(b, G)`: `(b,)`, or `(b, L)` for each of `PER_LABEL`."""
    N, L = outcomes.truth.shape
    if len(bootstrap.row_group) != N:
        raise ValueError(f"the bootstrap has groups for {len(bootstrap.row_group)} rows; there are {N} rows")
    row, label = np.nonzero(~np.isnan(outcomes.truth))
    y, hat = outcomes.truth[row, label], outcomes.predicted[row, label]
    positives, said_yes, hits = (bootstrap.sums(row, label, L, value) for value in (y, hat, y * hat))

    entries = bootstrap.sums(outcomes.rows, 0, 1)
    averaged = {name: bootstrap.sums(outcomes.rows, 0, 1, terms) for name, terms in outcomes.averaged.items()}
    bins = equal_mass_bins(outcomes.confidence)
    gaps = bootstrap.sums(outcomes.rows, bins, 15, outcomes.confidence - outcomes.correct)
    rankings = [
        Ranking.of(scores, truth, bootstrap.row_group)
        for scores, truth in zip(outcomes.scores.T, outcomes.truth.T, strict=True)
    ]

    def metrics(times: Array) -> dict[str, Array]:
        def total(sums: csr_array) -> Array:
            return (sums @ times.T).T

        count, hit, true = total(entries)[:, 0], total(hits), total(positives)
        either = true + total(said_yes)
        f1 = np.where(true > 0, ratio(2 * hit, either), np.nan)
        some = true.sum(axis=1) > 0
        ranked = np.array([ranking.weighted(times) for ranking in rankings])  # (L, 2, b)
        auroc, average_precision = ranked.transpose(1, 2, 0)
        return {
            **{name: ratio(total(terms)[:, 0], count) for name, terms in averaged.items()},
            "ece": ratio(np.abs(total(gaps)).sum(axis=1), count),
            "f1_micro": np.where(some, ratio(2 * hit.sum(axis=1), either.sum(axis=1)), np.nan),
            "f1_macro": mean_over_labels(f1),
            "auroc_macro": mean_over_labels(auroc),
            "average_precision_macro": mean_over_labels(average_precision),
            "auroc": auroc,
            "average_precision": average_precision,
            "f1": f1,
        }

    return metrics


def _report(outcomes: Outcomes, labels: Sequence[str], groups: GroupJackknife) -> dict[str, Any]:
    values, without = _values(outcomes), _replicates(outcomes, groups)
    basis = LabelBasis(outcomes.truth, outcomes.predicted, labels, groups)
    metrics = {
        name: score_of(values[name], without[name], basis(COUNTS.get(name, "rows"))[0], bounds_of(name))
        for name in METRICS
    }
    if metrics["ece"]["low"] is not None:
        least = least_calibration_error(values["ece"], _gaps(outcomes, groups))
        metrics["ece"]["low"] = min(least, metrics["ece"]["low"])
    by_label = {name: basis(COUNTS[name]) for name in PER_LABEL}
    return {
        "metrics": metrics,
        "per_label": {
            label: {
                name: score_of(float(values[name][i]), without[name][:, i], by_label[name][i], (0.0, 1.0))
                for name in PER_LABEL
            }
            for i, label in enumerate(labels)
        },
        "undefined_labels": [label for label, auroc in zip(labels, values["auroc"], strict=True) if np.isnan(auroc)],
        "macro_over": {f"{name}_macro": int((~np.isnan(values[name])).sum()) for name in ("f1", *PER_LABEL[:2])},
    }


def _gaps(outcomes: Outcomes, groups: GroupJackknife) -> Array:
    """What each bin of `ece` adds to it, with its sign, without each block of groups: `(b, 15)`."""
    bins = equal_mass_bins(outcomes.confidence)
    gaps = groups.sums(outcomes.rows, bins, 15, outcomes.confidence - outcomes.correct)
    count = groups.sums(outcomes.rows, 0, 1)
    found = groups.replicate(lambda times: {"gaps": ratio((gaps @ times.T).T, (count @ times.T).T)})
    return found["gaps"]


def _check_classification(
    probabilities: ArrayLike, target: ArrayLike, labels: Sequence[str]
) -> tuple[Array, NDArray[np.int64]]:
    probabilities, target = _check_probabilities(probabilities, labels), np.asarray(target)
    if target.shape != probabilities.shape[:1] or not np.issubdtype(target.dtype, np.integer):
        raise ValueError(f"target is {target.dtype} {target.shape}; it must be int {probabilities.shape[:1]}")
    wrong = (target != MISSING_CLASS) & ((target < 0) | (target >= len(labels)))
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(
            f"target of row {row} is {target[row]}; legal: 0 to {len(labels) - 1}, or {MISSING_CLASS} for missing"
        )
    wrong = np.abs(probabilities.sum(axis=1) - 1) > 0.01
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(f"probabilities of row {row} sum to {probabilities[row].sum():.4g}, not to 1")
    return probabilities, target.astype(np.int64)


def _check_multilabel(
    probabilities: ArrayLike, target: ArrayLike, labels: Sequence[str], thresholds: ArrayLike
) -> tuple[Array, Array, Array]:
    probabilities = _check_probabilities(probabilities, labels)
    target, thresholds = np.asarray(target, np.float64), np.asarray(thresholds, np.float64)
    if target.shape != probabilities.shape:
        raise ValueError(f"target is {target.shape}; it must be {probabilities.shape}, as the probabilities")
    if not (np.isnan(target) | (target == 0) | (target == 1)).all():
        raise ValueError("a target is neither 0, nor 1, nor NaN for missing")
    if thresholds.shape != (len(labels),) or not np.isfinite(thresholds).all():
        raise ValueError(f"thresholds must be {len(labels)} finite numbers, one a label; got {thresholds.shape}")
    return probabilities, target, thresholds


def _check_probabilities(probabilities: ArrayLike, labels: Sequence[str]) -> Array:
    probabilities = np.asarray(probabilities, np.float64)
    if len(set(labels)) != len(labels):
        raise ValueError(f"labels are not unique: {list(labels)}")
    if probabilities.ndim != 2 or probabilities.shape[1] != len(labels):
        raise ValueError(
            f"probabilities are {probabilities.shape}; they must be (N, {len(labels)}), for {list(labels)}"
        )
    legal = (probabilities >= -1e-6) & (probabilities <= 1 + 1e-6)  # false for NaN
    if not legal.all():
        row, column = np.argwhere(~legal)[0]
        raise ValueError(
            f"probability of row {row}, {labels[column]!r}, is {probabilities[row, column]}, not in [0, 1]"
        )
    return probabilities.clip(0, 1)


def _check_groups(groups: Sequence[str], num_rows: int) -> NDArray[Any]:
    row_groups = np.asarray(groups, dtype=str)
    if row_groups.shape != (num_rows,):
        raise ValueError(f"groups are {row_groups.shape}; they must be ({num_rows},), one a row")
    return row_groups
