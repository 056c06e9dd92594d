"""Scores of classification and multi-label predictions, with intervals that respect groups.

Point values are scikit-learn's. Replicates are our own code, tested against scikit-learn on resampled rows: a resample
of groups is one multiplicity for each group, so every metric is a weighted one, and no row is ever copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array
from sklearn.metrics import average_precision_score, confusion_matrix, f1_score, roc_auc_score

from mmfuse.metrics.bootstrap import GroupBootstrap, interval
from mmfuse.metrics.calibration import equal_mass_bins, expected_calibration_error
from mmfuse.types import MISSING_CLASS, MmfuseError

LOWER_IS_BETTER = frozenset({"ece", "brier", "nll"})
PER_LABEL = ("auroc", "average_precision", "f1")
METRICS = ("accuracy", "f1_macro", "f1_micro", "auroc_macro", "average_precision_macro", "ece", "brier", "nll")

Array = NDArray[np.float64]


def score_classification(
    probabilities: ArrayLike,
    target: ArrayLike,
    labels: Sequence[str],
    groups: Sequence[str],
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Score predictions of one class for each row, with 95 % intervals.

    `f1_macro` averages over the labels that occur in targets or predictions, as scikit-learn does by default.
    `auroc_macro` and `average_precision_macro` are one-vs-rest and leave out the `undefined_labels`: those without
    positives or negatives. `ece` takes the highest probability as confidence (see `expected_calibration_error`),
    `brier` is half the squared distance to the one-hot target (in [0, 1], the usual one for two classes), `nll` is in
    nats.

    Reference: scikit-learn for values; Field and Welsh 2007, "Bootstrapping clustered data", for intervals.
    Differs: nothing; intervals are percentiles. Resampling adds noise, so those of `ece` can lie above its value.
    Prefer when: exactly one label is true for a row.

    Args:
        probabilities: `(N, K)` in [0, 1], rows sum to 1.
        target: `(N,)` class ids, -100 where missing.
        labels: The K names.
        groups: `(N,)`; rows of one group are resampled together.
        resamples: Of the groups; 0 for no intervals.
        seed: Of the resampling.

    Returns:
        `n` labelled rows, their `groups`, `metrics`, `per_label`, `undefined_labels`, and `confusion` (rows are truth).
        A score is `{"value", "low", "high"}`, None where undefined. One group has no spread, so no interval.

    Raises:
        ValueError: Shapes do not match, or a probability or a target is not legal.
        MmfuseError: No row has a target.
    """
    probabilities, target = _check_classification(probabilities, target, labels)
    row_groups = _check_groups(groups, len(target))
    there = target != MISSING_CLASS
    if not there.any():
        raise MmfuseError(f"nothing to score: none of the {len(target)} rows has a target")
    probabilities, target, row_groups = probabilities[there], target[there], row_groups[there]

    bootstrap = GroupBootstrap(row_groups, resamples, seed)
    outcomes = _classification_outcomes(probabilities, target)
    result = _report(outcomes, labels, bootstrap)
    for name, positives in zip(labels, np.bincount(target, minlength=len(labels)), strict=True):
        result["per_label"][name] = {"positives": int(positives), **result["per_label"][name]}
    confusion = confusion_matrix(target, probabilities.argmax(axis=1), labels=range(len(labels)))
    return {"n": len(target), "groups": bootstrap.num_groups, **result, "confusion": confusion.tolist()}


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
    entries together. `f1_macro` counts 0 for a label without positives and predictions. `auroc_macro` and
    `average_precision_macro` leave out the `undefined_labels`: those without positives or negatives.

    Reference: scikit-learn for values; Field and Welsh 2007, "Bootstrapping clustered data", for intervals.
    Differs: nothing; intervals are percentiles. Resampling adds noise, so those of `ece` can lie above its value.
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

    bootstrap = GroupBootstrap(row_groups, resamples, seed)
    result = _report(_multilabel_outcomes(probabilities, target, thresholds), labels, bootstrap)
    for label, name in enumerate(labels):
        counts = {"positives": int((target[:, label] == 1).sum()), "negatives": int((target[:, label] == 0).sum())}
        result["per_label"][name] = {**counts, **result["per_label"][name], "threshold": float(thresholds[label])}
    return {"n": len(target), "groups": bootstrap.num_groups, **result}


def classification_replicates(
    probabilities: ArrayLike, target: ArrayLike, labels: Sequence[str], bootstrap: GroupBootstrap
) -> dict[str, Array]:
    """Every metric of `score_classification` under each resample.

    Call it for two models with one bootstrap (of the groups of all N rows), and their differences are paired.

    Returns:
        `(B,)` for each of `METRICS`, `(B, K)` for each of `PER_LABEL`; NaN where a replicate leaves a metric undefined.
    """
    return _replicates(_classification_outcomes(*_check_classification(probabilities, target, labels)), bootstrap)


