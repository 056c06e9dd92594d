"""What a run's config chooses by name for its training: refused before anything is trained."""

from __future__ import annotations

from mmfuse.config import Config
from mmfuse.data.tables.table import Table
from mmfuse.model import FusionModel
from mmfuse.training.launch import is_on
from mmfuse.training.learner import Learner
from mmfuse.training.methods import build_method
from mmfuse.training.optimizers import check_optimizer
from mmfuse.training.orders import check_order
from mmfuse.types import MmfuseError


def check_choices(config: Config, model: FusionModel, table: Table) -> None:
    """Refuse an optimizer, an order, objectives and a method that this run cannot have.

    Raises:
        MmfuseError: One does not exist, has no such option, or cannot do what the run asks for.
    """
    check_optimizer(config.training.optimizer, is_on("ACCELERATE_USE_FSDP"))
    check_order(config, table)
    Learner(model, config)
    method = build_method(config.training.method)
    method.check(model, config)
    if method.edits_gradients and is_on("ACCELERATE_USE_FSDP"):
        raise MmfuseError("training.method: gradients that FSDP has cut up cannot be edited; plain or fgm is expected")
    if method.edits_gradients and config.training.mixed_precision == "fp16":
        raise MmfuseError(
            "training.method: gradients that fp16 has scaled cannot be edited; bf16 or null is expected for "
            "training.mixed_precision"
        )
