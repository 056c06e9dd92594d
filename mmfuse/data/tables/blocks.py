"""A manifest's rows in blocks: what memory they take does not depend on how many there are."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any, Protocol

import numpy as np
import pandas as pd

from mmfuse.data.rows.read import RowFiles
from mmfuse.data.tables.build import assign_splits, check_columns, describe_rows, id_error, identify_rows, read_table
from mmfuse.data.tables.groups import joins_groups
from mmfuse.data.tables.leaks import Keys, collect_keys, copied_rows, copies_error, describe_leaks, records
from mmfuse.data.tables.manifest import CONTENT, ROW, Manifest, is_numbered
from mmfuse.data.tables.table import Table
from mmfuse.tasks import kind_of, task_of
from mmfuse.types import MmfuseError

BLOCK = 20 * 1024
"""Rows that are put into another order together."""
PART = 1024
"""Rows that are encoded at once."""
Block = dict[str, list[Any]]
"""The columns of `Table.rows`, `splits`, and `target.<task>` as lists."""


class Blocks(Protocol):
    """Encoded rows that may be gone through more than once, at most `PART` at a time.

    Attributes:
        manifest: Where they come from.
        labels: By task, its label names; none of a captioning task.
    """

    manifest: Manifest
    labels: dict[str, list[str]]

    def blocks(self) -> Iterator[Block]:
        """All rows, as they come."""
        ...

    def ordered(self, split: str, first: int) -> Iterator[Block]:
        """A split's rows but the first few, those of each `BLOCK` rows in the order of a hash of their ids."""
        ...


class TableBlocks:
    """A table's rows as `Blocks`."""

    def __init__(self, table: Table):
        self.table, self.manifest, self.labels = table, table.manifest, table.labels

    def blocks(self) -> Iterator[Block]:
        """As of `Blocks`."""
        for start in range(0, len(self.table), PART):
            yield self._rows(np.arange(start, min(start + PART, len(self.table))))

    def ordered(self, split: str, first: int) -> Iterator[Block]:
        """As of `Blocks`."""
        for start in range(0, len(self.table), BLOCK):
            inside = np.flatnonzero(np.array(self.table.splits[start : start + BLOCK]) == split) + start
            order = inside[_hash_order(self.table.rows[inside.tolist()]["id"])]
            for part in _parts(order, first):
                yield self._rows(part)
            first = max(0, first - len(order))

    def _rows(self, numbers: np.ndarray) -> Block:
        splits = [self.table.splits[i] for i in numbers.tolist()]
        targets = {f"target.{task}": values[numbers].tolist() for task, values in self.table.targets.items()}
        return {**self.table.columns(numbers.tolist()), "splits": splits, **targets}