def multilabel_replicates(
    probabilities: ArrayLike, target: ArrayLike, labels: Sequence[str], thresholds: ArrayLike, bootstrap: GroupBootstrap
) -> dict[str, Array]:
    """Every metric of `score_multilabel` under each resample; see `classification_replicates`."""
    return _replicates(_multilabel_outcomes(*_check_multilabel(probabilities, target, labels, thresholds)), bootstrap)


class _Outcomes(NamedTuple):
    """What both tasks are scored from.

    Of all rows, label by label: `scores (N, L)`, `truth (N, L)` 0, 1 or NaN where missing, `predicted (N, L)` 0 or 1.
    Of the E labelled entries (rows, or row and label): `rows`, `confidence`, `correct` and what is `averaged`, `(E,)`.
    `only_occurring`: whether `f1_macro` leaves out labels without positives and predictions.
    """

    scores: Array
    truth: Array
    predicted: Array
    rows: NDArray[np.int64]
    confidence: Array
    correct: Array
    averaged: dict[str, Array]
    only_occurring: bool


def _classification_outcomes(probabilities: Array, target: NDArray[np.int64]) -> _Outcomes:
    rows = np.flatnonzero(target != MISSING_CLASS)
    one_hot = np.eye(probabilities.shape[1])
    truth = np.full(probabilities.shape, np.nan)
    truth[rows] = one_hot[target[rows]]
    predicted = one_hot[probabilities.argmax(axis=1)]
    correct = (truth * predicted)[rows].sum(axis=1)
    averaged = {
        "accuracy": correct,
        "brier": ((probabilities - truth)[rows] ** 2).sum(axis=1) / 2,
        "nll": _surprise(probabilities[rows, target[rows]]),
    }
    return _Outcomes(probabilities, truth, predicted, rows, probabilities.max(axis=1)[rows], correct, averaged, True)


def _multilabel_outcomes(probabilities: Array, target: Array, thresholds: Array) -> _Outcomes:
    rows, columns = np.nonzero(~np.isnan(target))
    predicted = (probabilities >= thresholds).astype(np.float64)
    scores, truth = probabilities[rows, columns], target[rows, columns]
    averaged = {
        "accuracy": (predicted[rows, columns] == truth).astype(np.float64),
        "brier": (scores - truth) ** 2,
        "nll": _surprise(np.where(truth == 1, scores, 1 - scores)),
    }
    return _Outcomes(probabilities, target, predicted, rows, scores, truth, averaged, False)


def _surprise(probability: Array) -> Array:
    return -np.log(np.maximum(probability, np.finfo(np.float64).eps))


