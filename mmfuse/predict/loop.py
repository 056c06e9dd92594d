"""The one inference loop: batches to logits. Predictor, evaluation and the validation while training use it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object

from mmfuse.data.batches.loader import make_loader, move_batch, on_device
from mmfuse.data.batches.pairs import PairDataset
from mmfuse.model import FusionModel
from mmfuse.pulse import counted
from mmfuse.types import Batch, Features

Forward = Callable[[Batch], dict[str, np.ndarray]]
"""A forward pass of another runtime: a packed batch on the CPU to logits `(B, L)` float32 by task."""


def in_eval_mode(model: torch.nn.Module, call: Callable[[Any], Any], inputs: Iterable[Any]) -> Iterator[Any]:
    """What `call` gives for each of `inputs`, with the model in eval mode and without autograd."""
    was_training = model.training
    model.eval()
    try:
        for each in inputs:
            with torch.inference_mode():
                found = call(each)
            yield found
    finally:
        model.train(was_training)


def forward_batches(
    model: torch.nn.Module, batches: Iterable[Batch], device: Any
) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Row numbers `(B,)` and by task logits `(B, L)` or captions' records `(B,)`; in eval mode, without autograd."""

    def forward(batch: Batch) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        said = model(move_batch(batch, device), predict=True)
        return batch["row_ids"].cpu().numpy(), {
            task: values.float().cpu().numpy() if isinstance(values, torch.Tensor) else values
            for task, values in said.items()
        }

    return in_eval_mode(model, forward, batches)


def run_batches(
    forward: Forward | None, model: torch.nn.Module, batches: Iterable[Batch], device: Any
) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """As `forward_batches` of the model gives it, or another runtime in its place."""
    if forward is None:
        return forward_batches(model, batches, device)
    return ((batch["row_ids"].numpy(), forward(batch)) for batch in batches)


def table_logits(
    model: torch.nn.Module,
    pairs: PairDataset,
    rows: Sequence[int],
    *,
    batch_size: int = 64,
    num_workers: int = 0,
    progress: Callable[[int], None] | None = None,
) -> dict[str, np.ndarray]:
    """Logits of the given rows, shared among the processes, each row once.

    Args:
        model: A FusionModel.
        pairs: The table it reads.
        rows: Row numbers.
        batch_size: Rows per process and forward pass.
        num_workers: Processes that read images.
        progress: Called with the number of rows done here since the last call.

    Returns:
        By task, logits `(len(rows), L)` or captions' records `(len(rows),)` in the order of `rows`, on every process.
    """
    state = PartialState()
    batches = pairs.batches(rows, batch_size, state.process_index, state.num_processes, num_workers)
    loader = make_loader(pairs.plain(), batches, num_workers, state.device)
    return score_batches(model, rows, on_device(loader, state.device), len(batches), progress)


def score_batches(
    model: torch.nn.Module,
    rows: Sequence[int],
    batches: Iterable[Batch],
    number: int,
    progress: Callable[[int], None] | None = None,
) -> dict[str, np.ndarray]:
    """Logits of rows whose batches are there already, as `table_logits` gives them.

    Args:
        model: A FusionModel.
        rows: Row numbers, of all processes.
        batches: Those of this process.
        number: How many.
        progress: Called with the number of rows done here since the last call.
    """
    state, found = PartialState(), []
    for row_ids, logits in forward_batches(model, counted(batches, "scoring rows, batches", number), state.device):
        found.append((row_ids, logits))
        if progress:
            progress(len(row_ids))
    parts = gather_object(found) if state.num_processes > 1 else found
    position = {row: i for i, row in enumerate(rows)}
    result: dict[str, np.ndarray] = {}
    for row_ids, logits in parts:
        places = [position[int(row)] for row in row_ids]
        for task, values in logits.items():
            if task not in result:
                result[task] = np.zeros((len(rows), *values.shape[1:]), dtype=values.dtype)
            result[task][places] = values
    return result


def table_features(
    model: FusionModel, pairs: PairDataset, rows: Sequence[int], *, batch_size: int = 64, num_workers: int = 0
) -> tuple[Features | None, Features | None]:
    """Text and image `Features` of the given rows, encoded once, for whoever fuses them many times.

    Every process computes all of them: nothing is shared, so one process alone may ask.

    Args:
        model: Its encoders are run, or their cached features read; its missing tokens stand where a row has nothing.
        pairs: The table it reads.
        rows: Row numbers, at least one, each once.
        batch_size: Rows per forward pass.
        num_workers: Processes that read images.

    Returns:
        In the order of `rows`, padded to the longest of them, on the CPU; None for a modality that is not used. Where
        tokens are read, that is `rows x tokens x width` numbers.
    """
    device = next(model.parameters()).device
    batches = pairs.batches(rows, batch_size, num_workers=num_workers)

    def encode(batch: Batch) -> tuple[np.ndarray, list[Features | None]]:
        encoded = model.encode(move_batch(batch, device))
        return batch["row_ids"].numpy(), [None if f is None else Features(*(part.cpu() for part in f)) for f in encoded]

    found = list(in_eval_mode(model, encode, make_loader(pairs.plain(), batches, num_workers)))
    position = {row: i for i, row in enumerate(rows)}
    places = [torch.tensor([position[int(row)] for row in row_ids]) for row_ids, _ in found]
    text, image = zip(*(features for _, features in found), strict=True)
    return join_features(places, text), join_features(places, image)


def join_features(places: list[torch.Tensor], parts: Sequence[Features | None]) -> Features | None:
    """Features of all rows from those of batches of them, which are padded to different lengths.

    Args:
        places: By batch, the rows' places among all, from 0.
        parts: By batch, its features; None where the modality is not used.
    """
    there = [part for part in parts if part is not None]
    if not there:
        return None
    rows, longest, dim = sum(len(p) for p in places), max(p.tokens.shape[1] for p in there), there[0].pooled.shape[1]
    tokens, mask = there[0].tokens.new_zeros(rows, longest, dim), there[0].mask.new_zeros(rows, longest)
    pooled, present = there[0].pooled.new_zeros(rows, dim), there[0].present.new_zeros(rows)
    for place, part in zip(places, there, strict=True):
        length = part.tokens.shape[1]
        tokens[place, :length], mask[place, :length] = part.tokens, part.mask
        pooled[place], present[place] = part.pooled, part.present
    return Features(tokens, mask, pooled, present)
