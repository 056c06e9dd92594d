"""Batches out of a dataset: prepared by worker processes ahead of their use, and moved to a device."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from mmfuse.registry import load_plugin, loaded_plugins
from mmfuse.types import Batch

TARGET = "target."
"""Begins the names of a batch's targets."""


def make_loader(dataset: Dataset, batches: Iterable[Sequence[int]], num_workers: int) -> DataLoader:
    """Packed batches of the given rows, in the given order, prepared by `num_workers` processes ahead of their use.

    Worker w of n prepares batches w, w + n, ... Every training process has a loader of its own batches, so Accelerate's
    `dispatch_batches` (one process reads for all) does not arise.
    """
    return DataLoader(
        dataset,
        sampler=batches,  # type: ignore[arg-type]
        batch_size=None,
        num_workers=num_workers,
        prefetch_factor=4 if num_workers else None,
        worker_init_fn=partial(_begin, loaded_plugins()) if num_workers else None,
        pin_memory=torch.cuda.is_available(),
    )


def _begin(plugins: Sequence[str], _: int) -> None:
    """One thread a worker; one that is spawned, not forked, must know a plug-in's kinds of tasks to read targets."""
    torch.set_num_threads(1)
    for plugin in plugins:
        load_plugin(plugin)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # else each forked worker that tokenizes warns


def move_batch(batch: Batch, device: Any) -> Batch:
    """The batch on a device; `Features` in it move too, and the targets stay here as well (`targets_here`)."""
    if torch.device(device).type == "cpu":
        return batch
    moved: Batch = {}
    for name, value in batch.items():
        if isinstance(value, torch.Tensor):
            moved[name] = value.to(device, non_blocking=True)
        elif isinstance(value, tuple):
            moved[name] = type(value)(*(part.to(device, non_blocking=True) for part in value))
        else:
            moved[name] = value
    moved["targets_here"] = {
        name.removeprefix(TARGET): value.numpy() for name, value in batch.items() if name.startswith(TARGET)
    }
    return moved
