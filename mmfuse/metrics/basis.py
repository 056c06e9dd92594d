"""What the intervals of a task's scores rest on: which rows a score counts, and how they lie in groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmfuse.metrics.bootstrap import GroupJackknife
from mmfuse.metrics.intervals import (
    ANYWHERE,
    FEWEST,
    Basis,
    Bounds,
    balanced,
    effective_number,
    score_of,
    shares_of,
    too_few_groups,
    too_few_of_classes,
)
from mmfuse.metrics.ranking import ratio
from mmfuse.metrics.results import Score

Array = NDArray[np.float64]
_NONE = {
    "known": "no row is labelled",
    "true": "no row is positive",
    "false": "no row is negative",
    "said": "it was never said",
    "denied": "it was always said",
}


def basis_of_rows(groups: GroupJackknife, counts: ArrayLike | float = 1.0) -> Basis:
    """Of a score that counts every row, or each as often as `counts (N,)` says."""
    held = _by_group(groups, np.broadcast_to(np.asarray(counts, np.float64), groups.row_group.shape)[:, None])[:, 0]
    return _basis(groups, too_few_groups(held), held)


def score_of_mean(
    values: ArrayLike, groups: GroupJackknife, bounds: Bounds = ANYWHERE, weights: ArrayLike | float = 1.0
) -> Score:
    """The mean of `values (N,)`, weighted, with its interval."""
    values = np.asarray(values, np.float64)
    weights = np.broadcast_to(np.asarray(weights, np.float64), values.shape)
    above, below = _by_group(groups, np.stack([values * weights, weights], axis=1)).T
    left_out = groups.replicate(lambda times: {"mean": ratio(times @ above, times @ below)})["mean"]
    value = above.sum() / below.sum() if below.sum() > 0 else float("nan")
    return score_of(value, left_out, basis_of_rows(groups, weights), bounds)


class LabelBasis:
    """Of scores of labels.

    Args:
        truth: `(N, L)` 0, 1, or NaN where missing.
        said: `(N, L)` 0 or 1, whether each label was said.
        labels: The L names.
        groups: Of the N rows.
    """

    def __init__(self, truth: Array, said: Array, labels: Sequence[str], groups: GroupJackknife):
        known = ~np.isnan(truth)
        self._groups, self._labels = groups, labels
        of = {"true": truth == 1, "false": truth == 0, "said": known & (said == 1), "denied": known & (said != 1)} | {
            "known": known
        }
        self._held = {name: _by_group(groups, rows.astype(np.float64)) for name, rows in of.items()}
        self._rows = _by_group(groups, known.astype(np.float64)).sum(axis=1)

    def __call__(self, counts: str) -> list[Basis]:
        """Of each label, or of the one score of all.

        Args:
            counts: What the score is of. Of all labels: "rows", every labelled entry; "labels", a mean over labels;
                "rankings", a mean over labels of what compares positives and negatives. Of each: "known", its labelled
                rows; "true", "false", "said" or "denied", such of them; "ranking", both classes.
        """
        refused = too_few_groups(self._rows)
        if counts == "rows":
            return [_basis(self._groups, refused, self._rows)]
        if counts in ("labels", "rankings"):
            return [self._mean(counts == "rankings", refused)]
        if counts == "ranking":
            return [_of_classes(self._groups, p, n) for p, n in self._classes()]
        return [
            _basis(self._groups, refused or ("" if held.any() else _NONE[counts]), self._rows, held)
            for held in self._held[counts].T
        ]

    def _classes(self) -> list[tuple[Array, Array]]:
        return list(zip(self._held["true"].T, self._held["false"].T, strict=True))

    def _mean(self, ranked: bool, refused: str) -> Basis:
        """Of the mean over labels, of those that have positives, and where they are ranked negatives."""
        positives, negatives = self._held["true"], self._held["false"]
        there: NDArray[np.bool_] = np.asarray(positives.any(axis=0) & (negatives.any(axis=0) | (not ranked)))
        if not there.any():
            return _basis(self._groups, refused or "no label has positives", self._rows)
        held = [balanced(positives[:, there])] + ([balanced(negatives[:, there])] if ranked else [])
        fewest = (positives > 0).sum(axis=0)
        if ranked:
            fewest = np.minimum(fewest, (negatives > 0).sum(axis=0))
            worth = min(float(effective_number(of)) for of in held)
            enough = bool((fewest[there] >= FEWEST).all()) or worth >= FEWEST
            most = too_few_groups(self._rows) if self._one_holds_most() else ""
            refused = most or ("" if enough else self._scarce(fewest, there, FEWEST))
        else:
            held.append(self._rows)
        return _basis(self._groups, refused, *held)._replace(note=self._scarce(fewest, there, 2))

    def _one_holds_most(self) -> bool:
        return bool(self._rows.max(initial=0) > 0.5 * self._rows.sum())

    def _scarce(self, fewest: NDArray[Any], there: NDArray[np.bool_], least: int) -> str:
        """Which labels lie in too few groups, as one line; "" if none does."""
        names = [name for name, few in zip(self._labels, there & (fewest < least), strict=True) if few]
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        if not names:
            return ""
        if least < FEWEST:
            return f"the mean loses {shown} where one group is left out"
        return f"fewer than {least} groups have positive, or negative, rows of {shown}"


def _by_group(groups: GroupJackknife, rows: Array) -> Array:
    """Sums of `(N, L)` by group, `(G, L)`."""
    found = np.zeros((groups.num_groups, rows.shape[1]))
    np.add.at(found, groups.row_group, rows)
    return found


def _of_classes(groups: GroupJackknife, positives: Array, negatives: Array) -> Basis:
    return _basis(groups, too_few_of_classes(positives, negatives), positives, negatives)


def _basis(groups: GroupJackknife, why_not: str, *held: Array) -> Basis:
    if not groups.asked:
        return Basis(None)
    return Basis(None, why_not) if why_not else Basis(shares_of(*held, blocks=groups.blocks))
