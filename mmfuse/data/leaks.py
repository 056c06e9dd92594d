"""What is in two splits and must not be, and captions that stand in the input text."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mmfuse.data.images import content_hash
from mmfuse.data.rows import BLOCK
from mmfuse.data.splits import SPLITS
from mmfuse.types import MmfuseError

if TYPE_CHECKING:
    from mmfuse.data.table import Table


def find_leaks(table: Table) -> list[str]:
    """Groups, and exact duplicates, that are in two splits: a sentence for each kind, naming two rows; [] for none.

    A duplicate is a row with the same text and the same images (by content) as another; one whose images cannot be
    opened counts as itself. Only rows that share their text are opened.
    """
    where = table.manifest.source
    found = (_leaked_groups(table), _leaked_duplicates(table), _leaked_images(table))
    return [f"{where}: {sentence}" for sentence in found if sentence]


def _leaked_groups(table: Table) -> str | None:
    for first, row in _across_splits(table, _hashes(table, "group")):
        a, b = table.rows[first], table.rows[row]
        if a["group"] == b["group"]:
            return (
                f"group {b['group']!r} is in two splits: row {a['id']!r} is {table.splits[first]}, row {b['id']!r} is "
                f"{table.splits[row]}; a group must be in one"
            )
    return None


def _leaked_duplicates(table: Table) -> str | None:
    keys = _hashes(table, "text")
    shared = np.flatnonzero(np.isin(keys, [keys[row] for _, row in _across_splits(table, keys)]))
    first_of: dict[tuple[str | None, tuple[str, ...]], int] = {}
    leaks = []
    for start in range(0, len(shared), BLOCK):
        members = shared[start : start + BLOCK].tolist()
        rows = table.rows[members]
        for i, text, images in zip(members, rows["text"], rows["images"], strict=True):
            first = first_of.setdefault((text, tuple(_content(path) for path in images)), i)
            if table.splits[first] != table.splits[i]:
                leaks.append((first, i))
    if not leaks:
        return None
    a, b = (table.rows[i]["id"] for i in leaks[0])
    return (
        f"{len(leaks)} exact duplicate(s) across splits, such as rows {a!r} and {b!r}: same text and images; remove "
        "them, or give duplicates the same group"
    )


def _across_splits(table: Table, keys: np.ndarray) -> Iterator[tuple[int, int]]:
    """Rows in another split than the first row with the same key, that row before each."""
    splits = np.array([SPLITS.index(name) for name in table.splits], dtype=np.int8)
    _, first, value = np.unique(keys, return_index=True, return_inverse=True)
    first = first[value]
    for row in np.flatnonzero(splits != splits[first]).tolist():
        yield int(first[row]), row


def _hashes(table: Table, column: str) -> np.ndarray:
    """`(rows,)` int64: 8 bytes for each text of a column; equal ones are alike, and others almost never."""
    rows = table.rows.select_columns([column]).with_format("arrow")
    blocks = (rows[start : start + BLOCK][column] for start in range(0, len(rows), BLOCK))
    return np.fromiter(
        (hash(value) for block in blocks for value in block.to_pylist()), dtype=np.int64, count=len(rows)
    )


def _leaked_images(table: Table) -> str | None:
    """Where images are captioned: one whose captions are in rows of two splits."""
    if not any(table.manifest.tasks[task].type == "captioning" for task in table.targets):
        return None
    seen: dict[str, int] = {}
    for i, images in enumerate(table.rows["images"]):
        for path in images:
            first = seen.setdefault(path, i)
            if table.splits[first] != table.splits[i]:
                a, b = table.rows["id"][first], table.rows["id"][i]
                return (
                    f"image {os.path.basename(path)} is captioned in two splits, in rows {a!r} ({table.splits[first]}) "
                    f"and {b!r} ({table.splits[i]}): give `group` a column that names the image"
                )
    return None


def find_copies(table: Table) -> dict[str, list[int]]:
    """By captioning task, the rows whose input text contains one of their references: the answer could be copied.

    Case, punctuation and spaces do not count; a reference of fewer than 4 words does not either.
    """
    texts = table.rows["text"][:]
    found = {}
    for task in table.targets:
        if table.manifest.tasks[task].type == "captioning":
            rows = [i for i, text in enumerate(texts) if text and _contains(text, table.targets[task][i])]
            if rows:
                found[task] = rows
    return found


def _contains(text: str, references: Sequence[str]) -> bool:
    plain = f" {' '.join(_WORD.findall(text.lower()))} "
    words = [_WORD.findall(reference.lower()) for reference in references]
    return any(len(w) >= _SHORTEST_COPY and f" {' '.join(w)} " in plain for w in words)


_WORD = re.compile(r"\w+")
_SHORTEST_COPY = 4


def _content(path: str) -> str:
    try:
        return content_hash(path)
    except MmfuseError:
        return path
