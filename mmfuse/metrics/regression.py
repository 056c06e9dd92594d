"""Scores of predicted numbers, with intervals that respect groups, and intervals that cover the truth.

Point values are scikit-learn's and scipy's. Replicates are our own code, tested against theirs on repeated rows: a
resample of groups is one multiplicity for each group, so every metric is a weighted one, and no row is ever copied.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array
from scipy.stats import spearmanr
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

from mmfuse.metrics.basis import basis_of_rows, score_of_mean
from mmfuse.metrics.bootstrap import GroupBootstrap, GroupJackknife
from mmfuse.metrics.intervals import score_of
from mmfuse.metrics.results import Score
from mmfuse.types import MmfuseError

REGRESSION_METRICS = ("r2", "rmse", "mae", "spearman")
LOG_METRICS = ("r2_log", "rmse_log")
"""Those of the logarithms, where errors are factors: a few large targets do not decide alone."""
_ERROR, _FIT = (0.0, math.inf), (-math.inf, 1.0)
RANGES = {"r2": _FIT, "r2_log": _FIT, "rmse": _ERROR, "rmse_log": _ERROR, "mae": _ERROR, "spearman": (-1.0, 1.0)}
"""The lowest and highest value of each."""
NO_SPREAD = 1e-12
"""Targets whose variance is below this share of their mean square about the common mean are constant."""

Array = NDArray[np.float64]


class RegressionScores(TypedDict):
    """What `score_regression` gives.

    Attributes:
        n: Rows with a target.
        groups: Groups that they are of.
        metrics: By name of `REGRESSION_METRICS`, and of `LOG_METRICS` where asked for; `rmse` and `mae` in the target's
            unit, `rmse_log` in powers of e.
    """

    n: int
    groups: int
    metrics: dict[str, Score]


def score_regression(
    predicted: ArrayLike,
    target: ArrayLike,
    groups: Sequence[str],
    resamples: int = 1000,
    seed: int = 0,
    log: bool = False,
) -> RegressionScores:
    """Score predicted numbers, with 95 % intervals.

    `r2` is 1 - (mean squared error / variance of these rows' targets): 0 for whoever always says their mean, negative
    for whoever does worse. It is undefined where all targets are equal, `spearman` also where all predictions are.

    Reference: scikit-learn (`r2`, `rmse`, `mae`) and scipy (`spearman`, ties by their mean rank) for values;
    `mmfuse.metrics.intervals` for intervals.
    Differs: undefined is None, where scikit-learn says 0 or 1.
    Prefer when: the target is a quantity; of few values without order, or where only a threshold matters, classify.

    Args:
        predicted: `(N,)` finite, in the target's unit.
        target: `(N,)`, NaN where missing.
        groups: `(N,)`; rows of one group are no independent ones.
        resamples: 0 for no intervals.
        seed: Of the lot by which groups are left out together, where there are many.
        log: Whether the `LOG_METRICS` are wanted too; all numbers are above 0.

    Raises:
        ValueError: Shapes do not match, or a number is not finite.
        MmfuseError: No row has a target.
    """
    predicted, target = _check(predicted, target)
    row_groups = np.asarray(groups, dtype=str)
    if row_groups.shape != target.shape:
        raise ValueError(f"groups are {row_groups.shape}; they must be {target.shape}, one a row")
    there = ~np.isnan(target)
    if not there.any():
        raise MmfuseError(f"nothing to score: none of the {len(target)} rows has a target")
    predicted, target = predicted[there], target[there]
    jackknife = GroupJackknife(row_groups[there], resamples, seed)
    left_out, basis = regression_replicates(predicted, target, jackknife, log), basis_of_rows(jackknife)
    metrics = {
        name: score_of(value, left_out[name], basis, RANGES[name])
        for name, value in regression_values(predicted, target, log).items()
    }
    return {"n": len(target), "groups": jackknife.num_groups, "metrics": metrics}


class IntervalScores(TypedDict):
    """What `interval_scores` gives.

    Attributes:
        coverage: The share of targets that lie in their intervals.
        width: The median width of the intervals, in the target's unit.
    """

    coverage: Score
    width: float


def interval_scores(
    low: ArrayLike, high: ArrayLike, target: ArrayLike, groups: Sequence[str], resamples: int = 1000, seed: int = 0
) -> IntervalScores:
    """How often intervals `low (N,)` to `high (N,)`, ends included, hold the targets; see `score_regression`.

    Raises:
        MmfuseError: No row has a target.
    """
    target = np.asarray(target, np.float64)
    there = ~np.isnan(target)
    if not there.any():
        raise MmfuseError(f"nothing to score: none of the {len(target)} rows has a target")
    low, high = (np.asarray(end, np.float64)[there] for end in (low, high))
    inside = ((low <= target[there]) & (target[there] <= high)).astype(np.float64)
    coverage = score_of_mean(inside, GroupJackknife(np.asarray(groups, dtype=str)[there], resamples, seed), (0.0, 1.0))
    return {"coverage": coverage, "width": float(np.median(high - low))}


def regression_values(predicted: ArrayLike, target: ArrayLike, log: bool = False) -> dict[str, float]:
    """The point values of `score_regression` by name, NaN where undefined; also where no row has a target."""
    predicted, target = _check(predicted, target)
    there = ~np.isnan(target)
    if not there.any():
        return dict.fromkeys((*REGRESSION_METRICS, *(LOG_METRICS if log else ())), math.nan)
    found = _values(predicted[there], target[there])
    return found | (_of_logs(_values(np.log(predicted[there]), np.log(target[there]))) if log else {})


def regression_replicates(
    predicted: ArrayLike, target: ArrayLike, bootstrap: GroupBootstrap, log: bool = False
) -> dict[str, Array]:
    """Every metric of `score_regression` under each resample.

    Call it for two models with one bootstrap (of the groups of all N rows), and their differences are paired.

    Returns:
        `(B,)` for each metric; NaN where a replicate leaves it undefined.
    """
    predicted, target = _check(predicted, target)
    if log:
        of_logs = regression_replicates(np.log(predicted), np.log(target), bootstrap)
        return regression_replicates(predicted, target, bootstrap) | _of_logs(of_logs)
    if len(bootstrap.row_group) != len(target):
        raise ValueError(f"the bootstrap has groups for {len(bootstrap.row_group)} rows; there are {len(target)} rows")
    rows = np.flatnonzero(~np.isnan(target))
    said, true = predicted[rows], target[rows]
    error, away = said - true, true - (true.mean() if len(rows) else 0.0)  # centred: squares of large numbers cancel
    terms = [1.0, np.abs(error), error**2, away, away**2]
    sums = [bootstrap.sums(rows, 0, 1, term) for term in terms]
    ranks = _Ranks.of(said, true, bootstrap.row_group[rows])

    def metrics(times: Array) -> dict[str, Array]:
        def total(sum: csr_array) -> Array:
            return (sum @ times.T)[0]

        count, absolute, squared, first, second = map(total, sums)
        spread = second - _ratio(first**2, count)
        return {
            "r2": 1 - _ratio(squared, spread, spread > NO_SPREAD * second),
            "rmse": np.sqrt(_ratio(squared, count)),
            "mae": _ratio(absolute, count),
            "spearman": ranks.correlation(times),
        }

    return bootstrap.replicate(metrics)


class _Ranks(NamedTuple):
    """Rows in the order of their predictions and of their targets, cut where blocks of equal values begin and end.

    Of the n rows `groups (n,)`; of predictions and of targets `order (n,)` and by row the `edges (2, n)` of its block
    in that order.
    """

    groups: NDArray[np.int64]
    orders: tuple[NDArray[np.int64], NDArray[np.int64]]
    edges: tuple[NDArray[np.int64], NDArray[np.int64]]

    @classmethod
    def of(cls, said: Array, true: Array, groups: NDArray[np.int64]) -> _Ranks:
        sorted_said, sorted_true = _order(said), _order(true)
        return cls(groups, (sorted_said[0], sorted_true[0]), (sorted_said[1], sorted_true[1]))

    def correlation(self, times: Array) -> Array:
        """Spearman's correlation under multiplicities `(b, G)`, `(b,)`: Pearson's of the mean ranks."""
        weights = times.take(self.groups, axis=1)
        middle = (weights.sum(axis=1, keepdims=True) + 1) / 2
        said, true = (self._ranks(weights, i) - middle for i in range(2))
        both, own, other = ((weights * a * b).sum(axis=1) for a, b in ((said, true), (said, said), (true, true)))
        return _ratio(both, np.sqrt(own * other))

    def _ranks(self, weights: Array, which: int) -> Array:
        """The mean rank `(b, n)` of each row among the repeated rows."""
        before = np.zeros((len(weights), weights.shape[1] + 1))
        np.cumsum(weights.take(self.orders[which], axis=1), axis=1, out=before[:, 1:])
        start, stop = self.edges[which]
        return (before.take(start, axis=1) + before.take(stop, axis=1) + 1) / 2


def _order(values: Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    order = np.argsort(values, kind="stable")
    starts = np.concatenate([[0], np.flatnonzero(np.diff(values[order])) + 1]) if len(values) else np.zeros(0, int)
    stops = np.append(starts[1:], len(values))
    edges = np.empty((2, len(values)), dtype=np.int64)
    edges[:, order] = np.repeat(np.stack([starts, stops[: len(starts)]]), stops[: len(starts)] - starts, axis=1)
    return order, edges


def conformal_radius(errors: ArrayLike, coverage: float = 0.9) -> float | None:
    """How far a prediction must reach to either side to cover a new row's truth so often.

    The ceil((n + 1) coverage)-th smallest of n absolute errors of rows that the model was not fitted on. An interval of
    that reach covers a new row, drawn as those n were, with a probability in [coverage, coverage + 1 / (n + 1)].

    Reference: Vovk, Gammerman and Shafer 2005, "Algorithmic Learning in a Random World"; split conformal as in Lei et
    al. 2018, "Distribution-free predictive inference for regression", arXiv 1604.04173.
    Differs: nothing.
    Prefer when: a range is asked for; it holds on average over rows, not for each kind of row.

    Args:
        errors: `(n,)`, of rows that are exchangeable with a new one: of several rows of one group only one.
        coverage: In (0, 1).

    Returns:
        At least 0; None where n is too small for any finite reach (at 90 % below 9).

    Raises:
        ValueError: The coverage is out of range, or an error is not a number.
    """
    found = np.sort(np.abs(np.asarray(errors, np.float64)))
    if not 0 < coverage < 1:
        raise ValueError(f"coverage is {coverage}; it must lie between 0 and 1")
    if found.ndim != 1 or np.isnan(found).any():
        raise ValueError("errors must be numbers, (n,)")
    place = math.ceil((len(found) + 1) * coverage - 1e-9)  # 0.9 * 10 is 9, whatever its last bit
    return float(found[place - 1]) if place <= len(found) else None


def _of_logs(found: dict[str, Any]) -> dict[str, Any]:
    return {name: found[name.removesuffix("_log")] for name in LOG_METRICS}


def _values(predicted: Array, target: Array) -> dict[str, float]:
    """The point values of rows that all have a target, at least one."""
    constant = target.max() == target.min()
    ranked = not constant and predicted.max() > predicted.min()
    return {
        "r2": math.nan if constant else float(r2_score(target, predicted)),
        "rmse": math.sqrt(mean_squared_error(target, predicted)),
        "mae": float(mean_absolute_error(target, predicted)),
        "spearman": float(spearmanr(predicted, target).statistic) if ranked else math.nan,  # pyright: ignore[reportAttributeAccessIssue]
    }


def _ratio(above: Array, below: Array, where: NDArray[np.bool_] | None = None) -> Array:
    where = below > 0 if where is None else where
    return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=where)


def _check(predicted: ArrayLike, target: ArrayLike) -> tuple[Array, Array]:
    predicted, target = np.asarray(predicted, np.float64), np.asarray(target, np.float64)
    if target.ndim != 1 or predicted.shape != target.shape:
        raise ValueError(f"predictions are {predicted.shape} and targets {target.shape}; both must be (N,)")
    for name, wrong in (("prediction", ~np.isfinite(predicted)), ("target", np.isinf(target))):
        if wrong.any():
            raise ValueError(f"the {name} of row {int(wrong.argmax())} is not finite")
    return predicted, target
