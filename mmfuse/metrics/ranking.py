"""AUROC and average precision of one label under any weights of rows."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Ranking(NamedTuple):
    """The rows of one label from the highest score down, cut where blocks of equal scores begin and end.

    Of the n rows `groups (n,)` and of the positive ones `positive_groups`; of the S blocks with positives (others add
    nothing) how many rows, and positive rows, come before them and up to their end, `(2, S)`.
    """

    groups: NDArray[np.int64]
    positive_groups: NDArray[np.int64]
    rows: NDArray[np.int64]
    positive_rows: NDArray[np.int64]

    @classmethod
    def of(cls, scores: Array, truth: Array, row_group: NDArray[np.int64]) -> Ranking:
        """Of scores and 0, 1 or NaN where missing, `(N,)` each, and the place of each row's weight."""
        known = np.flatnonzero(~np.isnan(truth))
        order = known[np.argsort(-scores[known], kind="stable")]
        positive = truth[order] == 1
        edges = np.concatenate([[0], np.flatnonzero(np.diff(scores[order])) + 1, [len(order)]])
        positives = np.concatenate([[0], positive.cumsum()])[edges]
        kept = np.flatnonzero(np.diff(positives))
        ends = np.stack([kept, kept + 1])
        return cls(row_group[order], row_group[order[positive]], edges[ends], positives[ends])

    def weighted(self, times: Array) -> tuple[Array, Array]:
        """AUROC and average precision under multiplicities `(b, G)`: `(b,)` each, NaN where undefined."""
        total, seen = _sums_at(times, self.groups, self.rows)
        positives, (hits_before, hits) = _sums_at(times, self.positive_groups, self.positive_rows)
        negatives = total - positives
        new = hits - hits_before
        false_alarms = (seen[0] - hits_before + seen[1] - hits) / 2  # ties count half
        auroc = ratio((new * (negatives[:, None] - false_alarms)).sum(axis=1), positives * negatives)
        precision = hits / np.maximum(seen[1], 1)
        average_precision = ratio((new * precision).sum(axis=1), positives)
        return auroc, np.where(negatives > 0, average_precision, np.nan)


def _sums_at(times: Array, groups: NDArray[np.int64], counts: NDArray[np.int64]) -> tuple[Array, Array]:
    """The total weight of rows `(b,)`, and that of the first `counts (2, S)` rows `(2, b, S)`."""
    sums = np.zeros((len(times), len(groups) + 1))
    np.cumsum(times.take(groups, axis=1), axis=1, out=sums[:, 1:])
    return sums[:, -1], sums.take(counts, axis=1).transpose(1, 0, 2)


def ratio(above: Array, below: Array, empty: float = np.nan) -> Array:
    """`above / below` where `below` is above 0; elsewhere `empty`."""
    return np.divide(above, below, out=np.full(np.shape(above), empty, np.float64), where=below > 0)


def mean_over_labels(values: Array) -> Any:
    """The mean over labels (the last axis) where they are defined; NaN where none is."""
    defined = ~np.isnan(values)
    return ratio(np.where(defined, values, 0).sum(axis=-1), defined.sum(axis=-1))
