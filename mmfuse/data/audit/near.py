"""Pairs of like hashes and like texts among very many, without comparing each with each."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

BITS = 256
"""Of an image's hash."""
_BLOCK = 1024
_PERMUTATIONS, _ROWS_A_BAND = 96, 6
_SHINGLE = 5
_WORD = re.compile(r"\w+")


def near_hashes(hashes: np.ndarray, distance: int) -> np.ndarray:
    """Pairs of hashes that differ in at most `distance` bits.

    Hashes are cut into `distance + 1` bands: two that differ in no more bits than `distance` are equal in one band at
    least, so only those that share a band are compared. Sorting makes it O(n log n) for each band, and the comparisons
    are few as long as bands of many bits rarely agree by chance. In a band that more than 1,024 hashes share, only
    neighbours in blocks of so many are compared, which keeps the worst case at O(1,024 n) a band.

    Args:
        hashes: `(n, 32)` uint8, 256 bits each, all different.
        distance: From 0.

    Returns:
        `(pairs, 2)` int64, the smaller first, sorted, each once.
    """
    bits = np.unpackbits(hashes, axis=1)
    edges = np.linspace(0, BITS, distance + 2).astype(int)
    found = [np.zeros((0, 2), dtype=np.int64)]
    for low, high in pairwise(edges):
        for members in _sharing(np.packbits(bits[:, low:high], axis=1)):
            differ = np.bitwise_count(hashes[members, None] ^ hashes[None, members]).sum(-1, dtype=np.uint16)
            found.append(_pairs(members, differ <= distance))
    return np.unique(np.concatenate(found), axis=0)


def near_texts(texts: Sequence[str], similarity: float) -> np.ndarray:
    """Pairs of texts whose sets of five characters in a row have a Jaccard similarity of at least `similarity`.

    MinHash (Broder 1997) with 96 permutations in 16 bands of 6: of pairs at similarity 0.85 about 1 in 2,000 is
    missed. Candidates are compared exactly. Time grows with the total length of the texts, plus the comparisons in
    bands that many share, which are bounded as in `near_hashes`.

    Args:
        texts: All different.
        similarity: From 0.7 to 1.

    Returns:
        `(pairs, 2)` int64, the smaller first, sorted, each once.
    """
    signatures = np.stack([_signature(text) for text in texts]) if texts else np.zeros((0, _PERMUTATIONS), np.uint32)
    candidates = [np.zeros((0, 2), dtype=np.int64)]
    for band in np.split(signatures, _PERMUTATIONS // _ROWS_A_BAND, axis=1):
        for members in _sharing(np.ascontiguousarray(band).view(np.uint8)):
            agree = np.zeros((len(members), len(members)), dtype=np.uint8)
            for column in signatures[members].T:
                agree += column[:, None] == column[None, :]
            candidates.append(_pairs(members, agree >= (similarity - 0.15) * _PERMUTATIONS))  # 4 standard errors
    pairs = np.unique(np.concatenate(candidates), axis=0)
    alike = [_jaccard(*(_shingles(texts[i]) for i in (int(a), int(b)))) >= similarity for a, b in pairs]
    return pairs[np.array(alike, dtype=bool)]


def plain(text: str) -> str:
    """The text in lower case, words only, one space between: what two copies have in common."""
    return " ".join(_WORD.findall(text.lower()))


def clusters(pairs: np.ndarray, size: int) -> list[list[int]]:
    """Groups of at least two that pairs connect, each sorted, by their first.

    Args:
        pairs: `(pairs, 2)` integers below `size`.
        size: How many there are in all.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(size, size))
    _, member_of = connected_components(graph, directed=False)
    order = np.argsort(member_of, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(member_of[order])) + 1)
    return sorted(part.tolist() for part in parts if len(part) > 1)


def _sharing(keys: np.ndarray) -> Iterator[np.ndarray]:
    """Positions of keys `(n, bytes)` that are equal, at most 1,024 at a time."""
    whole = np.ascontiguousarray(keys).view(np.dtype((np.void, keys.shape[1]))).ravel()
    _, member_of = np.unique(whole, return_inverse=True)
    order = np.argsort(member_of, kind="stable")
    for part in np.split(order, np.flatnonzero(np.diff(member_of[order])) + 1):
        for start in range(0, len(part), _BLOCK):
            if len(part[start : start + _BLOCK]) > 1:
                yield part[start : start + _BLOCK]


def _pairs(members: np.ndarray, related: np.ndarray) -> np.ndarray:
    first, second = np.nonzero(np.triu(related, 1))
    return np.sort(np.stack([members[first], members[second]], axis=1), axis=1)


def _shingles(text: str) -> set[str]:
    return {text[i : i + _SHINGLE] for i in range(max(1, len(text) - _SHINGLE + 1))}


def _jaccard(one: set[str], other: set[str]) -> float:
    return len(one & other) / len(one | other)


_PRIME = np.uint64(2**31 - 1)
_RNG = np.random.default_rng(0)
_FACTOR = _RNG.integers(1, 2**31 - 1, _PERMUTATIONS, dtype=np.uint64)[:, None]
_OFFSET = _RNG.integers(0, 2**31 - 1, _PERMUTATIONS, dtype=np.uint64)[:, None]


def _signature(text: str) -> np.ndarray:
    codes = np.fromiter((zlib.crc32(s.encode()) for s in _shingles(text)), dtype=np.uint64) % _PRIME
    return ((_FACTOR * codes + _OFFSET) % _PRIME).min(axis=1).astype(np.uint32)
