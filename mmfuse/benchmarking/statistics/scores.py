"""The score of one strategy over its seeds, with an interval for other test groups and other seeds."""

from __future__ import annotations

from numpy.typing import ArrayLike

from mmfuse.benchmarking.statistics.variance import Estimate, checked, in_unit, measure


def interval(values: ArrayLike, replicates: ArrayLike, num_groups: int, level: float = 0.95) -> Estimate:
    """The mean of a metric over seeds, with an interval for other seeds and other test groups.

    The truth it covers is the mean over the distribution of seeds of the metric on the population of groups. Resamples
    in which the metric is undefined for any seed are dropped and counted. With one seed the interval is from the
    bootstrap alone, and flagged.

    Reference: Obuchowski and Rockette 1995 for the variance, Banerjee 1960 for its quantiles, Field and Welsh 2007 for
    the bootstrap of groups.
    Differs: covariances are over resamples of groups; the bootstrap alone sets a least variance and a least width.
    Prefer when: all seeds share one test set. `mmfuse.metrics.labels.interval` is for one model.

    Args:
        values: `(R,)`, of each seed on all test rows; larger is better.
        replicates: `(R, B)`, of each seed on each resample of groups, the same resamples for all; NaN where undefined.
        num_groups: G, in the test set.
        level: In (0, 1).

    Raises:
        ValueError: Shapes do not match, a value is not finite, a replicate is infinite, or an option is not legal.
    """
    values, replicates = checked(values, replicates, num_groups, dimensions=1)
    return measure(values, replicates, num_groups).at(in_unit("level", level))
