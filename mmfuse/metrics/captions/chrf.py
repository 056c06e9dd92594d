"""chrF: how many runs of characters two texts share, whatever their language takes for a word."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
MOST = 6
"""Characters of the longest run."""
BETA = 2
"""Recall counts so much more than precision."""


def chrf_counts(candidate: str, references: Sequence[str]) -> Array:
    """`(3, MOST)`: by length the candidate's runs, those of its best reference, and what they share.

    Spaces do not count. The best reference is the one with the highest chrF, the first of equal ones.
    """
    said = _runs(candidate)
    found = [_shared(said, _runs(other)) for other in references]
    return found[int(np.argmax(chrf(np.array(found))))]


def chrf(counts: Array) -> Array:
    """The score from sums of `chrf_counts` `(..., 3, MOST)`; lengths of which one side has none are left out."""
    said, right, shared = np.moveaxis(counts, -2, 0)
    used = (said > 0) & (right > 0)
    lengths = np.maximum(used.sum(axis=-1), 1)
    precision, recall = (
        np.divide(shared, of, out=np.zeros_like(shared), where=used).sum(axis=-1) / lengths for of in (said, right)
    )
    below = BETA**2 * precision + recall
    return np.divide((1 + BETA**2) * precision * recall, below, out=np.zeros_like(below), where=below > 0)


def _runs(text: str) -> list[Counter[str]]:
    text = "".join(unicodedata.normalize("NFC", text).split())
    return [Counter(text[i : i + n] for i in range(len(text) - n + 1)) for n in range(1, MOST + 1)]


def _shared(said: list[Counter[str]], right: list[Counter[str]]) -> Array:
    both = zip(said, right, strict=True)
    shared = [sum(min(count, other[run]) for run, count in own.items() if run in other) for own, other in both]
    number = [own.total() if other else 0 for own, other in zip(said, right, strict=True)]  # as in sacrebleu
    return np.array([number, [other.total() for other in right], shared], np.float64)
