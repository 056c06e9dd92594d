"""What training stops on: a metric of the validation split, a sum of metrics, or the loss there."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from mmfuse.data.tables.table import Table
from mmfuse.data.tables.targets import has_both
from mmfuse.metrics.captions import CAPTION_METRICS
from mmfuse.metrics.labels import LOWER_IS_BETTER, METRICS
from mmfuse.metrics.reports import build_report_metric
from mmfuse.model import FusionModel
from mmfuse.registry import nearest
from mmfuse.types import MmfuseError

MONITORED = "monitored"
"""In `metrics.jsonl`, among the validation scores, what is stopped on where that is none of them."""
_NEEDS_BOTH = ("auroc_macro", "average_precision_macro")


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
        reports = [build_report_metric(name).key for name in spec.report_metrics]
        names = [*CAPTION_METRICS, "nll", *reports] if head.kind == "captioning" else METRICS
        known |= {f"{task}/{name}": 0.0 for name in names}
        if not table.has_target(task, "validation"):
            undefined |= {f"{task}/{name}": "no row has a target" for name in names}
        elif head.kind != "captioning" and not has_both(table.targets_of(task, "validation")):
            reason = "one class only" if head.kind == "classification" else "no label has rows with and without it"
            undefined |= {f"{task}/{name}": reason for name in _NEEDS_BOTH}
    monitored_value(monitor, known)
    for name in _names(monitor):
        if name in undefined:
            legal = nearest(name, [other for other in known if other not in undefined])
            raise MmfuseError(
                f"training.monitor: {name!r} is undefined on the validation rows of {where}: {undefined[name]}; {legal}"
            )


def monitored_value(monitor: str, values: dict[str, float]) -> float:
    """A metric, or a sum of metrics with factors, as a number of which more is better.

    Args:
        monitor: "TASK/METRIC", or "TASK/METRIC + 0.1 * TASK/METRIC"; of metrics of which less is better, the negative.
        values: By "TASK/METRIC".

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
        total += weight * (-values[name] if name.rsplit("/", 1)[-1] in LOWER_IS_BETTER else values[name])
    return total


def monitored_name(monitor: str | None, model: FusionModel) -> str:
    """What `metrics.jsonl` calls the value that training stops on."""
    if monitor is not None:
        return MONITORED if "+" in monitor or "*" in monitor else monitor
    (task, head), *others = model.heads.items()
    return MONITORED if others else f"{task}/{head.monitor}"


def monitored(monitor: str | None, model: FusionModel, values: dict[str, float]) -> float | None:
    """The value to stop on, of which more is better; None where no metric is defined on the validation split."""
    if monitor is not None:
        return monitored_value(monitor, values)
    heads: dict[str, Any] = dict(model.heads.items())
    found = [values[f"{t}/{h.monitor}"] for t, h in heads.items() if f"{t}/{h.monitor}" in values]
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
        if head.kind == "captioning":  # what was written says no likelihood, so its record has that of the target
            count, own = float(logits[task]["target_tokens"].sum()), float(logits[task]["target_loss"].sum())
        else:
            target = torch.from_numpy(targets[task][rows]).to(device)
            count = float(head.count(target))
            own = float(head.loss(torch.from_numpy(logits[task]).to(device), target))
        loss += weights[task] * own / count if count else 0.0
    return loss


def _names(monitor: str) -> list[str]:
    return [term.rpartition("*")[2].strip() for term in monitor.split("+")]
