"""Texts as tokens: how they become so, and those of many rows in little memory."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


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


class TokenLists(Sequence):
    """Rows' tokens, None where a row has no text, in 8 bytes a token and 9 a row; a Python list takes 36 a token.

    Args:
        lists: By row its tokens or None.
    """

    def __init__(self, lists: Iterable[list[int] | None] = ()):
        self._tokens, self._ends, self._there = array("q"), array("q", [0]), bytearray()
        self.extend(lists)

    def extend(self, lists: Iterable[list[int] | None]) -> None:
        """Add rows behind the others."""
        for tokens in lists:
            self._tokens.extend(tokens or ())
            self._ends.append(len(self._tokens))
            self._there.append(tokens is not None)

    def __len__(self) -> int:
        return len(self._there)

    def __getitem__(self, row: Any) -> Any:
        """A row's tokens as a list, or None."""
        row = range(len(self))[row]
        return self._tokens[self._ends[row] : self._ends[row + 1]].tolist() if self._there[row] else None

    def lengths(self) -> np.ndarray:
        """`(rows,)` int64, the number of tokens, 0 where there is no text."""
        return np.diff(np.array(self._ends, dtype=np.int64))
