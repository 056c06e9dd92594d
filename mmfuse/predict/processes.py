"""The processes that a launcher has started, joined once or refused in one line; and those that read images."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

from mmfuse.types import MmfuseError

SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
"""What torchrun, `accelerate launch` and MPI's launchers call the number of processes, as Accelerate reads them."""
RANKS = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")
"""And the number of this one."""
_LOCAL_SIZES = ("LOCAL_WORLD_SIZE", "MPI_LOCALNRANKS", "OMPI_COMM_WORLD_LOCAL_SIZE", "MV2_COMM_WORLD_LOCAL_SIZE")
_MOST = 32
"""Processes that read: those of plain photographs keep up with 12,000 pairs/s, and each takes memory."""


def launched() -> int:
    """How many processes the launcher says it has started; 1 where there is none.

    Raises:
        MmfuseError: What it says is no number.
    """
    return _number(SIZES, 1)


def join_processes() -> PartialState:
    """The processes of this launch, over gloo where there are CPUs alone; the same ones each time.

    Accelerate sees a single process where `torchrun` starts several on CPUs and ACCELERATE_USE_CPU is not set; each
    would then do all the work, into the same files.

    Raises:
        MmfuseError: They cannot be joined, or Accelerate does not see them all.
    """
    started = launched()
    if started > 1 and not PartialState._shared_state:
        if _number(RANKS, -1) < 0:
            raise MmfuseError(
                f"{_named(SIZES)}: {started} processes, but no {' or '.join(RANKS[:2])} says which one this is; unset "
                "it, or start them by torchrun or accelerate launch"
            )
        if not torch.accelerator.is_available():
            os.environ["ACCELERATE_USE_CPU"] = "true"  # what Accelerate itself asks for before it takes gloo
    try:
        state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))
    except (ValueError, RuntimeError, ImportError, NotImplementedError, AssertionError) as error:
        many = f"the {started} processes of this launch cannot be joined" if started > 1 else "no device can be had"
        raise MmfuseError(f"{many}: {(str(error).splitlines() or [type(error).__name__])[0]}") from error
    if state.num_processes != started:
        raise MmfuseError(
            f"{_named(SIZES)}: {started} processes, but Accelerate joins {state.num_processes}, and each would do all "
            "work; start them by torchrun or accelerate launch, on CPU cores with ACCELERATE_USE_CPU=true"
        )
    return state


def wait_for_all() -> None:
    """Wait for the other processes of this launch, however long that takes.

    A collective operation gives up after ten minutes with NCCL, so the processes meet in a group of gloo's, which has a
    limit of its own. It ends with the launch: closed here, one process could end it while another still joins it.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        group: Any = torch.distributed.new_group(backend="gloo", timeout=timedelta(days=7))
        torch.distributed.barrier(group=group)


def default_workers() -> int:
    """Processes that read images ahead, for each process of a launch: its share of the cores but one, at most 32."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    here = _number(_LOCAL_SIZES, 1)
    return max(0, min(_MOST, cores // max(1, here) - 1))


def _named(names: tuple[str, ...]) -> str:
    """The first of them that is set."""
    return next((name for name in names if os.environ.get(name)), names[0])


def _number(names: tuple[str, ...], default: int) -> int:
    text = os.environ.get(_named(names)) or str(default)
    try:
        return int(text)
    except ValueError:
        raise MmfuseError(f"{_named(names)}: {text!r} is not a number of processes; unset it") from None
