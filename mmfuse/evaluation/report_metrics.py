"""Report metrics of a manifest; what they are is in `mmfuse.metrics.reports`."""

from __future__ import annotations

from mmfuse.data.tables.manifest import Manifest
from mmfuse.metrics.reports import REPORT_METRICS, ReportMetric, build_report_metric, score_reports

__all__ = ["REPORT_METRICS", "ReportMetric", "build_report_metric", "check_report_metrics", "score_reports"]


def check_report_metrics(manifest: Manifest) -> None:
    """Build what a manifest names, so that a mistake is told before anything is trained.

    Raises:
        MmfuseError: As `build_report_metric`.
    """
    for task in manifest.tasks.values():
        for name in task.report_metrics:
            build_report_metric(name)
