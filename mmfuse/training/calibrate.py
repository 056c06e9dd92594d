"""What is set by validation rows once a model is trained: temperatures, thresholds, what abstaining keeps."""

from __future__ import annotations

from typing import Any

import numpy as np

from mmfuse.data.batches.pairs import PairDataset
from mmfuse.heads import confidences
from mmfuse.metrics.calibration import fit_temperature, selective_curve, tune_thresholds
from mmfuse.model import FusionModel
from mmfuse.types import MISSING_CLASS, SelectiveCurve


def calibrate(model: FusionModel, pairs: PairDataset, rows: list[int], logits: dict[str, np.ndarray]) -> None:
    """Set each head's temperature and thresholds by these (validation) rows, and what abstaining would keep of them."""
    heads: dict[str, Any] = dict(model.heads.items())
    for task, head in heads.items():
        if head.kind == "captioning":
            continue
        target = pairs.table.targets[task][rows]
        head.temperature = fit_temperature(logits[task], target, head.kind)
        if head.thresholds is not None:
            head.thresholds = [float(t) for t in tune_thresholds(head.probabilities(logits[task]), target)]
        curves = _selective_curves(head, head.probabilities(logits[task]), target)
        if any(curves):
            model.selective[task] = curves


def _selective_curves(head: Any, probabilities: np.ndarray, target: np.ndarray) -> list[SelectiveCurve | None]:
    """What abstaining keeps of these rows: one curve of a class, one a label of labels."""
    if head.kind == "classification":
        right = np.where(target == MISSING_CLASS, np.nan, probabilities.argmax(axis=1) == target)[:, None]
    else:
        right = np.where(np.isnan(target), np.nan, (probabilities >= head.thresholds) == target)
    return [selective_curve(*column) for column in zip(confidences(head, probabilities).T, right.T, strict=True)]
