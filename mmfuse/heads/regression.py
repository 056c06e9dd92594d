from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmfuse.heads import HEADS, Head
from mmfuse.registry import nearest
from mmfuse.tasks.regression import Regression
from mmfuse.types import Features, MmfuseError

LOSSES = {"mse": F.mse_loss, "huber": F.huber_loss, "mae": F.l1_loss}


@HEADS.register("regression")
class RegressionHead(Head):
    """A number: a linear map of `pooled` on the task's scale, squared error there.

    Reference: least squares; Huber 1964, "Robust estimation of a location parameter", for `huber`.
    Differs: nothing; Huber's delta is 1, a standard deviation of the targets.
    Prefer when: the target is a quantity.

    Args:
        in_dim: Width of the fused features.
        task: Knows the scale.
        loss: `mse`; `huber` or `mae` where some targets are far off, and shall not count by their square.
    """

    task: Regression

    def __init__(self, in_dim: int, task: Regression, *, loss: str = "mse"):
        super().__init__(task)
        if loss not in LOSSES:
            raise MmfuseError(f"loss: {loss!r:.60} is not legal; {nearest(str(loss), LOSSES)}")
        self.loss_name = loss
        self.linear = nn.Linear(in_dim, task.width)

    def forward(self, features: Features) -> Tensor:
        """Numbers on the scale, `(B, 1)`."""
        return self.linear(features.pooled)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Sum of losses on the scale over `target (B,)`, in its own unit; NaN is missing."""
        known = ~target.isnan()
        wanted = torch.where(known, target, 1.0)
        wanted = ((wanted.log() if self.task.log else wanted) - self.task.center) / self.task.scale
        each = LOSSES[self.loss_name](logits[:, 0].float(), wanted.float(), reduction="none")
        return torch.where(known, each, 0.0).sum()
