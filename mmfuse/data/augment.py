"""Changes of training rows after which image, text and targets still agree.

All draws are those of a row in an epoch, whichever process prepares it; see docs/augmentation.md.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from mmfuse.config import AugmentationConfig
from mmfuse.data.sides import mirror_labels, swap_sides
from mmfuse.data.splits import unit_hash
from mmfuse.data.table import Table
from mmfuse.types import MmfuseError

_KEY = "training.augmentation"


@dataclass(frozen=True)
class TextReader:
    """How a text becomes tokens.

    Attributes:
        tokenize: Texts to their token ids, special ones included, and whether they were cut. It goes to worker
            processes, so it had better not drag an encoder's weights along.
        mask_id: What stands for a masked token; None if the tokenizer has none.
        special_ids: Tokens that are never masked.
    """

    tokenize: Callable[[Sequence[str]], tuple[list[list[int]], list[bool]]]
    mask_id: int | None
    special_ids: frozenset[int]


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
        self.mirrors: dict[str, np.ndarray] = {}
        if config.flip == "swap":
            for task, names in table.labels.items():
                if task not in write:
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
        """The row's target of a task with labels, a class id or `(L,)` values by label, with its sides exchanged."""
        if not self.swapped:
            return value
        mirror = self.augmentation.mirrors[task]
        if np.ndim(value):
            return value[mirror]
        return mirror[value] if value >= 0 else value  # a missing one stays missing


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


# -------------------------------------------------------------------------------------------------------------- images


@cache
def preset(name: str, height: int, width: int) -> Callable[[Tensor], Tensor]:
    """What `training.augmentation.image` does to a `(3, H, W)` uint8 image; it draws from torch's global generator.

    Args:
        name: "natural" or "radiograph".
        height: H.
        width: W.
    """
    from torchvision.transforms import v2  # takes a second, and most runs do without

    bilinear = v2.InterpolationMode.BILINEAR
    if name == "radiograph":
        return v2.Compose(
            [
                v2.RandomAffine(degrees=(-5, 5), translate=(0.05, 0.05), scale=(0.9, 1.1), interpolation=bilinear),
                v2.ColorJitter(brightness=0.1, contrast=0.2),
                v2.Lambda(_gamma, Tensor),
                v2.Lambda(_noise, Tensor),
            ]
        )
    margin = [math.ceil(width / 8), math.ceil(height / 8)]  # no empty corners after the rotation
    aspect = width / height
    return v2.Compose(
        [
            v2.Pad(margin, padding_mode="edge"),
            v2.RandomAffine(degrees=(-10, 10), shear=5, interpolation=bilinear),
            v2.CenterCrop((height, width)),
            v2.RandomResizedCrop((height, width), scale=(0.7, 1.0), ratio=(0.9 * aspect, 1.1 * aspect)),
            v2.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2),
        ]
    )


def _gamma(pixels: Tensor) -> Tensor:
    from torchvision.transforms.v2 import functional as F

    return F.adjust_gamma(pixels, math.exp(float(torch.empty(()).uniform_(-0.2, 0.2))))


def _noise(pixels: Tensor) -> Tensor:
    """Gaussian noise of at most 2 % of the range, the same in the three channels: grey stays grey."""
    deviation = 255 * 0.02 * torch.rand(())
    noise = deviation * torch.randn(1, *pixels.shape[1:])
    return (pixels + noise).round().clamp(0, 255).to(torch.uint8)


# --------------------------------------------------------------------------------------------------------------- texts


def mask_tokens(
    ids: Sequence[int], share: float, mask_id: int, special_ids: Collection[int], rng: np.random.Generator
) -> list[int]:
    """Each token but special ones is replaced by `mask_id` with probability `share`."""
    hit = rng.random(len(ids)) < share
    return [mask_id if masked and i not in special_ids else i for i, masked in zip(ids, hit, strict=True)]


_END = re.compile(
    r"(?<=[.!?])(?<!\b(?:Dr|Mr|Ms|St|vs|cm|mm)\.)(?<!\b(?:Mrs|e\.g|i\.e)\.)(?<!\b[A-Z]\.)\s+|\s*\n\s*\n\s*"
)
"""Where a sentence ends: not behind an initial or a usual abbreviation, and not where a line is merely wrapped."""


def shuffle_sentences(text: str, rng: np.random.Generator) -> str:
    """The text with its sentences in another order; all words stay."""
    sentences = [part for part in _END.split(text) if part]
    return " ".join(sentences[i] for i in rng.permutation(len(sentences)))


class Synonyms:
    """Phrases that mean the same.

    Args:
        groups: Each a list of at least two phrases.
        where: Named in errors.

    Raises:
        MmfuseError: There is no group, one has fewer than two phrases, or a phrase stands twice.
    """

    def __init__(self, groups: Any, where: str):
        self.others: dict[str, list[str]] = {}
        for group in groups if isinstance(groups, list) else []:
            strings = isinstance(group, list) and all(isinstance(p, str) and p.strip() for p in group)
            if not strings or len(group) < 2:
                raise MmfuseError(f"{where}: {group!r}: a list of at least two phrases is expected; quote yes and no")
            for phrase in group:
                name = _plain(phrase)
                if name in self.others:
                    raise MmfuseError(f"{where}: {phrase!r} is listed twice; a phrase belongs to one list")
                self.others[name] = [" ".join(other.split()) for other in group if other is not phrase]
        if not self.others:
            raise MmfuseError(f"{where}: a list of lists of phrases is expected")
        longest_first = sorted(self.others, key=len, reverse=True)
        phrases = "|".join(re.escape(phrase).replace(r"\ ", r"\s+") for phrase in longest_first)
        self.pattern = re.compile(rf"(?<!\w)(?:{phrases})(?!\w)", re.IGNORECASE)

    @classmethod
    def read(cls, path: str) -> Synonyms:
        """Those of a YAML file.

        Raises:
            MmfuseError: No such file, not YAML, or not a list of lists of phrases.
        """
        where = f"{_KEY}.text.synonyms: {path}"
        try:
            return cls(yaml.safe_load(Path(path).read_text(encoding="utf-8")), where)
        except OSError as error:
            raise MmfuseError(f"{where}: {error.strerror}") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise MmfuseError(f"{where}: not YAML in UTF-8: {str(error).splitlines()[0]}") from error

    def exchange(self, text: str, rng: np.random.Generator) -> str:
        """Each phrase that is found as whole words is replaced by another of its list with probability 0.5.

        A capital at its beginning stays one; else the other phrase is written as in the list.
        """

        def other(found: re.Match[str]) -> str:
            choices = self.others[_plain(found[0])]
            keep, choice = rng.random(2)
            if keep < 0.5:
                return found[0]
            phrase = choices[int(choice * len(choices))]
            return phrase[0].upper() + phrase[1:] if found[0][0].isupper() else phrase

        return self.pattern.sub(other, text)


def _plain(phrase: str) -> str:
    return " ".join(phrase.lower().split())
