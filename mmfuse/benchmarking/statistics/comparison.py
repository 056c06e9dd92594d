"""All strategies of a benchmark: ranked, against the references, and each against each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from string import ascii_letters

import numpy as np
from numpy.typing import ArrayLike

from mmfuse.benchmarking.statistics.contrasts import Contrast, contrast_of
from mmfuse.benchmarking.statistics.families import holm, letter_groups
from mmfuse.benchmarking.statistics.power import SeedsNeeded, seeds_needed
from mmfuse.benchmarking.statistics.scores import interval
from mmfuse.benchmarking.statistics.variance import Estimate, Prior, checked, fit_prior, in_unit


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
    Differs: it is held back where strategies are unlike (see `variance.py`).
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
    values, replicates = checked(values, replicates, num_groups, dimensions=2, names=names)
    level = 1 - in_unit("alpha", alpha)
    names, references = list(names), list(references)
    _check_names(names, references)

    scores = [interval(v, r, num_groups, level) for v, r in zip(values, replicates, strict=True)]
    means = np.array([score.mean for score in scores])
    order = sorted(range(len(names)), key=lambda i: (-means[i], names[i]))  # ties: not by the config's order
    place = {s: i for i, s in enumerate(order)}

    prior = fit_prior(values)

    def contrast(a: int, b: int) -> Contrast:
        return contrast_of(values[a] - values[b], replicates[a] - replicates[b], num_groups, level, prior)

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


def _seeds_needed(contrast: NamedContrast, num_groups: int, alpha: float, prior: Prior) -> SeedsNeeded:
    estimate = contrast.difference
    seed_part = max(estimate.standard_error**2 - estimate.test_variance, 0) * estimate.seeds
    seed_sd = math.nan if estimate.without_seed_variance else math.sqrt(seed_part)
    own = contrast.difference.seed_sd**2
    lent = 0.0 if estimate.without_seed_variance else prior.moderate(own, estimate.seeds - 1)[1] - (estimate.seeds - 1)
    found = seeds_needed(estimate.mean, seed_sd, estimate.test_variance, num_groups, alpha, lent=lent)
    return SeedsNeeded(contrast.strategy, contrast.reference, *found)


def _letter(i: int) -> str:
    return ascii_letters[i] if i < len(ascii_letters) else f"({i + 1})"
