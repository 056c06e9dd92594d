"""Pairs of like hashes and like texts among very many, without comparing each with each."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, pairwise
from operator import itemgetter
from typing import NamedTuple

import numpy as np

from mmfuse.data.audit.findings import Finding

BITS = 256
"""Of an image's hash."""
_BLOCK = 1024
_PAIRS = 1 << 13
"""Compared at once: what fits the cache of a core."""
_PERMUTATIONS, _ROWS_A_BAND = 96, 6
_SKETCH = 512
_SHINGLE = 5
_WORD = re.compile(r"\w+")


class Near(NamedTuple):
    """What a search found.

    Attributes:
        pairs: `(pairs, 2)` int64, the smaller first, sorted, each once.
        crowded: How many share a band with more than 1,023 others, and were compared with so many of them only.
    """

    pairs: np.ndarray
    crowded: int


def near_hashes(hashes: np.ndarray, distance: int) -> Near:
    """Pairs of hashes that differ in at most `distance` bits.

    Hashes are cut into `distance + 1` bands: two that differ in no more bits than `distance` are equal in one band at
    least, so only those that share a band are compared. Sorting makes it O(n log n) for each band, and the comparisons
    are few as long as bands of many bits rarely agree by chance. In a band that more than 1,024 hashes share, only
    neighbours in blocks of so many are compared, which keeps the worst case at O(1,024 n) a band.

    Args:
        hashes: `(n, 32)` uint8, 256 bits each, all different.
        distance: From 0.
    """
    edges = np.linspace(0, BITS, distance + 2).astype(int)
    bands = (_keys(np.packbits(_bits(hashes, low, high), axis=1)) for low, high in pairwise(edges))
    return _near(bands, hashes, np.full(len(hashes), distance / 2))


