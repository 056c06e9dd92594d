"""What may be said of strategies that were trained with several seeds and tested on one shared test set.

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
clustered data", JRSS B 69; Holm 1979, "A simple sequentially rejective multiple test procedure", Scand. J. Statist. 6;
Piepho 2004, "An algorithm for a letter-based representation of all-pairwise comparisons", J. Comput. Graph. Stat. 13;
Smyth 2004, "Linear models and empirical Bayes methods for assessing differential expression in microarray experiments",
Stat. Appl. Genet. Mol. Biol. 3 (equations of section 6.2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from string import ascii_letters
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from scipy.optimize import root_scalar
from scipy.special import digamma, polygamma, stdtr, stdtrit

Array = NDArray[np.float64]
MAX_SEEDS = 10_000  # more than this is "no number of seeds" to anyone
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


@dataclass(frozen=True)
class Contrast:
    """The paired difference of two strategies, `difference`, and the two-sided `p` of there being none in truth."""

    difference: Estimate
    p: float


@dataclass(frozen=True)
class NamedContrast:
    """The `difference` of `strategy` less `reference`, its `p`, and `p_holm`, corrected over its family."""

    strategy: str
    reference: str
    difference: Estimate
    p: float
    p_holm: float


@dataclass(frozen=True)
class Placed:
    """A strategy's place: `rank` (1 is best, equal means share one), `score`, and `letters`.

    Two strategies that share a letter could not be told apart.
    """

    name: str
    rank: int
    letters: str
    score: Estimate


@dataclass(frozen=True)
class SeedsNeeded:
    """How many `seeds` tell `strategy` from `reference`; None where no number does, and `reason` says why."""

    strategy: str
    reference: str
    seeds: int | None
    reason: str


@dataclass(frozen=True)
class Comparison:
    """What `compare` finds.

    Attributes:
        strategies: Best mean first.
        contrasts: Each strategy against each reference; `p_holm` over all of them.
        pairs: Each two strategies, the better one first; `p_holm` over all of them. The letters come from these.
        groups: The names that share a letter, of the first letter first.
        seeds_needed: The best strategy that is no reference, against each reference.
        alpha: The family-wise level; intervals are at 1 - alpha, each for itself.
        undefined_resamples: In which some strategy and seed has no score; each estimate counts its own.
    """

    strategies: tuple[Placed, ...]
    contrasts: tuple[NamedContrast, ...]
    pairs: tuple[NamedContrast, ...]
    groups: tuple[tuple[str, ...], ...]
    seeds_needed: tuple[SeedsNeeded, ...]
    alpha: float
    undefined_resamples: int


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
    values, replicates = _checked(values, replicates, num_groups, dimensions=1)
    return _estimate(values, replicates, num_groups, _in_unit("level", level))[0]


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
    (values_a, replicates_a), (values_b, replicates_b) = (_checked(*x, num_groups, dimensions=1) for x in (a, b))
    if replicates_a.shape != replicates_b.shape:
        raise ValueError(
            f"replicates {replicates_a.shape} and {replicates_b.shape} must be alike: same seeds, same resamples"
        )
    return _contrast(values_a - values_b, replicates_a - replicates_b, num_groups, _in_unit("level", level))


def holm(p_values: ArrayLike) -> Array:
    """Adjust p-values so that rejecting those up to alpha is wrong anywhere in the family with probability alpha.

    Reference: Holm 1979.
    Differs: nothing. NaN stays NaN, and counts as a member of the family that is never rejected.
    Prefer when: a family of contrasts is named before the results are seen, whatever their dependence.

    Args:
        p_values: `(m,)` in [0, 1] or NaN.

    Returns:
        `(m,)`, in the order given.

    Raises:
        ValueError: Not one axis, or a value outside [0, 1].
    """
    p_values = np.asarray(p_values, np.float64)
    if p_values.ndim != 1:
        raise ValueError(f"p-values are {p_values.shape}; they must be (m,)")
    if ((p_values < 0) | (p_values > 1)).any():
        raise ValueError("a p-value is outside [0, 1]")
    order = np.argsort(p_values)  # NaN last
    m = len(p_values)
    adjusted = np.empty(m)
    adjusted[order] = np.minimum(np.maximum.accumulate(p_values[order] * np.arange(m, 0, -1)), 1)
    return adjusted


def letter_groups(different: ArrayLike) -> list[list[int]]:
    """The largest sets without two members that differ: one letter each, in a compact letter display.

    Any two that differ share no set, any two that do not share at least one.

    Reference: Piepho 2004, insert and absorb.
    Differs: letters are not swept: redundant ones stay, so that a letter always stands for a whole set.
    Prefer when: all pairs were compared; for contrasts to one reference read these.

    Args:
        different: `(S, S)` bool, symmetric; members are in the order in which letters are to be given.

    Raises:
        ValueError: Not square or not symmetric, or a member differs from itself.
    """
    different = np.asarray(different, bool)
    if different.ndim != 2 or different.shape[0] != different.shape[1]:
        raise ValueError(f"`different` is {different.shape}; it must be (S, S)")
    if (different != different.T).any() or different.diagonal().any():
        raise ValueError("`different` must be symmetric, with a False diagonal")
    columns = [frozenset(range(len(different)))]
    for i, j in np.argwhere(np.triu(different)).tolist():
        together = [column for column in columns if {i, j} <= column]
        inserted = {column for column in columns if not {i, j} <= column}
        inserted.update(column - {member} for column in together for member in (i, j))
        columns = [column for column in inserted if not any(column < other for other in inserted)]
    return sorted(sorted(column) for column in columns)


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
    _check_groups(num_groups)
    alpha, power, size = _in_unit("alpha", alpha), _in_unit("power", power), abs(difference)
    if seed_sd < 0 or test_variance < 0:
        raise ValueError(f"seed_sd {seed_sd} and test_variance {test_variance} must be at least 0")
    if math.isnan(seed_sd):
        return None, "one seed does not show how much seeds differ: run at least two"
    if math.isnan(size) or math.isnan(test_variance) or num_groups == 1:
        return None, "the variance over test groups is not known"
    if size == 0:
        return None, "no difference was observed"
    error = math.sqrt(test_variance)
    floor = (_quantile(alpha, num_groups - 1) + float(stats.norm.ppf(power))) * error if error else 0.0
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


def compare(
    values: ArrayLike,
    replicates: ArrayLike,
    names: Sequence[str],
    references: Sequence[str],
    num_groups: int,
    alpha: float = 0.05,
) -> Comparison:
    """Rank strategies, compare each with the references and each with each, and say what would tell more apart.

    Two families are corrected by Holm, each over all of its members: the contrasts to all references together, and all
    pairs, from which the letters come. Intervals are for one estimate each, not corrected. Where two cannot be told
    apart that is all that is said: it does not make them equal. `seeds_needed` is at the level that holds whatever the
    other contrasts give: alpha over the number of contrasts, with 80 % power. Differences borrow seed variance from all
    strategies, so their intervals and p-values are not those of `paired_contrast`.

    Reference: Smyth 2004 for what is borrowed; `interval`, `holm`, `letter_groups`, `seeds_needed` have theirs.
    Differs: it is held back where strategies are unlike (see the head of this file).
    Prefer when: strategies have the same seeds and the same resamples of one test set. Choose a reference by its
    validation scores: one chosen on this test set is too good.

    Args:
        values: `(S, R)`, of each strategy and seed on all test rows; larger is better.
        replicates: `(S, R, B)`, on each resample of groups, one resample for all; NaN where undefined.
        names: S unique names.
        references: Some of them.
        num_groups: G, in the test set.
        alpha: Family-wise level, in (0, 1).

    Raises:
        ValueError: Shapes do not match, a value is not finite, a replicate is infinite, or a name is not legal.
    """
    values, replicates = _checked(values, replicates, num_groups, dimensions=2, names=names)
    level = 1 - _in_unit("alpha", alpha)
    names, references = list(names), list(references)
    _check_names(names, references)

    scores = [_estimate(v, r, num_groups, level)[0] for v, r in zip(values, replicates, strict=True)]
    means = np.array([score.mean for score in scores])
    order = sorted(range(len(names)), key=lambda i: (-means[i], names[i]))  # ties: not by the config's order
    place = {s: i for i, s in enumerate(order)}

    prior = _fit_prior(values)

    def contrast(a: int, b: int) -> Contrast:
        return _contrast(values[a] - values[b], replicates[a] - replicates[b], num_groups, level, prior)

    def family(members: list[tuple[int, int]]) -> tuple[NamedContrast, ...]:
        found = [contrast(a, b) for a, b in members]
        adjusted = holm([one.p for one in found])
        return tuple(
            NamedContrast(names[a], names[b], one.difference, one.p, float(p))
            for (a, b), one, p in zip(members, found, adjusted, strict=True)
        )

    chosen = [names.index(reference) for reference in references]
    contrasts = family(
        [(s, r) for i, r in enumerate(chosen) for s in order if s != r and s not in chosen[:i]]  # r1 - r2, not r2 - r1
    )
    pairs = family(list(combinations(order, 2)))
    different = np.zeros((len(names), len(names)), bool)
    for a, b, pair in zip(*np.triu_indices(len(names), 1), pairs, strict=True):
        different[a, b] = different[b, a] = pair.p_holm <= alpha
    sets = letter_groups(different)
    letters = ["".join(_letter(i) for i, members in enumerate(sets) if place[s] in members) for s in range(len(names))]

    others = [s for s in order if s not in chosen]
    return Comparison(
        strategies=tuple(Placed(names[s], 1 + int((means > means[s]).sum()), letters[s], scores[s]) for s in order),
        contrasts=contrasts,
        pairs=pairs,
        groups=tuple(tuple(names[order[member]] for member in members) for members in sets),
        seeds_needed=tuple(
            _seeds_needed(one, num_groups, alpha / len(contrasts), prior)
            for one in contrasts
            if others and one.strategy == names[others[0]]
        ),
        alpha=alpha,
        undefined_resamples=int(np.isnan(replicates).any(axis=(0, 1)).sum()),
    )


def _check_names(names: list[str], references: list[str]) -> None:
    if len(set(names)) != len(names):
        raise ValueError(f"names are not unique: {names}")
    unknown = [reference for reference in references if reference not in names]
    if unknown or len(set(references)) != len(references):
        raise ValueError(f"references {references} must be some of {names}, each once")


def _seeds_needed(contrast: NamedContrast, num_groups: int, alpha: float, prior: _Prior) -> SeedsNeeded:
    estimate = contrast.difference
    seed_part = max(estimate.standard_error**2 - estimate.test_variance, 0) * estimate.seeds
    seed_sd = math.nan if estimate.without_seed_variance else math.sqrt(seed_part)
    own = contrast.difference.seed_sd**2
    lent = 0.0 if estimate.without_seed_variance else prior.moderate(own, estimate.seeds - 1)[1] - (estimate.seeds - 1)
    found = seeds_needed(estimate.mean, seed_sd, estimate.test_variance, num_groups, alpha, lent=lent)
    return SeedsNeeded(contrast.strategy, contrast.reference, *found)


class _Prior(NamedTuple):
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


def _fit_prior(values: Array) -> _Prior:
    """Fit the distribution of the strategies' variances between seeds, `values` `(S, R)`.

    What is common to a seed is taken out by a mean in which unstable strategies weigh little: else one would be in all.
    """
    S, R = values.shape
    freedom, most = R - 1, (S - 1) * (R - 1)
    if S < 3 or R < 2:
        return _Prior(0.0, 0.0, most)
    values = values[np.lexsort(values.T)]  # sums do not depend on the order of strategies
    own = (values - np.median(values, axis=0)).var(axis=1, ddof=1)
    typical = float(np.median(own))
    if typical == 0:
        return _Prior(0.0, 0.0, most)
    weights = 1 / (own + typical)
    own = (values - np.average(values, axis=0, weights=weights)).var(axis=1, ddof=1) * S / (S - 1)
    logs = np.log(np.maximum(own, 1e-5 * typical)) - digamma(freedom / 2) + math.log(freedom / 2)
    spread = float(logs.var(ddof=1) - polygamma(1, freedom / 2))
    if spread <= 0:
        return _Prior(2 * math.exp(logs.mean()), MOST_LENT, most)
    lent = 2 * _inverse_trigamma(spread)
    if lent < 1:  # too unlike
        return _Prior(0.0, 0.0, most)
    return _Prior(2 * math.exp(logs.mean() + float(digamma(lent / 2)) - math.log(lent / 2)), min(lent, MOST_LENT), most)


def _inverse_trigamma(value: float) -> float:
    """The x > 0 with trigamma(x) = `value` > 0."""
    found = root_scalar(lambda x: math.log(polygamma(1, math.exp(x)) / value), bracket=(-200.0, 200.0))
    return math.exp(found.root)


class _Parts(NamedTuple):
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
        return sum(part * _quantile(alpha, df) ** 2 for part, df in parts if part != 0)

    def _least(self, alpha: float) -> float:
        return self.bootstrap * _quantile(alpha, self.test_df) ** 2 if self.bootstrap != 0 else 0.0


def _estimate(
    values: Array, replicates: Array, num_groups: int, level: float, prior: _Prior | None = None
) -> tuple[Estimate, _Parts]:
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
    parts = _Parts(seed_variance / R, test_variance, bootstrap, seed_df, num_groups - 1)
    mean, width = float(values.mean()), parts.half_width(1 - level)
    estimate = Estimate(
        mean=mean,
        low=mean - width,
        high=mean + width,
        standard_error=math.sqrt(max(bootstrap, seed_variance / R + test_variance)),  # max keeps a NaN that is first
        seed_sd=float(values.std(ddof=1)) if R > 1 else math.nan,
        test_variance=test_variance,
        seeds=R,
        resamples=drawn.shape[1],
        undefined_resamples=replicates.shape[1] - drawn.shape[1],
        without_seed_variance=R == 1,
    )
    return estimate, parts


def _contrast(values: Array, replicates: Array, num_groups: int, level: float, prior: _Prior | None = None) -> Contrast:
    estimate, parts = _estimate(values, replicates, num_groups, level, prior)
    return Contrast(estimate, parts.p_value(abs(estimate.mean)))


def _power(
    seeds: int, size: float, seed_sd: float, test_variance: float, num_groups: int, alpha: float, lent: float
) -> float:
    """How often Banerjee's test sees a difference of `size`, over the seed variances that may be seen."""
    part, freedom = seed_sd**2 / seeds, seeds - 1 + lent
    ratio = stats.chi2.ppf((np.arange(1000) + 0.5) / 1000, freedom) / freedom
    width = np.sqrt(
        _quantile(alpha, freedom) ** 2 * part * ratio
        + (_quantile(alpha, num_groups - 1) ** 2 * test_variance if test_variance else 0)
    )
    error = math.sqrt(part + test_variance)
    if error == 0:
        return 1.0
    return float((stats.norm.cdf((size - width) / error) + stats.norm.cdf((-size - width) / error)).mean())


