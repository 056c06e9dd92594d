"""Changes of training rows after which image, text and targets still agree.

All draws are those of a row in an epoch, whichever process prepares it; see docs/augmentation.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mmfuse.config import AugmentationConfig
from mmfuse.data.batches.change_images import preset
from mmfuse.data.batches.change_texts import Synonyms, mask_tokens, shuffle_sentences
from mmfuse.data.batches.sides import mirror_labels, swap_sides
from mmfuse.data.batches.tokens import TextReader
from mmfuse.data.tables.table import Table
from mmfuse.seeds import unit_hash
from mmfuse.tasks import TaskSpec, task_of
from mmfuse.types import MmfuseError

_KEY = "training.augmentation"


class Augmentation:
    """What is changed of the rows of the training split, and how.

    Args:
        config: The run's.
        table: The rows.
        reader: How texts become tokens; None where texts are not used.
        write: By captioning task, how a caption becomes tokens.

    Attributes:
        can_flip: `(rows,)` bool, the training rows of which all words have a mirror image; with `flip: free` all of
            them, with `flip: none` none.
        captions: With `flip: swap`, by captioning task and row, the tokens of its mirrored references.
        tasks: By task with labels, what the manifest says of it, and the labels.
        mirrors: With `flip: swap`, by task with labels, `(L,)` which label each one is in the mirrored picture.

    Raises:
        MmfuseError: The table has no such modality, a label has a side but no partner, the synonyms cannot be read, or
            no token stands for a masked one.
    """

    def __init__(
        self,
        config: AugmentationConfig,
        table: Table,
        reader: TextReader | None,
        write: dict[str, Callable[[str], list[int]]],
    ):
        _check_modalities(config, table)
        self.config, self.reader = config, reader
        self.synonyms = Synonyms.read(config.text.synonyms) if config.text.synonyms else None
        if config.text.mask_tokens and reader is not None and reader.mask_id is None:
            raise MmfuseError(f"{_KEY}.text.mask_tokens: this tokenizer has no mask token and no unknown token")
        self.texts: list[str | None] = table.rows["text"][:]
        self.is_training = np.array([split == "train" for split in table.splits])
        self.can_flip = self.is_training if config.flip == "free" else np.zeros(len(table), dtype=bool)
        self.captions: dict[str, list[list[list[int]]]] = {}
        self.tasks: dict[str, tuple[TaskSpec, list[str]]] = {}
        self.mirrors: dict[str, np.ndarray] = {}
        if config.flip == "swap":
            for task, names in table.labels.items():
                if table.kind(task).has_labels:
                    self.tasks[task] = table.manifest.tasks[task], names
                    self.mirrors[task] = mirror_labels(names, f"{_KEY}.flip: swap: tasks.{task}")
            self._mirror_words(table, write)

    def _mirror_words(self, table: Table, write: dict[str, Callable[[str], list[int]]]) -> None:
        """Find the training rows whose text and captions all have a mirror image, and prepare these captions."""
        self.captions = {task: [[] for _ in self.texts] for task in write}
        for row in np.flatnonzero(self.is_training):
            mirrored = {task: [swap_sides(caption) for caption in table.targets[task][row]] for task in write}
            said = [swap_sides(self.texts[row] or ""), *(caption for found in mirrored.values() for caption in found)]
            if None not in said:
                self.can_flip[row] = True
                for task, found in mirrored.items():
                    self.captions[task][row] = [write[task](caption or "") for caption in found]

    def changes(self, row: int, name: str, seed: int, epoch: int) -> Changes | None:
        """What is changed of a row in an epoch; None where it stays as it is.

        Args:
            row: Its number in the table.
            name: Its id.
            seed: The run's.
            epoch: From 0; negative where rows are read as they are.
        """
        return Changes(self, row, name, seed, epoch) if epoch >= 0 and self.is_training[row] else None


@dataclass(frozen=True)
class Changes:
    """What is changed of one row in one epoch: draws depend on seed, epoch and id, and on what they are for, alone."""

    augmentation: Augmentation
    row: int
    id: str
    seed: int
    epoch: int

    def _number(self, what: str) -> float:
        return unit_hash(self.seed, f"{what}:{self.epoch}:{self.id}")

    def _generator(self, what: str) -> np.random.Generator:
        return np.random.default_rng(int(self._number(what) * 2**53))

    @property
    def flipped(self) -> bool:
        """Whether the row's images are mirrored, all of them."""
        return bool(self.augmentation.can_flip[self.row]) and self._number("flip") < 0.5

    @property
    def swapped(self) -> bool:
        """Whether left and right are exchanged in the row's words and labels as well."""
        return self.augmentation.config.flip == "swap" and self.flipped

    def image(self, pixels: np.ndarray, view: int) -> np.ndarray:
        """One of the row's images, changed.

        Args:
            pixels: `(3, H, W)` uint8.
            view: Which of them; each is changed in its own way.

        Returns:
            `(3, H, W)` uint8.
        """
        if self.flipped:
            pixels = pixels[..., ::-1]
        name = self.augmentation.config.image
        if name == "none":
            return pixels
        with torch.random.fork_rng(devices=[]):  # torchvision draws from the CPU's global generator
            torch.default_generator.manual_seed(int(self._number(f"image {view}") * 2**53))
            return preset(name, *pixels.shape[1:])(torch.from_numpy(np.ascontiguousarray(pixels))).numpy()

    def text(self) -> str:
        """The row's text, changed, before tokens are masked; the row has one."""
        text, options = self.augmentation.texts[self.row] or "", self.augmentation.config.text
        if self.swapped:
            text = swap_sides(text) or ""
        if self.augmentation.synonyms is not None:
            text = self.augmentation.synonyms.exchange(text, self._generator("synonyms"))
        if self._number("shuffle") < options.shuffle_clauses:
            text = shuffle_sentences(text, self._generator("order"))
        return text

    def tokens(self, ids: list[int]) -> list[int]:
        """The tokens of the row's text, changed; `ids` are those of the text as it is."""
        reader, share = self.augmentation.reader, self.augmentation.config.text.mask_tokens
        if reader is None:
            return ids
        text = self.text()
        if text != self.augmentation.texts[self.row]:
            ids = reader.tokenize([text])[0][0]
        if not share or reader.mask_id is None:
            return ids
        return mask_tokens(ids, share, reader.mask_id, reader.special_ids, self._generator("mask"))

    def target(self, task: str, value: Any) -> Any:
        """The row's encoded target, with its sides exchanged if it is of labels; a number has no side."""
        if not self.swapped or task not in self.augmentation.mirrors:
            return value
        return task_of(*self.augmentation.tasks[task]).mirrored(value, self.augmentation.mirrors[task])


def _check_modalities(config: AugmentationConfig, table: Table) -> None:
    text = config.text
    asked = {
        "image": [("image", config.image != "none"), ("flip", config.flip != "none")],
        "text": [(f"text.{name}", bool(value)) for name, value in vars(text).items()],
    }
    for modality, keys in asked.items():
        for name, is_asked in keys:
            if is_asked and getattr(table.manifest, modality) is None:
                raise MmfuseError(f"{_KEY}.{name}: {table.manifest.source} has no {modality} to change")
