"""CIDEr-D by dot products: n-grams, and captions as vectors of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

MAX_N = 4
"""BLEU and CIDEr-D count n-grams of 1 to 4 tokens."""
Array = NDArray[np.float64]
Ints = NDArray[np.int64]
Grams = Counter[tuple[str, ...]]


def ngrams(tokens: Sequence[str]) -> Grams:
    """How often each run of 1 to `MAX_N` tokens occurs."""
    runs = (zip(*(tokens[i:] for i in range(n)), strict=False) for n in range(1, MAX_N + 1))
    return Counter(chain.from_iterable(runs))


def cider_d(candidates: Sequence[Grams], references: Sequence[Sequence[Grams]]) -> Array:
    """CIDEr-D of each row, `(N,)`."""
    right = list(chain.from_iterable(references))
    vectors = CiderVectors.of([*candidates, *right], references)
    sizes = np.array([len(captions) for captions in references])
    row = np.repeat(np.arange(len(sizes)), sizes)
    scores = vectors.scores(row, len(sizes) + np.arange(len(right)))
    return np.bincount(row, scores, minlength=len(sizes)) / sizes


class CiderVectors(NamedTuple):
    """Captions as the candidates (`clip`) and the references (`weight`) of CIDEr-D, `(captions, columns)`.

    Its clipped products sum min(a, b) b idf^2 over n-grams said a times by the candidate and b times by the reference:
    no dot product of counts. But min(a, b) is the number of k up to a and b. So n-gram g has a column (g, k) for each
    k; the candidate has 1 in those up to a, the reference b idf^2 in those up to b, and their dot product is the sum.
    Both are divided by the norm of their n-grams' vector, and `bigrams (captions,)` are the lengths that count.
    """

    clip: csr_array
    weight: csr_array
    bigrams: Array

    @classmethod
    def of(cls, captions: Sequence[Grams], images: Sequence[Sequence[Grams]]) -> CiderVectors:
        """Of any captions, with the document frequencies of the images' references."""
        frequency = Counter(chain.from_iterable(set().union(*references) for references in images))
        numbers: dict[tuple[tuple[str, ...], int], int] = {}
        entries = [
            (row, numbers.setdefault((gram, k), len(numbers)), len(gram) - 1, count, frequency[gram])
            for row, grams in enumerate(captions)
            for gram, count in grams.items()
            for k in range(count)
        ]
        rows, columns, order, counts, documents = np.array(entries, dtype=np.int64).reshape(-1, 5).T
        weights = counts * (np.log(len(images)) - np.log(np.maximum(documents, 1))) ** 2
        norms = np.sqrt(np.bincount(rows * MAX_N + order, weights, minlength=len(captions) * MAX_N))  # b times b idf^2
        scale = np.divide(1, norms, out=np.zeros_like(norms), where=norms > 0)[rows * MAX_N + order]
        bigrams = np.bincount(rows, order == 1, minlength=len(captions)).astype(np.float64)
        clip, weight = (
            csr_array((values, (rows, columns)), shape=(len(captions), len(numbers)))
            for values in (scale, weights * scale)
        )
        return cls(clip, weight, bigrams)

    def scores(self, candidates: Ints, references: Ints) -> Array:
        """CIDEr-D of each pair of a candidate and a reference, by their numbers `(P,)`."""
        products = self.clip[candidates].multiply(self.weight[references]).sum(axis=1)
        return 10 / MAX_N * products * length_penalty(self.bigrams[candidates] - self.bigrams[references])


def length_penalty(difference: Array) -> Array:
    """The factor of a pair, by how much longer one caption is."""
    return np.exp(-(difference**2) / (2 * 6**2))