class FileBlocks:
    """The rows of a manifest's files as `Blocks`, with the same splits and targets as `read_table` gives them.

    The files are read once for their columns (of csv and parquet only the first rows), once to see all that
    `read_table` would refuse, and then whenever blocks are asked for. 25 bytes a row are held (see `Keys`).

    Args:
        manifest: As `load_manifest` gave it; its splits must not need all rows at once.
        fold: As for `read_table`.

    Raises:
        MmfuseError: As of `read_table`. Of several faults it may be another one that is told.
    """

    def __init__(self, manifest: Manifest, fold: int | None = None):
        self.manifest, self.fold = manifest, fold
        self.files = RowFiles(manifest.rows, manifest.source, manifest.csv)
        self.needed = manifest.columns(manifest.tasks)
        check_columns(manifest, self.needed, self.files.columns)
        counts: dict[str, Counter[str]] = {task: Counter() for task in manifest.tasks}
        copies: dict[str, list[Any]] = {}
        captioned = any(kind_of(spec).is_text for spec in manifest.tasks.values())
        keys = collect_keys(self._scan(counts, copies), captioned)
        self._check_ids(keys.id)
        self.labels = {
            task: task_of(spec).choose(counts[task], spec, f"{manifest.source}: tasks.{task}")
            for task, spec in manifest.tasks.items()
        }
        self._check_leaks(keys, copies)

    def blocks(self) -> Iterator[Block]:
        """As of `Blocks`."""
        for start, frame in self._frames(PART):
            yield self._encoded(frame, start)

    def ordered(self, split: str, first: int) -> Iterator[Block]:
        """As of `Blocks`."""
        for start, frame in self._frames(BLOCK):
            ids, groups = identify_rows(frame, self.manifest)
            splits = assign_splits(frame, self.manifest, ids, groups, None, self.fold)
            inside = np.flatnonzero(np.array(splits) == split)
            order = inside[_hash_order([ids[i] for i in inside.tolist()])]
            for part in _parts(order, first):
                yield self._encoded(frame.iloc[part], start)
            first = max(0, first - len(order))
            del frame  # before the next one is read

    def _encoded(self, frame: pd.DataFrame, start: int) -> Block:
        block, found = self._rows_of(frame, start)
        for task, spec in self.manifest.tasks.items():
            block[f"target.{task}"] = task_of(spec, self.labels[task]).encode(found[task], spec).tolist()
        return block

    def _frames(self, size: int) -> Iterator[tuple[int, pd.DataFrame]]:
        """Blocks of so many rows, each with the number of its first row."""
        start, wanted = 0, set(chain(*self.needed.values()))
        for frame in self.files.blocks([name for name in self.files.columns if name in wanted], size):
            start += len(frame)
            yield start - len(frame), frame
            del frame  # before the next one is read

    def _rows_of(self, frame: pd.DataFrame, start: int) -> tuple[Block, dict[str, Any]]:
        """The columns of some rows, and by task what they say of it."""
        ids, groups = identify_rows(frame, self.manifest, start)
        block = {"id": ids, "group": groups, **dict(describe_rows(frame, self.manifest, start))}
        tasks, where = self.manifest.tasks, self.manifest.source
        found = {t: task_of(spec).read(frame, spec, f"{where}: tasks.{t}", start) for t, spec in tasks.items()}
        block["splits"] = assign_splits(frame, self.manifest, ids, groups, None, self.fold)
        return block, found

    def _scan(self, counts: dict[str, Counter[str]], copies: dict[str, list[Any]]) -> Iterator[Block]:
        """All rows without targets; by task their labels are counted, and copied captions: how many, and the first."""
        for start, frame in self._frames(PART):
            block, found = self._rows_of(frame, start)
            for task, spec in self.manifest.tasks.items():
                kind = task_of(spec)
                counts[task].update(kind.count(found[task], spec))
                if kind.is_text and not spec.allow_copies:
                    rows = copied_rows(kind, block["text"], kind.encode(found[task], spec))
                    if rows:
                        copies.setdefault(task, [0, block["id"][rows[0]]])[0] += len(rows)
            yield block

    def _read(self, rows: np.ndarray) -> Iterator[dict[str, Any]]:
        """These rows, which are in rising order, without what is not needed to compare them."""
        for start, frame in self._frames(PART) if len(rows) else ():
            chosen = rows[np.searchsorted(rows, start) : np.searchsorted(rows, start + len(frame))] - start
            if len(chosen):
                part = frame.iloc[chosen]
                ids, groups = identify_rows(part, self.manifest)
                yield from records({"id": ids, "group": groups, **dict(describe_rows(part, self.manifest))})

    def _check_ids(self, keys: np.ndarray) -> None:
        _, first, counts = np.unique(keys, return_index=True, return_counts=True)
        for row in [*np.sort(first[counts > 1]), *np.flatnonzero(keys == hash(""))[:1]]:
            found = Counter(row["id"] for row in self._read(np.flatnonzero(keys == keys[row])))
            if "" in found or max(found.values()) > 1:
                raise id_error(self.manifest, found)

    def _check_leaks(self, keys: Keys, copies: dict[str, list[Any]]) -> None:
        for sentence in describe_leaks(keys, self._read, self.manifest.source, self.manifest.urls):
            raise MmfuseError(sentence)
        for task, (count, name) in copies.items():
            raise copies_error(self.manifest.source, task, count, name)


def _hash_order(ids: Sequence[str]) -> np.ndarray:
    keys = (hashlib.blake2b(id.encode("utf-8", "backslashreplace"), digest_size=8).digest() for id in ids)
    return np.argsort(np.array([int.from_bytes(key, "big") for key in keys], dtype=np.uint64), kind="stable")


def _parts(order: np.ndarray, first: int) -> Iterator[np.ndarray]:
    """All but the first few, some at a time."""
    return (order[start : start + PART] for start in range(first, len(order), PART))


def open_blocks(
    manifest: Manifest, fold: int | None = None, tell: Callable[[str], None] | None = None
) -> TableBlocks | FileBlocks:
    """A manifest's rows in blocks, or all in memory where its splits need them all at once.

    Args:
        manifest: As `load_manifest` gave it.
        fold: As for `read_table`.
        tell: Called with a sentence where all rows are in memory.

    Raises:
        MmfuseError: As of `read_table`.
    """
    splits = manifest.splits
    name = next((f"splits.{name}" for name in ("time", "stratify", "exact") if getattr(splits, name)), None)
    if splits.column is not None:
        name = None
    if name is None:
        doubtful = manifest.group in (CONTENT, [CONTENT])  # which may be a column
        name = joins_groups(
            manifest, RowFiles(manifest.rows, manifest.source, manifest.csv).columns if doubtful else ()
        )
    if name is None and manifest.id == ROW:
        there = RowFiles(manifest.rows, manifest.source, manifest.csv).columns
        name = "id: row" if is_numbered(manifest.id, there) else None
    if name:
        if tell:
            tell(f"{manifest.source}: {name} needs all rows in memory: they are not read in blocks")
        return TableBlocks(read_table(manifest, fold=fold))
    return FileBlocks(manifest, fold)
