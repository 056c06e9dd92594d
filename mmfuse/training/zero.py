"""Training with the optimiser's state in partitions, one a process: DeepSpeed's ZeRO 1 and 2, through Accelerate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, broadcast
from torch import Tensor, nn

from mmfuse.config import Config
from mmfuse.types import MmfuseError

INSTEAD = "configs/accelerate/fsdp2.yaml or multi_gpu.yaml can do without"
MOMENTS = ("exp_avg", "exp_avg_sq")


def is_zero(accelerator: Accelerator) -> bool:
    """Whether DeepSpeed trains."""
    return accelerator.distributed_type == DistributedType.DEEPSPEED


def prepare_zero(model: nn.Module, config: Config, accelerator: Accelerator) -> None:
    """Make a model ready for DeepSpeed, and tell DeepSpeed what the run's config says.

    Raises:
        MmfuseError: Either asks for what is not done.
    """
    plugin: Any = accelerator.deepspeed_plugin
    own, training = plugin.deepspeed_config, config.training
    asked = {key for key in ("offload_optimizer", "offload_param") if plugin.get_value(f"zero_optimization.{key}.device")
             not in (None, "none")}
    towers = {"text_encoder": config.text_encoder, "image_encoder": config.image_encoder}
    late = [name for name, tower in towers.items() if tower.frozen and tower.unfreeze_epoch is not None]
    if plugin.zero_stage not in (1, 2):
        raise MmfuseError(f"zero_stage {plugin.zero_stage}: 1 or 2 is expected; {INSTEAD}")
    if asked:
        raise MmfuseError(f"{asked.pop()}: only none is expected; {INSTEAD}")
    if late:
        raise MmfuseError(f"{late[0]}.unfreeze_epoch: with DeepSpeed, what is frozen would still decay; {INSTEAD}")
    own["gradient_accumulation_steps"] = 1
    own["gradient_clipping"] = training.clip_norm or 0.0
    own["train_micro_batch_size_per_gpu"] = training.batch_size
    own["train_batch_size"] = training.batch_size * accelerator.num_processes
    for parameter in model.parameters():
        parameter.data = parameter.data.contiguous()  # convolutions lie channels last; they are to be views of one row


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
    """Clip and step; the norm of the gradient before it was clipped."""
    engine.step()
    return torch.as_tensor(engine.get_global_grad_norm())


def share_buffers(model: nn.Module) -> None:
    """Give every process the main process's buffers (running statistics), as DistributedDataParallel does."""
    for buffer in model.buffers():
        buffer.copy_(broadcast(buffer.clone()))  # type: ignore[arg-type]


def zero_state(
    optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `optimizer_state` gives where nothing is partitioned; every process must ask."""
    from deepspeed.utils import safe_get_full_optimizer_state  # noqa: PLC0415  (an extra)

    steps = {float(fields["step"]) for fields in optimizer.state.values()}
    tensors = {}
    for i, parameter in enumerate(parameters):
        tensors[f"{i}.step"] = torch.tensor(max(steps))
        for name in MOMENTS:
            tensors[f"{i}.{name}"] = safe_get_full_optimizer_state(parameter, name).cpu()
    return tensors, {"state": {}, "groups": [{"lr": group["lr"]} for group in optimizer.param_groups]}


def load_zero(
    engine: Any, optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter], tensors: dict[str, Tensor]
) -> None:
    """Take a checkpoint's optimiser state into the partitions, and the model's weights as the new ones.

    Raises:
        MmfuseError: The checkpoint is of another kind of run, in which parameters had steps of their own.
    """
    from deepspeed.utils import safe_set_full_optimizer_state  # noqa: PLC0415

    steps = {float(tensors.get(f"{i}.step", torch.zeros(()))) for i in range(len(parameters))}
    if len(steps) > 1:
        raise MmfuseError("cannot resume with DeepSpeed: some parameters had fewer steps than others; go on without it")
    engine.optimizer.refresh_fp32_params()
    for fields in optimizer.state.values():
        fields["step"].fill_(max(steps))
    for i, parameter in enumerate(parameters):
        for name in MOMENTS:
            safe_set_full_optimizer_state(parameter, tensors[f"{i}.{name}"].to(parameter.device), name)
