"""The one inference loop: batches to logits. Predictor, evaluation and the validation while training use it."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object

from mmfuse.config import AugmentationConfig, check_live
from mmfuse.data.batches.augment import Augmentation
from mmfuse.data.batches.collate import Item, collate
from mmfuse.data.batches.loader import make_loader, move_batch
from mmfuse.data.batches.order import ordered_batches
from mmfuse.data.batches.pairs import Cache, PairDataset
from mmfuse.data.batches.tokens import TextReader, TokenLists
from mmfuse.data.files.locations import absent_hint, refusal
from mmfuse.data.readers.images import ImageError, ImageOptions, content_hash
from mmfuse.data.tables.table import Table
from mmfuse.encoders.cache import build_cache, cache_root, weights_hash
from mmfuse.encoders.text import TextEncoder
from mmfuse.model import FusionModel
from mmfuse.pulse import counted, now
from mmfuse.types import Batch, Features, MmfuseError

_TEXTS = 1024
"""Texts that are tokenised at once."""


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
        return batch["row_ids"].numpy(), {
            task: values.float().cpu().numpy() if isinstance(values, torch.Tensor) else values
            for task, values in said.items()
        }

    return in_eval_mode(model, forward, batches)


def default_workers() -> int:
    """Processes that read images ahead: one core is left to the model, and there are at most 8."""
    return max(
        0, min(8, len(os.sched_getaffinity(0)) - 1 if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1) - 1)
    )


def prepare_pairs(
    model: FusionModel,
    table: Table,
    *,
    cache: bool | str | None = False,
    cache_dtype: str = "float32",
    modality_dropout: dict[str, float] | None = None,
    augmentation: AugmentationConfig | None = None,
    seed: int = 0,
    num_workers: int | None = None,
    batch_size: int = 64,
    progress: Callable[[str, int, int], None] | None = None,
) -> PairDataset:
    """A table as this model reads it: texts tokenised, images with its preprocessing, frozen towers' features cached.

    Args:
        model: Tells which modalities are used and how they are prepared.
        table: The rows.
        cache: True or a folder: towers that are frozen run once and their features are kept there.
        cache_dtype: How they are kept, "float32" or "float16".
        modality_dropout: By modality, the probability that a present one is hidden.
        augmentation: What is changed of the training split's rows while training.
        seed: Of the modality dropout and the augmentation.
        num_workers: Processes that read images while features are computed.
        batch_size: Of that computation.
        progress: Called with (modality, done, total).

    Raises:
        MmfuseError: An image file is missing or cannot be read, or the augmentation cannot be done.
    """
    towers = {"text": model.text_encoder, "image": model.image_encoder}
    if cache and table.block is not None:
        raise MmfuseError(f"{table.manifest.source}: of rows in shards no features are kept: leave the cache out")
    if augmentation is not None and cache:
        check_live(augmentation, [name for name, tower in towers.items() if tower is not None and tower.frozen])
    pairs = pair_reader(model, modality_dropout, augmentation, seed)(table)
    if pairs.image_options is not None and table.block is None:
        _check_files(pairs)
    if cache:
        root = cache_root(cache if isinstance(cache, str) else None)
        workers = default_workers() if num_workers is None else num_workers
        return _with_caches(model, pairs, root, workers, batch_size, progress, cache_dtype)
    return pairs


@dataclass(frozen=True)
class PairReader:
    """How a table becomes what a model reads, without the model's weights: it goes to worker processes.

    Attributes:
        text: How texts become tokens; None where they are not used.
        pad_token_id: Stands behind a text's end.
        write: By captioning task, how a caption becomes tokens.
        image_options: How images are read; None where they are not used.
        modality_dropout: By modality, the probability that a present one is hidden.
        augmentation: What is changed of training rows; None for nothing.
        seed: Of both.
    """

    text: TextReader | None
    pad_token_id: int
    write: dict[str, Callable[[str], list[int]]]
    image_options: ImageOptions | None
    modality_dropout: dict[str, float] | None = None
    augmentation: AugmentationConfig | None = None
    seed: int = 0

    def __call__(self, table: Table) -> PairDataset:
        """The table's rows, with all texts tokenised.

        Raises:
            MmfuseError: The augmentation cannot be done.
        """
        token_ids, cut_texts = (None, None) if self.text is None else _tokenize(self.text, table)
        augmentation = None
        if self.augmentation is not None and self.augmentation != AugmentationConfig():
            augmentation = Augmentation(self.augmentation, table, self.text, self.write)
        return PairDataset(
            table,
            token_ids=token_ids,
            captions={
                task: [[write(caption) for caption in captions] for captions in table.targets[task]]
                for task, write in self.write.items()
            },
            pad_token_id=self.pad_token_id,
            image_options=self.image_options,
            modality_dropout=self.modality_dropout or {},
            augmentation=augmentation,
            seed=self.seed,
            cut_texts=cut_texts,
        )


def _tokenize(reader: TextReader, table: Table) -> tuple[TokenLists, np.ndarray]:
    """By row its text's tokens, and whether they are not all of it; texts are read some thousand at once."""
    tokens, cut = TokenLists(), np.zeros(len(table), dtype=bool)
    for start in range(0, len(table), _TEXTS):
        now("tokenising texts", start, len(table))
        texts: list[str | None] = table.rows["text"][start : start + _TEXTS]
        there = [i for i, text in enumerate(texts) if text is not None]
        by_row: dict[int, list[int]] = {}
        if there:
            found, cut[np.array(there) + start] = reader.tokenize([texts[i] or "" for i in there])
            by_row = dict(zip(there, found, strict=True))
        tokens.extend(by_row.get(i) for i in range(len(texts)))
    return tokens, cut


