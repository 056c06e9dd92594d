"""Training with weights, gradients and optimiser state sharded over processes: PyTorch's FSDP2, through Accelerate."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from accelerate import Accelerator, DeepSpeedPlugin, FullyShardedDataParallelPlugin, PartialState
from accelerate.utils import DistributedType, broadcast
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor

from mmfuse.encoders.towers import blank_item, tower_inputs
from mmfuse.model import FusionModel
from mmfuse.training.launch import is_on
from mmfuse.training.learner import Learner
from mmfuse.types import Batch, MmfuseError


def shard_on_cpu(accelerator: Accelerator) -> None:
    """Let Accelerate shard over CPU processes too.

    Its state reads FSDP's and DeepSpeed's variables only where there are several accelerators (accelerate 1.15,
    state.py, in `AcceleratorState.__init__`) and would train CPU processes with whole weights, without a word. This
    sets what it would set there; all that follows in it is the same for both.
    """
    if is_on("ACCELERATE_USE_FSDP") and accelerator.distributed_type == DistributedType.MULTI_CPU:
        plugin = FullyShardedDataParallelPlugin()  # reads the same variables
        if accelerator.mixed_precision != "no":
            plugin.set_mixed_precision(accelerator.mixed_precision)
        state: Any = accelerator.state
        state.fsdp_plugin = plugin
        state.distributed_type = PartialState().distributed_type = DistributedType.FSDP
    elif is_on("ACCELERATE_USE_DEEPSPEED") and accelerator.distributed_type == DistributedType.MULTI_CPU:
        zero: Any = DeepSpeedPlugin()
        zero.set_mixed_precision("no")
        zero.select(_from_accelerator_state=True)
        accelerator.state.deepspeed_plugins = zero
        accelerator.state.distributed_type = PartialState().distributed_type = DistributedType.DEEPSPEED


def sum_in_fp32(accelerator: Accelerator) -> None:
    """Let gradients be summed over processes in fp32 where weights are cast to half precision; Accelerate would not."""
    plugin: Any = accelerator.state.fsdp_plugin if accelerator.is_fsdp2 else None
    if plugin is not None and plugin.mixed_precision_policy is not None:
        plugin.mixed_precision_policy = replace(plugin.mixed_precision_policy, reduce_dtype=torch.float32)


def prepare_sharding(learner: Learner) -> FusionModel:
    """Make a learner ready to be sharded in place; a copy of its model without parameters, for `whole_model`.

    Raises:
        MmfuseError: It has a parameter that FSDP2 cannot shard.
    """
    model = learner.model
    for name, parameter in learner.named_parameters():
        if parameter.ndim == 0 and name.startswith("model."):
            raise MmfuseError(
                f"fusion {model.fusion_config['name']!r}: {name.removeprefix('model.')} is a single number, which "
                "FSDP2 cannot shard; choose another fusion, or train without FSDP"
            )
        if parameter.ndim == 0:
            raise MmfuseError(
                f"training.{name} is a single number, which FSDP2 cannot shard; leave the objective out, or train "
                "without FSDP"
            )
        parameter.data = parameter.data.contiguous()  # convolutions lie channels last, and FSDP2 refuses that
    empty = {id(p): nn.Parameter(torch.empty_like(p, device="meta"), requires_grad=False) for p in model.parameters()}
    return copy.deepcopy(model, empty)  # type: ignore[arg-type]


def whole_model(skeleton: FusionModel, model: nn.Module) -> FusionModel:
    """A plain model with the weights of a sharded one; every process must ask, and gets all of it.

    Args:
        skeleton: What `prepare_sharding` gave.
        model: The sharded model; buffers are those of the main process, as in DistributedDataParallel.
    """
    weights = {name: whole(parameter) for name, parameter in model.named_parameters()}
    filled = {id(p): nn.Parameter(weights[name], requires_grad=False) for name, p in skeleton.named_parameters()}
    found = copy.deepcopy(skeleton, filled)  # type: ignore[arg-type]
    theirs = dict(model.named_buffers())
    for name, buffer in found.named_buffers():
        buffer.copy_(theirs[name])
    share_buffers(found)
    return found


def share_buffers(model: nn.Module) -> None:
    """Give every process the main process's buffers (running statistics), as DistributedDataParallel does.

    There may be 160 of them: those of a type go together.
    """
    by_type: dict[Any, list[Tensor]] = {}
    for buffer in model.buffers():
        by_type.setdefault((buffer.dtype, buffer.device), []).append(buffer)
    for buffers in by_type.values():
        joined: Any = broadcast(torch.cat([buffer.reshape(-1) for buffer in buffers]))
        for buffer, part in zip(buffers, joined.split([buffer.numel() for buffer in buffers]), strict=True):
            buffer.copy_(part.view_as(buffer))


def whole(tensor: Tensor) -> Tensor:
    """A tensor, or all of a sharded one; then every process must ask."""
    own: Any = tensor.detach()
    return own.full_tensor() if isinstance(own, DTensor) else own


def collect(tensors: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    """Named tensors, whole, on the CPU of the main process; the others get none, but must ask where some are sharded.

    They are collected one by one, and on a CPU they are the same memory.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in tensors:
        own = whole(tensor)
        if PartialState().is_main_process:
            found[name] = own.cpu().contiguous()
    return found


