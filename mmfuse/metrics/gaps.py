"""How far subgroups lie apart in a score, and how far chance alone would set them apart.

A score of many subgroups always differs between them: without any bias the largest gap grows with their number and
shrinks with their size. So a gap is judged by a permutation null, and by the spread of the subgroups themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from mmfuse.metrics.bootstrap import GroupBootstrap, GroupJackknife, interval
from mmfuse.metrics.intervals import Basis, balanced, score_of, shares_of, too_few_groups, too_few_of_classes

Array = NDArray[np.float64]
Ints = NDArray[np.integer[Any]]
_CHUNK = 2**22
"""Numbers in memory at once."""


class Measures(Protocol):
    """M scores that each subgroup of N rows has.

    Attributes:
        names: Of each its metric, and its label or None.
        compared: `(K, M)` bool, which subgroups have rows enough for it.
    """

    names: list[tuple[str, str | None]]
    compared: NDArray[np.bool_]

    def values(self, subgroup: Ints) -> Array:
        """`(K, M)` for subgroups `(N,)` in 0 to K - 1; NaN where undefined."""
        ...

    def permuted(self, subgroups: Ints) -> Array:
        """`(P, K, M)` for each of `(P, N)`."""
        ...

    def resampled(self, subgroup: Ints, bootstrap: GroupBootstrap) -> Array:
        """`(B, K, M)` under each resample of the groups."""
        ...

    def held(self, subgroup: Ints, groups: GroupBootstrap) -> list[Array]:
        """What of each group a score is of, `(G, K, M)` each, such as both classes; none where it is no share."""
        ...


class Rates:
    """Scores that are one sum over rows by another: accuracy, the share of positives that are found, a mean.

    Args:
        names: Of the M scores.
        above: `(N, M)`.
        below: `(N, M)`, at least 0; a row with 0 does not count.
        compared: `(K, M)` bool.
    """

    def __init__(
        self, names: Sequence[tuple[str, str | None]], above: Array, below: Array, compared: NDArray[np.bool_]
    ):
        self.names, self.compared = list(names), compared
        self._sums = np.concatenate([above, below], axis=1)

    def values(self, subgroup: Ints) -> Array:
        """`(K, M)`."""
        return self.permuted(subgroup[None])[0]

    def permuted(self, subgroups: Ints) -> Array:
        """`(P, K, M)`."""
        K, N, found = len(self.compared), subgroups.shape[1], []
        step = max(1, _CHUNK // N)
        for start in range(0, len(subgroups), step):
            part = subgroups[start : start + step]
            where = (part + K * np.arange(len(part))[:, None]).ravel()
            rows = np.tile(np.arange(N), len(part))
            chosen = csr_array((np.ones(len(rows)), (where, rows)), shape=(K * len(part), N))
            found.append((chosen @ self._sums).reshape(len(part), K, -1))
        return _divided(np.concatenate(found))

    def resampled(self, subgroup: Ints, bootstrap: GroupBootstrap) -> Array:
        """`(B, K, M)`."""
        K, N, G = len(self.compared), len(subgroup), bootstrap.num_groups
        where = (bootstrap.row_group * K + subgroup, np.arange(N))
        by_group = (csr_array((np.ones(N), where), shape=(G * K, N)) @ self._sums).reshape(G, -1)
        found = bootstrap.replicate(lambda times: {"sums": times @ by_group})["sums"]
        return _divided(found.reshape(len(found), K, self._sums.shape[1]))

    def held(self, subgroup: Ints, groups: GroupBootstrap) -> list[Array]:
        """`(G, K, M)`: the rows that count; nothing of sums that may be more than what they are divided by."""
        above, below = np.split(self._sums, 2, axis=1)
        return [_by_group(below, subgroup, groups, len(self.compared))] if (above <= below).all() else []


def _by_group(values: Array, subgroup: Ints, groups: GroupBootstrap, number: int) -> Array:
    """Sums of `(N, M)` by group and subgroup, `(G, K, M)`."""
    found = np.zeros((groups.num_groups, number, values.shape[1]))
    np.add.at(found, (groups.row_group, subgroup), values)
    return found


def _divided(sums: Array) -> Array:
    above, below = np.split(sums, 2, axis=-1)
    return np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)


class MeanAuroc:
    """The mean over labels of the AUROC within each subgroup: its positives against its own negatives.

    Args:
        scores: `(N, L)`.
        truth: `(N, L)` 0, 1, or NaN where missing.
        compared: `(K,)` bool; each of these has positives and negatives of every one of the L labels, or another set of
            labels would make a gap.
    """

    def __init__(self, scores: Array, truth: Array, compared: NDArray[np.bool_]):
        self.names: list[tuple[str, str | None]] = [("auroc_macro", None)]
        self.compared = compared[:, None]
        self._ranked = [_Ranked.of(*column) for column in zip(scores.T, truth.T, strict=True)]

    def values(self, subgroup: Ints) -> Array:
        """`(K, M)`."""
        return np.mean([ranked.auroc(subgroup, len(self.compared)) for ranked in self._ranked], axis=0)[:, None]

    def permuted(self, subgroups: Ints) -> Array:
        """`(P, K, 1)`."""
        return np.stack([self.values(subgroup) for subgroup in subgroups])

    def resampled(self, subgroup: Ints, bootstrap: GroupBootstrap) -> Array:
        """`(B, K, 1)`."""
        K = len(self.compared)
        parts = [[ranked.within(subgroup == k) for ranked in self._ranked] for k in range(K)]

        def means(times: Array) -> dict[str, Array]:
            found = [[part.weighted(times, bootstrap.row_group) for part in labels] for labels in parts]
            return {"auroc": np.array(found).mean(axis=1).T}  # (b, K)

        return bootstrap.replicate(means)["auroc"][..., None]

    def held(self, subgroup: Ints, groups: GroupBootstrap) -> list[Array]:
        """`(G, K, 1)` of positives and of negatives."""
        counts = []
        for positive in (True, False):
            there = np.zeros((len(subgroup), len(self._ranked)))
            for column, ranked in zip(there.T, self._ranked, strict=True):
                column[ranked.rows[ranked.positive == positive]] = 1
            of_labels = _by_group(there, subgroup, groups, len(self.compared))
            counts.append(balanced(of_labels.swapaxes(0, 1)).T[..., None])
        return counts


class _Ranked(NamedTuple):
    """The n rows with a target of one label, from the lowest score up.

    `rows (n,)`; `positive (n,)` bool; `block (n,)`, which run of equal scores each is in; `tied`, whether any has two.
    """

    rows: Ints
    positive: NDArray[np.bool_]
    block: Ints
    tied: bool

    @classmethod
    def of(cls, scores: Array, truth: Array) -> _Ranked:
        known = np.flatnonzero(~np.isnan(truth))
        rows = known[np.argsort(scores[known], kind="stable")]
        block = np.cumsum(np.concatenate([[0], np.diff(scores[rows]) > 0]))[: len(rows)]
        return cls(rows, truth[rows] == 1, block, len(rows) > 0 and bool(block[-1] + 1 < len(rows)))

    def within(self, chosen: NDArray[np.bool_]) -> _Ranked:
        """Those of chosen rows `(N,)`."""
        there = chosen[self.rows]
        return self._replace(rows=self.rows[there], positive=self.positive[there], block=self.block[there])

    def auroc(self, subgroup: Ints, number: int) -> Array:
        """`(number,)`, by subgroup, in one pass over the rows."""
        order = np.argsort(subgroup[self.rows].astype(np.int16), kind="stable")
        where, positive = subgroup[self.rows][order], self.positive[order]
        below = np.concatenate([[0.0], np.cumsum(~positive)])  # negatives before each row, of all subgroups
        starts = np.searchsorted(where, np.arange(number))
        lower = below[:-1]
        if self.tied:
            block = self.block[order]
            new = np.concatenate([[True], (np.diff(where) != 0) | (np.diff(block) != 0)])
            first = np.flatnonzero(new)
            last = np.append(first[1:], len(order))
            run = np.cumsum(new) - 1
            lower = ((below[first] + below[last]) / 2)[run]
        own, of = lower[positive], where[positive]
        positives = np.bincount(of, minlength=number)
        negatives = np.bincount(where, minlength=number) - positives
        wins = np.bincount(of, own, minlength=number) - positives * below[starts]
        pairs = positives * negatives
        return np.divide(wins, pairs, out=np.full(number, np.nan), where=pairs > 0)

    def weighted(self, times: Array, row_group: Ints) -> Array:
        """`(b,)`: the AUROC of these rows under multiplicities of groups `(b, G)`."""
        weight = times[:, row_group[self.rows]]
        below = np.zeros((len(times), len(self.rows) + 1))
        np.cumsum(weight * ~self.positive, axis=1, out=below[:, 1:])
        at = np.flatnonzero(self.positive)
        lower = below[:, at]
        if self.tied:
            first = np.searchsorted(self.block, self.block[at])
            last = np.searchsorted(self.block, self.block[at], side="right")
            lower = (below[:, first] + below[:, last]) / 2
        positive = weight[:, at]
        pairs = positive.sum(axis=1) * below[:, -1]
        return np.divide((positive * lower).sum(axis=1), pairs, out=np.full(len(times), np.nan), where=pairs > 0)


def permute_subgroups(subgroup: Ints, groups: Sequence[str], ids: Sequence[str], permutations: int, seed: int) -> Ints:
    """Subgroups as they would be if they had nothing to do with the rows: each group takes another group's.

    Where a group's rows are of several subgroups, the other group's rows give theirs in turn, by id: what a group's
    rows have in common stays so.

    Args:
        subgroup: `(N,)`.
        groups: `(N,)`, such as patients.
        ids: `(N,)`, by which a group's rows are in order.
        permutations: How many.
        seed: Of them.

    Returns:
        `(permutations, N)`.
    """
    _, row_group = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    order = np.lexsort((np.asarray(ids, dtype=str), row_group))
    sizes = np.bincount(row_group)
    starts = sizes.cumsum() - sizes
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order)) - np.repeat(starts, sizes)
    found = np.empty((permutations, len(order)), dtype=subgroup.dtype)
    for i in range(permutations):
        other = np.random.default_rng((seed, i)).permutation(len(sizes))[row_group]
        found[i] = subgroup[order[starts[other] + place % sizes[other]]]
    return found


class Gap(NamedTuple):
    """The largest difference of one score between the subgroups that are compared in it.

    Attributes:
        metric: Of the score.
        label: Of the score, or None.
        highest: The subgroup with the highest score.
        lowest: That with the lowest.
        value: Their difference.
        low: The lower end of its 95 % interval, at least 0; NaN where there are no resamples.
        high: The upper end.
        chance: What the largest gap is at most in 95 % of permutations.
        p: How often chance gives as large a gap.
        p_family: The same of the largest among all gaps that were compared with it.
    """

    metric: str
    label: str | None
    highest: int
    lowest: int
    value: float
    low: float
    high: float
    chance: float
    p: float
    p_family: float


class Compared(NamedTuple):
    """M scores of K subgroups, and the gaps of those with two or more subgroups to compare.

    Attributes:
        names: `(M,)` metric, and label or None.
        values: `(K, M)`; NaN where undefined.
        low: `(K, M)`, of 95 % intervals; NaN where too few groups have what the score is of.
        high: `(K, M)`.
        gaps: In the order of `names`.
    """

    names: list[tuple[str, str | None]]
    values: Array
    low: Array
    high: Array
    gaps: list[Gap]


def compare_subgroups(
    measures: Sequence[Measures], subgroup: Ints, permuted: Ints, bootstrap: GroupBootstrap
) -> Compared:
    """How far subgroups lie apart in each of some scores, which are one family of comparisons.

    A gap is judged by two nulls, and the larger p is taken. Permutations are exact where subgroups are exchangeable,
    however small; but they mix subgroups of unlike prevalence, and so make too little of the spread of one with few
    positives. The resamples of each subgroup about its own score know that spread.

    The interval is simultaneous over all pairs, as which pair it is, the same rows say: the gap and more or less what
    the resamples' largest gap about their own scores is at most in 95 %.

    Reference: Westfall and Young 1993, "Resampling-based multiple testing" (the family); Hsu 1996, "Multiple
        comparisons", ch. 5 (the interval, which is Tukey's with resamples in place of the studentized range).
    Differs: gaps are put on one scale by the mean and spread of their own null before the largest is taken.
    Prefer when: the subgroups that are furthest apart were found by looking at them.

    Args:
        measures: One or more.
        subgroup: `(N,)` in 0 to K - 1.
        permuted: `(P, N)`, as `permute_subgroups` gives it.
        bootstrap: Of the N rows' groups.
    """
    names = [name for of in measures for name in of.names]
    there = np.concatenate([of.compared for of in measures], axis=1)
    value = np.concatenate([of.values(subgroup) for of in measures], axis=1)
    resampled = [of.resampled(subgroup, bootstrap) for of in measures]
    drawn, ends = (
        _joined(resampled),
        [_intervals(*of, subgroup, bootstrap) for of in zip(measures, resampled, strict=True)],
    )
    low, high = np.concatenate(ends, axis=2)
    kept = np.flatnonzero(there.sum(axis=0) > 1)
    if not len(kept):
        return Compared(names, value, low, high, [])
    null = _joined([of.permuted(permuted) for of in measures])
    shown, by_chance, spread = (np.where(there, x, np.nan)[..., kept] for x in (value, null, drawn))
    gap, chance, own = _range(shown), _range(by_chance), _range(spread - shown)
    p, p_family = (np.fmax(*pair) for pair in zip(_p_values(gap, chance), _p_values(gap, own), strict=True))
    gaps = []
    for m, (metric, label) in enumerate(names[i] for i in kept):
        reach = _most(own[:, m])
        ends = (int(np.nanargmax(shown[:, m])), int(np.nanargmin(shown[:, m])))
        least = float(np.fmax(gap[m] - reach, 0)) if reach == reach else reach
        gaps.append(
            Gap(
                metric,
                label,
                *ends,
                float(gap[m]),
                least,
                float(gap[m] + reach),
                _most(chance[:, m]),
                float(p[m]),
                float(p_family[m]),
            )
        )
    return Compared(names, value, low, high, gaps)


def _joined(parts: Sequence[Array]) -> Array:
    """`(R, K, M)` of all measures; as many replicates as each of them has."""
    return np.concatenate([part[: min(map(len, parts))] for part in parts], axis=2)


def _most(values: Array) -> float:
    """What 95 % of values are at or below; NaN of none."""
    known = values[~np.isnan(values)]
    return float(np.quantile(known, 0.95)) if len(known) else float("nan")


def _intervals(of: Measures, drawn: Array, subgroup: Ints, bootstrap: GroupBootstrap) -> Array:
    """The ends of each score's interval, `(2, K, M)`: of shares as reports have them, else percentiles of resamples."""
    groups = GroupJackknife(bootstrap.row_group.astype(str), bootstrap.resamples)
    held, value = of.held(subgroup, groups), of.values(subgroup)
    left_out = of.resampled(subgroup, groups) if held else drawn
    ends = np.full((2, *value.shape), np.nan)
    for k, m in np.argwhere(~np.isnan(value)):
        if not held:
            ends[:, k, m] = interval(drawn[:, k, m])
            continue
        counts = [count[:, k, m] for count in held]
        if too_few_groups(counts[0]) if len(counts) == 1 else too_few_of_classes(*counts):
            continue
        shares = shares_of(*counts, blocks=groups.blocks)
        there = shares.share > 0  # groups without any of these rows are in no report of them
        basis = Basis(shares._replace(share=shares.share[there], squares=shares.squares[there]))
        score = score_of(float(value[k, m]), left_out[there, k, m], basis, (0.0, 1.0))
        ends[:, k, m] = [np.nan if end is None else end for end in (score["low"], score["high"])]
    return ends


def _range(values: Array) -> Array:
    """The largest less the smallest along the subgroups, `(..., K, M)` to `(..., M)`; NaN is left out."""
    return np.fmax.reduce(values, axis=-2) - np.fmin.reduce(values, axis=-2)


def _p_values(gap: Array, null: Array) -> tuple[Array, Array]:
    """Of gaps `(M,)` under their null `(R, M)`: of each by itself, and among all of them."""
    if not len(null):
        return np.full(len(gap), np.nan), np.full(len(gap), np.nan)
    known = ~np.isnan(null)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, null, 0).sum(axis=0) / count
    sd = np.sqrt(np.where(known, (null - mean) ** 2, 0).sum(axis=0) / count)
    scale = np.where(sd > 0, sd, 1)
    largest = np.fmax.reduce((null - mean) / scale, axis=1)
    beyond = (null >= gap - 1e-12).sum(axis=0)
    all_beyond = (largest[:, None] >= (gap - mean) / scale - 1e-9).sum(axis=0)
    return (1 + beyond) / (known.sum(axis=0) + 1), (1 + all_beyond) / ((~np.isnan(largest)).sum() + 1)
