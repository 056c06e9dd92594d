"""What is set by validation rows once a model is trained: temperatures, thresholds, what abstaining keeps."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmfuse.data.batches.pairs import PairDataset
from mmfuse.model import FusionModel
from mmfuse.seeds import unit_hash


def calibrate(model: FusionModel, pairs: PairDataset, rows: list[int], logits: dict[str, np.ndarray]) -> None:
    """Set each head's temperature and thresholds by these (validation) rows, and what abstaining would keep of them."""
    heads: dict[str, Any] = dict(model.heads.items())
    for task, head in heads.items():
        target = pairs.table.targets[task][rows]
        kept = _one_a_group(pairs, rows, head.task.labelled(target)) if head.task.one_a_group else slice(None)
        head.task.calibrate(logits[task][kept], target[kept])
        curves = head.task.curves(logits[task], target)
        if any(curves):
            model.selective[task] = curves


def _one_a_group(pairs: PairDataset, rows: list[int], labelled: NDArray[np.bool_]) -> list[int]:
    """Positions among the rows: of each group the labelled row whose id's hash is lowest."""
    groups: list[str] = pairs.table.rows["group"][:]
    drawn = sorted(np.flatnonzero(labelled).tolist(), key=lambda i: unit_hash(0, f"one a group:{pairs.ids[rows[i]]}"))
    return sorted({groups[rows[i]]: i for i in reversed(drawn)}.values())
