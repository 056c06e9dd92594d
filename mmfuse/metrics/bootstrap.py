"""Resamples of groups, and what intervals and differences of scores are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array

from mmfuse.metrics.results import Score

Array = NDArray[np.float64]
RESAMPLES = 1000
"""Of the groups, in a report."""


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
        chunk = max(1, 2**18 // len(self.row_group))  # 2 MiB an array: stays in the cache, bounds the memory
        starts = range(0, max(self.resamples, 1), chunk)
        parts = [metrics(self.multiplicities(start, min(start + chunk, self.resamples))) for start in starts]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def interval(values: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """The percentile interval of replicates `(B,)`; NaN replicates are left out, and without any left it is NaN."""
    values = np.asarray(values, np.float64)
    values = values[~np.isnan(values)]
    if not len(values):
        return float("nan"), float("nan")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def score_of(value: float, drawn: ArrayLike) -> Score:
    """A score as reports hold it: the value and the 95 % interval of its replicates `(B,)`; None where undefined."""
    low, high = interval(drawn)
    value, low, high = (None if np.isnan(number) else float(number) for number in (value, low, high))
    return {"value": value, "low": low, "high": high}
