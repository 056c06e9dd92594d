"""A table as a model reads it: texts tokenised, images with its preprocessing."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmfuse.config import AugmentationConfig, check_live
from mmfuse.data.batches.augment import Augmentation
from mmfuse.data.batches.pairs import PairDataset
from mmfuse.data.batches.tokens import TextReader, TokenLists
from mmfuse.data.files.locations import absent_hint, refusal
from mmfuse.data.readers.features import FeatureOptions
from mmfuse.data.readers.images import ImageOptions
from mmfuse.data.tables.table import Table
from mmfuse.encoders.cache import cache_root
from mmfuse.encoders.features import FeatureTower
from mmfuse.encoders.text import TextEncoder
from mmfuse.model import FusionModel
from mmfuse.predict.caches import with_caches
from mmfuse.predict.processes import default_workers
from mmfuse.pulse import now
from mmfuse.types import MmfuseError

_TEXTS = 1024
"""Texts that are tokenised at once."""


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
    if augmentation is not None:
        _check_changes(augmentation, [name for name, tower in towers.items() if isinstance(tower, FeatureTower)])
    if cache and table.block is not None:
        raise MmfuseError(f"{table.manifest.source}: features of rows in shards are not cached: leave the cache out")
    if augmentation is not None and cache:
        check_live(augmentation, [name for name, tower in towers.items() if tower is not None and tower.frozen])
    pairs = pair_reader(model, modality_dropout, augmentation, seed)(table)
    if pairs.image_options is not None and table.block is None:
        _check_files(pairs)
    if table.block is None:
        _check_features(pairs)
    if cache:
        root = cache_root(cache if isinstance(cache, str) else None)
        workers = default_workers() if num_workers is None else num_workers
        return with_caches(model, pairs, root, workers, batch_size, progress, cache_dtype)
    return pairs


def _check_changes(augmentation: AugmentationConfig, replaced: Sequence[str]) -> None:
    """Refuse to change what is not there: a text or an image that features stand in for."""
    changes = {"image": ("image", augmentation.image != "none"), "text": ("text", vars(augmentation.text).values())}
    for modality in replaced:
        name, asked = changes[modality]
        if (asked if modality == "image" else any(asked)) or augmentation.flip != "none":
            key = "flip" if augmentation.flip != "none" else name
            raise MmfuseError(
                f"training.augmentation.{key}: features stand in for the {modality}s, and cannot be changed with the "
                "rest of a row; leave it out"
            )


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


def _check_features(pairs: PairDataset) -> None:
    """Refuse, before anything is computed, numbers in the table that are no features, or of another width."""
    for row in range(len(pairs)):
        pairs.read_text_values(row)
        if isinstance(pairs.image_options, FeatureOptions):
            for item in pairs.images[row]:
                if isinstance(item, bytes):
                    pairs.read_image_values(row, item)


@dataclass(frozen=True)
class PairReader:
    """How a table becomes what a model reads, without the model's weights: it goes to worker processes.

    Attributes:
        text: How texts become tokens; None where they are not used.
        pad_token_id: Stands behind a text's end.
        write: By captioning task, how a caption becomes tokens.
        image_options: How images, or what stands in for them, are read; None where they are not used.
        text_values: How what stands in for texts is read; None where texts are texts.
        modality_dropout: By modality, the probability that a present one is hidden.
        augmentation: What is changed of training rows; None for nothing.
        seed: Of both.
    """

    text: TextReader | None
    pad_token_id: int
    write: dict[str, Callable[[str], list[int]]]
    image_options: ImageOptions | FeatureOptions | None
    text_values: FeatureOptions | None = None
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
            text_values=self.text_values,
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
    if isinstance(model.text_encoder, TextEncoder):
        pad = int(model.text_encoder.tokenizer.pad_token_id or 0)  # type: ignore[arg-type]
    write = {task: _without_weights(model.heads[task].decoder).encode for task in model.captioning}
    text, image, values = _text_reader(model.text_encoder), image_options(model), text_values(model)
    return PairReader(text, pad, write, image, values, modality_dropout, augmentation, seed)


def refuse_files(model: FusionModel, folder: str) -> None:
    """Refuse a folder of loose files where the model reads features, which no file of a folder is taken for.

    Raises:
        MmfuseError: It does.
    """
    for modality, tower in (("text", model.text_encoder), ("image", model.image_encoder)):
        if isinstance(tower, FeatureTower):
            raise MmfuseError(
                f"{folder}: the model reads features in place of the {modality}, which a folder of files does not "
                "hold: give a table, a manifest or shards"
            )


def text_values(model: FusionModel) -> FeatureOptions | None:
    """How what stands in for this model's texts is read; None where it reads texts, or none."""
    tower = model.text_encoder
    return FeatureOptions(tower.width) if isinstance(tower, FeatureTower) else None


def _text_reader(encoder: Any) -> TextReader | None:
    """How texts become tokens, without the encoder's weights: worker processes may get a copy."""
    if not isinstance(encoder, TextEncoder):
        return None
    tokenizer: Any = encoder.tokenizer
    mask_id = tokenizer.unk_token_id if tokenizer.mask_token_id is None else tokenizer.mask_token_id
    return TextReader(_without_weights(encoder).tokenize, mask_id, frozenset(tokenizer.all_special_ids))


def _without_weights(module: Any) -> Any:
    """A module's other attributes: what of it works without weights may go to worker processes."""
    bare = copy.copy(module)
    bare._modules, bare._parameters, bare._buffers = {}, {}, {}
    return bare


def image_options(model: FusionModel) -> ImageOptions | FeatureOptions | None:
    """How this model's images, or what stands in for them, are read; None where it uses none."""
    if model.image_encoder is None:
        return None
    if isinstance(model.image_encoder, FeatureTower):
        spec = model.inputs.recipe.image if model.inputs else None
        return FeatureOptions(model.image_encoder.width, spec.features.array if spec and spec.features else None)
    p = model.image_encoder.preprocessing
    return ImageOptions(size=p.size, resize=p.resize, interpolation=p.interpolation, background=p.background)  # type: ignore[arg-type]


def count_cut_texts(model: FusionModel, pairs: PairDataset, rows: Sequence[int]) -> dict[str, Any] | None:
    """How many of the rows' texts are longer than the model reads; None where it reads no text.

    Returns:
        `texts`, how many of them were `cut`, the encoder's `max_length` in tokens and its `truncation`.
    """
    if not isinstance(model.text_encoder, TextEncoder):
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
