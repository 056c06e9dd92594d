"""What a metric sees of a task's rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmfuse.metrics.bootstrap import GroupBootstrap
from mmfuse.metrics.labels import Outcomes, classification_outcomes, multilabel_outcomes, weighted_scores
from mmfuse.types import MISSING_CLASS

Array = NDArray[np.float64]


class Counts(NamedTuple):
    """How often each label was said rightly and wrongly, under b weightings of the rows: `(b, L)` each."""

    hits: Array
    false_alarms: Array
    misses: Array
    rejections: Array

    @property
    def positives(self) -> Array:
        """Where the label is true: the support."""
        return self.hits + self.misses

    @property
    def said(self) -> Array:
        """Where it was said."""
        return self.hits + self.false_alarms

    def pooled(self) -> Counts:
        """Of all labels together, `(b, 1)`."""
        return Counts(*(count.sum(axis=-1, keepdims=True) for count in self))


@dataclass(frozen=True, eq=False)
class Scored:
    """What is true of the rows of a task that have a target, and what a model said of them.

    Attributes:
        target: `(n,)` class ids; of a multi-label task `(n, L)` 0, 1 or NaN where missing; of others `(n,)` numbers.
        decided: What was said, in the same form, nothing missing: class ids, 0 and 1, or predicted numbers.
        labels: The L names; none where the target is a number.
        probabilities: `(n, L)` in [0, 1]; None where the model gives none.
        rows: `(n,)`, where these rows stand among all that were predicted.
    """

    target: NDArray[Any]
    decided: NDArray[Any]
    labels: tuple[str, ...]
    probabilities: Array | None
    rows: NDArray[np.int64]

    @classmethod
    def of_classes(
        cls, probabilities: ArrayLike, target: ArrayLike, labels: Sequence[str], decided: ArrayLike | None = None
    ) -> Scored:
        """Of a classification task: `(N, K)`, `(N,)` with -100 where missing, and the ids said if not the likeliest."""
        probabilities, target = np.asarray(probabilities, np.float64), np.asarray(target)
        said = probabilities.argmax(axis=1) if decided is None else np.asarray(decided)
        rows = np.flatnonzero(target != MISSING_CLASS)
        return cls(target[rows], said[rows], tuple(labels), probabilities[rows], rows)

    @classmethod
    def of_labels(
        cls, probabilities: ArrayLike, target: ArrayLike, labels: Sequence[str], thresholds: ArrayLike
    ) -> Scored:
        """Of a multi-label task: `(N, L)`, `(N, L)` with NaN where missing, and thresholds `(L,)`."""
        probabilities, target = np.asarray(probabilities, np.float64), np.asarray(target, np.float64)
        said = (probabilities >= np.asarray(thresholds)).astype(np.float64)
        rows = np.flatnonzero(~np.isnan(target).all(axis=1))
        return cls(target[rows], said[rows], tuple(labels), probabilities[rows], rows)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def exclusive(self) -> bool:
        """Whether one label of each row is true: they are classes."""
        return bool(self.labels) and self.target.ndim == 1

    @cached_property
    def truth(self) -> Array:
        """`(n, L)` whether each label is true, 0 or 1, NaN where that is not known; of classes one of each row."""
        return np.eye(len(self.labels))[self.target] if self.exclusive else self.target

    @cached_property
    def said(self) -> Array:
        """`(n, L)` whether each label was said, 0 or 1."""
        return np.eye(len(self.labels))[self.decided] if self.exclusive else self.decided

    def counts(self, weights: Array) -> Counts:
        """How often each label was said rightly and wrongly; those of the last weights are kept for other metrics."""
        return self._kept("counts", weights, self._counts)

    def standard(self, weights: Array) -> dict[str, Array]:
        """What `score_classification` and `score_multilabel` give under weights of rows, by name."""
        return self._kept("standard", weights, self._standard)

    @cached_property
    def _last(self) -> dict[str, tuple[Array, Any]]:
        return {}

    def _kept(self, name: str, weights: Array, make: Callable[[Array], Any]) -> Any:
        known = self._last.get(name)
        if known is None or known[0] is not weights:
            self._last[name] = known = weights, make(weights)
        return known[1]

    def _counts(self, weights: Array) -> Counts:
        known = ~np.isnan(self.truth)
        true, said = np.where(known, self.truth, 0.0), np.where(known, self.said, 0.0)
        every, positives, claimed, hits = (weights @ part for part in (known.astype(float), true, said, true * said))
        return Counts(hits, claimed - hits, positives - hits, every - positives - claimed + hits)

    @cached_property
    def sureness(self) -> tuple[NDArray[np.int64], Array, Array]:
        """Of the E labelled entries the row, how sure the model was, and whether it came true, `(E,)` each."""
        return self.outcomes.rows, self.outcomes.confidence, self.outcomes.correct

    @cached_property
    def outcomes(self) -> Outcomes:
        """What the scores of every report are made of; of labels with probabilities."""
        assert self.probabilities is not None
        make = classification_outcomes if self.exclusive else multilabel_outcomes
        return make(self.probabilities, self.target, self.decided)

    @cached_property
    def _standard(self) -> Callable[[Array], dict[str, Array]]:
        each = GroupBootstrap([f"{row:09d}" for row in range(len(self))], 0)  # every row is a group
        return weighted_scores(self.outcomes, each)
