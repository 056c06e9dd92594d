"""What is in two splits and must not be, and captions that stand in the input text.

Rows are compared by hashes of 8 bytes, which are all that is held of them; those that are alike are then read again,
and compared as they are.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmfuse.data.rows.blocks import BLOCK
from mmfuse.data.tables.groups import content_or_name
from mmfuse.data.tables.splits import SPLITS
from mmfuse.data.tables.table import Table
from mmfuse.tasks import TaskKind
from mmfuse.types import MmfuseError

ReadRows = Callable[[np.ndarray], Iterator[dict[str, Any]]]
"""Row numbers, in rising order, to these rows: `id`, `group`, `images` and `text`."""


@dataclass
class Keys:
    """Hashes of rows; equal ones are of what is alike, and almost never of anything else.

    25 bytes a row in all, and 16 an image where images are captioned.

    Attributes:
        id: `(rows,)` int64.
        group: `(rows,)` int64.
        text: `(rows,)` int64.
        splits: `(rows,)` int8, the split's number in `SPLITS`.
        image: `(images,)` int64, of the paths of captioned images.
        image_row: `(images,)` int64, whose they are.
    """

    id: np.ndarray
    group: np.ndarray
    text: np.ndarray
    splits: np.ndarray
    image: np.ndarray
    image_row: np.ndarray


def collect_keys(blocks: Iterable[Mapping[str, Sequence[Any]]], captioned: bool) -> Keys:
    """The keys of rows that come in blocks.

    Args:
        blocks: Columns `id`, `group`, `images`, `text` and `splits`.
        captioned: Whether images are captioned.
    """
    parts: list[tuple[np.ndarray, ...]] = [tuple(np.empty(0, np.int64) for _ in range(6))]
    rows = 0
    for block in blocks:
        ids = block["id"]
        images = [(path, row) for row, paths in enumerate(block["images"], rows) for path in paths if captioned]
        splits = np.array([SPLITS.index(name) for name in block["splits"]], dtype=np.int8)
        owners = np.array([row for _, row in images], dtype=np.int64)
        keys = [_hashes(values) for values in (ids, block["group"], block["text"], (path for path, _ in images))]
        parts.append((*keys[:3], splits, keys[3], owners))
        rows += len(ids)
    id, group, text, splits, image, image_row = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Keys(id, group, text, splits.astype(np.int8), image, image_row)


def find_leaks(table: Table) -> list[str]:
    """Groups, and exact duplicates, that are in two splits: a sentence for each kind, naming two rows; [] for none.

    A duplicate is a row with the same text and the same images (by content) as another; one whose images cannot be
    opened counts as itself. Only rows that share their text are opened.
    """
    captioned = any(table.kind(task).is_text for task in table.targets)

    def blocks() -> Iterator[Mapping[str, Sequence[Any]]]:
        for start in range(0, len(table), BLOCK):
            stop = min(start + BLOCK, len(table))
            yield {**table.columns(range(start, stop)), "splits": table.splits[start:stop]}

    def read(rows: np.ndarray) -> Iterator[dict[str, Any]]:
        for start in range(0, len(rows), BLOCK):
            yield from records(table.columns(rows[start : start + BLOCK].tolist()))

    return describe_leaks(collect_keys(blocks(), captioned), read, table.manifest.source, table.manifest.urls)


def describe_leaks(keys: Keys, read: ReadRows, where: str, urls: Sequence[str] = ()) -> list[str]:
    """As `find_leaks`, of rows of which only the keys are in memory; `urls` may be opened as images."""
    found = (_leaked_groups(keys, read), _leaked_duplicates(keys, read, where, urls), _leaked_images(keys, read))
    return [f"{where}: {sentence}" for sentence in found if sentence]


def records(columns: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    """Columns as rows."""
    for values in zip(*columns.values(), strict=True):
        yield dict(zip(columns, values, strict=True))


def _leaked_groups(keys: Keys, read: ReadRows) -> str | None:
    for first, row, a, b in _pairs(*_across_splits(keys.group, keys.splits), read):
        if a["group"] == b["group"]:
            return (
                f"group {b['group']!r} is in two splits: row {a['id']!r} is {_split(keys, first)}, row {b['id']!r} is "
                f"{_split(keys, row)}; a group must be in one"
            )
    return None


def _leaked_duplicates(keys: Keys, read: ReadRows, where: str, urls: Sequence[str]) -> str | None:
    _, rows = _across_splits(keys.text, keys.splits)
    shared = np.flatnonzero(np.isin(keys.text, keys.text[rows]))
    same = _hashes(_contents(row, urls) for row in read(shared))
    first, rows = _across_splits(same, keys.splits[shared])
    pairs = _pairs(shared[first], shared[rows], read)
    leaks = [(a["id"], b["id"]) for _, _, a, b in pairs if _contents(a, urls) == _contents(b, urls)]
    if not leaks:
        return None
    a, b = leaks[0]
    return (
        f"{len(leaks)} exact duplicate(s) across splits, such as rows {a!r} and {b!r}: same text and images; "
        "`group: content` keeps them together where splits are ratios or folds; "
        f"`mmfuse data check {where} --drop copies --out FOLDER` writes the rows without them"
    )


def _leaked_images(keys: Keys, read: ReadRows) -> str | None:
    """Where images are captioned: one whose captions are in rows of two splits."""
    first, again = _across_splits(keys.image, keys.splits[keys.image_row])
    for i, j, a, b in _pairs(keys.image_row[first], keys.image_row[again], read):
        path = next((path for path in b["images"] if path in a["images"]), None)
        if path is not None:
            return (
                f"image {_name(path)} is captioned in two splits, in rows {a['id']!r} ({_split(keys, i)}) "
                f"and {b['id']!r} ({_split(keys, j)}): give `group` a column that names the image, or content"
            )
    return None


def _name(image: str | bytes) -> str:
    return f"of {len(image):,} bytes" if isinstance(image, bytes) else os.path.basename(image)


def _across_splits(keys: np.ndarray, splits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where keys are in another split than where they come first, that first place before each."""
    _, first, value = np.unique(keys, return_index=True, return_inverse=True)
    first = first[value]
    rows = np.flatnonzero(splits != splits[first])
    return first[rows], rows


