from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import expit
from torch import Tensor, nn

from mmfuse.heads import HEADS
from mmfuse.types import Features

LARGEST_POSITIVE_WEIGHT = 10.0


@HEADS.register("multilabel")
class MultilabelHead(nn.Module):
    """Any number of labels: a linear map of `pooled`, a sigmoid each, binary cross-entropy.

    Reference: one logistic regression a label on shared features.
    Differs: nothing.
    Prefer when: several findings may be true of a row, or the target of some is not known.

    Args:
        in_dim: Width of the fused features.
        labels: Label names, in the order of the logits.
    """

    kind = "multilabel"
    reads = frozenset({"pooled"})
    monitor = "auroc_macro"

    def __init__(self, in_dim: int, labels: list[str]):
        super().__init__()
        self.labels = labels
        self.temperature = 1.0
        self.thresholds: list[float] = [0.5] * len(labels)
        self.linear = nn.Linear(in_dim, len(labels))
        self.register_buffer("pos_weight", torch.ones(len(labels)), persistent=False)

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

    def count(self, target: Tensor) -> Tensor:
        """Number of labelled entries."""
        return (~target.isnan()).sum().float()

    def weigh(self, targets: np.ndarray) -> None:
        """`pos_weight` of each label: negatives per positive, at most 10; 1 where there are none of either."""
        positives, negatives = (targets == 1).sum(0), (targets == 0).sum(0)
        weights = np.clip(negatives / np.maximum(positives, 1), None, LARGEST_POSITIVE_WEIGHT)
        weights = np.where((positives > 0) & (negatives > 0), weights, 1.0)
        self.pos_weight = torch.as_tensor(weights, dtype=torch.float32, device=self.linear.weight.device)

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Sigmoid of `logits (B, L)` over the temperature."""
        return expit(logits.astype(np.float64) / self.temperature)

    def decide(self, probabilities: np.ndarray) -> dict[str, Any]:
        """`labels` above their thresholds and `probabilities` by name, of one row's `(L,)`."""
        named = list(zip(self.labels, probabilities, self.thresholds, strict=True))
        return {
            "labels": [name for name, p, threshold in named if p >= threshold],
            "probabilities": {name: round(float(p), 6) for name, p, _ in named},
        }