def pair_reader(
    model: FusionModel,
    modality_dropout: dict[str, float] | None = None,
    augmentation: AugmentationConfig | None = None,
    seed: int = 0,
) -> PairReader:
    """How this model reads a table's rows."""
    pad = 0
    if model.text_encoder is not None:
        pad = int(model.text_encoder.tokenizer.pad_token_id or 0)  # type: ignore[arg-type]
    write = {task: _without_weights(model.heads[task].decoder).encode for task in model.captioning}
    options = image_options(model)
    return PairReader(_text_reader(model.text_encoder), pad, write, options, modality_dropout, augmentation, seed)


def count_cut_texts(model: FusionModel, pairs: PairDataset, rows: Sequence[int]) -> dict[str, Any] | None:
    """How many of the rows' texts are longer than the model reads; None where it reads no text.

    Returns:
        `texts`, how many of them were `cut`, the encoder's `max_length` in tokens and its `truncation`.
    """
    if model.text_encoder is None:
        return None
    encoder, rows = model.text_encoder, list(rows)
    texts = int(pairs.table.has_text()[rows].sum())
    cut = 0 if pairs.cut_texts is None else int(pairs.cut_texts[rows].sum())
    return {"texts": texts, "cut": cut, "max_length": encoder.max_length, "truncation": encoder.truncation}


def tell_cut_texts(counts: dict[str, Any]) -> str:
    """What `count_cut_texts` gives, in words."""
    return (
        f"{counts['cut']} of {counts['texts']} reports were longer than {counts['max_length']} tokens and cut "
        f"({counts['truncation']})"
    )


def _text_reader(encoder: TextEncoder | None) -> TextReader | None:
    """How texts become tokens, without the encoder's weights: worker processes may get a copy."""
    if encoder is None:
        return None
    tokenizer: Any = encoder.tokenizer
    mask_id = tokenizer.unk_token_id if tokenizer.mask_token_id is None else tokenizer.mask_token_id
    return TextReader(_without_weights(encoder).tokenize, mask_id, frozenset(tokenizer.all_special_ids))


def _without_weights(module: Any) -> Any:
    """A module's other attributes: what of it works without weights may go to worker processes."""
    bare = copy.copy(module)
    bare._modules, bare._parameters, bare._buffers = {}, {}, {}
    return bare


def image_options(model: FusionModel) -> ImageOptions | None:
    """How this model's images are read; None where it uses none."""
    if model.image_encoder is None:
        return None
    p = model.image_encoder.preprocessing
    return ImageOptions(size=p.size, resize=p.resize, interpolation=p.interpolation, background=p.background)  # type: ignore[arg-type]


