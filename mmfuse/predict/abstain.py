"""Below which confidence a model holds its decision back, for a wanted accuracy of what it keeps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmfuse.model import FusionModel
from mmfuse.types import MmfuseError, SelectiveCurve


@dataclass(frozen=True)
class Abstention:
    """When a task's decisions are held back.

    Attributes:
        below: `(1,)` of a classification task, `(L,)` of a multi-label one: the smallest confidence that is kept;
            infinite where nothing is.
        about: One line on what that keeps of the validation rows.
    """

    below: np.ndarray
    about: str

    def mark(self, head: Any, probabilities: np.ndarray) -> list[bool] | list[list[str]]:
        """For each row of `(B, L)`: whether it is held back (classification), or the labels that are (multi-label)."""
        return head.task.held(head.task.confidences(probabilities) < self.below)


def plan_abstention(model: FusionModel, accuracy: float) -> dict[str, Abstention]:
    """Choose the smallest confidence whose kept validation decisions were right at least so often; a label has its own.

    The same validation rows fitted the temperature, choose the confidence and judge it, so new rows can be right less
    often. A task or label that never was that often right is always held back, and its line says so.

    Args:
        model: With its curves of the validation rows.
        accuracy: Wanted, in (0, 1].

    Returns:
        By label task; captions are never held back.

    Raises:
        MmfuseError: The accuracy is out of range, no decision ever reached it, or the model has no curves.
    """
    if not 0 < accuracy <= 1:
        raise MmfuseError(f"--abstain {accuracy:g}: out of range; a wanted accuracy above 0, at most 1, such as 0.95")
    tasks = [task for task, head in model.heads.items() if head.task.abstains]  # type: ignore[union-attr]
    if not tasks:
        raise MmfuseError("--abstain: the model makes no decision that has a confidence to abstain by, as of labels")
    if unknown := [task for task in tasks if task not in model.selective]:
        raise MmfuseError(
            f"--abstain: the model does not say how often {unknown[0]!r} was right on validation: it was trained by an "
            "older mmfuse, or without labelled validation rows; train it again"
        )
    plans = {task: _plan(task, model.heads[task], model.selective[task], accuracy) for task in tasks}
    if all(np.isinf(plan.below).all() for plan in plans.values()):
        best = ", ".join(f"{task} {_best(model.selective[task]):.3f}" for task in tasks)
        raise MmfuseError(f"--abstain {accuracy:g}: never reached on validation; at best: {best}")
    return plans


def _plan(task: str, head: Any, curves: list[SelectiveCurve | None], accuracy: float) -> Abstention:
    at = [None if curve is None else _first(curve, accuracy) for curve in curves]
    chosen = [(curve, i) for curve, i in zip(curves, at, strict=True) if curve is not None and i is not None]
    kept = sum(curve.rows * curve.coverage[i] for curve, i in chosen)
    right = sum(curve.rows * curve.coverage[i] * curve.accuracy[i] for curve, i in chosen)
    every = sum(curve.rows for curve in curves if curve is not None)
    below = np.array([math.inf if i is None else c.confidence[i] for c, i in zip(curves, at, strict=True)])  # type: ignore[union-attr]
    what = "rows" if head.task.exclusive else "decisions"
    about = f"abstain, {task}: keeps {kept / every:.0%} of {every} validation {what}"
    about += f" at accuracy {right / kept:.3f}" if kept else f", as none reaches {accuracy:g}"
    never = [name for name, i in zip(head.labels, at, strict=False) if i is None]
    if not head.task.exclusive and kept and never:
        about += f"; never reached by {', '.join(never)}"
    return Abstention(below, about)


def _first(curve: SelectiveCurve, accuracy: float) -> int | None:
    """The first point that is accurate enough."""
    return next((i for i, reached in enumerate(curve.accuracy) if reached >= accuracy), None)


def _best(curves: list[SelectiveCurve | None]) -> float:
    return max(max(curve.accuracy) for curve in curves if curve is not None)
