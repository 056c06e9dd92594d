"""What is set by validation rows once a model is trained: temperatures, thresholds, what abstaining keeps."""

from __future__ import annotations

from typing import Any

import numpy as np

from mmfuse.data.batches.pairs import PairDataset
from mmfuse.model import FusionModel


def calibrate(model: FusionModel, pairs: PairDataset, rows: list[int], logits: dict[str, np.ndarray]) -> None:
    """Set each head's temperature and thresholds by these (validation) rows, and what abstaining would keep of them."""
    heads: dict[str, Any] = dict(model.heads.items())
    for task, head in heads.items():
        target = pairs.table.targets[task][rows]
        head.task.calibrate(logits[task], target)
        curves = head.task.curves(logits[task], target)
        if any(curves):
            model.selective[task] = curves
