"""Two captions that need no decoder: what a written one must be better than."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, permutations

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import csr_array

from mmfuse.metrics.captions.cider import Array, CiderVectors, Grams, length_penalty, ngrams
from mmfuse.metrics.captions.languages import tokens_of
from mmfuse.metrics.captions.references import check_number, without_blank
from mmfuse.types import MmfuseError

CHUNK = 1024
"""Queries whose cosines with all keys are in memory at once."""


def consensus_caption(train_references: Sequence[Sequence[str]], language: str | None = None) -> str:
    """Find the training caption that agrees best with all training images: what to write without looking.

    That is the one with the highest mean over images of CIDEr-D, its own image among them; the first of equal ones, and
    so the first caption of all if there is one image only. Exact, in time linear in the number of tokens: see
    `CiderVectors` for how a clipped count becomes a product; as the rest of a score depends on a reference's length
    alone, references of one length are added up before anything is multiplied.

    Args:
        train_references: Those of each image; blank ones, and images without others, are left out.
        language: Of the captions, as two letters; default: English.

    Raises:
        MmfuseError: There is no caption.
    """
    images = [captions for captions in without_blank(train_references) if captions]
    captions = list(chain.from_iterable(images))
    if not captions:
        raise MmfuseError("no consensus: there is no training caption")
    grams = _grams(images, language)
    vectors = CiderVectors.of(list(chain.from_iterable(grams)), grams)
    sizes = np.array([len(captions) for captions in images])
    shares = np.repeat(1 / sizes, sizes)
    lengths, length = np.unique(vectors.bigrams, return_inverse=True)
    added = csr_array((shares, (length, np.arange(len(captions))))) @ vectors.weight  # (lengths, columns)
    products = csr_array(vectors.clip @ added.T).toarray()
    agreement = products * length_penalty(vectors.bigrams[:, None] - lengths)
    return captions[int(agreement.sum(axis=1).argmax())]


def retrieve_captions(
    queries: ArrayLike, keys: ArrayLike, key_references: Sequence[Sequence[str]], language: str | None = None
) -> list[str]:
    """Write for each query a caption of the key nearest by cosine (the first of equally near ones).

    Of that key's references it is their own consensus: the one with the highest mean CIDEr-D to the others (idf of all
    keys), the first of equal ones. An annotator's odd caption is thus seldom chosen.

    Args:
        queries: `(Q, D)`, finite.
        keys: `(K, D)`, finite.
        key_references: The K keys' references; blank ones, and keys without others, are left out.
        language: Of the captions, as two letters; default: English.

    Returns:
        Q captions.

    Raises:
        MmfuseError: Shapes do not match, a number is not finite, or no key has a reference.
    """
    queries, keys = _unit_length(queries, "queries"), _unit_length(keys, "keys")
    if queries.shape[1] != keys.shape[1]:
        raise MmfuseError(f"queries are {queries.shape} and keys {keys.shape}; both must have the same width")
    check_number("keys", len(keys), len(key_references))
    key_references = without_blank(key_references)
    used = [key for key, captions in enumerate(key_references) if captions]
    if not used:
        raise MmfuseError("nothing to retrieve: no key has a reference")
    keys = keys[used]
    chunks = (queries[start : start + CHUNK] for start in range(0, len(queries), CHUNK))
    nearest = [(chunk @ keys.T).argmax(axis=1) for chunk in chunks]
    own = _own_consensus([key_references[key] for key in used], language)
    return [own[key] for key in chain.from_iterable(nearest)]


def _grams(references: list[list[str]], language: str | None) -> list[list[Grams]]:
    split = tokens_of(language)
    return [[ngrams(split(caption)) for caption in captions] for captions in references]


def _own_consensus(references: list[list[str]], language: str | None) -> list[str]:
    """Of each image's references the one most like the others."""
    sizes = np.array([len(captions) for captions in references])
    if sizes.max() == 1:
        return [captions[0] for captions in references]
    grams = _grams(references, language)
    vectors = CiderVectors.of(list(chain.from_iterable(grams)), grams)
    starts = sizes.cumsum() - sizes
    pairs = [
        (start + i, start + j)
        for start, size in zip(starts, sizes, strict=True)
        for i, j in permutations(range(size), 2)
    ]
    one, other = np.array(pairs).T
    agreement = np.bincount(one, vectors.scores(one, other), minlength=sizes.sum())
    own = np.split(agreement, starts[1:])
    return [captions[int(scores.argmax())] for captions, scores in zip(references, own, strict=True)]


def _unit_length(vectors: ArrayLike, name: str) -> Array:
    found = np.asarray(vectors, np.float64)
    if found.ndim != 2 or not np.isfinite(found).all():
        raise MmfuseError(f"{name} are {found.shape}; they must be (rows, width), all finite")
    return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), np.finfo(np.float64).tiny)
