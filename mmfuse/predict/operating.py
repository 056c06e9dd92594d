"""Decide at an operating point that a model has, instead of at its usual thresholds."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmfuse.metrics.operating import in_words
from mmfuse.model import FusionModel
from mmfuse.registry import nearest
from mmfuse.types import MmfuseError


def use_operating_point(model: FusionModel, name: str, where: str = "--operating-point") -> list[str]:
    """Have a model's heads decide at the operating point of this name; tasks without one keep their usual thresholds.

    A label whose validation rows did not reach what is required keeps its usual threshold too.

    Args:
        model: Its heads are changed.
        name: As in the config of the run.
        where: What errors begin with.

    Returns:
        A line for each task, on what is required and which labels do not reach it.

    Raises:
        MmfuseError: No task has one of this name, or no label reached it.
    """
    known = sorted({point for points in model.operating_points.values() for point in points})
    if name not in known:
        raise MmfuseError(f"{where}: {name!r}: the model has no such operating point; {nearest(name, known)}")
    lines, reached = [], False
    for task, points in model.operating_points.items():
        if name not in points:
            continue
        point, head = points[name], _head(model, task)
        never = point.unreached()
        reached = reached or len(never) < len(point.labels)
        line = f"operating point {name}, {task}: {in_words(point.requires)}"
        if never:
            line += f"; not reached on validation by {', '.join(never)}, decided as without it"
        lines.append(line)
        if not head.task.exclusive:
            head.thresholds = [
                usual if own is None else own for usual, own in zip(head.thresholds, point.thresholds, strict=True)
            ]
        elif point.thresholds[0] is not None:
            head.task.cut = head.labels.index(point.labels[0]), point.thresholds[0]
    if not reached:
        raise MmfuseError(f"{where} {name}: no label reached it on validation")
    return lines


@contextmanager
def at_operating_point(model: FusionModel, name: str | None) -> Iterator[None]:
    """The same for a while; nothing where no name is given."""
    kept = {task: copy.copy(vars(_head(model, task).task)) for task in model.heads}
    try:
        if name is not None:
            use_operating_point(model, name, "operating_point")
        yield
    finally:
        for task, attributes in kept.items():
            vars(_head(model, task).task).update(attributes)


def _head(model: FusionModel, task: str) -> Any:
    return model.heads[task]
