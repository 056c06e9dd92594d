"""One column as guesses see it: how full, how repeated, how wordy, and what its name speaks for."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import cached_property

import pandas as pd

from mmfuse import cells
from mmfuse.metrics.captions.languages import UNSPACED
from mmfuse.types import MmfuseError

_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_NAME_PART = re.compile(r"[^\W_]+")
_CHARACTERS = re.compile(f"[{UNSPACED}]")
_DATE = re.compile(r"\d{4}-\d\d?-\d\d?([T ].*)?|\d\d?[./]\d\d?[./]\d{2,4}([T ].*)?")
_URL = re.compile(r"\w+://\S+|www\.\S+")
_WORDS_A_PAIR = 2
"""Characters of a script without spaces that count as a word."""


class Column:
    """A column of a table.

    Args:
        name: Its own.
        values: Its cells, as `read_rows` gives them.

    Attributes:
        texts: By row the text, stripped; "" where the cell is none or is no text.
    """

    def __init__(self, name: str, values: Sequence[cells.Cell]):
        self.name, self.cells = name, list(values)
        self.texts = [cell.strip() if isinstance(cell, str) else "" for cell in self.cells]

    @cached_property
    def kind(self) -> str:
        """What most of its cells are that are not empty: text, list, bytes, object, or none."""
        kinds = {str: "text", list: "list", bytes: "bytes", dict: "object"}
        counts = Counter(kinds[type(cell)] for cell in self.cells if cell not in ("", [], {}))
        return counts.most_common(1)[0][0] if counts else "none"

    @cached_property
    def words(self) -> list[str]:
        """The parts of its name in lower case: `patientID` has patient and id."""
        return [part.lower() for part in _NAME_PART.findall(_CAMEL.sub(" ", self.name))]

    @cached_property
    def filled(self) -> list[str]:
        """Its texts that are not empty."""
        return [text for text in self.texts if text]

    @cached_property
    def counts(self) -> Counter[str]:
        """How often each text stands in it, the empty one left out."""
        return Counter(self.filled)

    @property
    def share(self) -> float:
        """Of the rows, those that have a text."""
        return len(self.filled) / max(1, len(self.texts))

    @property
    def distinct(self) -> float:
        """Of the filled cells, how many are different: 1 where none repeats."""
        return len(self.counts) / max(1, len(self.filled))

    @property
    def unique(self) -> bool:
        """Whether it names each row once."""
        return self.kind == "text" and len(self.counts) == len(self.texts)

    @cached_property
    def length(self) -> float:
        """Words of a filled cell, in the mean."""
        some = self.filled[:: max(1, len(self.filled) // 2000)]
        return sum(map(count_words, some)) / max(1, len(some))

    @cached_property
    def numbers(self) -> list[float]:
        """Its filled cells as numbers, if all but one in two hundred are; else none."""
        found = [value for text in self.filled if (value := number(text)) is not None]
        return found if found and len(found) >= 0.995 * len(self.filled) else []

    def mostly(self, pattern: re.Pattern[str], share: float = 0.9) -> bool:
        """Whether a pattern fits that share of the filled cells as a whole."""
        some = self.filled[:: max(1, len(self.filled) // 500)]
        return bool(some) and sum(bool(pattern.fullmatch(text)) for text in some) >= share * len(some)

    @cached_property
    def is_date(self) -> bool:
        """Whether it holds dates."""
        return self.mostly(_DATE)

    @cached_property
    def is_url(self) -> bool:
        """Whether it holds addresses."""
        return self.mostly(_URL)


def columns_of(frame: pd.DataFrame) -> dict[str, Column]:
    """The columns of a table by name."""
    return {name: Column(name, list(frame[name])) for name in map(str, frame.columns)}


def count_words(text: str) -> float:
    """Words of a text; of a script without spaces, pairs of characters."""
    return max(len(text.split()), len(_CHARACTERS.findall(text)) / _WORDS_A_PAIR)


def number(text: str) -> float | None:
    """What a text is as a number, None where it is none; `nan` and `inf` are none."""
    if not text or text[-1] not in "0123456789.":
        return None
    try:
        return float(text) if "_" not in text else None
    except ValueError:
        return None


def labels_in(cell: cells.Cell) -> list[str] | None:
    """The labels of a cell that is a list, or is written as one; None where it is not."""
    try:
        return cells.labels(cell)
    except MmfuseError:
        return None