def near_texts(texts: Sequence[str], similarity: float) -> Near:
    """Pairs of texts whose sets of five characters in a row have a Jaccard similarity of at least `similarity`.

    MinHash (Broder 1997) with 96 permutations in 16 bands of 6: of pairs at similarity 0.85 about 1 in 2,000 is
    missed. Those that share a band are compared by odd sketches (Mitzenmacher et al. 2014), which differ in no more
    bits than the sets in members, and what these leave is compared exactly. Time grows with the total length of the
    texts, plus the comparisons in bands that many share, which are bounded as in `near_hashes`.

    Args:
        texts: All different.
        similarity: From 0.7 to 1.
    """
    bands = np.zeros((_PERMUTATIONS // _ROWS_A_BAND, len(texts)), np.int64)
    sketches = np.zeros((len(texts), _SKETCH // 8), np.uint8)
    sizes = np.zeros(len(texts), np.int64)
    for i, text in enumerate(texts):
        bands[:, i], sketches[i], sizes[i] = _signature(text)
    apart = (1 - similarity) / (1 + similarity)  # of all members of two sets: what at most is in one of them only
    keys = (np.unique(band, return_inverse=True)[1] for band in bands)
    pairs, crowded = _near(keys, sketches, apart * sizes + 1e-6)
    alike: list[bool] = []
    for first, others in groupby(pairs.tolist(), key=itemgetter(0)):
        own = _shingles(texts[int(first)])
        alike += [_jaccard(own, _shingles(texts[int(other)])) >= similarity for _, other in others]
    return Near(pairs[np.array(alike, dtype=bool)], crowded)


def tell_crowded(what: str, crowded: int) -> list[Finding]:
    """That not all near copies of `what` may have been found, if so."""
    if not crowded:
        return []
    message = (
        f"near copies: {crowded} {what} are in part like more than {_BLOCK - 1:,} others, and were compared with so "
        "many of them only"
    )
    return [Finding(f"{what}.crowded", "info", message, "nothing; exact copies are found all the same", count=crowded)]


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


def _near(bands: Iterable[np.ndarray], bits: np.ndarray, share: np.ndarray) -> Near:
    """Pairs that share a band and whose `bits` `(n, bytes)` uint8 differ in no more than the sum of their `share`s."""
    words = np.ascontiguousarray(bits).view(np.uint64)
    found, crowded = [np.zeros(0, dtype=np.int64)], np.zeros(len(bits), dtype=bool)
    for band in bands:
        for pairs in _sharing(band):
            one, other = pairs.T
            differ = np.bitwise_count(words.take(one, axis=0) ^ words.take(other, axis=0))
            few = np.einsum("ij->i", differ, dtype=np.uint16) <= share.take(one) + share.take(other)  # faster than sum
            first, second = pairs[few].T
            found.append(first * len(bits) + second)
        crowded |= np.bincount(band, minlength=1)[band] > _BLOCK
    pairs = np.stack(np.divmod(np.unique(np.concatenate(found)), max(1, len(bits))), axis=1)
    return Near(pairs, int(np.count_nonzero(crowded)))


def _bits(hashes: np.ndarray, low: int, high: int) -> np.ndarray:
    """`(n, high - low)` uint8: these bits of every hash, without unpacking the others."""
    bits = np.unpackbits(hashes[:, low // 8 : -(-high // 8)], axis=1)
    return bits[:, low % 8 : low % 8 + high - low]


def _keys(parts: np.ndarray) -> np.ndarray:
    """`(n,)` int64: by row of `(n, bytes)` uint8 a number, equal where the bytes are."""
    whole = np.ascontiguousarray(parts).view(np.dtype((np.void, parts.shape[1]))).ravel()
    return np.unique(whole, return_inverse=True)[1]


def _sharing(keys: np.ndarray) -> Iterator[np.ndarray]:
    """Pairs `(pairs, 2)` of positions whose keys `(n,)` are equal, the smaller first, each once.

    Of a key that more than 1,024 share, pairs are those within blocks of 1,024.
    """
    order, here = np.argsort(keys, kind="stable"), np.arange(len(keys))
    begins = np.diff(keys[order], prepend=-1) != 0
    before = (here - np.maximum.accumulate(np.where(begins, here, 0))) % _BLOCK  # each is paired with those before it
    total = np.cumsum(before)
    for part in np.split(here, np.searchsorted(total, np.arange(_PAIRS, total[-1:].sum(), _PAIRS))):
        count = before[part]
        second = np.repeat(part, count)
        first = second - np.arange(len(second)) + np.repeat(np.cumsum(count) - count, count) - 1
        yield np.stack([order[first], order[second]], axis=1)


def _shingles(text: str) -> set[str]:
    return {text[i : i + _SHINGLE] for i in range(max(1, len(text) - _SHINGLE + 1))}


def _jaccard(one: set[str], other: set[str]) -> float:
    return len(one & other) / len(one | other)


_PRIME = np.uint64(2**31 - 1)
_RNG = np.random.default_rng(0)
_FACTOR = _RNG.integers(1, 2**31 - 1, _PERMUTATIONS, dtype=np.uint64)[:, None]
_OFFSET = _RNG.integers(0, 2**31 - 1, _PERMUTATIONS, dtype=np.uint64)[:, None]


def _signature(text: str) -> tuple[list[int], np.ndarray, int]:
    """MinHash, its 16 bands as hashes of 8 bytes; odd sketch of 512 bits `(64,)` uint8; and size of a text's set."""
    codes = np.fromiter((zlib.crc32(s.encode()) for s in _shingles(text)), dtype=np.uint64)
    odd = np.bincount((codes % np.uint64(_SKETCH)).astype(np.intp), minlength=_SKETCH) % 2
    smallest = ((_FACTOR * (codes % _PRIME) + _OFFSET) % _PRIME).min(axis=1).reshape(-1, _ROWS_A_BAND)
    return [hash(band.tobytes()) for band in smallest], np.packbits(odd.astype(bool)), len(codes)
