"""Batches out of a dataset: prepared by worker processes ahead of their use, and moved to a device."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from mmfuse.memory import keep_memory
from mmfuse.registry import load_plugin, loaded_plugins
from mmfuse.types import Batch

_AHEAD = 32
"""Batches of a process that are prepared ahead of their use, by all its workers together; at least two each."""

TARGET = "target."
"""Begins the names of a batch's targets."""


def make_loader(dataset: Dataset, batches: Iterable[Any], num_workers: int, device: Any = "cpu") -> DataLoader:
    """Packed batches of the given rows, in the given order, prepared by `num_workers` processes ahead of their use.

    Worker w of n prepares batches w, w + n, ... Every training process has a loader of its own batches, so Accelerate's
    `dispatch_batches` (one process reads for all) does not arise.

    Args:
        dataset: Gives a batch for each of `batches`.
        batches: Row numbers, or whatever else the dataset takes.
        num_workers: 0 prepares each batch when it is asked for.
        device: Where batches will go: memory is pinned for a CUDA device alone.
    """
    return DataLoader(
        dataset,
        sampler=batches,  # type: ignore[arg-type]
        batch_size=None,
        num_workers=num_workers,
        prefetch_factor=max(2, min(4, _AHEAD // num_workers)) if num_workers else None,
        worker_init_fn=partial(_begin, loaded_plugins()) if num_workers else None,
        pin_memory=torch.device(device).type == "cuda",
    )


def _begin(plugins: Sequence[str], _: int) -> None:
    """One thread a worker; one that is spawned, not forked, must know a plug-in's kinds of tasks to read targets."""
    torch.set_num_threads(1)
    keep_memory(reader=True)
    for plugin in plugins:
        load_plugin(plugin)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # else each forked worker that tokenizes warns


PLAIN = -1
"""In place of an epoch's number: rows are read as they are."""


class Feed:
    """The batches of many epochs, and of the evaluations between them, prepared ahead by the same worker processes.

    While the last batches of an epoch are used, the first ones of what follows are prepared: nothing begins with an
    empty queue, and processes are started once. What is asked for must be what was announced, in its order.

    Args:
        trained: Its `at` gives the rows as an epoch trains on them.
        evaluated: Its `plain` gives those of an evaluation.
        coming: All that will be asked for: each epoch, or `PLAIN`, with its batches' rows. It is gone through ahead.
        num_workers: Each pass begins with the first of them.
        device: As `make_loader` takes it.
    """

    def __init__(
        self,
        trained: Any,
        evaluated: Any,
        coming: Iterable[tuple[int, Iterable[Sequence[int]]]],
        num_workers: int,
        device: Any = "cpu",
    ):
        self._device = device
        loader = make_loader(_Passes(trained, evaluated), _turns(coming, num_workers), num_workers, device)
        self._found: Iterator[tuple[int, Batch | None]] = iter(loader)

    def take(self, epoch: int, number: int) -> Iterator[Batch]:
        """The next batches, on the device.

        Args:
            epoch: What they are of.
            number: How many there are; a pass without any is left out.
        """
        return on_device(self._take(epoch, number), self._device)

    def _take(self, epoch: int, number: int) -> Iterator[Batch]:
        for _ in range(number):
            batch = None
            while batch is None:
                found, batch = next(self._found)
            if found != epoch:
                raise RuntimeError(f"a batch of epoch {epoch} was asked for, and one of epoch {found} is next")
            yield batch

    def __enter__(self) -> Feed:
        return self

    def __exit__(self, *_: Any) -> None:
        self._found = iter(())  # the loader's last reference: its processes end


def _turns(coming: Iterable[tuple[int, Iterable[Sequence[int]]]], num_workers: int) -> Iterator[tuple[int, Any]]:
    """The batches of all passes; after each one, nothing for those workers that would not have had as many.

    So each pass begins with the first worker, and in a stream a worker has the same lanes all along.
    """
    for epoch, batches in coming:
        taken = 0
        for rows in batches:
            yield epoch, rows
            taken += 1
        for _ in range(-taken % max(1, num_workers)):
            yield epoch, None


class _Passes(Dataset):
    """An epoch with the numbers of rows to the epoch with their batch; without rows there is none."""

    def __init__(self, trained: Any, evaluated: Any):
        self.trained, self.evaluated = trained, evaluated
        self._now: tuple[int | None, Any] = None, None

    def __getitem__(self, turn: tuple[int, Any]) -> tuple[int, Batch | None]:
        epoch, rows = turn
        if rows is None:
            return epoch, None
        if epoch != self._now[0]:
            self._now = None, None  # encoded rows that a pass holds are let go before those of the next one are read
            self._now = epoch, self.evaluated.plain() if epoch == PLAIN else self.trained.at(epoch)
        return epoch, self._now[1][rows]


def move_batch(batch: Batch, device: Any) -> Batch:
    """The batch on a device; `Features` in it move too, and the targets stay here as well (`targets_here`)."""
    if torch.device(device).type == "cpu" or "targets_here" in batch:  # it is there
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


def on_device(batches: Iterable[Batch], device: Any) -> Iterator[Batch]:
    """The batches on a device; to a CUDA device each is copied while the one before it is in use."""
    if torch.device(device).type != "cuda":
        yield from (move_batch(batch, device) for batch in batches)
        return
    copying, held = torch.cuda.Stream(device), None
    for batch in batches:
        with torch.cuda.stream(copying):
            copied = move_batch(batch, device), copying.record_event()
        if held is not None:
            yield _arrived(*held, device)
        held = copied
    if held is not None:
        yield _arrived(*held, device)


def _arrived(batch: Batch, copied: Any, device: Any) -> Batch:
    """A batch that another stream has copied, for the one that computes; the host does not wait."""
    using = torch.cuda.current_stream(device)
    using.wait_event(copied)
    for value in batch.values():
        for tensor in value if isinstance(value, tuple) else (value,):
            if isinstance(tensor, torch.Tensor):
                tensor.record_stream(using)  # else its memory could be taken for the next copy while it is read
    return batch
