"""Linear probes: how far each modality gets alone, by a linear map of what its encoder says of a row."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmfuse.tasks import TaskKind

Array = NDArray[np.float64]
STRENGTHS = tuple(10.0**k for k in range(-2, 6))
"""Of the ridge, relative to features of variance 1; which one is taken, training rows left out in turn decide."""


def can_probe(kind: TaskKind) -> bool:
    """Whether targets of this kind can be fitted: labels, or numbers on a scale."""
    return kind.has_labels or hasattr(kind, "on_scale")


def fit_probe(kind: Any, features: Array, target: np.ndarray, rows: Array) -> np.ndarray:
    """What a linear probe, fitted to training rows, predicts of other rows.

    Ridge regression on features of mean 0 and variance 1, to the targets as 0 and 1 a label or on the scale of a
    number; its strength is the one with the least squared error of training rows that are left out in turn.

    Reference: Alain and Bengio 2016, arXiv 1610.01644 (linear probes); Golub, Heath and Wahba 1979 (the strength).
    Differs: squared error in place of a cross-entropy: one decomposition serves all labels and strengths. A label that
    is not known of a row is taken as that label's mean.
    Prefer when: a baseline must cost seconds; a model of one modality that is trained for it may do better.

    Args:
        kind: Of the target; `can_probe`.
        features: `(n, D)` of training rows.
        target: `(n, ...)`, encoded.
        rows: `(m, D)` of the rows to predict.

    Returns:
        `(m, ...)`, as the kind's `predictions`.
    """
    there = kind.labelled(target)
    features, target = features[there], target[there]
    wanted = _as_numbers(kind, target)
    center, spread = features.mean(axis=0), features.std(axis=0)
    spread = np.where(spread > 1e-6 * max(spread.max(initial=0), 1e-30), spread, np.inf)  # a constant says nothing
    said = _ridge((features - center) / spread, wanted, (rows - center) / spread)
    if not kind.has_labels:
        return kind.in_unit(said[:, 0])
    if not kind.exclusive:
        return said.clip(0, 1)
    likely = said.clip(1e-6, None)
    return likely / likely.sum(axis=1, keepdims=True)


def _as_numbers(kind: Any, target: np.ndarray) -> Array:
    if not kind.has_labels:
        return kind.on_scale(target.astype(np.float64))[:, None]
    known = np.broadcast_to(kind.known(target), (len(target), len(kind.labels)))
    truth = np.where(known, kind.one_hot(target), np.nan)
    counts = known.sum(axis=0)
    means = np.divide(np.where(known, truth, 0).sum(axis=0), counts, out=np.zeros(len(counts)), where=counts > 0)
    return np.where(known, truth, means)


def _ridge(features: Array, wanted: Array, rows: Array) -> Array:
    mean = wanted.mean(axis=0)
    left, squares, right = _decomposed(features)
    along = left.T @ (wanted - mean)
    errors = []
    for strength in STRENGTHS:
        kept = squares / (squares + strength)
        own = (left**2 @ kept) + 1 / len(features)  # what each row has in its own prediction
        away = (wanted - mean - left @ (kept[:, None] * along)) / np.maximum(1 - own, 1e-6)[:, None]
        errors.append((away**2).mean())
    strength = STRENGTHS[int(np.argmin(errors))]
    return mean + rows @ (right @ ((np.sqrt(squares) / (squares + strength))[:, None] * along))


def _decomposed(features: Array) -> tuple[Array, Array, Array]:
    """Left vectors `(n, k)`, squared values `(k,)` and right vectors `(D, k)`, by the smaller of the two products."""
    tall = len(features) >= features.shape[1]
    squares, vectors = np.linalg.eigh(features.T @ features if tall else features @ features.T)
    there = squares > 1e-10 * max(squares.max(initial=0), 1e-30)
    squares, vectors = squares[there], vectors[:, there]
    other = (features if tall else features.T) @ vectors / np.sqrt(squares)
    return (other, squares, vectors) if tall else (vectors, squares, other)
