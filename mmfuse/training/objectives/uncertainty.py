"""Weights of the tasks that are learned."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmfuse.heads import TaskParameters
from mmfuse.model import FusionModel
from mmfuse.training.objectives import OBJECTIVES, share
from mmfuse.types import Batch, Outputs, Step


@OBJECTIVES.register("uncertainty")
class Uncertainty(nn.Module):
    """Learn how much each task counts: a loss `l` counts as `exp(-s) l + s / 2`, `s` its learned log variance.

    Reference: Kendall et al. 2018, Multi-Task Learning Using Uncertainty to Weigh Losses (arXiv 1705.07115).
    Differs: one form for all kinds of tasks; the paper halves the factor of a regression's loss.
    Prefer when: several tasks have losses of unlike size, and their factors are not worth a search.

    Args:
        model: Tells the tasks.
    """

    reads: frozenset[str] = frozenset()

    def __init__(self, model: FusionModel):
        super().__init__()
        self.log_variances = TaskParameters({task: nn.Parameter(torch.zeros(1)) for task in model.heads})

    def weigh(self, losses: dict[str, Tensor], batch: Batch, step: Step) -> dict[str, Tensor]:
        """By task, its loss as it counts."""
        part = share(batch, step)
        logs = {task: self.log_variances[task][0] for task in losses}
        return {task: (-logs[task]).exp() * loss + part * logs[task] / 2 for task, loss in losses.items()}

    def forward(self, said: Outputs, batch: Batch, step: Step) -> Tensor:
        """No term of its own."""
        raise NotImplementedError
