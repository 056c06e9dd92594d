"""What subgroups are compared in: of each task the scores that mean the same in subgroups of unlike make-up."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmfuse.evaluation.analyses import Scored
from mmfuse.metrics.bootstrap import GroupBootstrap
from mmfuse.metrics.captions import rouge_l_rows
from mmfuse.metrics.gaps import Array, Ints, MeanAuroc, Measures, Rates

MOST_MEASURED = 200
"""Permutations and resamples of a metric that is no sum over rows."""


def main_measures(
    scored: Scored, task: str, subgroup: Ints, number: int, min_rows: int, min_positives: int
) -> Iterator[tuple[Measures, list[str]]]:
    """What a task's subgroups are compared in first, with the labels that are averaged over.

    Labels: the mean AUROC over those labels of which every compared subgroup has enough; of one class a row, also the
    accuracy. Captions: ROUGE-L. Any other task: the metric that it names as its own.

    Args:
        scored: The rows.
        task: One of them.
        subgroup: `(N,)` in 0 to `number` - 1.
        number: Of subgroups, K.
        min_rows: With a target, that a subgroup must have to be compared.
        min_positives: Rows with a label, and without it, that it must have.
    """
    target, kind = scored.target(task), scored.kind(task)
    there = kind.labelled(target)
    enough = np.bincount(subgroup[there], minlength=number) >= min_rows
    if kind.is_text:
        said, language = [kind.text(row) for row in scored.said[task]], scored.table.manifest.tasks[task].language
        written = rouge_l_rows(said, list(target), language)
        yield _mean("rouge_l", written, enough), []
    elif not kind.has_labels:
        yield _Measured(kind, scored.said[task], target, enough), []
    else:
        probabilities, truth, decided = _decisions(scored, task)
        compared, good = _comparable(truth, subgroup, enough, min_positives)
        if good.any():
            names = [label for label, is_good in zip(kind.labels, good, strict=True) if is_good]
            yield MeanAuroc(probabilities[:, good], truth[:, good], compared), names
        if kind.exclusive:
            right = np.where(there, (decided & (truth == 1)).any(axis=1), np.nan)
            yield _mean("accuracy", right, enough), []


def decision_measures(
    scored: Scored, task: str, subgroup: Ints, number: int, min_rows: int, min_positives: int
) -> Iterator[Measures]:
    """By label the shares of its positives and of its negatives that are taken for positive, as the model decides.

    Of two classes the second share is left out: it is what the first of the other class lacks to 1.

    Args:
        scored: The rows.
        task: One of them; of a task without labels there is nothing.
        subgroup: `(N,)` in 0 to `number` - 1.
        number: Of subgroups, K.
        min_rows: With a target, that a subgroup must have to be compared.
        min_positives: Rows with a label (`tpr`), or without it (`fpr`), that it must have.
    """
    kind = scored.kind(task)
    if not kind.has_labels:
        return
    _, truth, decided = _decisions(scored, task)
    enough = np.bincount(subgroup[~np.isnan(truth).all(axis=1)], minlength=number) >= min_rows
    two_classes = kind.exclusive and len(kind.labels) == 2
    for name, value in (("tpr", 1), ("fpr", 0))[: 1 if two_classes else 2]:
        of = truth == value
        compared = enough[:, None] & (_counted(of, subgroup, number) >= min_positives)
        yield Rates([(name, label) for label in kind.labels], 1.0 * (of & decided), 1.0 * of, compared)


def label_counts(scored: Scored, task: str, subgroup: Ints, number: int) -> tuple[Ints, Ints]:
    """`(K, L)` rows with each label, and without it."""
    _, truth, _ = _decisions(scored, task)
    return _counted(truth == 1, subgroup, number), _counted(truth == 0, subgroup, number)


def _decisions(scored: Scored, task: str) -> tuple[Array, Array, NDArray[np.bool_]]:
    """`(N, L)` each: probabilities; truth 0, 1 or NaN; what is decided."""
    kind, target = scored.kind(task), scored.target(task)
    probabilities = kind.predictions(scored.said[task])
    truth = np.where(kind.known(target), kind.one_hot(target), np.nan)
    said = kind.said(probabilities)
    return probabilities, truth, (np.eye(probabilities.shape[1])[said] if kind.exclusive else said) == 1


def _counted(there: NDArray[np.bool_], subgroup: Ints, number: int) -> Ints:
    return np.stack([np.bincount(subgroup[column], minlength=number) for column in there.T], axis=1)


def _comparable(
    truth: Array, subgroup: Ints, enough: NDArray[np.bool_], min_positives: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which subgroups `(K,)` are compared over which labels `(L,)`: each has enough of each, or others are averaged.

    Where no label is left, the subgroup that has the fewest is given up.
    """
    number = len(enough)
    fewest = np.minimum(_counted(truth == 1, subgroup, number), _counted(truth == 0, subgroup, number))
    compared, good = enough.copy(), np.zeros(truth.shape[1], dtype=bool)
    while compared.sum() > 1:
        good = fewest[compared].min(axis=0) >= min_positives
        if good.any():
            return compared, good
        kept = np.flatnonzero(compared)
        compared[kept[fewest[kept].max(axis=1).argmin()]] = False
    return compared, np.zeros_like(good)


def _mean(name: str, values: Array, compared: NDArray[np.bool_]) -> Rates:
    """The mean over rows of `values (N,)`, without those that are NaN."""
    there = ~np.isnan(values)
    return Rates([(name, None)], np.where(there, values, 0)[:, None], 1.0 * there[:, None], compared[:, None])


class _Measured:
    """The metric that a task without labels names as its own, which is computed of whole sets of rows.

    Args:
        kind: What the task is.
        said: `(N, width)`.
        target: `(N, ...)`, encoded.
        compared: `(K,)` bool.
    """

    def __init__(self, kind: Any, said: np.ndarray, target: np.ndarray, compared: NDArray[np.bool_]):
        self.kind, self.compared = kind, compared[:, None]
        self.names: list[tuple[str, str | None]] = [(kind.monitor, None)]
        self._predicted, self._target, self._there = kind.predictions(said), target, kind.labelled(target)

    def values(self, subgroup: Ints) -> Array:
        """`(K, 1)`."""
        return self._measured(subgroup, np.ones(len(subgroup)))

    def permuted(self, subgroups: Ints) -> Array:
        """`(P, K, 1)` of the first `MOST_MEASURED`."""
        return np.stack([self.values(subgroup) for subgroup in subgroups[:MOST_MEASURED]])

    def resampled(self, subgroup: Ints, bootstrap: GroupBootstrap) -> Array:
        """`(B, K, 1)` of the first `MOST_MEASURED`."""
        times = bootstrap.multiplicities(0, min(bootstrap.resamples, MOST_MEASURED))[:, bootstrap.row_group]
        found = [self._measured(subgroup, of) for of in times]
        return np.stack(found) if found else np.empty((0, len(self.compared), 1))

    def held(self, subgroup: Ints, groups: GroupBootstrap) -> list[Array]:
        """Nothing: it need not be a share."""
        return []

    def _measured(self, subgroup: Ints, times: Array) -> Array:
        found = np.full((len(self.compared), 1), np.nan)
        for k in range(len(found)):
            rows = np.flatnonzero((subgroup == k) & self._there & (times > 0))
            if len(rows):
                measured = self.kind.measure(self._predicted[rows], self._target[rows], times[rows])
                found[k] = measured[self.kind.monitor]
        return found
