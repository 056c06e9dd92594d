"""Training with the optimiser's state in partitions, one a process: DeepSpeed's ZeRO 1 and 2, through Accelerate.

A partition is stepped as one: what has no gradient anywhere in a step counts as having a zero one, where torch's AdamW
would pass it over.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, is_deepspeed_available
from torch import Tensor, nn

from mmfuse.config import Config
from mmfuse.extras import install
from mmfuse.training.launch import is_on
from mmfuse.training.methods import build_method
from mmfuse.training.optimizers import OPTIMIZERS
from mmfuse.types import MmfuseError

MOMENTS = ("exp_avg", "exp_avg_sq")


def is_zero(accelerator: Accelerator) -> bool:
    """Whether DeepSpeed trains."""
    return accelerator.distributed_type == DistributedType.DEEPSPEED


def check_zero(config: Config) -> None:
    """Refuse what DeepSpeed may be asked for and this loop does not do with it, before anything is begun.

    Raises:
        MmfuseError: The run's config asks for it, or DeepSpeed is not there.
    """
    if not is_on("ACCELERATE_USE_DEEPSPEED"):
        return
    if config.training.mixed_precision is not None:
        raise MmfuseError("training.mixed_precision: with DeepSpeed, null is expected; FSDP2 can do both")
    for name, tower in (("text_encoder", config.text_encoder), ("image_encoder", config.image_encoder)):
        if tower.first_trained not in (None, 0):  # a zero gradient would still decay what is frozen
            raise MmfuseError(f"{name}.unfreeze_epoch: with DeepSpeed, null is expected; FSDP2 can do both")
    if OPTIMIZERS.chosen(config.training.optimizer, "training.optimizer")[0] != "adamw":
        raise MmfuseError("training.optimizer: with DeepSpeed, adamw is expected")
    method = build_method(config.training.method)
    if method.passes > 1 or method.edits_gradients:  # its engine counts passes, and keeps gradients to itself
        raise MmfuseError("training.method: with DeepSpeed, plain is expected")
    if not is_deepspeed_available():
        raise MmfuseError(f"ACCELERATE_USE_DEEPSPEED: DeepSpeed is not installed: {install('deepspeed')}")


def prepare_zero(model: nn.Module, config: Config, accelerator: Accelerator) -> None:
    """Make a model ready for DeepSpeed, and tell DeepSpeed what the run's config says."""
    training, plugin = config.training, accelerator.deepspeed_plugin
    plugin.deepspeed_config |= {  # type: ignore[union-attr]
        "gradient_accumulation_steps": 1,  # of its own; `reduced_once` accumulates
        "gradient_clipping": training.clip_norm or 0.0,
        "train_micro_batch_size_per_gpu": training.batch_size,
        "train_batch_size": training.batch_size * accelerator.num_processes,
    }
    for parameter in model.parameters():
        parameter.data = parameter.data.reshape(-1).view(parameter.shape)  # convolutions of images lie channels last


def tell_zero(accelerator: Accelerator) -> str:
    """How the optimiser's state lies, in words."""
    stage = accelerator.deepspeed_plugin.zero_stage  # type: ignore[union-attr]
    return f"DeepSpeed's ZeRO {stage}: the optimiser's state in {accelerator.num_processes} partitions"


def begin_moments(engine: Any, optimizer: torch.optim.Optimizer) -> None:
    """Give AdamW its state before the first step.

    After the step of its first group, DeepSpeed notes where each parameter's moments are (0.19), and would miss those
    of the other groups.
    """
    for group in optimizer.param_groups:
        (flat,) = group["params"]
        optimizer.state[flat] = {"step": torch.zeros((), device=flat.device)}
        optimizer.state[flat] |= {name: torch.zeros_like(flat) for name in MOMENTS}
    engine.optimizer._lazy_init_hp_params_optimizer_state()


@contextmanager
def reduced_once(engine: Any) -> Iterator[None]:
    """Backward passes whose gradients are summed here, and over the processes at the end, parameter by parameter.

    DeepSpeed would reduce gradients as they arrive, and that is not the same order, nor the same parameters, where
    one process has no image, or no text.
    """
    with engine.coalesce_grad_reduction():
        yield
        for parameter in engine.module.parameters():
            if parameter.requires_grad and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)


def zero_step(engine: Any) -> Tensor:
    """Clip and step; the norm of the gradient before it was clipped.

    Raises:
        MmfuseError: The gradient is not finite, and DeepSpeed did not step.
    """
    engine.step()
    if not engine.was_step_applied():
        raise MmfuseError("the gradient is not finite: lower training.learning_rate")
    return torch.as_tensor(engine.get_global_grad_norm())


def zero_state(
    optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `optimizer_state` gives where nothing is partitioned; every process must ask."""
    from deepspeed.utils import safe_get_full_optimizer_state  # type: ignore[import-not-found]  (an extra)

    steps = {float(fields["step"]) for fields in optimizer.state.values()}
    tensors: dict[str, Any] = {}
    for i, parameter in enumerate(parameters):
        tensors[f"{i}.step"] = torch.tensor(max(steps))
        for name in MOMENTS:
            tensors[f"{i}.{name}"] = safe_get_full_optimizer_state(parameter, name).cpu()  # type: ignore[union-attr]
    return tensors, {"state": {}, "groups": [{"lr": group["lr"]} for group in optimizer.param_groups]}


def load_zero(
    engine: Any, optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter], tensors: dict[str, Tensor]
) -> None:
    """Take a checkpoint's optimiser state into the partitions, and the model's weights as the new ones.

    Raises:
        MmfuseError: The checkpoint is of another kind of run, in which parameters had steps of their own.
    """
    steps = {float(tensors.get(f"{i}.step", torch.zeros(()))) for i in range(len(parameters))}
    if len(steps) > 1:
        raise MmfuseError(
            "cannot resume with DeepSpeed: some parameters had fewer steps than others; resume without it"
        )
    from deepspeed.utils import safe_set_full_optimizer_state  # type: ignore[import-not-found]

    engine.optimizer.refresh_fp32_params()
    for fields in optimizer.state.values():
        fields["step"].fill_(max(steps))
    for i, parameter in enumerate(parameters):
        for name in MOMENTS:
            safe_set_full_optimizer_state(parameter, tensors[f"{i}.{name}"].to(parameter.device), name)
