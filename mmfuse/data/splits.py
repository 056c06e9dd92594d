"""Which row is for what: groups whole, stable under new rows, or stratified."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

SPLITS = ("train", "validation", "test")


def unit_hash(seed: int, name: str) -> float:
    """A number in [0, 1) that depends on nothing but the seed and the name."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:7], "big") / 2**56


def split_by_hash(groups: Sequence[str], shares: dict[str, float], seed: int) -> list[str]:
    """A part for each row by hash of its group: adding rows never moves an old one.

    Args:
        groups: The rows' groups; rows of one group get one part.
        shares: Part -> its share, summing to 1.
        seed: Another one gives another split.
    """
    names, edges = list(shares), np.cumsum(list(shares.values()))
    part = {
        g: names[min(int(np.searchsorted(edges, unit_hash(seed, g), side="right")), len(names) - 1)]
        for g in set(groups)
    }
    return [part[g] for g in groups]


def split_stratified(groups: Sequence[str], labels: np.ndarray, shares: dict[str, float], seed: int) -> list[str]:
    """A part for each row, groups whole, with each label's rows spread over the parts as the shares say.

    Greedy: the largest group first (ties by hash), each into the part where the labels it brings are missed most, as in
    scikit-learn's StratifiedGroupKFold, here for parts of any size.

    Args:
        groups: The rows' groups; rows of one group get one part.
        labels: `(rows, labels)` 0/1: which labels each row counts for; a row may count for none.
        shares: Part -> its share, summing to 1.
        seed: Another one gives another split.
    """
    names = list(shares)
    unique, member = np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)
    counted = np.concatenate([labels, np.ones((len(labels), 1))], axis=1)  # the last one: the rows themselves
    of_group = np.zeros((len(unique), counted.shape[1]))
    np.add.at(of_group, member, counted)
    wanted = np.outer(list(shares.values()), of_group.sum(0))
    scale = 1 / np.maximum(of_group.sum(0), 1)
    have = np.zeros_like(wanted)
    order = sorted(range(len(unique)), key=lambda g: (-of_group[g, -1], unit_hash(seed, unique[g])))
    part = np.zeros(len(unique), dtype=int)
    for g in order:
        gain = ((wanted - have) * of_group[g] * scale / np.maximum(wanted * scale, 1e-9)).sum(1)
        part[g] = int(np.argmax(gain))
        have[part[g]] += of_group[g]
    return [names[part[g]] for g in member]