def _pairs(
    first: np.ndarray, rows: np.ndarray, read: ReadRows
) -> Iterator[tuple[int, int, dict[str, Any], dict[str, Any]]]:
    """Pairs of row numbers with the rows themselves, some thousand in memory at once."""
    for start in range(0, len(rows), BLOCK):
        pairs = np.stack([first, rows])[:, start : start + BLOCK]
        wanted = np.unique(pairs)
        held = dict(zip(wanted.tolist(), read(wanted), strict=True))
        yield from ((i, j, held[i], held[j]) for i, j in pairs.T.tolist())


def _hashes(values: Iterable[Any]) -> np.ndarray:
    """`(values,)` int64."""
    return np.fromiter((hash(value) for value in values), dtype=np.int64)


def _split(keys: Keys, row: int) -> str:
    return SPLITS[keys.splits[row]]


def find_copies(table: Table) -> dict[str, list[int]]:
    """By task whose targets are texts, the rows whose input text states them: the answer could be copied."""
    texts = table.rows["text"][:]
    kinds = {task: table.kind(task) for task in table.targets}
    found = {task: copied_rows(kind, texts, table.targets[task]) for task, kind in kinds.items() if kind.is_text}
    return {task: rows for task, rows in found.items() if rows}


def copied_rows(kind: TaskKind, texts: Sequence[str | None], targets: Iterable[Any]) -> list[int]:
    """The rows whose text states their encoded target."""
    return [i for i, (text, one) in enumerate(zip(texts, targets, strict=True)) if text and kind.stated(text, one)]


def copies_error(where: str, task: str, count: int, name: str) -> MmfuseError:
    """What is said of rows whose text contains their caption, of which `name` is one."""
    return MmfuseError(
        f"{where}: tasks.{task}: the input text of {count} row(s), such as {name!r}, contains the caption: the model "
        f"would copy it; take that text out of text.columns, or tasks.{task}.allow_copies: true"
    )


def _contents(row: dict[str, Any], urls: Sequence[str]) -> tuple[str | None, tuple[str | bytes, ...]]:
    return row["text"], tuple(content_or_name(image, urls) for image in row["images"])
