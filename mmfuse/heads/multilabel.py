from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmfuse.heads import HEADS, Head
from mmfuse.tasks import TaskKind
from mmfuse.types import Features

LARGEST_POSITIVE_WEIGHT = 10.0


@HEADS.register("multilabel")
class MultilabelHead(Head):
    """Any number of labels: a linear map of `pooled`, a sigmoid each, binary cross-entropy.

    Reference: one logistic regression a label on shared features.
    Differs: nothing.
    Prefer when: several findings may be true of a row, or the target of some is not known.

    Args:
        in_dim: Width of the fused features.
        task: With the label names, in the order of the logits.
    """

    def __init__(self, in_dim: int, task: TaskKind):
        super().__init__(task)
        self.linear = nn.Linear(in_dim, task.width)
        self.register_buffer("pos_weight", torch.ones(task.width), persistent=False)

    def forward(self, features: Features) -> Tensor:
        """Logits `(B, L)`."""
        return self.linear(features.pooled)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Sum of binary cross-entropies over `target (B, L)`; NaN is missing."""
        known = ~target.isnan()
        each = F.binary_cross_entropy_with_logits(
            logits.float(),
            target.nan_to_num(0.0),
            pos_weight=self.pos_weight,
            reduction="none",  # type: ignore[arg-type]
        )
        return torch.where(known, each, 0.0).sum()

    def weigh(self, targets: np.ndarray) -> None:
        """`pos_weight` of each label: negatives per positive, at most 10; 1 where there are none of either."""
        positives, negatives = (targets == 1).sum(0), (targets == 0).sum(0)
        weights = np.clip(negatives / np.maximum(positives, 1), None, LARGEST_POSITIVE_WEIGHT)
        weights = np.where((positives > 0) & (negatives > 0), weights, 1.0)
        self.pos_weight = torch.as_tensor(weights, dtype=torch.float32, device=self.linear.weight.device)

    def combine(self, logits: list[Tensor], combine: Callable[[list[Tensor]], Tensor]) -> Tensor:
        """Each label is a choice between yes and no."""
        pairs = combine([torch.stack([z, torch.zeros_like(z)], dim=-1) for z in logits])
        return pairs[..., 0] - pairs[..., 1]
