"""What a score must reach, judged by the end of its interval: a value that chance has lifted does not pass."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from mmfuse.metrics.results import JudgedRequirement
from mmfuse.registry import nearest
from mmfuse.types import MmfuseError

_WRITTEN = re.compile(
    r"\s*(?P<task>[^\s/].*)/(?P<metric>\w+)\s*(?P<sign>>=|<=)\s*(?P<bound>[-+]?[\d.]+(?:[eE][-+]?\d+)?)\s*"
)


class Askable(NamedTuple):
    """What may be required of a task.

    Attributes:
        metrics: By name.
        lower_is_better: Those of them of which less is better.
    """

    metrics: Sequence[str]
    lower_is_better: frozenset[str]


class Requirement(NamedTuple):
    """A bound of a score.

    Attributes:
        text: As it was written.
        task: Of the score.
        metric: Which it is.
        at_least: Whether the score must be at least the bound; else at most.
        bound: In the metric's own unit.
    """

    text: str
    task: str
    metric: str
    at_least: bool
    bound: float


def read_requirements(texts: Iterable[str], tasks: Mapping[str, Askable]) -> list[Requirement]:
    """Requirements such as "finding/auroc_macro >= 0.8"; `<=` is for metrics of which less is better.

    Args:
        texts: As they were written.
        tasks: By task what may be required of it.

    Raises:
        MmfuseError: One is written otherwise, or there is no such task or metric, or it is bounded on the wrong side.
    """
    return [_read(text, tasks) for text in texts]


def _read(text: str, tasks: Mapping[str, Askable]) -> Requirement:
    where, found = f"--require {text!r:.100}", _WRITTEN.fullmatch(text)
    try:
        bound = float(found["bound"]) if found else None
    except ValueError:
        bound = None
    if found is None or bound is None:
        raise MmfuseError(f"{where}: TASK/METRIC >= NUMBER is expected (or <=), such as finding/auroc_macro >= 0.8")
    task, metric, sign = found["task"].strip(), found["metric"], found["sign"]
    if task not in tasks:
        raise MmfuseError(f"{where}: there is no task {task!r}; {nearest(task, tasks)}")
    if metric not in tasks[task].metrics:
        raise MmfuseError(f"{where}: {task} has no metric {metric!r}; {nearest(metric, tasks[task].metrics)}")
    lower = metric in tasks[task].lower_is_better
    if lower != (sign == "<="):
        better = "less" if lower else "more"
        raise MmfuseError(f"{where}: of {metric} {better} is better; write {'<=' if lower else '>='}")
    return Requirement(" ".join(text.split()), task, metric, not lower, bound)


def judge(requirement: Requirement, score: Mapping[str, Any] | None, missing: str) -> JudgedRequirement:
    """Whether a score, or a difference, reaches what is required with the near end of its 95 % interval.

    Args:
        requirement: What is required.
        score: With `value`, `low` and `high`, and perhaps a `note` of why there is no interval; None where there is
            none.
        missing: Why there is none.
    """
    value, low, high = (None, None, None) if score is None else (score[key] for key in ("value", "low", "high"))
    told: JudgedRequirement = {
        "requirement": requirement.text,
        "value": value,
        "low": low,
        "high": high,
        "passed": False,
    }
    end = low if requirement.at_least else high
    if value is None:
        told["reason"] = missing if score is None else "it is undefined on these rows"
    elif end is None:
        told["reason"] = score.get("note") or "it has no interval" if score else missing
    else:
        told["passed"] = end >= requirement.bound if requirement.at_least else end <= requirement.bound
    return told


def requirement_lines(judged: Iterable[JudgedRequirement]) -> list[str]:
    """A line for each: whether it holds, the value, and the end of the interval that decided."""
    lines = []
    for one in judged:
        side = "lower" if ">=" in one["requirement"] else "upper"
        end = one["low"] if side == "lower" else one["high"]
        said = "" if one["value"] is None else f"{one['value']:.4g}"
        said += "" if end is None else f", {side} bound {end:.4g}"
        reason = one.get("reason")
        told = ", ".join(part for part in (said, reason) if part)
        lines.append(f"{'passed' if one['passed'] else 'failed'}: {one['requirement']}: {told}")
    return lines
