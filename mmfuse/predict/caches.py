"""Features of frozen towers for a table's rows, computed once and kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmfuse.data.batches.collate import Item, collate
from mmfuse.data.batches.loader import make_loader
from mmfuse.data.batches.pairs import Cache, PairDataset
from mmfuse.data.readers.images import ImageError, content_hash
from mmfuse.encoders.cache import PART, build_cache, weights_hash
from mmfuse.encoders.image import ImageEncoder
from mmfuse.encoders.text import TextEncoder
from mmfuse.model import FusionModel
from mmfuse.precision import computing
from mmfuse.pulse import counted
from mmfuse.types import MmfuseError

_Batches = Callable[[Iterable[int]], Iterable[tuple[Sequence[int], tuple]]]
"""From numbers of items, in their order, to batches: their numbers, and what an encoder takes."""


def with_caches(
    model: FusionModel,
    pairs: PairDataset,
    root: Path,
    num_workers: int,
    batch_size: int,
    progress: Callable[[str, int, int], None] | None,
    dtype: str,
) -> PairDataset:
    """The pairs with the features of the model's frozen towers in place of tokens and pixels.

    Args:
        model: What of it is frozen computes the features that are not kept yet.
        pairs: Its rows; they stay as they are.
        root: The folder where features are kept.
        num_workers: Processes that read images.
        batch_size: Of the computation.
        progress: Called with (modality, done, total).
        dtype: How they are kept, "float32" or "float16".

    Raises:
        MmfuseError: An image cannot be read.
    """
    device = next(model.parameters()).device
    keep_tokens = "tokens" in model.reads

    def features(modality: str, encoder: Any, contents: Sequence[str], batches: _Batches, order: Any = list) -> Any:
        def compute(wanted: Iterable[int]) -> Iterator:
            for items, inputs in batches(wanted):
                with torch.no_grad(), computing(model.precision, modality, device):
                    yield items, encoder(*(x.to(device, non_blocking=True) for x in inputs))

        identity = {"tower": modality, "weights": weights_hash(encoder), "spec": encoder.spec()}
        if getattr(model.precision, modality, "fp32") != "fp32":  # else as versions of before named it
            identity["precision"] = getattr(model.precision, modality)
        if device.type != "cpu":
            identity["device"] = device.type
        return build_cache(
            root,
            _identity(identity),
            contents,
            compute,
            keep_tokens,
            dtype,
            order=order,
            part=batch_size * max(1, PART // batch_size),
            progress=None if progress is None else partial(progress, modality),
        )

    text, image = model.text_encoder, model.image_encoder
    caches: dict[str, Cache] = {}
    if isinstance(text, TextEncoder) and text.frozen and pairs.token_ids is not None:
        rows = [row for row, ids in enumerate(pairs.token_ids) if ids is not None]
        contents = [json.dumps(pairs.token_ids[row]) for row in rows]
        lengths = pairs.token_ids.lengths()[rows]
        longest_first = partial(sorted, key=lambda item: (-int(lengths[item]), item))
        found = features("text", text, contents, _text_batches(pairs, rows, batch_size), longest_first)
        place = np.full(len(pairs), -1)
        place[rows] = np.arange(len(rows))
        caches["text_cache"] = lambda wanted: found.gather(place[wanted])
    if isinstance(image, ImageEncoder) and image.frozen:
        files = [(row, path) for row, paths in enumerate(pairs.images) for path in paths]
        keys = [_hash_image(pairs, row, path) for row, path in counted(files, "hashing images", len(files))]
        reading = _image_batches(pairs, files, batch_size, num_workers, device)
        found_images = features("image", image, keys, reading)
        caches["image_cache"] = found_images.gather
    return pairs.view(**caches)


def _text_batches(pairs: PairDataset, rows: list[int], batch_size: int) -> _Batches:
    """Packed tokens of those rows that have a text, by their place among `rows`."""
    token_ids: Any = pairs.token_ids

    def batches(wanted: Iterable[int]) -> Iterator[tuple[Sequence[int], tuple]]:
        for items in _groups(wanted, batch_size):
            packed = collate([Item(i, "", input_ids=token_ids[rows[i]]) for i in items], pairs.pad_token_id)
            yield items, (packed["input_ids"], packed["text_mask"])

    return batches


def _image_batches(
    pairs: PairDataset, files: list[tuple[int, str | bytes]], batch_size: int, num_workers: int, device: torch.device
) -> _Batches:
    """Stacked pixels of image files, by their place among `files`."""

    def batches(wanted: Iterable[int]) -> Iterator[tuple[Sequence[int], tuple]]:
        dataset: Any = _ImageBatches(pairs, files)
        for items, pixels in make_loader(dataset, _groups(wanted, batch_size), num_workers, device):
            yield items, (pixels,)

    return batches


def _groups(items: Iterable[int], size: int) -> Iterator[list[int]]:
    """The items in groups of that size, each taken when it is asked for."""
    rest = iter(items)
    while group := list(islice(rest, size)):
        yield group


def _identity(tower: dict[str, Any]) -> dict[str, Any]:
    """A tower's part of a cache key, with the libraries that computed it."""
    import PIL
    import timm
    import transformers

    from mmfuse import __version__

    libraries = [__version__, torch.__version__, transformers.__version__, timm.__version__, PIL.__version__]
    return {**tower, "versions": libraries}


def _hash_image(pairs: PairDataset, row: int, path: str | bytes) -> str:
    try:
        return content_hash(path, pairs.table.manifest.urls)
    except ImageError as error:
        raise MmfuseError(f"row {pairs.ids[row]!r}: image {path!r:.200}: {error}") from error


class _ImageBatches(torch.utils.data.Dataset):
    """Numbers of image files to these numbers and their stacked pixels."""

    def __init__(self, pairs: PairDataset, files: list[tuple[int, str | bytes]]):
        self.pairs, self.files = pairs, files

    def __getitem__(self, numbers: list[int]) -> tuple[list[int], torch.Tensor]:
        return numbers, torch.from_numpy(np.stack([self.pairs.read_pixels(*self.files[n]) for n in numbers]))
