"""The precision of a run over studies: asked, chosen, and kept for the run that goes on with it."""

from __future__ import annotations

import json
from typing import Any

import torch

from mmfuse.data.files import stores
from mmfuse.encoders.timing import choose_precision
from mmfuse.model import FusionModel
from mmfuse.precision import BF16, FP32, PRECISIONS, Precision, computes_bf16
from mmfuse.predict.names import CLAIM, Names
from mmfuse.types import MmfuseError


def settle(asked: str | Precision, model: FusionModel, device: torch.device) -> tuple[Precision, str | None]:
    """The precision that was asked, and what is to be told of it.

    Args:
        asked: One of `mmfuse.precision.PRECISIONS`, or one that was chosen before.
        model: On the device; in training mode or not.
        device: Where it runs.

    Raises:
        MmfuseError: There is no such precision.
    """
    if asked == "auto":
        with torch.no_grad():
            return choose_precision(model.text_encoder, model.image_encoder, device)
    if isinstance(asked, str):
        if asked not in PRECISIONS["local"]:
            raise MmfuseError(f"precision: {asked!r} is not legal; legal: {', '.join(PRECISIONS['local'])}")
        asked = {"fp32": FP32, "bf16": BF16}[asked]
    if asked != FP32 and device.type == "cpu" and not computes_bf16(device):
        return asked, "precision bf16: this CPU has no instructions for it; fp32 would be faster"
    return asked, None


def with_precision(state: dict[str, Any], precision: Precision) -> dict[str, Any]:
    """What a run keeps of itself, with its precision; fp32 is left out, as by runs of before there was a choice."""
    return state if precision == FP32 else {**state, "precision": precision.to_dict()}


def kept_precision(out: str) -> Precision | None:
    """That of the run to `out` that was interrupted; None where there is none.

    Args:
        out: A path or an fsspec URL.

    Raises:
        MmfuseError: What is kept of it is damaged.
    """
    places = [f"{out}.chunks/{CLAIM}"]
    if stores.is_local(out):
        names = Names.of(stores.local_path(out))
        places = [str(names.progress), str(names.journal), str(names.chunks / CLAIM)]
    for place in places:
        if not stores.exists(place):
            continue
        with stores.stored(place, "read") as (system, path):
            first = system.cat_file(path).partition(b"\n")[0]
        try:
            said = json.loads(first).get("precision")
        except (ValueError, AttributeError) as error:
            raise MmfuseError(f"{place}: damaged; put it back, or --overwrite to start again") from error
        return FP32 if said is None else Precision.read(said, place)
    return None
