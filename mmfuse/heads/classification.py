from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import softmax
from torch import Tensor, nn

from mmfuse.heads import HEADS
from mmfuse.types import MISSING_CLASS, Features


@HEADS.register("classification")
class ClassificationHead(nn.Module):
    """One class of several: a linear map of `pooled`, softmax, cross-entropy.

    Reference: multinomial logistic regression.
    Differs: nothing.
    Prefer when: exactly one label is true of a row; `multilabel` where several may be.

    Args:
        in_dim: Width of the fused features.
        labels: Class names, in the order of the logits.

    Attributes:
        cut: At an operating point of two classes, the positive one and its threshold; else None.
    """

    kind = "classification"
    reads = frozenset({"pooled"})
    monitor = "f1_macro"
    thresholds = None

    def __init__(self, in_dim: int, labels: list[str]):
        super().__init__()
        self.labels = labels
        self.temperature = 1.0
        self.cut: tuple[int, float] | None = None
        self.linear = nn.Linear(in_dim, len(labels))
        self.register_buffer("class_weights", torch.ones(len(labels)), persistent=False)

    def forward(self, features: Features) -> Tensor:
        """Logits `(B, L)`."""
        return self.linear(features.pooled)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Sum of weighted cross-entropies over `target (B,)` int64; -100 is missing."""
        return F.cross_entropy(logits.float(), target, self.class_weights, ignore_index=MISSING_CLASS, reduction="sum")  # type: ignore[arg-type]

    def count(self, target: Tensor) -> Tensor:
        """Sum of the labelled rows' class weights."""
        return self.class_weights[target[target != MISSING_CLASS]].sum()  # type: ignore[index]

    def weigh(self, targets: np.ndarray) -> None:
        """Weight each class by the inverse of its frequency, mean 1 over rows; a class that does not occur keeps 1."""
        counts = np.bincount(targets[targets != MISSING_CLASS], minlength=len(self.labels))
        weights = np.where(counts > 0, counts.sum() / np.maximum(counts, 1) / max((counts > 0).sum(), 1), 1.0)
        self.class_weights = torch.as_tensor(weights, dtype=torch.float32, device=self.linear.weight.device)

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Softmax of `logits (B, L)` over the temperature."""
        return softmax(logits.astype(np.float64) / self.temperature, axis=-1)

    def said(self, probabilities: np.ndarray) -> np.ndarray:
        """The ids of the classes that are said, `(...)`, of probabilities `(..., L)`."""
        if self.cut is None:
            return probabilities.argmax(axis=-1)
        positive, threshold = self.cut
        return np.where(probabilities[..., positive] >= threshold, positive, 1 - positive)

    def decide(self, probabilities: np.ndarray) -> dict[str, Any]:
        """`label` and `probabilities` by name, of one row's `(L,)`."""
        return {
            "label": self.labels[int(self.said(probabilities))],
            "probabilities": {name: round(float(p), 6) for name, p in zip(self.labels, probabilities, strict=True)},
        }
