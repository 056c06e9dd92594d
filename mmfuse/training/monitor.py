"""What training stops on: a metric of the validation split, a sum of metrics, or the loss there."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import numpy as np
import torch

from mmfuse.data.tables.table import Table
from mmfuse.metrics import less_is_better, metrics_for, worst_value
from mmfuse.metrics.reports import build_report_metric
from mmfuse.model import FusionModel
from mmfuse.registry import nearest
from mmfuse.types import MmfuseError

MONITORED = "monitored"
"""In `metrics.jsonl`, among the validation scores, what is stopped on where that is none of them."""


def check_monitor(monitor: str | None, model: FusionModel, table: Table) -> None:
    """Refuse, before anything is trained, what could not be computed after the first epoch.

    Args:
        monitor: As in the config; None is always legal.
        model: Its heads tell which metrics there are.
        table: Its validation rows tell which of them are defined.

    Raises:
        MmfuseError: There are no validation rows, it is written wrongly, or a metric is unknown or undefined.
    """
    if monitor is None:
        return
    where = table.manifest.source
    if "validation" not in table.splits:
        raise MmfuseError(f"training.monitor: {where} has no row in split validation to compute it on; leave it out")
    heads: dict[str, Any] = dict(model.heads.items())
    known: dict[str, float] = {}
    undefined: dict[str, str] = {}
    for task, head in heads.items():
        spec = table.manifest.tasks[task]
        names = [*head.task.metrics, *(build_report_metric(name).key for name in spec.report_metrics)]
        names += [name for name in metrics_for(spec.type, per_label=False) if name not in names]
        known |= {f"{task}/{name}": 0.0 for name in names}
        if not table.has_target(task, "validation"):
            undefined |= {f"{task}/{name}": "no row has a target" for name in names}
        else:
            lacking = head.task.undefined(table.targets_of(task, "validation"))
            undefined |= {f"{task}/{name}": reason for name, reason in lacking.items()}
    monitored_value(monitor, known, lower_is_better(model))
    for name in _names(monitor):
        if name in undefined:
            legal = nearest(name, [other for other in known if other not in undefined])
            raise MmfuseError(
                f"training.monitor: {name!r} is undefined on the validation rows of {where}: {undefined[name]}; {legal}"
            )


def lower_is_better(model: FusionModel) -> set[str]:
    """The "TASK/METRIC" of which less is better."""
    heads: dict[str, Any] = dict(model.heads.items())
    chosen = {task: filter(less_is_better, metrics_for(model.task_config[task]["type"])) for task in heads}
    return {f"{task}/{name}" for task, head in heads.items() for name in {*head.task.lower_is_better, *chosen[task]}}


def monitored_value(monitor: str, values: dict[str, float], lower: Collection[str] = ()) -> float:
    """A metric, or a sum of metrics with factors, as a number of which more is better.

    Args:
        monitor: "TASK/METRIC", or "TASK/METRIC + 0.1 * TASK/METRIC"; of metrics of which less is better, the negative.
        values: By "TASK/METRIC".
        lower: Those of which less is better.

    Raises:
        MmfuseError: It is written otherwise, or there is no such metric.
    """
    total = 0.0
    for term, name in zip(monitor.split("+"), _names(monitor), strict=True):
        factor, star, _ = term.rpartition("*")
        if name not in values:
            raise MmfuseError(f"training.monitor: {name!r} does not exist; {nearest(name, values)}")
        try:
            weight = float(factor) if star else 1.0
            if not math.isfinite(weight):
                raise ValueError
        except ValueError as error:
            raise MmfuseError(
                f"training.monitor: {term.strip()!r}: TASK/METRIC or NUMBER * TASK/METRIC is expected"
            ) from error
        total += weight * (-values[name] if name in lower else values[name])
    return total


def monitored_name(monitor: str | None, model: FusionModel) -> str:
    """What `metrics.jsonl` calls the value that training stops on."""
    if monitor is not None:
        return MONITORED if "+" in monitor or "*" in monitor else monitor
    heads: dict[str, Any] = dict(model.heads.items())
    (task, head), *others = heads.items()
    return MONITORED if others else f"{task}/{head.task.monitor}"


def monitored(monitor: str | None, model: FusionModel, values: dict[str, float]) -> float | None:
    """The value to stop on, of which more is better; None where no metric is defined on the validation split.

    A metric that what was said leaves undefined (a model that says one class alone has no `mcc`) counts as its worst.
    """
    if monitor is not None:
        worst = {name: worst_value(name.rsplit("/", 1)[-1]) for name in _names(monitor) if name not in values}
        known = values | {name: value for name, value in worst.items() if value is not None}
        return monitored_value(monitor, known, lower_is_better(model))
    heads: dict[str, Any] = dict(model.heads.items())
    named, lower = [f"{task}/{head.task.monitor}" for task, head in heads.items()], lower_is_better(model)
    found = [-values[name] if name in lower else values[name] for name in named if name in values]
    return sum(found) / len(found) if found else None


def flat_scores(scores: dict[str, dict[str, Any]]) -> dict[str, float]:
    """By "TASK/METRIC" what `score_rows` gives, where it is defined."""
    return {
        f"{task}/{name}": score["value"]
        for task, found in scores.items()
        for name, score in found["metrics"].items()
        if score["value"] is not None
    }


def validation_loss(
    model: FusionModel,
    weights: dict[str, float],
    logits: dict[str, np.ndarray],
    targets: dict[str, np.ndarray],
    rows: list[int],
    device: torch.device,
) -> float:
    """The sum over tasks of weight times mean loss over the labelled targets.

    Args:
        model: Its heads know their losses.
        weights: By task, its factor.
        logits: By task, what the model says of these rows.
        targets: By task, those of all rows.
        rows: Row numbers.
        device: Where it is computed.
    """
    loss = 0.0
    heads: dict[str, Any] = dict(model.heads.items())
    for task, head in heads.items():
        own, count = head.said_loss(logits[task], targets[task][rows], device)
        loss += weights[task] * own / count if count else 0.0
    return loss


def _names(monitor: str) -> list[str]:
    return [term.rpartition("*")[2].strip() for term in monitor.split("+")]
