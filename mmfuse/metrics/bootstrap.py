"""Resamples of groups, and what intervals and differences of scores are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array

Array = NDArray[np.float64]
RESAMPLES = 1000
"""Of the groups, in a report."""
BLOCKS = 1000
"""Of groups, that are left out in turn where there are more groups."""


class GroupBootstrap:
    """Resamples of groups with replacement, the same ones for whatever is scored with them.

    Replicate b is drawn from (seed, b) alone: nothing of size resamples x groups is kept, and no order of rows matters.

    Args:
        groups: `(N,)`, the group of each row.
        resamples: How many, B.
        seed: At least 0.

    Attributes:
        row_group: `(N,)` int, the position of the row's group among the sorted groups.
        num_groups: G.
        resamples: B, but 0 for a single group: its spread cannot be known.
    """

    def __init__(self, groups: Sequence[str] | NDArray[Any], resamples: int = 1000, seed: int = 0):
        names, self.row_group = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
        self.num_groups = len(names)
        self.resamples = resamples if self.num_groups > 1 else 0
        self.seed = seed

    def multiplicities(self, start: int, stop: int) -> Array:
        """How often each group is in replicates start to stop, `(stop - start, G)`."""
        times = np.empty((stop - start, self.num_groups))
        for row, replicate in enumerate(range(start, stop)):
            drawn = np.random.default_rng((self.seed, replicate)).integers(self.num_groups, size=self.num_groups)
            times[row] = np.bincount(drawn, minlength=self.num_groups)
        return times

    def sums(
        self, rows: NDArray[np.int64], keys: ArrayLike, num_keys: int, values: ArrayLike | float = 1.0
    ) -> csr_array:
        """The matrix `(num_keys, G)` that turns multiplicities `(G, b)` into sums of `values (n,)` by `keys (n,)`."""
        values, keys = (np.broadcast_to(x, rows.shape) for x in (np.asarray(values, np.float64), np.asarray(keys)))
        used = values != 0
        where = (keys[used], self.row_group[rows[used]])
        return csr_array((values[used], where), shape=(num_keys, self.num_groups))

    def replicate(self, metrics: Callable[[Array], dict[str, Array]]) -> dict[str, Array]:
        """Call `metrics` with multiplicities `(b, G)` until all B are done, and join its arrays on their first axis."""
        chunk = max(1, 2**18 // max(len(self.row_group), 1))  # 2 MiB an array: stays in the cache, bounds the memory
        starts = range(0, max(self.resamples, 1), chunk)
        parts = [metrics(self.multiplicities(start, min(start + chunk, self.resamples))) for start in starts]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


class GroupJackknife(GroupBootstrap):
    """Leaves each group out in turn, in place of resamples: whatever is resampled is so scored without each of them.

    Of more than `BLOCKS` groups, each of so many blocks: the largest groups are dealt to different blocks, then the
    next largest, and equal ones by lot, so that blocks are independent and alike.

    Reference: Quenouille 1956, "Notes on bias in estimation", Biometrika 43.
    Differs: nothing.
    Prefer when: one score's interval is wanted (`mmfuse.metrics.intervals`); for differences see `GroupBootstrap`.

    Args:
        groups: `(N,)`, the group of each row.
        resamples: 0 to leave none out.
        seed: Of the lot.

    Attributes:
        asked: Whether anything is to be left out.
        resamples: B, the number of blocks; 0 for a single group, or where nothing is asked.
        blocks: `(G,)`, the block of each group.
    """

    def __init__(self, groups: Sequence[str] | NDArray[Any], resamples: int = 1000, seed: int = 0):
        super().__init__(groups, resamples, seed)
        self.asked = resamples > 0
        lot = np.random.default_rng(seed).permutation(self.num_groups)
        order = np.lexsort((lot, -np.bincount(self.row_group, minlength=self.num_groups)))
        self.blocks = np.empty(self.num_groups, dtype=np.int64)
        self.blocks[order] = np.arange(self.num_groups) % BLOCKS
        self.resamples = min(self.num_groups, BLOCKS) if self.resamples else 0

    def multiplicities(self, start: int, stop: int) -> Array:
        """0 for the groups of one block and 1 for all others, of blocks start to stop, `(stop - start, G)`."""
        return (self.blocks != np.arange(start, stop)[:, None]).astype(np.float64)


def interval(values: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """The percentile interval of replicates `(B,)`; NaN replicates are left out, and without any left it is NaN."""
    values = np.asarray(values, np.float64)
    values = values[~np.isnan(values)]
    if not len(values):
        return float("nan"), float("nan")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired_difference(a: ArrayLike, b: ArrayLike, value: float | None = None) -> dict[str, float]:
    """Compare two models by their replicates under the same resamples.

    `p = 2 (1 + min(#{a <= b}, #{a >= b})) / (B + 1)`, at most 1: two-sided, and never 0.

    Args:
        a: `(B,)` replicates of one model's metric.
        b: `(B,)` those of the other, from the same `GroupBootstrap`.
        value: The difference of the two point values; the mean of the replicates' differences if left out.

    Returns:
        `value`, `low` and `high` of a - b, and `p`; NaN where no replicate is defined for both.

    Raises:
        ValueError: The shapes differ.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"replicates {a.shape} and {b.shape} must both be (B,), from the same bootstrap")
    differences = (a - b)[~np.isnan(a - b)]
    low, high = interval(differences)
    if not len(differences):
        return {"value": float("nan") if value is None else value, "low": low, "high": high, "p": float("nan")}
    rarer = min((differences <= 0).sum(), (differences >= 0).sum())
    p = min(1.0, 2 * (1 + rarer) / (len(differences) + 1))
    return {"value": float(differences.mean()) if value is None else value, "low": low, "high": high, "p": float(p)}
