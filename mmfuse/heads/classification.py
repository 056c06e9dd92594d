from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmfuse.heads import HEADS, Head
from mmfuse.tasks import TaskKind
from mmfuse.types import MISSING_CLASS, Features


@HEADS.register("classification")
class ClassificationHead(Head):
    """One class of several: a linear map of `pooled`, softmax, cross-entropy.

    Reference: multinomial logistic regression.
    Differs: nothing.
    Prefer when: exactly one label is true of a row; `multilabel` where several may be.

    Args:
        in_dim: Width of the fused features.
        task: With the class names, in the order of the logits.
    """

    counts_here = True

    def __init__(self, in_dim: int, task: TaskKind):
        super().__init__(task)
        self.linear = nn.Linear(in_dim, task.width)
        self.weights_here = torch.ones(task.width)  # as `class_weights`, which moves
        self.register_buffer("class_weights", torch.ones(task.width), persistent=False)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Any:
        """Move, and keep the weights here, whoever has set them."""
        if self.class_weights.device.type == "cpu":
            self.weights_here = self.class_weights
        return super()._apply(fn, recurse)

    def forward(self, features: Features) -> Tensor:
        """Logits `(B, L)`."""
        return self.linear(features.pooled)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Sum of weighted cross-entropies over `target (B,)` int64; -100 is missing."""
        return F.cross_entropy(logits.float(), target, self.class_weights, ignore_index=MISSING_CLASS, reduction="sum")  # type: ignore[arg-type]

    def count(self, target: Tensor) -> Tensor:
        """Sum of the labelled rows' class weights."""
        weights = self.class_weights if self.class_weights.device == target.device else self.weights_here
        return weights[target[target != MISSING_CLASS]].sum()  # type: ignore[index]

    def weigh(self, targets: np.ndarray) -> None:
        """Weight each class by the inverse of its frequency, mean 1 over rows; a class that does not occur keeps 1."""
        counts = np.bincount(targets[targets != MISSING_CLASS], minlength=len(self.labels))
        weights = np.where(counts > 0, counts.sum() / np.maximum(counts, 1) / max((counts > 0).sum(), 1), 1.0)
        self.weights_here = torch.as_tensor(weights, dtype=torch.float32)
        self.class_weights = self.weights_here.to(self.linear.weight.device)

    def combine(self, logits: list[Tensor], combine: Callable[[list[Tensor]], Tensor]) -> Tensor:
        """The classes are what is chosen from."""
        return combine(logits)
