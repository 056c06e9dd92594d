"""A model as one function of dense arrays, which can be exported: no packed rows, no number that is read in Python."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from mmfuse.encoders.features import FeatureTower
from mmfuse.encoders.image import ImageEncoder
from mmfuse.encoders.text import TextEncoder
from mmfuse.model import FusionModel
from mmfuse.types import Batch, Features, MmfuseError

Arrays = dict[str, np.ndarray]


class Input(NamedTuple):
    """An input of a dense model.

    Attributes:
        name: `input_ids`, `text_mask`, `pixels`, `image_mask`, `text_values` or `image_values`.
        axes: By axis, its name where it may have any length ("B", "T", "V", "S"), or its one length.
        dtype: Of its numbers.
    """

    name: str
    axes: tuple[str | int, ...]
    dtype: np.dtype

    def lengths(self, first: int) -> list[int]:
        """Of the axes from that one on, none of which is free."""
        return [int(axis) for axis in self.axes[first:]]


class DenseModel(nn.Module):
    """A `FusionModel` over rows of one shape; what a row lacks is masked, and the model's learned token stands there.

    Rows have texts `input_ids (B, T)` int64 with `text_mask (B, T)` bool, and images `pixels (B, V, 3, H, W)` uint8
    with `image_mask (B, V)` bool. Where features stand in for one, it is `text_values (B, T, D)` or `image_values (B,
    S, D)` float32, with the mask of its tokens. Of a row whose mask is False throughout, the modality is missing.

    Args:
        model: In eval mode; it is not copied.

    Attributes:
        inputs: What `forward` takes, in this order; of the modalities that the model uses.
        tasks: Whose logits it gives, in this order.
        pad_token_id: Stands where there is no text.

    Raises:
        MmfuseError: A task generates: captions are written step by step.
    """

    def __init__(self, model: FusionModel):
        super().__init__()
        for task in model.captioning:
            raise MmfuseError(f"captions are not exported yet: task {task!r} writes them token by token")
        self.model = model
        self.tasks = list(model.heads)
        self.inputs: list[Input] = []
        text = model.text_encoder
        self.pad_token_id = int(text.tokenizer.pad_token_id or 0) if isinstance(text, TextEncoder) else 0  # type: ignore[arg-type]
        towers = {"text": model.text_encoder, "image": model.image_encoder}
        for modality, tower in towers.items():
            self.inputs += [] if tower is None else _inputs_of(modality, tower)
        self.eval()

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        """Logits `(B, L)` of each of `tasks`.

        Args:
            given: Of each of `inputs`, a tensor.
        """
        named = dict(zip((each.name for each in self.inputs), given, strict=True))
        text, image = self.model.text_encoder, self.model.image_encoder
        found = self.model.fuse(
            None if text is None else self._encode("text", text, named),
            None if image is None else self._encode("image", image, named),
        )
        return tuple(found[task] for task in self.tasks)

    def _encode(self, modality: str, tower: Any, named: dict[str, Tensor]) -> Features:
        mask = named[f"{modality}_mask"]
        if isinstance(tower, ImageEncoder):
            return self._images(tower, named["pixels"], mask)
        present = mask.any(1)
        some = mask | (~present[:, None] & _first_of(mask))  # nothing to attend to would be no number
        values = named["input_ids"] if isinstance(tower, TextEncoder) else named[f"{modality}_values"]
        found = self.model.only_what_is_read(tower(values, some))
        return self._or_missing(modality, found.tokens, found.mask & present[:, None], found.pooled, present)

    def _images(self, tower: ImageEncoder, pixels: Tensor, mask: Tensor) -> Features:
        """A row's images one behind the other, pooled by their mean."""
        found = self.model.only_what_is_read(tower(pixels.flatten(0, 1)))
        tokens, own, pooled = (part.unflatten(0, mask.shape) for part in (found.tokens, found.mask, found.pooled))
        weight = mask.unsqueeze(-1).to(pooled.dtype)
        pooled = (pooled * weight).sum(1) / weight.sum(1).clamp_min(1.0)
        own = own & mask.unsqueeze(-1)
        return self._or_missing("image", tokens.flatten(1, 2), own.flatten(1, 2), pooled, mask.any(1))

    def _or_missing(self, modality: str, tokens: Tensor, mask: Tensor, pooled: Tensor, present: Tensor) -> Features:
        missing = self.model.missing_tokens[modality]
        absent = ~present[:, None]
        gap = absent & _first_of(mask)
        tokens = torch.where(gap.unsqueeze(-1), missing, tokens)
        return Features(tokens, mask | gap, torch.where(absent, missing, pooled), present)


