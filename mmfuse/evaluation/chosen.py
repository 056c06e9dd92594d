"""What was chosen to be told of a task beside the usual scores: metrics by name, and operating points."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mmfuse.config import TaskConfig
from mmfuse.data.batches.pairs import PairDataset
from mmfuse.data.tables.table import Table
from mmfuse.metrics import METRICS, Metric, choose_metrics
from mmfuse.metrics.bootstrap import RESAMPLES
from mmfuse.metrics.chosen import add_metrics
from mmfuse.metrics.operating import choose_point, measure_point, read_requirement
from mmfuse.model import FusionModel
from mmfuse.registry import nearest
from mmfuse.types import MmfuseError

Chosen = dict[str, dict[str, Metric]]
"""By task the metrics that were chosen, by name."""


def chosen_metrics(model: FusionModel, tasks: Mapping[str, TaskConfig], monitor: str | None = None) -> Chosen:
    """What the config of a run chooses: `tasks.TASK.metrics`, and what is monitored.

    Args:
        model: Its heads tell of which kind the tasks are.
        tasks: Of the config.
        monitor: `training.monitor`; a metric in it that no report has is computed too.

    Raises:
        MmfuseError: As `choose_metrics`.
    """
    found: Chosen = {}
    for task in model.heads:
        own = list((tasks[task].metrics if task in tasks else None) or ())
        names = {
            value if isinstance(value, str) else value.get("name") for value in own if isinstance(value, (str, dict))
        }
        for term in (monitor or "").split("+"):
            where, slash, name = term.rpartition("*")[2].strip().partition("/")
            if slash and where == task and name not in names and name in METRICS.names():
                own.append(name)
                names.add(name)
        found[task] = choose_metrics(own, _kind(model, task), f"tasks.{task}.metrics") if own else {}
    return found


def metrics_of_all(model: FusionModel, values: Iterable[str | Mapping[str, Any]]) -> Chosen:
    """Metrics for every task that they are for.

    Args:
        model: Its heads tell of which kind the tasks are.
        values: Names, or `{name: ..., options}`.

    Raises:
        MmfuseError: As `choose_metrics`, or one is for none of the tasks.
    """
    values = list(values)
    found, kinds = {}, {_kind(model, task) for task in model.heads}
    for value in values:
        name, _ = METRICS.chosen(dict(value) if isinstance(value, Mapping) else value, "metrics")
        if not kinds & set(METRICS.get(name).kinds):  # pyright: ignore[reportAttributeAccessIssue]
            legal = [other for other in METRICS.names() if kinds & set(METRICS.get(other).kinds)]  # pyright: ignore[reportAttributeAccessIssue]
            raise MmfuseError(
                f"metrics: {name} is for no task of the model ({', '.join(kinds)}); {nearest(name, legal)}"
            )
    for task in model.heads:
        kind = _kind(model, task)
        own = [v for v in values if kind in METRICS.get(v if isinstance(v, str) else v["name"]).kinds]  # pyright: ignore[reportAttributeAccessIssue]
        found[task] = choose_metrics(own, kind, "metrics")
    return found


def add_chosen(
    scores: dict[str, dict[str, Any]],
    chosen: Chosen,
    model: FusionModel,
    pairs: PairDataset,
    rows: Sequence[int],
    logits: dict[str, np.ndarray],
    resamples: int = RESAMPLES,
) -> None:
    """Set beside what `score_rows` gave the metrics that were chosen.

    Args:
        scores: By task; added to.
        chosen: By task, what is added.
        model: Its heads make probabilities and decisions.
        pairs: Holds targets and groups.
        rows: Which were scored.
        logits: What was said of them.
        resamples: Of the bootstrap over groups; 0 for no intervals.
    """
    groups = _groups(pairs, rows)
    for task, metrics in chosen.items():
        if metrics and task in scores:
            kind = _heads(model)[task].task
            scored = kind.scored(kind.predictions(logits[task]), pairs.table.targets[task][list(rows)])
            add_metrics(scores[task], scored, metrics, groups, resamples)


def check_operating_points(model: FusionModel, tasks: Mapping[str, TaskConfig], table: Table) -> None:
    """Refuse operating points that could not be chosen, before anything is trained.

    Raises:
        MmfuseError: A requirement is not legal, or there are no validation rows.
    """
    for task, head in _heads(model).items():
        points = tasks[task].operating_points if task in tasks else {}
        for name, given in points.items():
            where = f"tasks.{task}.operating_points.{name}"
            read_requirement(given, head.labels, head.task.exclusive, where)
            if not table.has_target(task, "validation"):
                raise MmfuseError(
                    f"{where}: {table.manifest.source} has no labelled row in split validation to choose it"
                )


def choose_operating_points(
    model: FusionModel,
    tasks: Mapping[str, TaskConfig],
    pairs: PairDataset,
    rows: list[int],
    logits: dict[str, np.ndarray],
) -> None:
    """Choose the operating points of a config by these (validation) rows, once the model is calibrated."""
    for task, head in _heads(model).items():
        for name, given in (tasks[task].operating_points if task in tasks else {}).items():
            where = f"tasks.{task}.operating_points.{name}"
            requires, chosen = read_requirement(given, head.labels, head.task.exclusive, where)
            target, probabilities = pairs.table.targets[task][rows], head.probabilities(logits[task])
            point = choose_point(requires, chosen, head.labels, probabilities, target, _groups(pairs, rows))
            model.operating_points.setdefault(task, {})[name] = point


def add_operating_points(
    scores: dict[str, dict[str, Any]],
    model: FusionModel,
    pairs: PairDataset,
    rows: Sequence[int],
    logits: dict[str, np.ndarray],
    resamples: int = RESAMPLES,
) -> None:
    """Set beside the scores of a task what its operating points gave on validation, and give on these rows."""
    groups = _groups(pairs, rows)
    for task, points in model.operating_points.items():
        head = _heads(model)[task]
        if task not in scores:
            continue
        target, probabilities = pairs.table.targets[task][list(rows)], head.probabilities(logits[task])
        told = {}
        for name, point in points.items():
            here = measure_point(point, head.labels, probabilities, target, groups, resamples)
            told[name] = {
                "requires": point.requires,
                "labels": {
                    label: {
                        "threshold": threshold,
                        "validation": point.validation.get(label),
                        "scored": here.get(label),
                    }
                    for label, threshold in zip(point.labels, point.thresholds, strict=True)
                },
            }
        if told:
            scores[task]["operating_points"] = told


def _groups(pairs: PairDataset, rows: Sequence[int]) -> list[str]:
    groups: list[str] = pairs.table.rows["group"][:]
    return [groups[row] for row in rows]


def _heads(model: FusionModel) -> dict[str, Any]:
    return dict(model.heads.items())


def _kind(model: FusionModel, task: str) -> str:
    return model.task_config[task]["type"]
