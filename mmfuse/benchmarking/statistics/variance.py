"""The variance of a mean over seeds and over test groups, and the quantiles that keep its level.

A score moves for two reasons: another seed, another test set. Seeds and test groups are crossed (every seed meets every
group), so the variance of the mean over R seeds has three components:

    seeds / R  +  test groups  +  (seeds x test groups) / R

The variance that is seen between seeds, on the one test set, holds the first and the third (per seed). So does the
group-bootstrap variance of the mean hold the second and the third: their plain sum counts the third twice. Over all
resamples, the covariance of one seed's replicates with another's is the second alone. Hence

    variance = (variance between seeds) / R  +  (mean covariance of two seeds' replicates)

which is the estimator of Obuchowski and Rockette for readers (here: seeds) and cases (here: groups).

The two parts are known with R - 1 and G - 1 degrees of freedom. Each takes the t quantile of its own (Banerjee):

    half width^2 = t(R - 1)^2 seed part + t(G - 1)^2 test part

Whatever the shares of the parts, the level is then kept. With shares c1 + c2 = 1 of the variance, and F the
distribution function of chi-square with 1 degree of freedom, which is concave, coverage is
E F(c1 x1 + c2 x2) >= c1 E F(x1) + c2 E F(x2), and E F(x) is the level, for each part alone. One t quantile at
Satterthwaite's (1946) degrees of freedom is narrower, but it takes the seed variance that few seeds happened to show
for the true one. With 3 seeds that carry 90 % of the variance it covers 92 % instead of 95 %, and it fails at the small
levels of Holm's correction: 30 % of benchmarks had a false finding, not 5 % (`benchmarks/intervals.py`).

With two or three seeds t(R - 1) is huge at the small levels of Holm's correction: 11 points on 20,000 rows could not
be told from 0. So in `compare` strategies lend each other what they show of seeds. Their variances between seeds, what
is common to a seed taken out, are taken for draws of one distribution, scaled inverse chi-square with d0 degrees of
freedom around s0^2, both fitted (Smyth). A difference then has the seed variance

    (d0 2 s0^2 + (R - 1) s^2) / (d0 + R - 1)   with d0 + R - 1 degrees of freedom, at most (S - 1)(R - 1)

or s^2, if that is larger; d0 counts as 4 at most, and a difference whose s^2 is among the largest fifth that the fitted
distribution gives is on its own, and so is everything where d0 is below 1. Plain Smyth lacks these brakes, and a single
strategy that is much less stable than the others then makes false findings (`benchmarks/intervals.py`, "one"). Scores
lend nothing: what moves all strategies of a seed alike is seen R times only.

No interval is narrower, and no p-value smaller, than from the bootstrap alone: a tie of seeds by chance is no evidence.

References: Obuchowski and Rockette 1995, "Hypothesis testing of diagnostic accuracy for multiple readers and multiple
tests", Communications in Statistics B 24; Banerjee 1960, "Approximate confidence interval for linear functions of
means of k populations when the population variances are not equal", Sankhya 22; Field and Welsh 2007, "Bootstrapping
clustered data", JRSS B 69; Smyth 2004, "Linear models and empirical Bayes methods for assessing differential expression
in microarray experiments", Stat. Appl. Genet. Mol. Biol. 3 (equations of section 6.2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from scipy.optimize import root_scalar
from scipy.special import digamma, polygamma, stdtr, stdtrit

Array = NDArray[np.float64]
MOST_LENT = 4.0
"""Degrees of freedom that strategies lend a difference, at most."""


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds, or the mean of a paired difference, and how well it is known.

    Attributes:
        mean: Over seeds, on the whole test set.
        low: Lower end of the interval; NaN where the variance is not known (one group, or no defined resample).
        high: Upper end.
        standard_error: Of the mean, from both parts.
        seed_sd: Between seeds, on this test set; NaN for one seed.
        test_variance: What of the squared standard error comes from the choice of test groups: more seeds leave it.
        seeds: R.
        resamples: That were used.
        undefined_resamples: That were dropped, as the metric is undefined (NaN) in at least one seed.
        without_seed_variance: There is one seed: the interval says nothing of what another seed would give.
        seed_low: Of a score, that of the lowest seed; None of a difference.
        seed_high: That of the highest.
        note: Of a score, why it has no interval, or what must be known of the one that it has.
    """

    mean: float
    low: float
    high: float
    standard_error: float
    seed_sd: float
    test_variance: float
    seeds: int
    resamples: int
    undefined_resamples: int
    without_seed_variance: bool
    seed_low: float | None = None
    seed_high: float | None = None
    note: str = ""


