"""The Accelerator of a run, and of no other in the same process."""

from __future__ import annotations

from contextlib import contextmanager

from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState, PartialState
from accelerate.tracking import get_available_trackers
from accelerate.utils import GradientAccumulationPlugin

from mmfuse.config import Config
from mmfuse.extras import install
from mmfuse.memory import give_back, keep_memory
from mmfuse.predict import join_processes
from mmfuse.registry import nearest
from mmfuse.training.arithmetic import arithmetic
from mmfuse.training.batch_norm import check_sync
from mmfuse.training.launch import check_precision
from mmfuse.training.sharded import shard_on_cpu, sum_in_fp32
from mmfuse.training.zero import check_zero
from mmfuse.types import MmfuseError


@contextmanager
def open_accelerator(config: Config):
    """An Accelerator of its own; the next run in this process may ask for another precision.

    Until then the process keeps what it frees (`mmfuse.memory`).
    """
    keep_memory()
    there = [str(getattr(tracker, "value", tracker)) for tracker in get_available_trackers()]
    for name in config.training.trackers:  # Accelerate leaves out in silence what is not installed
        if name in ("tensorboard", "wandb") and name not in there:
            raise MmfuseError(f"training.trackers: {name} is not installed: {install(name)}")
        if name not in there:
            raise MmfuseError(f"training.trackers: {name!r} is not installed or unknown; {nearest(name, there)}")
    check_zero(config)
    plain = join_processes().distributed_type
    kwargs = DistributedDataParallelKwargs(find_unused_parameters=True)
    try:
        accelerator = Accelerator(
            mixed_precision=_autocast(config),
            log_with=list(config.training.trackers) or None,  # type: ignore[arg-type]
            project_dir=str(config.run_dir),
            kwargs_handlers=[kwargs],
            gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),  # the loop's own, or it is done twice
        )
    except (ValueError, ImportError) as error:
        raise MmfuseError(f"training.trackers or training.mixed_precision: {str(error).splitlines()[0]}") from error
    try:
        shard_on_cpu(accelerator)
        sum_in_fp32(accelerator)
        check_precision(config, accelerator)
        check_sync(config, accelerator)
        with arithmetic(config.training, accelerator.device):
            yield accelerator
    finally:
        accelerator.free_memory()
        give_back()
        AcceleratorState._reset_state()
        PartialState().distributed_type = plain  # Accelerate leaves FSDP there, and then takes its plug-in for set


def _autocast(config: Config) -> str:
    """What Accelerate casts; with `auto` the model itself does, part by part (`mmfuse.precision`)."""
    asked = config.training.mixed_precision
    return "no" if asked in (None, "auto") else asked
