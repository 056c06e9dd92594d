"""Public datasets as they are downloaded: one file each (or a family), and the protocol they keep."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from mmfuse.data.public.sources.parquet import Packed
from mmfuse.registry import Registry

SOURCES = Registry("source")

READY = {
    "covid_cxr": "486 chest images with clinical notes, of the COVID-19 Image Data Collection.",
    "emoji_google": "1,906 emoji pictures with their Unicode names.",
    "flickr8k_1000": "The first thousand photographs of Flickr8k, with five captions each.",
    "flipkart_1050": "1,047 products of an online shop with a picture and a description.",
}
"""Sets that are one table already: nothing is to be prepared, the shipped `data_manifests/NAME.yaml` reads them."""


@dataclass(frozen=True)
class Layout:
    """One more way in which a set is downloaded.

    Attributes:
        about: What it is, such as "Kaggle's copy".
        files: What it must have, as of `Card.files`.
        columns: Of a parquet file among them: for each column the names it may have.
    """

    about: str
    files: tuple[tuple[str, ...], ...]
    columns: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class Card:
    """What one must know of a dataset before using it.

    Attributes:
        about: What it is; the first sentence stands alone in a list.
        homepage: Where it is described.
        licence: Under which it may be used.
        citation: What to cite.
        obtain: How to get it, and which files.
        split: The official split, in words.
        traps: What has misled people, a sentence or two each.
        files: What the download must have: for each file (or folder) the glob patterns it may be found by, best first.
        layouts: Other ways in which it is downloaded, that are read too.
    """

    about: str
    homepage: str
    licence: str
    citation: str
    obtain: str
    split: str
    traps: tuple[str, ...]
    files: tuple[tuple[str, ...], ...]
    layouts: tuple[Layout, ...] = ()


@dataclass(frozen=True)
class Note:
    """What must be said of a download as a whole: an official split that is absent, a file that is not read.

    Attributes:
        text: One sentence.
    """

    text: str


@dataclass(frozen=True)
class Row:
    """One row of a dataset, or why there is none.

    Attributes:
        id: Unique in the dataset.
        columns: Group, split, texts and targets by name, as the release has them; the same names in every row.
        images: Files in the download, or images inside of its parquet files; none of them is read here.
        problem: Why this row cannot be used, if that is known already.
        path: The file that the row stands in, or that the problem is about.
        line: Its line there, or the number of its record, from 1; None: the file as a whole.
    """

    id: str
    columns: dict[str, str] = field(default_factory=dict)
    images: tuple[Path | Packed, ...] = ()
    problem: str | None = None
    path: Path | None = None
    line: int | None = None


class Source(Protocol):
    """What an adapter offers; its constructor takes nothing."""

    card: Card

    def rows(self, folder: Path) -> Iterator[Row | Note]:
        """The rows of a download, always in the same order, and what must be said of it; only what is no image is read.

        Raises:
            MmfuseError: A file of the release is damaged.
        """
        ...

    def manifest(self, folder: Path | None) -> dict[str, Any]:
        """The keys group, text, tasks, splits and subgroups of the manifest; None: of a complete download.

        `split_is` says what the split is, where it is not what the card says.
        """
        ...


for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
