"""The score of one strategy over the seeds that were run, with an interval for other test groups."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from mmfuse.benchmarking.statistics.variance import Estimate
from mmfuse.metrics.intervals import ANYWHERE, Basis, Bounds, score_of


def strategy_score(values: ArrayLike, left_out: ArrayLike, basis: Basis, bounds: Bounds = ANYWHERE) -> Estimate:
    """The mean of a metric over seeds, with a 95 % interval for other test groups of the same kind.

    The truth it covers is the mean, over the seeds that were run, of each model's score on the population of groups.
    How much seeds differ is told beside it, by their range: a few of them do not say what others would give.

    Reference: `mmfuse.metrics.intervals`.
    Differs: nothing.
    Prefer when: a score is shown; a difference of two strategies is for other seeds too (`paired_contrast`).

    Args:
        values: `(R,)`, of each seed on all test rows.
        left_out: `(R, b)`, of each seed without each block of test groups; NaN where undefined.
        basis: Of the test groups in this metric.
        bounds: Its lowest and highest value.

    Raises:
        ValueError: Shapes do not match, or a value is not finite.
    """
    values, left_out = np.asarray(values, np.float64), np.asarray(left_out, np.float64)
    if values.ndim != 1 or not len(values) or left_out.shape[:-1] != values.shape or left_out.ndim != 2:
        raise ValueError(f"values are {values.shape}, without groups {left_out.shape}; wanted (R,) and (R, b)")
    if not np.isfinite(values).all():
        raise ValueError(f"values are {values}; a score must be finite")
    undefined = np.isnan(left_out)
    mean, seeds, b = float(values.mean()), len(values), left_out.shape[1]
    without = np.where(undefined, values[:, None], left_out).mean(axis=0)
    score = score_of(mean, without, basis, bounds)
    variance = float(without.var() * (b - 1)) if b > 1 else math.nan
    low, high = (math.nan if end is None else end for end in (score["low"], score["high"]))
    return Estimate(
        mean=mean,
        low=low,
        high=high,
        standard_error=math.sqrt(variance),
        seed_sd=float(values.std(ddof=1)) if seeds > 1 else math.nan,
        test_variance=variance,
        seeds=seeds,
        resamples=b,
        undefined_resamples=int(undefined.any(axis=0).sum()),
        without_seed_variance=seeds == 1,
        seed_low=float(values.min()),
        seed_high=float(values.max()),
        note=score.get("note", ""),
    )
