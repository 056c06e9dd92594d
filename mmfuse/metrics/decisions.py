"""Accuracy and macro-F1 of many models' decisions under the same resamples, in one pass over these."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mmfuse.metrics.bootstrap import GroupBootstrap

Array = NDArray[np.float64]


def decision_replicates(
    metric: str, said: NDArray[np.int64], target: NDArray[np.int64], labels: Sequence[str], bootstrap: GroupBootstrap
) -> Array:
    """A metric of decisions on every resample.

    Args:
        metric: "accuracy" or "f1_macro".
        said: `(M, N)` class ids, a model a row.
        target: `(N,)` class ids, none missing.
        labels: The names of the classes.
        bootstrap: Of the groups of the N rows.

    Returns:
        `(M, B)`.
    """
    number, K, rows = len(said), len(labels), np.arange(len(target))
    right = said == target
    if metric == "accuracy":
        hits = np.zeros((number, bootstrap.num_groups))
        for model, correct in enumerate(right):
            hits[model] = np.bincount(bootstrap.row_group, weights=correct, minlength=bootstrap.num_groups)
        sizes = np.bincount(bootstrap.row_group, minlength=bootstrap.num_groups)
        found = bootstrap.replicate(lambda times: {"value": (times @ hits.T) / (times @ sizes)[:, None]})
        return found["value"].T
    truth = bootstrap.sums(rows, target, K)
    each = [
        (bootstrap.sums(rows, guess, K), bootstrap.sums(rows, target, K, correct))
        for guess, correct in zip(said, right.astype(np.float64), strict=True)
    ]

    def f1(times: Array) -> dict[str, Array]:
        there = (truth @ times.T).T
        scores = []
        for guessed, hit in each:
            either = there + (guessed @ times.T).T
            by_label = np.divide(2 * (hit @ times.T).T, either, out=np.zeros_like(either), where=there > 0)
            scores.append(by_label.sum(1) / np.maximum((there > 0).sum(1), 1))
        return {"value": np.stack(scores, axis=1)}

    return bootstrap.replicate(f1)["value"].T
