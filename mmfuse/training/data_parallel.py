"""What DistributedDataParallel is asked for: no more than this model, these rows and this config need."""

from __future__ import annotations

from accelerate import Accelerator
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmfuse.config import Config
from mmfuse.training.learner import Learner
from mmfuse.training.methods import Method
from mmfuse.training.trained import towers

_KNOWN = ("mmfuse.", "torch.", "timm.", "transformers.")
"""Begin the names of modules of which we know what they do with buffers, and that they compute the same each time."""


def choose_data_parallel(
    accelerator: Accelerator, learner: Learner, config: Config, method: Method, complete: bool
) -> None:
    """Tell Accelerate how to wrap a learner, before it does.

    Args:
        accelerator: Of the run.
        learner: What will be wrapped.
        config: The run's.
        method: How a step is made.
        complete: Whether each training row has all modalities.
    """
    handler = accelerator.ddp_handler
    if handler is None:
        return
    fixed = complete and computes_the_same(learner, config, method)
    handler.gradient_as_bucket_view = True  # else each gradient is there twice
    handler.broadcast_buffers = changes_buffers(learner, config)
    handler.static_graph, handler.find_unused_parameters = fixed, not fixed


def computes_the_same(learner: Learner, config: Config, method: Method) -> bool:
    """Whether each step uses the same parameters in the same way, as far as config and classes tell."""
    training, model = config.training, learner.model
    layerdrop = any(getattr(getattr(m, "config", None), "layerdrop", 0.0) for m in model.modules())
    return (
        training.accumulation == 1
        and not training.gradient_checkpointing
        and not (training.modality_dropout.text or training.modality_dropout.image)
        and not (model.captioning or learner.objectives)
        and method.passes == 1
        and not layerdrop
        and all(tower.config.first_trained in (None, 0) for tower in towers(model, config))
        and all(type(module).__module__.startswith(_KNOWN) for module in (*learner.modules(), method))
    )


def changes_buffers(learner: Learner, config: Config) -> bool:
    """Whether training changes a buffer: running statistics, or what a class that we do not know may keep."""
    frozen = {
        module
        for tower in towers(learner.model, config)
        if tower.config.first_trained is None
        for module in tower.module.modules()
    }
    others = (module for module in learner.modules() if module not in frozen)
    return any(_may_change(module) for module in others if list(module.buffers(recurse=False)))


def _may_change(module: nn.Module) -> bool:
    return isinstance(module, _BatchNorm) or not type(module).__module__.startswith(_KNOWN)
