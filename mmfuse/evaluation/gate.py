"""What may be required of a task's scores, and the metrics that must be computed for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mmfuse.metrics import Metric, choose_metrics, less_is_better, metrics_for
from mmfuse.metrics.reports import build_report_metric
from mmfuse.metrics.requirements import Askable, Requirement, judge
from mmfuse.metrics.results import JudgedRequirement
from mmfuse.tasks import TaskKind


def askable(kind: TaskKind, type: str, report_metrics: Sequence[str] = ()) -> Askable:
    """The metrics of one value that a task can be scored by.

    Args:
        kind: What its target is.
        type: The kind's name.
        report_metrics: Those that its manifest names.
    """
    more = metrics_for(type, per_label=False)
    names = dict.fromkeys([*kind.metrics, *(build_report_metric(name).key for name in report_metrics), *more])
    return Askable(list(names), kind.lower_is_better | set(filter(less_is_better, more)))


def add_required(
    chosen: Mapping[str, dict[str, Metric]], required: Iterable[Requirement], kinds: Mapping[str, tuple[TaskKind, str]]
) -> None:
    """Add to the chosen metrics by task those that are required, and that no report has by itself.

    Args:
        chosen: By task, added to.
        required: What is.
        kinds: By task its kind, and the kind's name.
    """
    for one in required:
        kind, type = kinds[one.task]
        more = set(metrics_for(type, per_label=False)) - {*kind.metrics, *chosen[one.task]}
        if one.metric in more:  # else all reports have it
            chosen[one.task].update(choose_metrics([one.metric], type, "require"))


def judge_all(
    required: Iterable[Requirement], scores: Mapping[str, Mapping[str, Any]], split: str
) -> list[JudgedRequirement]:
    """Each requirement against the scores by task.

    Args:
        required: What is.
        scores: By task, with `metrics`.
        split: Whose scores they are, for the reason where a task has none.
    """
    judged = []
    for one in required:
        of_task = scores.get(one.task)
        missing = f"no row of {split} has a target" if of_task is None else "it was not computed on these rows"
        judged.append(judge(one, None if of_task is None else of_task["metrics"].get(one.metric), missing))
    return judged