def _f1(truth: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> float:
    return float(f1_score(truth, predicted, zero_division=0))  # pyright: ignore[reportArgumentType]


def _values(outcomes: _Outcomes) -> dict[str, Any]:
    """The point values, by scikit-learn: floats, and `(L,)` for `PER_LABEL`; NaN where undefined."""
    known = ~np.isnan(outcomes.truth)
    truth, predicted = outcomes.truth == 1, outcomes.predicted == 1
    auroc, average_precision, f1, occurs = (np.full(known.shape[1], np.nan) for _ in range(4))
    for label, there in enumerate(known.T):
        y, hat, score = truth[there, label], predicted[there, label], outcomes.scores[there, label]
        if len(y):
            f1[label] = _f1(y, hat)
            occurs[label] = y.any() or hat.any()
        if y.any() and not y.all():
            auroc[label] = roc_auc_score(y, score)
            average_precision[label] = average_precision_score(y, score)
    counted = f1[occurs == 1] if outcomes.only_occurring else f1
    return {
        **{name: float(terms.mean()) for name, terms in outcomes.averaged.items()},
        "ece": expected_calibration_error(outcomes.confidence, outcomes.correct),
        "f1_micro": _f1(truth[known], predicted[known]),
        "f1_macro": _mean(counted),
        "auroc_macro": _mean(auroc),
        "average_precision_macro": _mean(average_precision),
        "auroc": auroc,
        "average_precision": average_precision,
        "f1": f1,
    }


def _replicates(outcomes: _Outcomes, bootstrap: GroupBootstrap) -> dict[str, Array]:
    """What `_values` would give on the rows of each resample."""
    N, L = outcomes.truth.shape
    if len(bootstrap.row_group) != N:
        raise ValueError(f"the bootstrap has groups for {len(bootstrap.row_group)} rows; there are {N} rows")
    row, label = np.nonzero(~np.isnan(outcomes.truth))
    y, hat = outcomes.truth[row, label], outcomes.predicted[row, label]
    labelled, positives, said_yes, hits = (bootstrap.sums(row, label, L, value) for value in (1.0, y, hat, y * hat))

    entries = bootstrap.sums(outcomes.rows, 0, 1)
    averaged = {name: bootstrap.sums(outcomes.rows, 0, 1, terms) for name, terms in outcomes.averaged.items()}
    bins = equal_mass_bins(outcomes.confidence)
    gaps = bootstrap.sums(outcomes.rows, bins, 15, outcomes.confidence - outcomes.correct)
    rankings = [
        _Ranking.of(scores, truth, bootstrap.row_group)
        for scores, truth in zip(outcomes.scores.T, outcomes.truth.T, strict=True)
    ]

    def metrics(times: Array) -> dict[str, Array]:
        def total(sums: csr_array) -> Array:
            return (sums @ times.T).T

        count, hit, either = total(entries)[:, 0], total(hits), total(positives) + total(said_yes)
        f1 = np.where(total(labelled) > 0, _ratio(2 * hit, either, empty=0), np.nan)
        counted = np.where(either > 0, f1, np.nan) if outcomes.only_occurring else f1
        ranked = np.array([ranking.weighted(times) for ranking in rankings])  # (L, 2, b)
        auroc, average_precision = ranked.transpose(1, 2, 0)
        return {
            **{name: _ratio(total(terms)[:, 0], count) for name, terms in averaged.items()},
            "ece": _ratio(np.abs(total(gaps)).sum(axis=1), count),
            "f1_micro": np.where(count > 0, _ratio(2 * hit.sum(axis=1), either.sum(axis=1), empty=0), np.nan),
            "f1_macro": _mean(counted),
            "auroc_macro": _mean(auroc),
            "average_precision_macro": _mean(average_precision),
            "auroc": auroc,
            "average_precision": average_precision,
            "f1": f1,
        }

    return bootstrap.replicate(metrics)


class _Ranking(NamedTuple):
    """The rows of one label from the highest score down, cut where blocks of equal scores begin and end.

    Of the n rows `groups (n,)` and of the positive ones `positive_groups`; of the S blocks with positives (others add
    nothing) how many rows, and positive rows, come before them and up to their end, `(2, S)`.
    """

    groups: NDArray[np.int64]
    positive_groups: NDArray[np.int64]
    rows: NDArray[np.int64]
    positive_rows: NDArray[np.int64]

    @classmethod
    def of(cls, scores: Array, truth: Array, row_group: NDArray[np.int64]) -> _Ranking:
        known = np.flatnonzero(~np.isnan(truth))
        order = known[np.argsort(-scores[known], kind="stable")]
        positive = truth[order] == 1
        edges = np.concatenate([[0], np.flatnonzero(np.diff(scores[order])) + 1, [len(order)]])
        positives = np.concatenate([[0], positive.cumsum()])[edges]
        kept = np.flatnonzero(np.diff(positives))
        ends = np.stack([kept, kept + 1])
        return cls(row_group[order], row_group[order[positive]], edges[ends], positives[ends])

    def weighted(self, times: Array) -> tuple[Array, Array]:
        """AUROC and average precision under multiplicities `(b, G)`: `(b,)` each, NaN where undefined."""
        total, seen = _sums_at(times, self.groups, self.rows)
        positives, (hits_before, hits) = _sums_at(times, self.positive_groups, self.positive_rows)
        negatives = total - positives
        new = hits - hits_before
        false_alarms = (seen[0] - hits_before + seen[1] - hits) / 2  # ties count half
        auroc = _ratio((new * (negatives[:, None] - false_alarms)).sum(axis=1), positives * negatives)
        precision = hits / np.maximum(seen[1], 1)
        average_precision = _ratio((new * precision).sum(axis=1), positives)
        return auroc, np.where(negatives > 0, average_precision, np.nan)


def _sums_at(times: Array, groups: NDArray[np.int64], counts: NDArray[np.int64]) -> tuple[Array, Array]:
    """The total weight of rows `(b,)`, and that of the first `counts (2, S)` rows `(2, b, S)`."""
    sums = np.zeros((len(times), len(groups) + 1))
    np.cumsum(times.take(groups, axis=1), axis=1, out=sums[:, 1:])
    return sums[:, -1], sums.take(counts, axis=1).transpose(1, 0, 2)


def _ratio(above: Array, below: Array, empty: float = np.nan) -> Array:
    return np.divide(above, below, out=np.full(np.shape(above), empty, np.float64), where=below > 0)


def _mean(values: Array) -> Any:
    """The mean over labels (the last axis) where they are defined; NaN where none is."""
    defined = ~np.isnan(values)
    return _ratio(np.where(defined, values, 0).sum(axis=-1), defined.sum(axis=-1))


def _report(outcomes: _Outcomes, labels: Sequence[str], bootstrap: GroupBootstrap) -> dict[str, Any]:
    values, replicates = _values(outcomes), _replicates(outcomes, bootstrap)

    def entry(value: float, drawn: Array) -> dict[str, float | None]:
        low, high = interval(drawn)
        named = {"value": float(value), "low": low, "high": high}
        return {name: None if np.isnan(number) else number for name, number in named.items()}

    return {
        "metrics": {name: entry(values[name], replicates[name]) for name in METRICS},
        "per_label": {
            label: {name: entry(values[name][i], replicates[name][:, i]) for name in PER_LABEL}
            for i, label in enumerate(labels)
        },
        "undefined_labels": [label for label, auroc in zip(labels, values["auroc"], strict=True) if np.isnan(auroc)],
    }


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
