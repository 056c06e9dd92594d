"""Prepared rows to a packed batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from mmfuse.types import Batch, Features


@dataclass
class Item:
    """One row, ready to be packed.

    Attributes:
        row: Its position in its dataset.
        id: Its id.
        input_ids: Its text's tokens; None where the text is missing or its features are cached.
        pixels: Its images, `(3, H, W)` uint8 each; empty where there are none or their features are cached.
        text_features: `(tokens (T, D), pooled (D,))` of its text, from a cache.
        image_features: The same of each of its images.
        targets: By task: a class id, or `(L,)` float with NaN.
    """

    row: int
    id: str
    input_ids: Sequence[int] | None = None
    pixels: list[np.ndarray] = field(default_factory=list)
    text_features: tuple[np.ndarray, np.ndarray] | None = None
    image_features: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    targets: dict[str, np.ndarray] = field(default_factory=dict)


def collate(items: Sequence[Item], pad_token_id: int = 0) -> Batch:
    """Pack rows: texts padded to the longest of them, images and texts only where they exist.

    Args:
        items: At least one.
        pad_token_id: Stands behind a text's end; it is masked.

    Returns:
        A `Batch`, as `mmfuse.types.Batch` says.
    """
    batch: Batch = {"row_ids": torch.tensor([item.row for item in items])}
    cached_text = [(i, item.text_features) for i, item in enumerate(items) if item.text_features is not None]
    if cached_text:
        batch["text_row"] = torch.tensor([i for i, _ in cached_text])
        batch["text_features"] = pack_features([features for _, features in cached_text])
    else:
        texts = [(i, item.input_ids) for i, item in enumerate(items) if item.input_ids is not None]
        batch["text_row"] = torch.tensor([i for i, _ in texts], dtype=torch.long)
        batch["input_ids"], batch["text_mask"] = pad_tokens([ids for _, ids in texts], pad_token_id)
    cached_images = [(i, v, f) for i, item in enumerate(items) for v, f in enumerate(item.image_features)]
    if cached_images:
        batch["image_features"] = pack_features([f for _, _, f in cached_images])
        images = [(i, v) for i, v, _ in cached_images]
    else:
        images = [(i, v) for i, item in enumerate(items) for v in range(len(item.pixels))]
        pixels = [p for item in items for p in item.pixels]
        batch["pixels"] = torch.from_numpy(np.stack(pixels)) if pixels else torch.zeros(0, 3, 1, 1, dtype=torch.uint8)
    batch["image_row"] = torch.tensor([i for i, _ in images], dtype=torch.long)
    batch["image_view"] = torch.tensor([v for _, v in images], dtype=torch.long)
    for task in items[0].targets:
        batch[f"target.{task}"] = torch.from_numpy(np.stack([item.targets[task] for item in items]))
    batch["ids"] = [item.id for item in items]
    return batch


def pad_tokens(texts: Sequence[Sequence[int]], pad_token_id: int) -> tuple[Tensor, Tensor]:
    """Token ids as `(B, T)` int64 with their mask `(B, T)` bool, T the longest of them."""
    longest = max((len(ids) for ids in texts), default=0)
    input_ids = np.full((len(texts), longest), pad_token_id, dtype=np.int64)
    mask = np.zeros((len(texts), longest), dtype=bool)
    for i, ids in enumerate(texts):
        input_ids[i, : len(ids)] = ids
        mask[i, : len(ids)] = True
    return torch.from_numpy(input_ids), torch.from_numpy(mask)


def pack_features(found: Sequence[tuple[np.ndarray, np.ndarray]]) -> Features:
    """Cached `(tokens (S, D), pooled (D,))` of several items as one padded, packed `Features`."""
    longest = max(len(tokens) for tokens, _ in found)
    tokens = np.zeros((len(found), longest, found[0][0].shape[1]), dtype=found[0][0].dtype)
    mask = np.zeros((len(found), longest), dtype=bool)
    for i, (each, _) in enumerate(found):
        tokens[i, : len(each)] = each
        mask[i, : len(each)] = True
    pooled = torch.from_numpy(np.stack([pooled for _, pooled in found]))
    return Features(torch.from_numpy(tokens), torch.from_numpy(mask), pooled, torch.ones(len(found), dtype=torch.bool))