def dense_batches(inputs: list[Input], batch: Batch, pad_token_id: int = 0) -> Iterator[tuple[np.ndarray, Arrays]]:
    """A packed batch as arrays of a dense model: rows with as many images stand together, so that few are blank.

    Args:
        inputs: The model's.
        batch: As `mmfuse.types.Batch` says, on the CPU and not of cached features.
        pad_token_id: Stands where there is no text.

    Yields:
        Which rows of the batch they are `(b,)`, and by input name the array of these rows.
    """
    rows = len(batch["row_ids"])
    texts = _text_arrays(inputs, batch, rows, pad_token_id)
    pixels = next((each for each in inputs if each.name == "pixels"), None)
    if pixels is None:
        yield np.arange(rows), texts
        return
    image_row = batch["image_row"].numpy()
    count = np.bincount(image_row, minlength=rows).clip(1)
    for views in np.unique(count):
        own = np.flatnonzero(count == views)
        taken = np.isin(image_row, own)
        row, view = np.searchsorted(own, image_row[taken]), batch["image_view"].numpy()[taken]
        given, mask = _pixels_of(pixels, batch, taken, (len(own), int(views)), row, view)
        yield own, {name: array[own] for name, array in texts.items()} | {"pixels": given, "image_mask": mask}


def run_dense(engine: Any, batch: Batch, run: Callable[[Arrays], Sequence[np.ndarray]]) -> dict[str, np.ndarray]:
    """By task logits `(B, L)` float32 of a packed batch on the CPU.

    Args:
        engine: Has `inputs`, `tasks` and `pad_token_id` of the dense model.
        batch: As `mmfuse.types.Batch` says.
        run: Gives the logits of each task for dense arrays.
    """
    rows = len(batch["row_ids"])
    found: dict[str, np.ndarray] = {}
    for own, arrays in dense_batches(engine.inputs, batch, engine.pad_token_id):
        for task, values in zip(engine.tasks, run(arrays), strict=True):
            found.setdefault(task, np.empty((rows, *values.shape[1:]), dtype=np.float32))[own] = values
    return found


def _pixels_of(
    given: Input, batch: Batch, taken: np.ndarray, shape: tuple[int, int], row: np.ndarray, view: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    mask = np.zeros(shape, dtype=bool)
    mask[row, view] = True
    there = batch["pixels"].numpy()[taken]
    if mask.all():  # packed images stand in the order of rows and views
        return there.reshape(*shape, *there.shape[1:]), mask
    pixels = np.zeros((*shape, *given.lengths(2)), dtype=given.dtype)
    pixels[row, view] = there
    return pixels, mask


def _text_arrays(inputs: list[Input], batch: Batch, rows: int, pad_token_id: int) -> Arrays:
    """What stands for texts, and features that stand for images: one item a row, so nothing needs to be grouped."""
    found: Arrays = {}
    for modality in ("text", "image"):
        values = next((i for i in inputs if i.name in _VALUES[modality]), None)
        if values is None:
            continue
        packed, mask = (batch.get(name) for name in _PACKED[values.name])
        row = batch[f"{modality}_row"].numpy()
        length = max(1, packed.shape[1] if packed is not None else 0)
        filled = pad_token_id if values.name == "input_ids" else 0
        array = np.full((rows, length, *values.lengths(2)), filled, dtype=values.dtype)
        there = np.zeros((rows, length), dtype=bool)
        if packed is not None and mask is not None and len(row):
            array[row], there[row] = packed.numpy(), mask.numpy()
        found |= {values.name: array, f"{modality}_mask": there}
    return found


_VALUES = {"text": ("input_ids", "text_values"), "image": ("image_values",)}
"""By modality, inputs of which a row has one."""
_PACKED = {
    "input_ids": ("input_ids", "text_mask"),
    "text_values": ("text_values", "text_values_mask"),
    "image_values": ("image_values", "image_values_mask"),
}
"""By input, where a packed batch has it and its mask."""


def _inputs_of(modality: str, tower: Any) -> list[Input]:
    if isinstance(tower, ImageEncoder):
        size = tower.preprocessing.size
        given = Input("pixels", ("B", "V", 3, *size), np.dtype(np.uint8))
    elif isinstance(tower, FeatureTower):
        length = "T" if modality == "text" else "S"
        given = Input(f"{modality}_values", ("B", length, tower.width), np.dtype(np.float32))
    else:
        given = Input("input_ids", ("B", "T"), np.dtype(np.int64))
    return [given, Input(f"{modality}_mask", given.axes[:2], np.dtype(bool))]


def _first_of(mask: Tensor) -> Tensor:
    """`(1, S)` bool: True at the first place."""
    return torch.arange(mask.shape[1], device=mask.device).unsqueeze(0) == 0
