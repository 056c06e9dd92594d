"""Prepared rows to a packed batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from mmfuse.types import Batch


@dataclass
class Item:
    """One row, ready to be packed.

    Attributes:
        row: Its position in its dataset.
        id: Its id.
        input_ids: Its text's tokens; None where the text is missing or its features are cached.
        pixels: Its images, `(3, H, W)` uint8 each; empty where there are none or their features are cached.
        values: By "text" and "image" what stands in for it, `(T, D)` float32; None where it is missing.
    """

    row: int
    id: str
    input_ids: Sequence[int] | None = None
    pixels: list[np.ndarray] = field(default_factory=list)
    values: dict[str, np.ndarray | None] = field(default_factory=dict)


def collate(items: Sequence[Item], pad_token_id: int = 0) -> Batch:
    """Pack rows: texts padded to the longest of them, images and texts only where they exist.

    Args:
        items: At least one.
        pad_token_id: Stands behind a text's end; it is masked.

    Returns:
        A `Batch`, as `mmfuse.types.Batch` says; targets and cached features are added by who has them.
    """
    texts = [(i, item.input_ids) for i, item in enumerate(items) if item.input_ids is not None]
    input_ids, text_mask = pad_tokens([ids for _, ids in texts], pad_token_id)
    images = [(i, v) for i, item in enumerate(items) for v in range(len(item.pixels))]
    pixels = [p for item in items for p in item.pixels]
    batch: Batch = {
        "row_ids": torch.tensor([item.row for item in items]),
        "text_row": torch.tensor([i for i, _ in texts], dtype=torch.long),
        "input_ids": input_ids,
        "text_mask": text_mask,
        "text_full": bool(text_mask.all()),
        "image_row": torch.tensor([i for i, _ in images], dtype=torch.long),
        "image_view": torch.tensor([v for _, v in images], dtype=torch.long),
        "most_images": max((len(item.pixels) for item in items), default=0),
        "pixels": torch.from_numpy(np.stack(pixels)) if pixels else torch.zeros(0, 3, 1, 1, dtype=torch.uint8),
        "ids": [item.id for item in items],
    }
    for modality in dict.fromkeys(chain.from_iterable(item.values for item in items)):
        rows = [(i, item.values[modality]) for i, item in enumerate(items) if item.values.get(modality) is not None]
        batch[f"{modality}_row"] = torch.tensor([i for i, _ in rows], dtype=torch.long)
        if modality == "image":
            batch["image_view"], batch["most_images"] = torch.zeros_like(batch["image_row"]), int(bool(rows))
        batch[f"{modality}_values"], batch[f"{modality}_values_mask"] = pad_values([found for _, found in rows])  # type: ignore[misc]
    return batch


def pad_values(items: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Items `(T, D)` as `(N, T, D)` float32, 0 behind an item's end, with their mask `(N, T)` bool."""
    longest = max((len(item) for item in items), default=0)
    values = np.zeros((len(items), longest, items[0].shape[1] if items else 0), dtype=np.float32)
    mask = np.zeros((len(items), longest), dtype=bool)
    for i, item in enumerate(items):
        values[i, : len(item)] = item
        mask[i, : len(item)] = True
    return torch.from_numpy(values), torch.from_numpy(mask)


def pad_tokens(texts: Sequence[Sequence[int]], pad_token_id: int) -> tuple[Tensor, Tensor]:
    """Token ids as `(B, T)` int64 with their mask `(B, T)` bool, T the longest of them."""
    longest = max((len(ids) for ids in texts), default=0)
    input_ids = np.full((len(texts), longest), pad_token_id, dtype=np.int64)
    mask = np.zeros((len(texts), longest), dtype=bool)
    for i, ids in enumerate(texts):
        input_ids[i, : len(ids)] = ids
        mask[i, : len(ids)] = True
    return torch.from_numpy(input_ids), torch.from_numpy(mask)
