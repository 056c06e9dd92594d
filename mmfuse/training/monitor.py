"""What training stops on: a metric of the validation split, or a sum of metrics."""

from __future__ import annotations

import math
from typing import Any

from mmfuse.data.tables.table import Table
from mmfuse.data.tables.targets import has_both
from mmfuse.evaluation.captions import CAPTION_METRICS
from mmfuse.evaluation.metrics import LOWER_IS_BETTER, METRICS
from mmfuse.evaluation.report_metrics import build_report_metric
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
            raise MmfuseError(f"training.monitor: {name!r} is not there; {nearest(name, values)}")
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


def _names(monitor: str) -> list[str]:
    return [term.rpartition("*")[2].strip() for term in monitor.split("+")]
