"""The loss that a fusion has of its own."""

from __future__ import annotations

from torch import Tensor, nn

from mmfuse.model import FusionModel
from mmfuse.training.objectives import OBJECTIVES, share
from mmfuse.types import Batch, MmfuseError, Outputs, Step


@OBJECTIVES.register("auxiliary")
class Auxiliary(nn.Module):
    """The fusion's `auxiliary_loss()`, a mean over the rows that it fused last; it is there without being named.

    Reference: none; what it is, the fusion's own reference says.
    Differs: nothing.
    Prefer when: named to give it another weight than 1.

    Args:
        model: Its fusion is asked.

    Raises:
        MmfuseError: The fusion has none.
    """

    reads: frozenset[str] = frozenset()

    def __init__(self, model: FusionModel):
        super().__init__()
        if not hasattr(model.fusion, "auxiliary_loss"):
            raise MmfuseError(
                f"training.objectives: auxiliary: fusion {model.fusion_config['name']!r} has no loss of its own"
            )
        self._fusion = (model.fusion,)  # no child of this module: its parameters are the model's

    def forward(self, said: Outputs, batch: Batch, step: Step) -> Tensor:
        """This batch's share of it."""
        (fusion,) = self._fusion
        return fusion.auxiliary_loss() * share(batch, step)