def _two_sided(size: float, variance: float, df: float) -> float:
    """The p-value of a t test; without any variance 1 for no difference, and else 0."""
    if variance == 0:
        return float(size == 0)
    return 2 * float(stdtr(df, -size / math.sqrt(variance)))


def _quantile(alpha: float, df: float) -> float:
    """The two-sided t quantile at level 1 - alpha, from the lower tail, where small levels keep their digits."""
    return -float(stdtrit(df, alpha / 2))


def _letter(i: int) -> str:
    return ascii_letters[i] if i < len(ascii_letters) else f"({i + 1})"


def _checked(
    values: ArrayLike, replicates: ArrayLike, num_groups: int, dimensions: int, names: Sequence[str] | None = None
) -> tuple[Array, Array]:
    values, replicates = np.asarray(values, np.float64), np.asarray(replicates, np.float64)
    axes = ("S", "R")[-dimensions:]
    wanted = f"values ({', '.join(axes)}) and replicates ({', '.join(axes)}, B)"
    if values.ndim != dimensions or replicates.shape[:-1] != values.shape or replicates.ndim != dimensions + 1:
        raise ValueError(f"values are {values.shape}, replicates {replicates.shape}; they must be {wanted}")
    if 0 in values.shape:
        raise ValueError(f"values are {values.shape}: there must be at least one seed; wanted {wanted}")
    if names is not None and len(names) != len(values):
        raise ValueError(f"there are {len(names)} names for {len(values)} strategies")
    _check_groups(num_groups)
    if not np.isfinite(values).all():
        where = np.argwhere(~np.isfinite(values))[0].tolist()
        whose = f"seed {where[-1]}" + (f" of {names[where[0]]!r}" if names is not None else "")
        raise ValueError(f"the value of {whose} is {values[tuple(where)]}; a score must be finite, leave it out")
    if np.isinf(replicates).any():
        raise ValueError("a replicate is infinite; replicates must be finite, or NaN where undefined")
    return values, replicates


def _check_groups(num_groups: int) -> None:
    if num_groups < 1:
        raise ValueError(f"num_groups is {num_groups}; it must be at least 1")


def _in_unit(name: str, value: float) -> float:
    if not 0 < value < 1:
        raise ValueError(f"{name} is {value}; it must lie between 0 and 1")
    return value
