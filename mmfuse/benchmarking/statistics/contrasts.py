"""The paired difference of two strategies."""

from __future__ import annotations

from dataclasses import dataclass

from numpy.typing import ArrayLike

from mmfuse.benchmarking.statistics.variance import Estimate, checked, in_unit, measure


@dataclass(frozen=True)
class Contrast:
    """The paired difference of two strategies, `difference`, and the two-sided `p` of there being none in truth."""

    difference: Estimate
    p: float


def paired_contrast(
    a: tuple[ArrayLike, ArrayLike], b: tuple[ArrayLike, ArrayLike], num_groups: int, level: float = 0.95
) -> Contrast:
    """The difference a - b of two strategies: `interval` on differences, by seed and by resample, and its p-value.

    `p` is the level at which the interval would end at 0. It is 1 if there is no difference at all, and 0 if there is
    one that no seed and no resample changes.

    Reference: as `interval`.
    Differs: as `interval`.
    Prefer when: both have the same seeds. `mmfuse.metrics.labels.paired_difference` is for two single models.

    Args:
        a: Values `(R,)` and replicates `(R, B)` of one strategy.
        b: Those of the other, with the same seeds in the same order, from the same resamples.
        num_groups: G, in the test set.
        level: In (0, 1).

    Raises:
        ValueError: As `interval`, or a and b do not have the same shapes.
    """
    (values_a, replicates_a), (values_b, replicates_b) = (checked(*x, num_groups, dimensions=1) for x in (a, b))
    if replicates_a.shape != replicates_b.shape:
        raise ValueError(
            f"replicates {replicates_a.shape} and {replicates_b.shape} must be alike: same seeds, same resamples"
        )
    found = measure(values_a - values_b, replicates_a - replicates_b, num_groups)
    return Contrast(found.at(in_unit("level", level)), found.p)
