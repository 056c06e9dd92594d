"""A table's rows, prepared: any set of row numbers gives the packed batch of those rows."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from itertools import chain, groupby, zip_longest
from typing import Any, Self

import numpy as np
import torch
from torch.utils.data import Dataset

from mmfuse.data.batches.augment import Augmentation, Changes
from mmfuse.data.batches.collate import Item, collate, pad_tokens
from mmfuse.data.batches.order import ordered_batches
from mmfuse.data.batches.tokens import TokenLists
from mmfuse.data.readers.features import FeatureOptions, from_text, read_features
from mmfuse.data.readers.images import ImageError, ImageOptions, read_image
from mmfuse.data.tables.table import Table
from mmfuse.seeds import unit_hash
from mmfuse.types import MISSING_CLASS, Batch, Features, MmfuseError

Cache = Callable[[np.ndarray], Features]

_NO_CAPTION = [MISSING_CLASS] * 2
"""As long as the shortest caption, its first token and its end: a batch may hold nothing else."""


@dataclass(frozen=True, eq=False)
class PairDataset(Dataset):
    """Row numbers to a packed batch. It never changes: `at`, `plain` and `view` give the same rows, read otherwise.

    Attributes:
        table: The rows.
        token_ids: By row, its text's tokens, None where it has no text; None altogether where texts are not used.
        captions: By captioning task and row, the tokens of its references; a batch has one of them, another one each
            epoch.
        pad_token_id: Stands behind a text's end.
        image_options: How images, or what stands in for them, are read; None where images are not used.
        text_values: How what stands in for a text is read; None where texts are texts, or not used.
        modality_dropout: By modality, the probability that a present one is hidden.
        augmentation: What is changed of the rows of the training split while training; None for nothing.
        seed: Of the modality dropout and the augmentation.
        cut_texts: `(rows,)` bool, True where `token_ids` are not all of the text; None for nowhere.
        text_cache: Gives the packed cached features of rows' texts, by row number.
        image_cache: Gives those of images, by their numbers in `table.rows["images"]`, flattened.
        order_by: `(rows,)` what rows are grouped by, where that is not their number of tokens.
        epoch: The one being trained; negative where rows are read as they are.
        images: By row its images; none where images are not used.
        ids: By row its id.
        values: By row what stands in for its text, as `mmfuse.data.readers.features.as_text` writes it, or None.
    """

    table: Table
    _: KW_ONLY
    token_ids: TokenLists | None
    captions: dict[str, list[list[list[int]]]] = field(default_factory=dict)
    pad_token_id: int = 0
    image_options: ImageOptions | FeatureOptions | None = None
    text_values: FeatureOptions | None = None
    modality_dropout: dict[str, float] = field(default_factory=dict)
    augmentation: Augmentation | None = None
    seed: int = 0
    cut_texts: np.ndarray | None = None

    text_cache: Cache | None = field(default=None, init=False)
    image_cache: Cache | None = field(default=None, init=False)
    order_by: np.ndarray | None = field(default=None, init=False)
    epoch: int = field(default=0, init=False)
    images: Sequence[Sequence[Any]] = field(init=False)
    ids: list[str] = field(init=False)
    values: list[str | None] = field(init=False)

    def __post_init__(self) -> None:
        own = vars(self)  # frozen from here on
        own["images"] = self.table.images() if self.image_options else [[]] * len(self.table)
        own["ids"] = self.table.rows["id"][:]
        own["values"] = [None] * len(self.table) if self.text_values is None else self.table.rows["text"][:]

    def view(self, **changes: Any) -> Self:
        """The same rows with some attributes changed; the others are shared."""
        found = copy.copy(self)
        vars(found).update(changes)
        return found

    def at(self, epoch: int) -> Self:
        """The rows as an epoch trains on them."""
        return self.view(epoch=epoch)

    def plain(self) -> Self:
        """The rows as they are: nothing is hidden or changed. It alone holds the block of images that it reads."""
        own = {} if self.table.block is None else {"images": copy.copy(self.images)}
        return self.view(epoch=-1, modality_dropout={}, **own)

    @property
    def live_images(self) -> bool:
        """Whether images are read, and not their cached features."""
        return self.image_options is not None and self.image_cache is None

    def __len__(self) -> int:
        return len(self.table)

    @cached_property
    def first_image(self) -> np.ndarray:
        """`(rows + 1,)` how many images the rows before have."""
        return np.concatenate([[0], np.cumsum([len(paths) for paths in self.images])]).astype(int)

    def __getitem__(self, rows: Sequence[int]) -> Batch:
        """The packed batch of `rows`.

        Raises:
            MmfuseError: An image cannot be read; the message names the row, the file and the reason.
        """
        hidden = [self.hidden(row) for row in rows]
        batch = collate([self._item(*pair) for pair in zip(rows, hidden, strict=True)], self.pad_token_id)
        if self.text_cache is not None:
            there = [i for i, row in enumerate(rows) if hidden[i] != "text" and self.token_ids[row] is not None]  # type: ignore[index]
            if there:
                batch["text_row"] = torch.tensor(there)
                batch["text_features"] = self.text_cache(np.asarray(rows)[there])
        if self.image_cache is not None:
            images = [
                (i, view, number)
                for i, row in enumerate(rows)
                if hidden[i] != "image"
                for view, number in enumerate(range(self.first_image[row], self.first_image[row + 1]))
            ]
            if images:
                row, view, number = np.array(images).T
                batch["image_row"], batch["image_view"] = torch.from_numpy(row.copy()), torch.from_numpy(view.copy())
                batch["most_images"] = int(view.max()) + 1
                batch["image_features"] = self.image_cache(number)
        for task in self.table.targets:
            if task in self.captions:
                chosen = [self._caption(task, row) for row in rows]
                batch[f"target.{task}"], _ = pad_tokens(chosen, MISSING_CLASS)
            else:
                batch[f"target.{task}"] = torch.from_numpy(self._targets(task, rows))
        batch["ids"] = batch.pop("ids")  # strings come last
        return batch

    def lengths(self) -> np.ndarray:
        """`(rows,)` what rows are grouped by: tokens of each row's text, or of its caption if that is longer."""
        if self.order_by is not None:
            return self.order_by
        texts = np.zeros(len(self), dtype=np.int64) if self.token_ids is None else self.token_ids.lengths()
        for references in self.captions.values():
            texts = np.maximum(texts, [max(map(len, captions), default=0) for captions in references])
        return texts

    def batches(
        self, rows: Sequence[int], batch_size: int, rank: int = 0, world: int = 1, num_workers: int = 0
    ) -> list[list[int]]:
        """Process `rank`'s share of rows as batches for inference, as `ordered_batches` makes them.

        Where rows are read in blocks (`Table.block`), shares are of consecutive rows, only the texts of a block are
        brought together, and the batches of a block are due to the same one of `num_workers` processes.
        """
        block, lengths = self.table.block, self.lengths()
        if block is None:
            return list(ordered_batches(list(rows)[rank::world], lengths, batch_size))
        mine = sorted(rows)[len(rows) * rank // world : len(rows) * (rank + 1) // world]
        blocks = [
            list(ordered_batches(list(part), lengths, batch_size))
            for _, part in groupby(mine, lambda row: row // block)
        ]
        workers = max(1, num_workers)
        turns = zip_longest(*(chain.from_iterable(blocks[worker::workers]) for worker in range(workers)))
        return [batch for turn in turns for batch in turn if batch is not None]

    def _changes(self, row: int) -> Changes | None:
        """What augmentation changes of a row in this epoch."""
        if self.augmentation is None:
            return None
        return self.augmentation.changes(row, self.ids[row], self.seed, self.epoch)

    def _targets(self, task: str, rows: Sequence[int]) -> np.ndarray:
        found = self.table.targets[task][list(rows)]
        for i, row in enumerate(rows):
            changes = self._changes(row)
            if changes is not None:
                found[i] = changes.target(task, found[i])
        return found

    def _caption(self, task: str, row: int) -> list[int]:
        """One of a row's references: while training another one each epoch, else the first."""
        changes = self._changes(row)
        known = changes.augmentation.captions if changes is not None and changes.swapped else self.captions
        references = known[task][row] or [_NO_CAPTION]
        if len(references) < 2 or self.epoch < 0:
            return references[0]
        draw = unit_hash(self.seed, f"reference of {task}:{self.epoch}:{self.ids[row]}")
        return references[int(draw * len(references))]

    def hidden(self, row: int) -> str | None:
        """The modality that modality dropout hides of this row in this epoch; never its only one."""
        if not any(self.modality_dropout.values()):
            return None
        has_text = (self.token_ids is not None and self.token_ids[row] is not None) or self.values[row] is not None
        if not (has_text and self.images[row]):
            return None
        draw = unit_hash(self.seed, f"modality dropout:{self.epoch}:{self.ids[row]}")
        text, image = self.modality_dropout.get("text", 0.0), self.modality_dropout.get("image", 0.0)
        return "text" if draw < text else "image" if draw < text + image else None

    def _item(self, row: int, hidden: str | None) -> Item:
        """What is read live of a row: caches and targets are read for all rows of a batch at once."""
        item, changes = Item(row, self.ids[row]), self._changes(row)
        if self.token_ids is not None and self.text_cache is None and hidden != "text":
            ids = self.token_ids[row]
            item.input_ids = ids if ids is None or changes is None else changes.tokens(ids)
        if self.text_values is not None:
            item.values["text"] = None if hidden == "text" else self.read_text_values(row)
        if isinstance(self.image_options, FeatureOptions):
            there = self.images[row] if hidden != "image" else []
            item.values["image"] = self.read_image_values(row, there[0]) if there else None
        elif self.live_images and hidden != "image":
            item.pixels = [self.read_pixels(row, source, view) for view, source in enumerate(self.images[row])]
            if changes is not None:
                item.pixels = [changes.image(pixels, view) for view, pixels in enumerate(item.pixels)]
        return item

    def read_text_values(self, row: int) -> np.ndarray | None:
        """What stands in for a row's text, `(T, D)` float32; None where it is missing.

        Raises:
            MmfuseError: It is no features, or of another width; the message names the row and the reason.
        """
        if self.values[row] is None:
            return None
        try:
            return from_text(self.values[row] or "", self.text_values or FeatureOptions())
        except ImageError as error:
            raise MmfuseError(f"row {self.ids[row]!r}: text.features: {error}") from error

    def read_image_values(self, row: int, source: str | bytes) -> np.ndarray:
        """What stands in for a row's image, its path or its bytes, `(T, D)` float32.

        Raises:
            MmfuseError: It cannot be read, or is of another width; the message names the row, the file and the reason.
        """
        try:
            return read_features(source, self.image_options, self.table.manifest.urls)  # type: ignore[arg-type]
        except ImageError as error:
            name = f" {source}" if isinstance(source, str) else ""
            raise MmfuseError(f"row {self.ids[row]!r}: image.features{name}: {error}") from error

    def read_pixels(self, row: int, source: str | bytes, view: int = 0) -> np.ndarray:
        """One image of a row, its path or its bytes, as `(3, H, W)` uint8.

        Raises:
            MmfuseError: It cannot be read; the message names the row, the file (of bytes which of the row's images,
                from 1) and the reason.
        """
        try:
            return read_image(source, self.image_options, self.table.manifest.urls).transpose(2, 0, 1)  # type: ignore[arg-type]
        except ImageError as error:
            name = source if isinstance(source, str) else view + 1
            raise MmfuseError(f"row {self.ids[row]!r}: image {name}: {error}") from error
