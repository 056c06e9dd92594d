"""Batches that a trained batch norm cannot take: those that give it one value a channel, which have no variance."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmfuse.config import Config
from mmfuse.data.batches.pairs import PairDataset
from mmfuse.data.batches.stream import Stream
from mmfuse.encoders.features import FeatureTower
from mmfuse.encoders.towers import blank_item
from mmfuse.model import FusionModel
from mmfuse.training.orders import build_order
from mmfuse.types import MmfuseError

_MOST = 2_000_000
"""Rows that are gone through beforehand, of all epochs; a lone image behind these is told when its batch comes."""


def check_lone_images(
    model: FusionModel, pairs: PairDataset, config: Config, world: int = 1, stream: Stream | None = None
) -> None:
    """Refuse, before training begins, a plan with a batch that a batch norm would end the run at.

    A norm behind a 1 x 1 map sees as many values as a process's batch has images; one of a fusion, as many as it has
    rows. With `batch_norm: sync` the images of all processes count together.

    Args:
        model: Its batch norms are found by running it on one image.
        pairs: The rows, with the images of each.
        config: The run's.
        world: Processes.
        stream: The training rows, where they are read from shards: each is taken for one image.

    Raises:
        MmfuseError: There is such a batch; the message names what can be changed.
    """
    own, encoder = config.image_encoder, model.image_encoder
    first = config.training.epochs if own.first_trained is None else own.first_trained
    if not any(isinstance(module, _BatchNorm) for module in model.modules()):
        return
    images, rows = _norms_of_one_value(model)
    images = images and getattr(encoder, "batch_norm", None) != "frozen"
    together = getattr(encoder, "batch_norm", None) == "sync" and world > 1
    if rows and any(1 in sizes for sizes in _batches(pairs, config, world, stream, 0, of_rows=True)):
        raise MmfuseError(
            f"training.batch_size: {config.training.batch_size} leaves a batch of a single row, of which a batch norm "
            "of the fusion or a head has no variance; choose another"
        )
    found = _batches(pairs, config, world, stream, first) if images else ()
    if any(sum(sizes) == 1 if together else 1 in sizes for sizes in found):
        if isinstance(encoder, FeatureTower):
            raise MmfuseError(
                f"training.batch_size: {config.training.batch_size} leaves a batch of a single item, of which a batch "
                f"norm of the tower {encoder.name!r} has no variance; choose another"
            )
        size: Any = encoder.preprocessing.size if encoder is not None else ()
        raise MmfuseError(
            f"training.batch_size: {config.training.batch_size} leaves a batch of a single image, of which a batch "
            f"norm behind a 1 x 1 map (images of {size[0]} x {size[1]}) has no variance; set image_encoder.batch_norm: "
            "frozen, or choose another image_encoder.size or training.batch_size"
        )


def _batches(
    pairs: PairDataset, config: Config, world: int, stream: Stream | None, first: int, of_rows: bool = False
) -> Iterator[list[int]]:
    """The images, or rows, of each process in each batch that differs from others, from epoch `first` on."""
    training = config.training
    limit = None if training.max_steps is None else training.max_steps * training.accumulation
    if stream is not None:
        plan = stream.plan
        last = len(plan) - plan.lanes // world  # before that, micro-batches are whole
        for step in {0, *range(last, len(plan))} if first < training.epochs else ():
            if limit is None or step < limit - first * len(plan):
                yield [len(part) for part in plan[step]]
        return
    rows = pairs.table.indices("train")
    counts = np.ones(len(pairs), int) if of_rows else np.array([len(images) for images in pairs.images])
    least = int(counts[rows].min()) if rows else 0
    draws = not of_rows and pairs.modality_dropout.get("image", 0.0) > 0
    epochs = training.epochs if draws or not least else min(first + 1, training.epochs)  # else all epochs are alike
    order = build_order(config, pairs, world)
    for epoch in range(first, min(epochs, first + 1 + _MOST // max(1, len(rows)))):
        plan = order.plan(epoch)
        for step in plan[: None if limit is None else max(0, limit - epoch * len(plan))]:
            if draws:
                yield [sum(_shown(pairs.at(epoch), row) for row in part) for part in step]
            else:  # which row is alone is another one each epoch
                yield [least if len(part) == 1 and least else int(counts[part].sum()) for part in step]


def _shown(pairs: PairDataset, row: int) -> int:
    """Images of a row that its epoch does not hide."""
    return 0 if pairs.hidden(row) == "image" else len(pairs.images[row])


@torch.no_grad()
def _norms_of_one_value(model: FusionModel) -> tuple[bool, bool]:
    """Whether one image, and whether one row, is a single value to a batch norm of the image tower, and of the rest."""
    alone: set[str] = set()

    def note(part: str) -> Any:
        def hook(module: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
            if given[0].numel() == given[0].shape[1]:
                alone.add(part)

        return hook

    hooks = [
        module.register_forward_pre_hook(note("image" if name.startswith("image_encoder.") else "row"))
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm)
    ]
    was_training = model.training
    model.eval()
    try:
        device = next(model.parameters()).device
        nothing: Any = {"row_ids": torch.zeros(1), "input_ids": (), "text_row": torch.zeros(0, dtype=torch.long)}
        if model.image_encoder is not None:
            nothing |= blank_item(model.image_encoder, "image", device)
            nothing["image_row"] = torch.zeros(1, dtype=torch.long, device=device)
        text, image = model.encode(nothing)
        model.fusion(text, image)
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    return "image" in alone, "row" in alone