class Measured(NamedTuple):
    """A mean and what is known of it, to be told at any level.

    Attributes:
        mean: Over seeds.
        parts: Of its variance.
        seed_sd: Between seeds; NaN for one.
        seeds: R.
        resamples: That were used.
        undefined_resamples: That were dropped.
    """

    mean: float
    parts: Parts
    seed_sd: float
    seeds: int
    resamples: int
    undefined_resamples: int

    def at(self, level: float) -> Estimate:
        """With the interval at this level."""
        width, parts = self.parts.half_width(1 - level), self.parts
        return Estimate(
            mean=self.mean,
            low=self.mean - width,
            high=self.mean + width,
            standard_error=math.sqrt(max(parts.bootstrap, parts.seed + parts.test)),  # max keeps a NaN that is first
            seed_sd=self.seed_sd,
            test_variance=parts.test,
            seeds=self.seeds,
            resamples=self.resamples,
            undefined_resamples=self.undefined_resamples,
            without_seed_variance=self.seeds == 1,
        )

    @property
    def p(self) -> float:
        """The level at which the interval would end at 0."""
        return self.parts.p_value(abs(self.mean))


def measure(values: Array, replicates: Array, num_groups: int, prior: Prior | None = None) -> Measured:
    """The mean of `values` `(R,)` over seeds, and the parts of its variance.

    Args:
        values: Of each seed.
        replicates: `(R, B)`, of each seed on each resample; NaN where undefined.
        num_groups: G.
        prior: Lends seed variance.
    """
    R, defined = len(values), ~np.isnan(replicates).any(axis=0)
    drawn = replicates[:, defined]
    known = num_groups > 1 and drawn.shape[1] > 1
    bootstrap = float(drawn.mean(axis=0).var(ddof=1)) if known else math.nan
    seed_variance, seed_df, test_variance = 0.0, float(R - 1), bootstrap
    if R > 1:
        seed_variance = float(values.var(ddof=1))
        if prior is not None:
            seed_variance, seed_df = prior.moderate(seed_variance, R - 1)
        if known:
            crossed = float((drawn - drawn.mean(axis=0)).var(axis=1, ddof=1).sum()) / (R - 1)
            test_variance = max(bootstrap - crossed / R, 0.0)
    return Measured(
        mean=float(values.mean()),
        parts=Parts(seed_variance / R, test_variance, bootstrap, seed_df, num_groups - 1),
        seed_sd=float(values.std(ddof=1)) if R > 1 else math.nan,
        seeds=R,
        resamples=drawn.shape[1],
        undefined_resamples=replicates.shape[1] - drawn.shape[1],
    )


class Parts(NamedTuple):
    """The parts of the variance of a mean, each with its degrees of freedom, and the least that is believed."""

    seed: float
    test: float
    bootstrap: float
    seed_df: float
    test_df: int

    def half_width(self, alpha: float) -> float:
        """Half of the interval at level 1 - alpha."""
        return math.sqrt(max(self._least(alpha), self._both(alpha)))

    def p_value(self, size: float) -> float:
        """The level whose half width is `size`."""
        if math.isnan(self.bootstrap):
            return math.nan
        variance = self.seed + self.test
        least = _two_sided(size, self.bootstrap, self.test_df)
        used = [df for part, df in ((self.seed, self.seed_df), (self.test, self.test_df)) if part > 0]
        ends = sorted(_two_sided(size, variance, df) for df in used) or [least]
        low, high = ends[0], ends[-1]  # the level lies between those of t tests at the least and the most freedom
        if low == high or high < 1e-290:  # or is beyond what quantiles are good for
            return max(least, high)
        # the ends are roots up to rounding; at level 1 the half width is 0
        bracket = math.log(max(low, 1e-300)) - 1e-6, min(math.log(high) + 1e-6, 0.0)
        found = root_scalar(lambda x: math.sqrt(self._both(math.exp(x))) - size, bracket=bracket)
        return max(least, math.exp(found.root))

    def _both(self, alpha: float) -> float:
        parts = ((self.seed, self.seed_df), (self.test, self.test_df))
        return sum(part * quantile(alpha, df) ** 2 for part, df in parts if part != 0)

    def _least(self, alpha: float) -> float:
        return self.bootstrap * quantile(alpha, self.test_df) ** 2 if self.bootstrap != 0 else 0.0


