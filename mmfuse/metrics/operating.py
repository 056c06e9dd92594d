"""Operating points: decision thresholds for a required sensitivity, specificity, precision, or the least cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmfuse.metrics import METRICS
from mmfuse.metrics.chosen import evaluate_metrics
from mmfuse.metrics.results import PointScores
from mmfuse.metrics.scored import Scored
from mmfuse.registry import nearest
from mmfuse.types import MISSING_CLASS, MmfuseError

RATES = ("sensitivity", "specificity", "precision")
REQUIREMENTS = (*RATES, "cost")
MEASURED = ("sensitivity", "specificity", "ppv", "npv")
"""What is told of an operating point, on the rows that chose it and on others."""
_ERRORS = ("false_negative", "false_positive")
Array = NDArray[np.float64]


@dataclass(frozen=True)
class OperatingPoint:
    """Thresholds that validation rows chose for a requirement.

    Attributes:
        requires: `{"sensitivity": 0.95}`, or `{"cost": {"false_negative": 5, "false_positive": 1}}`.
        labels: What the thresholds are of: all labels, or of two classes the one that is said from its threshold on.
        thresholds: One a label; None where the validation rows do not reach what is required.
        validation: By label, what that gave on the validation rows; nothing of a label without a threshold.
    """

    requires: dict[str, Any]
    labels: list[str]
    thresholds: list[float | None]
    validation: dict[str, PointScores]

    def unreached(self) -> list[str]:
        """The labels whose validation rows do not reach what is required."""
        return [label for label, threshold in zip(self.labels, self.thresholds, strict=True) if threshold is None]


def in_words(requires: Mapping[str, Any]) -> str:
    """A requirement as a phrase: "sensitivity 0.95", "least cost (false_negative 5, false_positive 1)"."""
    ((name, value),) = requires.items()
    if name == "cost":
        return f"least cost ({', '.join(f'{error} {value[error]:g}' for error in _ERRORS)})"
    return f"{name} {value:g}"


def read_requirement(
    given: Any, labels: Sequence[str], exclusive: bool, where: str
) -> tuple[dict[str, Any], list[str]]:
    """A requirement as a config says it, and the labels that get a threshold.

    Args:
        given: `{sensitivity: 0.95}`; of two classes perhaps also `positive: LABEL`, by default the second one.
        labels: Of the task; none where it has none.
        exclusive: Whether one of them is true of a row.
        where: What errors begin with.

    Raises:
        MmfuseError: It is written otherwise, or the task has no thresholds.
    """
    if not labels or (exclusive and len(labels) != 2):
        what = f"there are {len(labels)}" if labels else "the task has neither"
        raise MmfuseError(f"{where}: operating points are for labels and for two classes; {what}")
    positive = given.get("positive", labels[-1]) if isinstance(given, Mapping) else None
    requires = {key: value for key, value in given.items() if key != "positive"} if isinstance(given, Mapping) else {}
    if len(requires) != 1 or (not exclusive and "positive" in given):
        raise MmfuseError(
            f"{where}: {given!r:.100}: one of {', '.join(REQUIREMENTS)} is expected: {{sensitivity: 0.95}}"
        )
    ((name, value),) = requires.items()
    if name not in REQUIREMENTS:
        raise MmfuseError(f"{where}: {name!r} is not legal; {nearest(name, REQUIREMENTS)}")
    if name in RATES and not (_is_number(value) and 0 < value <= 1):
        raise MmfuseError(f"{where}.{name}: {value!r:.100}: a number above 0, at most 1, is expected")
    if name == "cost" and not _are_costs(value):
        raise MmfuseError(
            f"{where}.cost: {value!r:.100}: {{false_negative: 5, false_positive: 1}}, above 0, is expected"
        )
    if not exclusive:
        return requires, list(labels)
    if positive not in labels:
        raise MmfuseError(f"{where}.positive: {positive!r:.100}: no such class; {nearest(str(positive), labels)}")
    return requires, [str(positive)]


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _are_costs(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and set(value) == set(_ERRORS)
        and all(_is_number(v) and v > 0 for v in value.values())
    )


def choose_point(
    requires: dict[str, Any],
    chosen: Sequence[str],
    labels: Sequence[str],
    probabilities: ArrayLike,
    target: ArrayLike,
    groups: Sequence[str],
    resamples: int = 1000,
) -> OperatingPoint:
    """Choose the thresholds that meet a requirement on validation rows, and measure what they give there.

    Of several thresholds that reach a required sensitivity the highest is taken, of those that reach a specificity or a
    precision the lowest: what is required is reached, and as much of the other as that leaves. Of equal costs the
    threshold nearest to 0.5 is taken. The same rows choose and measure, so other rows can give less.

    Reference: the operating points of a ROC curve; Elkan 2001, "The Foundations of Cost-Sensitive Learning", for costs.
    Differs: costs are counted on the rows, not derived from calibrated probabilities; thresholds lie midway between
        neighbouring scores.
    Prefer when: what a miss or a false alarm costs is known; `tune_thresholds` takes the highest F1.

    Args:
        requires: As `read_requirement` gives it.
        chosen: The labels that get a threshold.
        labels: All labels of the task, in the order of the probabilities.
        probabilities: `(N, L)`.
        target: `(N,)` class ids, -100 where missing, or `(N, L)` 0, 1 or NaN where missing.
        groups: `(N,)`; rows of one group are resampled together.
        resamples: Of the groups, for the intervals.
    """
    scores, truth = _of_labels(chosen, labels, probabilities, target)
    thresholds = [choose_threshold(s, y, requires) for s, y in zip(scores.T, truth.T, strict=True)]
    point = OperatingPoint(requires, list(chosen), thresholds, {})
    return OperatingPoint(
        requires, point.labels, thresholds, measure_point(point, labels, probabilities, target, groups, resamples)
    )


def choose_threshold(scores: ArrayLike, truth: ArrayLike, requires: Mapping[str, Any]) -> float | None:
    """The threshold of one label for a requirement; a score at or above it is a yes.

    Args:
        scores: `(n,)` in [0, 1].
        truth: `(n,)` 0, 1 or NaN where missing.
        requires: One of `REQUIREMENTS`.

    Returns:
        At least 0; None where no threshold reaches it, or there are no positives or no negatives.
    """
    scores, truth = np.asarray(scores, np.float64), np.asarray(truth, np.float64)
    known = ~np.isnan(truth)
    scores, positive = scores[known], truth[known] > 0.5
    if positive.all() or not positive.any():
        return None
    distinct, index = np.unique(scores, return_inverse=True)
    said = np.append(np.bincount(index)[::-1].cumsum()[::-1], 0)  # if the threshold is below distinct[i]; none is said
    hits = np.append(np.bincount(index, positive)[::-1].cumsum()[::-1], 0)
    false_alarms, positives, negatives = said - hits, positive.sum(), (~positive).sum()
    thresholds = _between(distinct)
    ((name, value),) = requires.items()
    if name == "cost":
        cost = value["false_negative"] * (positives - hits) + value["false_positive"] * false_alarms
        best = thresholds[cost == cost.min()]
        return float(best[np.abs(best - 0.5).argmin()])
    reached = {
        "sensitivity": hits >= value * positives - 1e-9,
        "specificity": negatives - false_alarms >= value * negatives - 1e-9,
        "precision": (hits >= value * said - 1e-9) & (said > 0),
    }[name]
    if not reached.any():
        return None
    return float(thresholds[reached][-1 if name == "sensitivity" else 0])


def _between(distinct: Array) -> Array:
    """Thresholds below, between and above rising scores: one more than there are."""
    below = np.concatenate([[0.0], distinct[:-1]])
    between = (below + distinct) / 2
    between = np.where(between > below, between, distinct)  # neighbouring floats have nothing between them
    above = (distinct[-1] + 1) / 2
    return np.append(between, above if above > distinct[-1] else np.nextafter(distinct[-1], np.inf))


def measure_point(
    point: OperatingPoint,
    labels: Sequence[str],
    probabilities: ArrayLike,
    target: ArrayLike,
    groups: Sequence[str],
    resamples: int = 1000,
) -> dict[str, PointScores]:
    """What an operating point gives on rows, by label, with intervals; the arguments are those of `choose_point`."""
    scores, truth = _of_labels(point.labels, labels, probabilities, target)
    thresholds = [np.inf if t is None else t for t in point.thresholds]
    scored = Scored.of_labels(scores, truth, point.labels, thresholds)
    found = evaluate_metrics(scored, {name: METRICS.get(name)() for name in MEASURED}, groups, resamples)
    measured: dict[str, Any] = {
        label: {name: each[i] for name, each in found.items()}
        for i, label in enumerate(point.labels)
        if point.thresholds[i] is not None
    }
    return measured


def _of_labels(
    chosen: Sequence[str], labels: Sequence[str], probabilities: ArrayLike, target: ArrayLike
) -> tuple[Array, Array]:
    """Probabilities and truth of the labels with a threshold, `(N, len(chosen))` each."""
    probabilities, target = np.asarray(probabilities, np.float64), np.asarray(target)
    columns = [list(labels).index(label) for label in chosen]
    if target.ndim == 1:
        known = (target != MISSING_CLASS)[:, None]
        return probabilities[:, columns], np.where(known, target[:, None] == np.array(columns), np.nan)
    return probabilities[:, columns], target[:, columns].astype(np.float64)


def read_point(given: Any, labels: Sequence[str], exclusive: bool, where: str) -> OperatingPoint:
    """An operating point as a model folder has it, which may be anyone's.

    Raises:
        MmfuseError: It is not what `dataclasses.asdict` made of one.
    """
    if not isinstance(given, dict) or set(given) != {"requires", "labels", "thresholds", "validation"}:
        raise MmfuseError(f"{where}: {given!r:.100}: an operating point is expected")
    own, thresholds, measured = given["labels"], given["thresholds"], given["validation"]
    requires, whole = read_requirement(given["requires"], labels, exclusive, f"{where}.requires")
    fits = isinstance(own, list) and len(own) == len(whole) and all(label in labels for label in own)
    if not fits or (not exclusive and own != whole):
        raise MmfuseError(f"{where}.labels: {own!r:.100}: labels of the task are expected")
    if not isinstance(thresholds, list) or len(thresholds) != len(own) or not all(_is_threshold(t) for t in thresholds):
        raise MmfuseError(f"{where}.thresholds: {thresholds!r:.100}: {len(own)} numbers or null are expected")
    if not isinstance(measured, dict) or not all(label in own and _is_measured(m) for label, m in measured.items()):
        raise MmfuseError(f"{where}.validation: {measured!r:.100}: scores of the labels are expected")
    return OperatingPoint(requires, own, thresholds, measured)


def _is_threshold(value: Any) -> bool:
    return value is None or (_is_number(value) and value >= 0)


def _is_measured(scores: Any) -> bool:
    return (
        isinstance(scores, dict) and set(scores) == set(MEASURED) and all(_is_score(score) for score in scores.values())
    )


def _is_score(score: Any) -> bool:
    return (
        isinstance(score, dict)
        and set(score) - {"note"} == {"value", "low", "high"}
        and isinstance(score.get("note", ""), str)
        and all(score[name] is None or _is_number(score[name]) for name in ("value", "low", "high"))
    )