def _check_files(pairs: PairDataset) -> None:
    """Refuse, before anything is read, images that are not there, and URLs that the manifest does not permit."""
    urls, table = pairs.table.manifest.urls, pairs.table.manifest.source
    wrong = [
        (row, path)
        for row, paths in enumerate(pairs.images)
        for path in paths
        if isinstance(path, str) and (refusal(path, urls) if "://" in path else not os.path.isfile(path))
    ]
    if wrong:
        row, path = wrong[0]
        why = refusal(path, urls)
        what = f"image {path:.200}: {why}" if why else f"no image file {path}{absent_hint(path)}"
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise MmfuseError(f"{table}: row {pairs.ids[row]!r}: {what}{more}; see mmfuse data check")


def _with_caches(
    model: FusionModel,
    pairs: PairDataset,
    root: Path,
    num_workers: int,
    batch_size: int,
    progress: Callable[[str, int, int], None] | None,
    dtype: str,
) -> PairDataset:
    """The pairs with the features of towers that are frozen, computed here unless they are kept."""
    device = next(model.parameters()).device
    keep_tokens = "tokens" in model.reads
    report = progress or (lambda modality, done, total: None)

    def run(
        modality: str, encoder: Any, names: Sequence[str], batches: Iterable[tuple[Sequence[int], tuple]]
    ) -> Iterator:
        done = 0
        for items, inputs in batches:
            with torch.no_grad():
                yield items, encoder(*(x.to(device) for x in inputs))
            done += len(items)
            report(modality, done, len(names))

    text, image = model.text_encoder, model.image_encoder
    caches: dict[str, Cache] = {}
    if text is not None and text.frozen and pairs.token_ids is not None:
        rows = [row for row, ids in enumerate(pairs.token_ids) if ids is not None]
        contents = [json.dumps(pairs.token_ids[row]) for row in rows]
        lengths = pairs.token_ids.lengths()[rows]

        def text_batches(wanted: Sequence[int]) -> Iterator[tuple[Sequence[int], tuple]]:
            for items in ordered_batches(wanted, lengths, batch_size):
                packed = collate([Item(i, "", input_ids=pairs.token_ids[rows[i]]) for i in items], pairs.pad_token_id)  # type: ignore[index]
                yield items, (packed["input_ids"], packed["text_mask"])

        identity = {"tower": "text", "weights": weights_hash(text), "spec": text.spec()}
        found = build_cache(
            root,
            _identity(identity),
            contents,
            lambda wanted: run("text", text, contents, text_batches(wanted)),
            keep_tokens,
            dtype,
        )
        place = np.full(len(pairs), -1)
        place[rows] = np.arange(len(rows))
        caches["text_cache"] = lambda wanted: found.gather(place[wanted])
    if image is not None and image.frozen:
        files = [(row, path) for row, paths in enumerate(pairs.images) for path in paths]
        keys = [_hash_image(pairs, row, path) for row, path in counted(files, "hashing images", len(files))]

        def image_batches(wanted: Sequence[int]) -> Iterator[tuple[Sequence[int], tuple]]:
            groups = [wanted[i : i + batch_size] for i in range(0, len(wanted), batch_size)]
            loader = make_loader(_ImageBatches(pairs, files), groups, num_workers)  # type: ignore[arg-type]
            for items, pixels in zip(groups, loader, strict=True):
                yield items, (pixels,)

        identity = {"tower": "image", "weights": weights_hash(image), "spec": image.spec()}
        caches["image_cache"] = build_cache(
            root,
            _identity(identity),
            keys,
            lambda wanted: run("image", image, keys, image_batches(wanted)),
            keep_tokens,
            dtype,
        ).gather
    return pairs.view(**caches)


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
    """Numbers of image files to their stacked pixels."""

    def __init__(self, pairs: PairDataset, files: list[tuple[int, str | bytes]]):
        self.pairs, self.files = pairs, files

    def __getitem__(self, numbers: Sequence[int]) -> torch.Tensor:
        return torch.from_numpy(np.stack([self.pairs.read_pixels(*self.files[n]) for n in numbers]))


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
    found = []
    loader = counted(make_loader(pairs.plain(), batches, num_workers), "scoring rows, batches", len(batches))
    for row_ids, logits in forward_batches(model, loader, state.device):
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
    return _join(places, text), _join(places, image)


def _join(places: list[torch.Tensor], parts: Sequence[Features | None]) -> Features | None:
    """Features of all rows from those of batches of them, which are padded to different lengths."""
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
