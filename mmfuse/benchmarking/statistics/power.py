"""How many seeds the next run needs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from mmfuse.benchmarking.statistics.variance import check_groups, in_unit, quantile

MAX_SEEDS = 10_000  # more than this is "no number of seeds" to anyone


@dataclass(frozen=True)
class SeedsNeeded:
    """How many `seeds` tell `strategy` from `reference`; None where no number does, and `reason` says why."""

    strategy: str
    reference: str
    seeds: int | None
    reason: str


def seeds_needed(
    difference: float,
    seed_sd: float,
    test_variance: float,
    num_groups: int,
    alpha: float = 0.05,
    power: float = 0.8,
    lent: float = 0.0,
) -> tuple[int | None, str]:
    """How many seeds the test of `paired_contrast` needs to see a difference of this size.

    It takes what was observed for the truth. The difference of the best strategy is likely too large, as it was chosen
    for it, so read the answer as "at least".

    Reference: none; the power of Banerjee's test, integrated over the seed variance that will be seen.
    Differs: nothing.
    Prefer when: planning the next run, not judging this one.

    Args:
        difference: Of the two strategies.
        seed_sd: Of the paired difference; NaN if not known (one seed).
        test_variance: Of the difference, what more seeds cannot shrink: `Estimate.test_variance`.
        num_groups: G, in the test set.
        alpha: Two-sided level.
        power: To be reached.
        lent: Degrees of freedom of the seed variance beside R - 1, from other strategies.

    Returns:
        Their number, at least 2, and ""; or None and the reason why none is enough.

    Raises:
        ValueError: An option is not legal, or a spread is negative.
    """
    check_groups(num_groups)
    alpha, power, size = in_unit("alpha", alpha), in_unit("power", power), abs(difference)
    if seed_sd < 0 or test_variance < 0:
        raise ValueError(f"seed_sd {seed_sd} and test_variance {test_variance} must be at least 0")
    if math.isnan(seed_sd):
        return None, "one seed does not show how much seeds differ: run at least two"
    if math.isnan(size) or math.isnan(test_variance) or num_groups == 1:
        return None, "the variance over test groups is not known"
    if size == 0:
        return None, "no difference was observed"
    error = math.sqrt(test_variance)
    floor = (quantile(alpha, num_groups - 1) + float(stats.norm.ppf(power))) * error if error else 0.0
    if size < floor:
        return None, (
            f"the {num_groups} test groups alone leave a standard error of {error:.2g}, however many seeds are run: "
            f"with {power:.0%} power they show differences from {floor:.2g}, and this one is {size:.2g}"
        )

    def enough(seeds: int) -> bool:
        return _power(seeds, size, seed_sd, test_variance, num_groups, alpha, lent) >= power

    few, many = 1, 2
    while not enough(many):
        few, many = many, many * 2
        if many > MAX_SEEDS:
            return None, f"more than {MAX_SEEDS} seeds: a difference of {size:.2g} is too small for seeds so different"
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if enough(middle) else (middle, many)
    return many, ""


def _power(
    seeds: int, size: float, seed_sd: float, test_variance: float, num_groups: int, alpha: float, lent: float
) -> float:
    """How often Banerjee's test sees a difference of `size`, over the seed variances that may be seen."""
    part, freedom = seed_sd**2 / seeds, seeds - 1 + lent
    ratio = stats.chi2.ppf((np.arange(1000) + 0.5) / 1000, freedom) / freedom
    width = np.sqrt(
        quantile(alpha, freedom) ** 2 * part * ratio
        + (quantile(alpha, num_groups - 1) ** 2 * test_variance if test_variance else 0)
    )
    error = math.sqrt(part + test_variance)
    if error == 0:
        return 1.0
    return float((stats.norm.cdf((size - width) / error) + stats.norm.cdf((-size - width) / error)).mean())
