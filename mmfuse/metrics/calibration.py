"""Making probabilities honest: temperature, decision thresholds, calibration error."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar

from mmfuse.types import MISSING_CLASS, SelectiveCurve


def fit_temperature(
    logits: ArrayLike, target: ArrayLike, kind: Literal["classification", "multilabel"] = "classification"
) -> float:
    """Find the one number to divide logits by that makes validation targets most likely.

    Reference: Guo et al. 2017, "On Calibration of Modern Neural Networks", arXiv 1706.04599.
    Differs: a bounded scalar search over log T in place of L-BFGS; multi-label logits share one T too.
    Prefer when: the ranking is good but the confidence is not; T changes no ranking and no argmax.

    Args:
        logits: `(N, K)`, finite.
        target: `(N,)` int, -100 where missing; or `(N, K)` 0, 1 or NaN where missing, for multilabel.
        kind: What the target is.

    Returns:
        T in [0.05, 20]; 1 where nothing is labelled or no T does better.

    Raises:
        ValueError: The kind is unknown, shapes do not match, or a logit is not finite.
    """
    logits, target = np.asarray(logits, np.float64), np.asarray(target)
    shapes = {"classification": logits.shape[:1], "multilabel": logits.shape}
    if kind not in shapes:
        raise ValueError(f"kind is {kind!r}; legal: {', '.join(shapes)}")
    if logits.ndim != 2 or target.shape != shapes[kind]:
        raise ValueError(f"logits {logits.shape} and target {target.shape} do not match for {kind}")
    if not np.isfinite(logits).all():
        raise ValueError("logits contain NaN or infinity")

    known = target != MISSING_CLASS if kind == "classification" else ~np.isnan(target)
    if not known.any():
        return 1.0
    if kind == "classification":
        logits, chosen = logits[known], target[known].astype(np.int64)[:, None]
        margins = logits - np.take_along_axis(logits, chosen, axis=1)  # of each class over the true one

        def loss(log_temperature: float) -> float:
            return float(np.logaddexp.reduce(margins / np.exp(log_temperature), axis=1).mean())
    else:
        against = np.where(target[known] > 0.5, -logits[known], logits[known])

        def loss(log_temperature: float) -> float:
            return float(np.logaddexp(0, against / np.exp(log_temperature)).mean())

    best = minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(best.x)) if best.fun < loss(0.0) else 1.0


def tune_thresholds(probabilities: ArrayLike, target: ArrayLike) -> NDArray[np.float64]:
    """Find for each label the threshold with the highest F1; a probability at or above it is a yes.

    Tune on validation data, never on the test set.

    Reference: Lipton et al. 2014, "Thresholding Classifiers to Maximize F1 Score", arXiv 1402.1892.
    Differs: nothing; candidates lie midway between neighbouring scores, of equal ones the nearest to 0.5 wins.
    Prefer when: labels are rare, so that few probabilities reach 0.5.

    Args:
        probabilities: `(N, L)` in [0, 1].
        target: `(N, L)` 0, 1 or NaN where missing.

    Returns:
        `(L,)` in [0, 1]; 0.5 for a label without positives or without negatives.

    Raises:
        ValueError: Shapes do not match, or a probability is NaN.
    """
    probabilities, target = np.asarray(probabilities, np.float64), np.asarray(target, np.float64)
    if probabilities.ndim != 2 or probabilities.shape != target.shape:
        raise ValueError(f"probabilities {probabilities.shape} and target {target.shape} must both be (N, L)")
    if np.isnan(probabilities).any():
        raise ValueError("probabilities contain NaN")
    known = ~np.isnan(target)
    columns = zip(probabilities.T, target.T, known.T, strict=True)
    return np.array([_best_threshold(scores[there], truth[there] > 0.5) for scores, truth, there in columns])


def _best_threshold(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    if positive.all() or not positive.any():
        return 0.5
    distinct, index = np.unique(scores, return_inverse=True)
    said_yes = np.bincount(index)[::-1].cumsum()[::-1]  # if the threshold is just below distinct[i]
    hits = np.bincount(index, positive)[::-1].cumsum()[::-1]
    f1 = 2 * hits / (said_yes + positive.sum())

    below = np.concatenate([[0.0], distinct[:-1]])
    between = (below + distinct) / 2
    between = np.where(between > below, between, distinct)  # neighbouring floats have nothing between them
    best = between[f1 == f1.max()]
    return float(best[np.abs(best - 0.5).argmin()])


def selective_curve(confidence: ArrayLike, right: ArrayLike, points: int = 101) -> SelectiveCurve | None:
    """Say for rising confidences which share of rows is at or above them, and which share of those is right.

    The confidences are quantiles of those that occur, the smallest and the largest among them.

    Reference: El-Yaniv and Wiener 2010, "On the Foundations of Noise-free Selective Classification", JMLR 11; Geifman
        and El-Yaniv 2017, "Selective Classification for Deep Neural Networks", arXiv 1705.08500.
    Differs: no bound on the risk: the accuracy is that of these rows, and new rows can have less.
    Prefer when: a person looks at what the model is not sure of.

    Args:
        confidence: `(n,)` in [0, 1].
        right: `(n,)` 0 or 1, NaN where that is not known: such rows do not count.
        points: At most so many confidences.

    Returns:
        The curve; None where nothing is known.
    """
    confidence, right = np.asarray(confidence, np.float64), np.asarray(right, np.float64)
    known = ~np.isnan(right)
    if not known.any():
        return None
    order = confidence[known].argsort()
    ordered, correct = confidence[known][order], right[known][order]
    at = np.unique(np.quantile(ordered, np.linspace(0, 1, points), method="inverted_cdf"))
    first = np.searchsorted(ordered, at, side="left")
    kept = len(ordered) - first
    hits = correct[::-1].cumsum()[::-1][first]
    return SelectiveCurve(len(ordered), at.tolist(), (kept / len(ordered)).tolist(), (hits / kept).tolist())


def equal_mass_bins(confidence: NDArray[np.float64], bins: int = 15) -> NDArray[np.int64]:
    """Say for each of `(n,)` values which of the bins of equal count it is in; equal values share a bin."""
    rank = np.searchsorted(np.sort(confidence), confidence, side="left")
    return rank * bins // max(len(confidence), 1)


def expected_calibration_error(
    confidence: ArrayLike, correct: ArrayLike, weights: ArrayLike | None = None, bins: int = 15
) -> float:
    """Average the gap between confidence and frequency over bins of equal count, weighted by count.

    Reference: Naeini et al. 2015, "Obtaining Well Calibrated Probabilities Using Bayesian Binning".
    Differs: bins of equal count, as in Nixon et al. 2019, arXiv 1904.01685; equal values are never in two bins.
    Prefer when: one number for a table is needed. It is biased upwards where bins hold few rows.

    Args:
        confidence: `(n,)` in [0, 1].
        correct: `(n,)` 0 or 1: whether what was predicted with that confidence came true.
        weights: `(n,)` at least 0, 1 each if left out. The bins are those of the unweighted values.
        bins: How many, at least 1.

    Returns:
        In [0, 1]; NaN without rows.
    """
    confidence, correct = np.asarray(confidence, np.float64), np.asarray(correct, np.float64)
    weights = np.ones_like(confidence) if weights is None else np.asarray(weights, np.float64)
    if not weights.sum() > 0:
        return float("nan")
    gaps = np.bincount(equal_mass_bins(confidence, bins), weights * (confidence - correct))
    return float(np.abs(gaps).sum() / weights.sum())


def least_calibration_error(value: float, gaps: NDArray[np.float64], level: float = 0.95) -> float:
    """The lower end of the interval of `expected_calibration_error`, which chance alone keeps above 0.

    Of the gaps' chance errors, normal and with the covariance that the jackknife gives, the sum of sizes is the most
    that chance can have added to the value: it is subtracted at its upper quantile. A calibrated model so gets 0.

    Reference: Kumar, Liang and Ma 2019, "Verified Uncertainty Calibration", arXiv 1909.10155, for the bias.
    Differs: a bound, by the triangle inequality, in place of a debiased value.
    Prefer when: an interval must hold the value itself.

    Args:
        value: The error.
        gaps: `(b, bins)`, what each bin adds to it with its sign, without each block of groups.
        level: Of the interval.

    Returns:
        At least 0.
    """
    away = gaps - gaps.mean(axis=0)
    steps = np.random.default_rng(0).standard_normal((2000, len(away))) @ away * np.sqrt((len(away) - 1) / len(away))
    most = np.quantile(np.abs(steps).sum(axis=1), (1 + level) / 2)
    return max(0.0, value - float(most))
