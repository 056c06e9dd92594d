"""The precision that a model is scored in: that of its own report, unless another one is asked."""

from __future__ import annotations

from typing import Any

from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from mmfuse.model import FusionModel
from mmfuse.precision import FP32, Precision
from mmfuse.predict.precision import settle


def scoring_precision(asked: str | None, model: FusionModel, state: PartialState) -> tuple[Precision, str | None]:
    """The precision, the same on all processes, and what a report says of it; None where all is fp32.

    Args:
        asked: "fp32", "bf16" or "auto"; None: as the model's own report was computed.
        model: On its device.
        state: Of the processes; the first one decides.

    Raises:
        MmfuseError: There is no such precision.
    """
    own, device = model.scored_in or FP32, next(model.parameters()).device
    found: list[Any] = [settle(asked or own, model, device)]
    if state.num_processes > 1:
        broadcast_object_list(found)
    chosen, why = found[0]
    if chosen == own == FP32 and why is None:
        return chosen, None
    said = why or f"precision {chosen}"
    if chosen != own:
        said += f"; the model's own report is in {own}"
    elif asked is None:
        said += ", as in the model's own report"
    return chosen, said
