"""What written reports say against what they should say: metrics of findings, by name, those of plug-ins among them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mmfuse.metrics.basis import basis_of_rows
from mmfuse.metrics.bootstrap import GroupJackknife
from mmfuse.metrics.intervals import ANYWHERE, score_of
from mmfuse.metrics.report_labels import rule_label_counts
from mmfuse.metrics.results import Score
from mmfuse.registry import Registry
from mmfuse.types import MmfuseError

REPORT_METRICS = Registry("report_metric")
REPORT_METRICS.register_later("chexbert", "mmfuse.evaluation.chexbert:CheXbert")  # its network needs torch


class ReportMetric(Protocol):
    """A class registered as `NAME` serves `report_metrics: [NAME]` and, given what follows a colon, `NAME:FOLDER`.

    Attributes:
        key: What the score is called in a report.
        range: Its lowest and highest value, for its interval; may be left out.
    """

    key: str

    def __call__(self, candidates: Sequence[str], references: Sequence[str]) -> NDArray[Any]:
        """Either `(N, 3)` hits, false alarms and misses of each row, scored as F1 of all rows together, or `(N,)`."""
        ...


@REPORT_METRICS.register("chest_rules")
class ChestRules:
    """F1 of 14 findings that written rules read (`report_labels`), uncertain ones counted as there.

    Reference: Irvin et al. 2019, arXiv:1901.07031, for the categories.
    Differs: the labels are our rules'; not comparable to an F1 of CheXpert's or CheXbert's.
    Prefer when: a difference must be traced to a phrase.
    """

    key = "rule_label_f1"

    def __call__(self, candidates: Sequence[str], references: Sequence[str]) -> NDArray[Any]:
        """`(N, 3)`."""
        return rule_label_counts(candidates, references).sum(axis=1)


@lru_cache(maxsize=4)
def build_report_metric(name: str) -> ReportMetric:
    """The metric that a manifest calls `NAME` or `NAME:FOLDER`; built once.

    Raises:
        MmfuseError: There is no such metric, or its folder is missing or not legal.
    """
    kind, _, folder = name.partition(":")
    cls = REPORT_METRICS.get(kind)
    try:
        return cls(folder) if folder else cls()
    except TypeError as error:
        wanted = f"{kind}:FOLDER" if not folder else kind
        raise MmfuseError(f"report_metrics: {name!r}: write {wanted}") from error


def score_reports(
    name: str, candidates: Sequence[str], references: Sequence[str], groups: Sequence[str], resamples: int
) -> dict[str, Score]:
    """A report metric with its interval.

    Args:
        name: As in the manifest.
        candidates: N reports.
        references: N reports, in the same order.
        groups: N; rows of one group are no independent ones.
        resamples: 0 for no interval.

    Returns:
        `{key: {"value", "low", "high"}}`; None where it is undefined.
    """
    metric = build_report_metric(name)
    found = np.asarray(metric(candidates, references), dtype=float)
    parts = np.stack([found, np.ones_like(found)], axis=1) if found.ndim == 1 else found
    reduce = _mean if found.ndim == 1 else _f1
    jackknife = GroupJackknife(groups, resamples)
    by_group = np.stack([np.bincount(jackknife.row_group, column) for column in parts.T], axis=1)
    left_out = jackknife.replicate(lambda times: {"score": reduce(times @ by_group)})["score"]
    bounds = getattr(metric, "range", ANYWHERE if found.ndim == 1 else (0.0, 1.0))
    return {metric.key: score_of(float(reduce(parts.sum(axis=0))), left_out, basis_of_rows(jackknife), bounds)}


def _mean(sums: NDArray[Any]) -> NDArray[Any]:
    with np.errstate(invalid="ignore"):
        return np.asarray(sums[..., 0] / sums[..., 1])


def _f1(counts: NDArray[Any]) -> NDArray[Any]:
    hits, false_alarms, misses = np.moveaxis(counts, -1, 0)
    with np.errstate(invalid="ignore"):
        return np.asarray(2 * hits / (2 * hits + false_alarms + misses))
