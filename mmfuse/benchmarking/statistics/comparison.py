"""All strategies of a benchmark: ranked, against the references, and each against each.

One contrast may be declared before the test set is seen: whether the fusion that was best on validation beats the
modality that was. It answers the first question, so it is tested alone, at the whole level alpha. It is a serial
gatekeeper of all other contrasts to references: only if it is rejected are they tested, by Holm's procedure at alpha.
The chance of any false rejection among all of these together is then at most alpha, whichever nulls are true. If that
of the declared contrast is, anything false begins with its own false rejection; if it is not, the only true nulls are
among the others, and they are Holm's. An adjusted p-value of another contrast is the larger one of the declared
contrast's p and its own of Holm.

Where the gate stays shut, nothing else is tested: intervals and p-values of the others describe this test set.

Pairs, and the letters that come from them, answer another question (which strategies differ). They are a family of
their own, with the chance alpha of any false difference, gate or no gate; the two families together have no common
level.

An interval is at the level of its test: 1 - alpha for the declared contrast, and what `interval_levels` gives for the
others, so that it is without 0 exactly where the p-value beside it is up to alpha. A claim about any of the others,
picked after the test, is covered by its interval, as they are simultaneous.

What was declared was chosen on validation rows by the seeds that are tested, and may owe its choice to lucky ones: most
of all a strategy that is less stable than the others, if it shows little seed variance by chance. So the declared
contrast borrows none, and stands on its own R - 1 degrees of freedom (`benchmarks/first_question.py`, "one"). A
strategy that fails with few of many seeds, and with none of those that were run, no test can see.

References: Maurer, Hothorn and Lehmacher 1995, "Multiple comparisons in drug clinical trials and preclinical assays:
a-priori ordered hypotheses", in Biometrie in der chemisch-pharmazeutischen Industrie 6; Westfall and Krishen 2001,
"Optimally weighted, fixed sequence and gatekeeper multiple testing procedures", J. Stat. Plan. Inference 99.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from string import ascii_letters

import numpy as np
from numpy.typing import ArrayLike

from mmfuse.benchmarking.statistics.families import holm, interval_levels, letter_groups
from mmfuse.benchmarking.statistics.power import SeedsNeeded, seeds_needed
from mmfuse.benchmarking.statistics.variance import (
    Array,
    Estimate,
    Measured,
    Prior,
    checked,
    fit_prior,
    in_unit,
    measure,
)


@dataclass(frozen=True)
class NamedContrast:
    """The difference of two strategies.

    Attributes:
        strategy: The one.
        reference: The other.
        difference: Of `strategy` less `reference`, with an interval at `level`.
        p: Of there being none in truth.
        p_holm: The same, corrected over its family; that of the declared contrast is its `p`.
        level: Of the interval: without 0 where `p_holm` is up to alpha.
        declared: It is the one that was declared, and tested alone.
        tested: False where the declared contrast was not rejected, so that this one describes and claims nothing.
    """

    strategy: str
    reference: str
    difference: Estimate
    p: float
    p_holm: float
    level: float
    declared: bool = False
    tested: bool = True


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
class Comparison:
    """What `compare` finds.

    Attributes:
        strategies: Best mean first.
        contrasts: Each strategy against each reference; `p_holm` over all of them but the declared one.
        pairs: Each two strategies, the better one first; `p_holm` over all of them. The letters come from these.
        groups: The names that share a letter, of the first letter first.
        seeds_needed: The declared strategy against each reference; where none is, the best that is no reference.
        alpha: The family-wise level; intervals of scores are at 1 - alpha, each for itself.
        undefined_resamples: In which some strategy and seed has no score; each estimate counts its own.
    """

    strategies: tuple[Placed, ...]
    contrasts: tuple[NamedContrast, ...]
    pairs: tuple[NamedContrast, ...]
    groups: tuple[tuple[str, ...], ...]
    seeds_needed: tuple[SeedsNeeded, ...]
    alpha: float
    undefined_resamples: int


def compare(
    values: ArrayLike,
    replicates: ArrayLike,
    names: Sequence[str],
    references: Sequence[str],
    num_groups: int,
    alpha: float = 0.05,
    *,
    declared: tuple[str, str] | None = None,
    steady: Sequence[str] = (),
    scores: Sequence[Estimate] | None = None,
) -> Comparison:
    """Rank strategies, compare each with the references and each with each, and say what would tell more apart.

    What is tested, in which order, and what the intervals of differences cover, is said at the head of this file. Where
    two cannot be told apart that is all that is said: it does not make them equal. `seeds_needed` is at the level that
    holds whatever the other contrasts give, with 80 % power: alpha for the declared contrast, else alpha over their
    number. Differences but the declared one borrow seed variance from all strategies, so their intervals and p-values
    are not those of `paired_contrast`.

    Reference: Maurer et al. 1995 for the gate, Smyth 2004 for what is borrowed; `strategy_score`, `holm`,
    `letter_groups`, `seeds_needed` have theirs.
    Differs: lending is held back where strategies are unlike (see `variance.py`).
    Prefer when: strategies have the same seeds and the same resamples of one test set. Choose references, and what is
    declared, by validation scores: what is chosen on this test set is too good.

    Args:
        values: `(S, R)`, of each strategy and seed on all test rows; larger is better.
        replicates: `(S, R, B)`, on each resample of groups, one resample for all; NaN where undefined.
        names: S unique names.
        references: Some of them.
        num_groups: G, in the test set.
        alpha: Family-wise level, in (0, 1).
        declared: A strategy and a reference, whose contrast comes first; with None all are tested by Holm's procedure.
        steady: Names of strategies that no seed changes: they lend no seed variance, and differences to them get none.
        scores: Of each strategy, as `strategy_score` gives it; by default with the interval that a difference to 0 has.

    Raises:
        ValueError: Shapes do not match, a value is not finite, a replicate is infinite, or a name is not legal.
    """
    values, replicates = checked(values, replicates, num_groups, dimensions=2, names=names)
    level = 1 - in_unit("alpha", alpha)
    names, references = list(names), list(references)
    _check_names(names, references, declared, steady)

    if scores is None:
        scores = [measure(v, r, num_groups).at(level) for v, r in zip(values, replicates, strict=True)]
    means = np.array([score.mean for score in scores])
    order = sorted(range(len(names)), key=lambda i: (-means[i], names[i]))  # ties: not by the config's order
    place = {s: i for i, s in enumerate(order)}
    contrasts, prior = contrast_family(values, replicates, names, references, num_groups, alpha, declared, steady)

    pairs = list(combinations(order, 2))
    found = [_measure(values, replicates, num_groups, names, pair, prior, steady) for pair in pairs]
    named = _family(found, [(names[a], names[b]) for a, b in pairs], alpha)
    different = np.zeros((len(names), len(names)), bool)
    for a, b, pair in zip(*np.triu_indices(len(names), 1), named, strict=True):
        different[a, b] = different[b, a] = pair.p_holm <= alpha
    sets = letter_groups(different)
    letters = ["".join(_letter(i) for i, members in enumerate(sets) if place[s] in members) for s in range(len(names))]
    return Comparison(
        strategies=tuple(Placed(names[s], 1 + int((means > means[s]).sum()), letters[s], scores[s]) for s in order),
        contrasts=contrasts,
        pairs=named,
        groups=tuple(tuple(names[order[member]] for member in members) for members in sets),
        seeds_needed=_all_seeds_needed(contrasts, [names[s] for s in order], references, num_groups, alpha, prior),
        alpha=alpha,
        undefined_resamples=int(np.isnan(replicates).any(axis=(0, 1)).sum()),
    )


def contrast_family(
    values: Array,
    replicates: Array,
    names: Sequence[str],
    references: Sequence[str],
    num_groups: int,
    alpha: float,
    declared: tuple[str, str] | None,
    steady: Sequence[str] = (),
) -> tuple[tuple[NamedContrast, ...], Prior]:
    """The contrasts of `compare`, of arguments that it has checked, and the seed variance that strategies lend."""
    means = values.mean(axis=1)
    order = sorted(range(len(names)), key=lambda i: (-means[i], names[i]))
    chosen = [list(names).index(reference) for reference in references]
    members = [(s, r) for i, r in enumerate(chosen) for s in order if s != r and s not in chosen[:i]]  # not r2 - r1
    prior = fit_prior(values[[i for i, name in enumerate(names) if name not in steady]])
    called = [(names[a], names[b]) for a, b in members]
    found = [_measure(values, replicates, num_groups, names, member, prior, steady) for member in members]
    if declared is None:
        return _family(found, called, alpha), prior
    first = next(i for i, member in enumerate(called) if set(member) == set(declared))
    found[first] = _measure(values, replicates, num_groups, names, members[first], None, steady)
    p = found[first].p
    alone = NamedContrast(*called[first], found[first].at(1 - alpha), p, p, 1 - alpha, declared=True)
    rest = _family(found[:first] + found[first + 1 :], called[:first] + called[first + 1 :], alpha, tested=p <= alpha)
    return (*rest[:first], alone, *rest[first:]), prior


def _measure(
    values: Array,
    replicates: Array,
    num_groups: int,
    names: Sequence[str],
    pair: tuple[int, int],
    prior: Prior | None,
    steady: Sequence[str],
) -> Measured:
    a, b = pair
    lends = None if names[a] in steady or names[b] in steady else prior  # seeds then move all alike: no lender saw it
    return measure(values[a] - values[b], replicates[a] - replicates[b], num_groups, lends)


def _family(
    found: list[Measured], called: list[tuple[str, str]], alpha: float, tested: bool = True
) -> tuple[NamedContrast, ...]:
    raw = [one.p for one in found]
    levels, adjusted = interval_levels(raw, alpha), holm(raw)
    return tuple(
        NamedContrast(*pair, one.at(float(level)), p, float(corrected), float(level), tested=tested)
        for pair, one, p, corrected, level in zip(called, found, raw, adjusted, levels, strict=True)
    )


def _check_names(
    names: list[str], references: list[str], declared: tuple[str, str] | None, steady: Sequence[str]
) -> None:
    if len(set(names)) != len(names):
        raise ValueError(f"names are not unique: {names}")
    unknown = [reference for reference in references if reference not in names]
    if unknown or len(set(references)) != len(references):
        raise ValueError(f"references {references} must be some of {names}, each once")
    if declared is not None and (
        declared[0] == declared[1] or declared[0] not in names or declared[1] not in references
    ):
        raise ValueError(f"declared {declared} must be one of {names} and another one that is of {references}")
    if not set(steady) <= set(names):
        raise ValueError(f"steady {list(steady)} must be some of {names}")


def _all_seeds_needed(
    contrasts: Sequence[NamedContrast],
    order: list[str],
    references: list[str],
    num_groups: int,
    alpha: float,
    prior: Prior,
) -> tuple[SeedsNeeded, ...]:
    first = next((one for one in contrasts if one.declared), None)
    best = next((name for name in order if name not in references), None)
    of = best if first is None else first.strategy
    return tuple(
        _seeds_needed(one, num_groups, alpha if one.declared else alpha / len(contrasts), prior)
        for one in contrasts
        if one.strategy == of and (one.reference in references)
    )


def _seeds_needed(contrast: NamedContrast, num_groups: int, alpha: float, prior: Prior) -> SeedsNeeded:
    estimate = contrast.difference
    seed_part = max(estimate.standard_error**2 - estimate.test_variance, 0) * estimate.seeds
    seed_sd = math.nan if estimate.without_seed_variance else math.sqrt(seed_part)
    own = contrast.difference.seed_sd**2
    freedom = estimate.seeds - 1
    alone = estimate.without_seed_variance or contrast.declared
    lent = 0.0 if alone else prior.moderate(own, freedom)[1] - freedom
    found = seeds_needed(estimate.mean, seed_sd, estimate.test_variance, num_groups, alpha, lent=lent)
    return SeedsNeeded(contrast.strategy, contrast.reference, *found)


def _letter(i: int) -> str:
    return ascii_letters[i] if i < len(ascii_letters) else f"({i + 1})"