def laid_out_as(tensor: Tensor, other: Tensor) -> Tensor:
    """A whole tensor in the memory layout of `other`, or this process's shard of it; the type stays."""
    if isinstance(other, DTensor):
        local = tensor.to(other.device).contiguous()
        return distribute_tensor(local, other.device_mesh, other.placements, src_data_rank=None)
    return torch.empty_like(other, dtype=tensor.dtype).copy_(tensor)


def load_weights(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Load some of a model's tensors, whole, into a plain or a sharded model."""
    own = model.state_dict()
    model.load_state_dict({n: laid_out_as(t, own[n]) if n in own else t for n, t in weights.items()}, strict=False)


def tell_sharding(model: nn.Module) -> str:
    """What a process holds of a sharded model, in words."""
    parameters = list(model.parameters())
    local = sum(p.to_local().numel() if isinstance(p, DTensor) else p.numel() for p in parameters)
    groups = sum(isinstance(m, FSDPModule) for m in model.modules())
    return f"sharded by FSDP2 in {groups} groups: {local} of {sum(p.numel() for p in parameters)} parameters a process"


def fill_in(model: FusionModel, batches: Sequence[Batch], accelerator: Accelerator) -> list[list[nn.Module]]:
    """Let every process run the same towers: a sharded layer is gathered when it is run, and all must take part.

    A process whose batch has no text, or no image, where another one's has, gets a blank one that no row refers to; its
    gradient is zero.

    Args:
        model: Its towers tell what a blank is.
        batches: This process's, of an optimiser step, as many on each process; blanks are put into them.
        accelerator: Tells what the others have.

    Returns:
        By batch, the towers that read a blank.
    """
    if accelerator.num_processes == 1:
        return [[] for _ in batches]
    both = [("text", model.text_encoder), ("image", model.image_encoder)]
    mine = [[int(tower is not None and tower_inputs(tower, b, m) is not None) for m, tower in both] for b in batches]
    anywhere: Any = accelerator.reduce(torch.tensor(mine, device=accelerator.device), "sum")
    blank: list[list[nn.Module]] = []
    for batch, own, all_own in zip(batches, mine, anywhere.tolist(), strict=True):
        towers: list[nn.Module] = []
        for (modality, tower), here, there in zip(both, own, all_own, strict=True):
            if tower is not None and not here and there:
                batch.update(blank_item(tower, modality, accelerator.device))
                towers.append(tower)
        blank.append(towers)
    return blank


@contextmanager
def resting(towers: Sequence[nn.Module]) -> Iterator[None]:
    """Towers in eval mode, so that a blank does not enter batch statistics."""
    for tower in towers:
        tower.eval()
    try:
        yield
    finally:
        for tower in towers:
            tower.train()