class Prior(NamedTuple):
    """What all strategies together tell of the seed variance of one difference.

    Attributes:
        variance: Of a difference of two strategies, 2 s0^2.
        freedom: d0, at most MOST_LENT; 0 lends nothing.
        most: Degrees of freedom that there are in all.
    """

    variance: float
    freedom: float
    most: int

    def moderate(self, variance: float, freedom: int) -> tuple[float, float]:
        """A difference's seed variance and its degrees of freedom, with what it is lent."""
        if not self.freedom or variance > stats.f.ppf(0.8, freedom, self.freedom) * self.variance:
            return variance, freedom
        total = self.freedom + freedom
        moderated = (self.freedom * self.variance + freedom * variance) / total
        return max(variance, moderated), min(total, max(self.most, freedom))


def fit_prior(values: Array) -> Prior:
    """Fit the distribution of the strategies' variances between seeds, `values` `(S, R)`.

    What is common to a seed is taken out by a mean in which unstable strategies weigh little: else one would be in all.
    """
    S, R = values.shape
    freedom, most = R - 1, (S - 1) * (R - 1)
    if S < 3 or R < 2:
        return Prior(0.0, 0.0, most)
    values = values[np.lexsort(values.T)]  # sums do not depend on the order of strategies
    own = (values - np.median(values, axis=0)).var(axis=1, ddof=1)
    typical = float(np.median(own))
    if typical == 0:
        return Prior(0.0, 0.0, most)
    weights = 1 / (own + typical)
    own = (values - np.average(values, axis=0, weights=weights)).var(axis=1, ddof=1) * S / (S - 1)
    logs = np.log(np.maximum(own, 1e-5 * typical)) - digamma(freedom / 2) + math.log(freedom / 2)
    spread = float(logs.var(ddof=1) - polygamma(1, freedom / 2))
    if spread <= 0:
        return Prior(2 * math.exp(logs.mean()), MOST_LENT, most)
    lent = 2 * _inverse_trigamma(spread)
    if lent < 1:  # too unlike
        return Prior(0.0, 0.0, most)
    return Prior(2 * math.exp(logs.mean() + float(digamma(lent / 2)) - math.log(lent / 2)), min(lent, MOST_LENT), most)


def _inverse_trigamma(value: float) -> float:
    """The x > 0 with trigamma(x) = `value` > 0."""
    found = root_scalar(lambda x: math.log(polygamma(1, math.exp(x)) / value), bracket=(-200.0, 200.0))
    return math.exp(found.root)


def _two_sided(size: float, variance: float, df: float) -> float:
    """The p-value of a t test; without any variance 1 for no difference, and else 0."""
    if variance == 0:
        return float(size == 0)
    return 2 * float(stdtr(df, -size / math.sqrt(variance)))


def quantile(alpha: float, df: float) -> float:
    """The two-sided t quantile at level 1 - alpha, from the lower tail, where small levels keep their digits."""
    return -float(stdtrit(df, alpha / 2))


def checked(
    values: ArrayLike, replicates: ArrayLike, num_groups: int, dimensions: int, names: Sequence[str] | None = None
) -> tuple[Array, Array]:
    """Values and replicates as arrays, of one strategy (`dimensions` 1) or of several (2).

    Raises:
        ValueError: Shapes do not match, a value is not finite, or a replicate is infinite.
    """
    values, replicates = np.asarray(values, np.float64), np.asarray(replicates, np.float64)
    axes = ("S", "R")[-dimensions:]
    wanted = f"values ({', '.join(axes)}) and replicates ({', '.join(axes)}, B)"
    if values.ndim != dimensions or replicates.shape[:-1] != values.shape or replicates.ndim != dimensions + 1:
        raise ValueError(f"values are {values.shape}, replicates {replicates.shape}; they must be {wanted}")
    if 0 in values.shape:
        raise ValueError(f"values are {values.shape}: there must be at least one seed; wanted {wanted}")
    if names is not None and len(names) != len(values):
        raise ValueError(f"there are {len(names)} names for {len(values)} strategies")
    check_groups(num_groups)
    if not np.isfinite(values).all():
        where = np.argwhere(~np.isfinite(values))[0].tolist()
        whose = f"seed {where[-1]}" + (f" of {names[where[0]]!r}" if names is not None else "")
        raise ValueError(f"the value of {whose} is {values[tuple(where)]}; a score must be finite, leave it out")
    if np.isinf(replicates).any():
        raise ValueError("a replicate is infinite; replicates must be finite, or NaN where undefined")
    return values, replicates


def check_groups(num_groups: int) -> None:
    """Refuse a number of groups below 1."""
    if num_groups < 1:
        raise ValueError(f"num_groups is {num_groups}; it must be at least 1")


def in_unit(name: str, value: float) -> float:
    """`value`, which must lie between 0 and 1."""
    if not 0 < value < 1:
        raise ValueError(f"{name} is {value}; it must lie between 0 and 1")
    return value
