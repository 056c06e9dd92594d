"""A small model with batches, for the checks of what trains: objectives and methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmfuse.model import FusionModel
from mmfuse.types import MISSING_CLASS, Batch, Features, Step

TASKS = {
    "kind": {"type": "classification", "labels": ["a", "b", "c"]},
    "signs": {"type": "multilabel", "labels": ["p", "q"]},
}
LENGTHS = (5, 3, 4, 2, 6)
"""Tokens of the texts; row 1 has none."""
ROWS = 6


class Words(nn.Module):
    """A text tower: embeddings and one layer over each token, with the neighbours' mean."""

    dim = 8
    frozen = False

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.layer = nn.Embedding(12, self.dim), nn.Linear(self.dim, self.dim)

    def forward(self, input_ids: Tensor, mask: Tensor, shift: Tensor | None = None) -> Features:
        """As `TextEncoder.forward`."""
        weight = mask.unsqueeze(-1).to(self.layer.weight.dtype)
        words = self.embedding(input_ids) + (0 if shift is None else shift)
        around = (words * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True)
        tokens = torch.tanh(self.layer(words + around))
        pooled = (tokens * weight).sum(1) / weight.sum(1)
        return Features(tokens, mask, pooled, mask[:, 0])

    def zero_shift(self, input_ids: Tensor) -> Tensor:
        """As `TextEncoder.zero_shift`."""
        return self.embedding.weight.new_zeros(*input_ids.shape, self.dim)


class Pixels(nn.Module):
    """An image tower: a layer over each of four patches."""

    dim = 8
    frozen = False

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3 * 4, self.dim)

    def forward(self, pixels: Tensor, shift: Tensor | None = None) -> Features:
        """As `ImageEncoder.forward`."""
        x = pixels.to(self.layer.weight.dtype) / 128 - 1 + (0 if shift is None else shift)
        patches = x.unfold(2, 2, 2).unfold(3, 2, 2).permute(0, 2, 3, 1, 4, 5).flatten(1, 2).flatten(2)
        tokens = torch.tanh(self.layer(patches))
        mask = torch.ones(tokens.shape[:2], dtype=torch.bool)
        return Features(tokens, mask, tokens.mean(1), mask[:, 0])

    def zero_shift(self, pixels: Tensor) -> Tensor:
        """As `ImageEncoder.zero_shift`."""
        return self.layer.weight.new_zeros(pixels.shape)


def small_model(dropout: float = 0.0) -> FusionModel:
    """A model of both modalities and two tasks whose fusion has a loss of its own, in training mode."""
    torch.manual_seed(0)
    text, image = Words(), Pixels()
    fusion = {"name": "cross_attention", "out_dim": 8, "num_heads": 2, "dropout": dropout}
    model = FusionModel(text, image, fusion, TASKS)  # type: ignore[arg-type]  (of towers it asks no more)
    last: list[Features] = []

    def keep(_module: nn.Module, _given: Any, out: Features) -> None:
        last[:] = [out]

    model.fusion.register_forward_hook(keep)
    model.fusion.auxiliary_loss = lambda: last[0].pooled.square().mean()
    return model.train()


def small_batch(rows: Sequence[int] = range(ROWS), padding: int = 0) -> Batch:
    """Some of six rows, in this order: row 1 has no text, row 2 no image, row 3 two; rows 0 and 4 lack a target.

    Args:
        rows: Their numbers.
        padding: Tokens behind the longest text, of which none may be read.
    """
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, 12, (ROWS, 8), generator=generator)
    pixels = torch.randint(0, 256, (ROWS + 1, 3, 4, 4), generator=generator, dtype=torch.uint8)
    kind = torch.tensor([MISSING_CLASS, 1, 2, 0, 1, 2])
    signs = torch.randint(0, 2, (ROWS, 2), generator=generator).float()
    signs[4] = torch.nan
    texts = dict(zip((0, 2, 3, 4, 5), LENGTHS, strict=True))
    images = {0: [0], 1: [1], 3: [2, 6], 4: [3], 5: [4]}
    with_text = [i for i, row in enumerate(rows) if row in texts]
    with_image = [(i, view, n) for i, row in enumerate(rows) for view, n in enumerate(images.get(row, ()))]
    longest = max((texts[rows[i]] for i in with_text), default=0) + padding
    return {
        "row_ids": torch.tensor(list(rows)),
        "text_row": torch.tensor(with_text, dtype=torch.long),
        "input_ids": torch.stack([ids[rows[i]].repeat(3)[:longest] for i in with_text]) if with_text else ids[:0],
        "text_mask": torch.tensor([[k < texts[rows[i]] for k in range(longest)] for i in with_text], dtype=torch.bool),
        "image_row": torch.tensor([i for i, _, _ in with_image], dtype=torch.long),
        "image_view": torch.tensor([view for _, view, _ in with_image], dtype=torch.long),
        "pixels": pixels[[n for _, _, n in with_image]],
        "target.kind": kind[list(rows)],
        "target.signs": signs[list(rows)],
        "ids": [f"row {row}" for row in rows],
    }


def small_step(model: FusionModel, batch: Batch | None = None) -> Step:
    """The step of which all six rows, or those of a batch, are the whole."""
    whole = small_batch() if batch is None else batch
    heads: dict[str, Any] = dict(model.heads.items())
    targets = {task: float(head.count(whole[f"target.{task}"])) for task, head in heads.items()}
    return Step(3, 10, 1, 7, targets, float(len(whole["row_ids"])))


def gap(a: Tensor, b: Tensor) -> float:
    """The largest difference, relative to the largest value."""
    scale = torch.maximum(a.abs().max(), b.abs().max()).clamp_min(1e-12)
    return float(((a - b).abs().max() / scale).detach())
