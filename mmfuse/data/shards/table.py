"""The rows of a folder of shards as tables: what of them is held, and what is read when it is asked for."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, ClassVar

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets.table import InMemoryTable

from mmfuse.data.shards.folder import DamagedShardError, Shard, Shards, open_shards
from mmfuse.data.tables.manifest import Manifest, load_manifest
from mmfuse.data.tables.table import Table
from mmfuse.registry import nearest
from mmfuse.tasks import task_of
from mmfuse.types import MmfuseError

BLOCK = 512
"""Rows whose images are read at once for evaluation, and whose texts and targets while they are counted."""
EVALUATED = ("validation", "test")


class ShardRows:
    """The rows of some shards, one after the other.

    Args:
        shards: Where they are.
        order: Which, in which order.
    """

    def __init__(self, shards: Shards, order: Sequence[Shard]):
        self.shards, self.order = shards, order
        self.first = [0, *accumulate(shard.rows for shard in order)]

    def __len__(self) -> int:
        return self.first[-1]

    def read(self, start: int, stop: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Rows `start` to `stop`, of at least one; those of them that are in one shard are read at once.

        Raises:
            MmfuseError: A shard cannot be read; it is named.
        """
        parts, number = [], bisect_right(self.first, start) - 1
        while start < stop:
            shard, first = self.order[number], self.first[number]
            end = min(stop, first + shard.rows)
            if start < end:
                parts.append(self._read(shard, start - first, end - first, columns))
            start, number = end, number + 1
        return pa.concat_tables(parts)

    def _read(self, shard: Shard, start: int, stop: int, columns: Sequence[str] | None) -> pa.Table:
        try:
            return self.shards.read(shard, start, stop, columns)
        except DamagedShardError as error:
            raise DamagedShardError(
                f"{error}; `mmfuse data verify {self.shards.url}` notes all such shards, and a new run with "
                "data.damaged=skip leaves them out"
            ) from error

    def blocks(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """All rows, in blocks."""
        for start in range(0, len(self), BLOCK):
            yield self.read(start, min(start + BLOCK, len(self)), columns)


class ArrowImages(Sequence):
    """By row its encoded images, taken out of an Arrow column when they are asked for."""

    def __init__(self, column: pa.ChunkedArray):
        self.column = column

    def __len__(self) -> int:
        return len(self.column)

    def __getitem__(self, row: Any) -> Any:
        return self.column[row].as_py()


class ShardImages(Sequence):
    """By row its encoded images, read from shards in blocks of consecutive rows, of which the last one is kept."""

    def __init__(self, rows: ShardRows):
        self.rows = rows
        self._block: tuple[int, ArrowImages] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: Any) -> Any:
        number = row // BLOCK
        if self._block is None or self._block[0] != number:
            stop = min((number + 1) * BLOCK, len(self))
            self._block = None  # two need not be held
            self._block = number, ArrowImages(self.rows.read(number * BLOCK, stop, ["images"])["images"])
        return self._block[1][row % BLOCK]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_block": None}


@dataclass
class EncodedTable(Table):
    """A table whose images are encoded bytes.

    Attributes:
        encoded: By row, its images.
    """

    encoded: Sequence[list[bytes]] = ()

    def images(self) -> Sequence[Sequence[str | bytes]]:
        """By row its images, encoded."""
        return self.encoded

    def has_image(self) -> np.ndarray:
        """`(rows,)` bool."""
        return np.array([bool(images) for images in self.encoded], dtype=bool)


@dataclass
class ShardedTable(EncodedTable):
    """The rows of validation and test of a folder of shards; their images, and all training rows, stay there.

    Attributes:
        shards: The folder.
        with_image: `(rows,)` bool.
    """

    block: ClassVar[int | None] = BLOCK

    shards: Shards = field(kw_only=True)
    with_image: np.ndarray = field(kw_only=True)

    def indices(self, split: str) -> list[int]:
        """The rows of a split that is evaluated.

        Raises:
            MmfuseError: No such split, it is empty, or it is that of training.
        """
        if split == "train" and self.shards.of("train"):
            raise MmfuseError(
                f"{self.manifest.source}: split train is in shards: its rows are streamed in training, not evaluated; "
                "name the table that the shards were made of"
            )
        return super().indices(split)

    def has_image(self) -> np.ndarray:
        """`(rows,)` bool."""
        return self.with_image

    def counts(self) -> dict[str, int]:
        """Rows a split, training rows too."""
        found: Counter[str] = Counter()
        for shard in self.shards.shards:
            found[shard.split] += shard.rows
        return dict(found)

    def lacks(self, split: str) -> dict[str, int]:
        """How many rows of a split have no `text`, and no `image`."""
        shards = self.shards.of(split)
        return {"text": sum(s.without_text for s in shards), "image": sum(s.without_image for s in shards)}

    def texts(self, split: str) -> Iterable[str]:
        """The texts of a split, empty where there is none, read anew each time."""
        return _Again(lambda: (text or "" for text in self._values("text", split)))

    def captions(self, task: str, split: str) -> Iterable[str]:
        """All references of a captioning task in a split, read anew each time."""
        return _Again(lambda: (caption for found in self._values(f"target.{task}", split) for caption in found))

    def targets_of(self, task: str, split: str) -> np.ndarray:
        """A task's targets of a split: of a task with labels, 4 or 8 bytes a value are held."""
        column = f"target.{task}"
        blocks = ShardRows(self.shards, self.shards.of(split)).blocks([column])
        return np.concatenate([self.kind(task).from_arrow(block[column]) for block in blocks])

    def counted_targets(self, task: str, split: str) -> np.ndarray:
        """Targets in which each label is as often as in the rows of a split; of shards with counts none are read."""
        shards = self.shards.of(split)
        counts = [shard.labels[task] for shard in shards if task in shard.labels]
        if not counts or len(counts) < len(shards):  # written before they were kept
            return self.targets_of(task, split)
        return self.kind(task).as_counted(np.sum(counts, axis=0).tolist())

    def has_target(self, task: str, split: str) -> bool:
        """Whether any row of a split says anything of a task; read is no more than up to the first that does."""
        if any(np.any(shard.labels.get(task, 0)) for shard in self.shards.of(split)):
            return True
        column = f"target.{task}"
        blocks = ShardRows(self.shards, self.shards.of(split)).blocks([column])
        kind = self.kind(task)
        return any(kind.labelled(kind.from_arrow(block[column])).any() for block in blocks)

    def _values(self, column: str, split: str) -> Iterator[Any]:
        for block in ShardRows(self.shards, self.shards.of(split)).blocks([column]):
            yield from block[column].to_pylist()


class _Again:
    """What can be gone through again, as it is begun anew each time."""

    def __init__(self, begin: Callable[[], Iterator[str]]):
        self.begin = begin

    def __iter__(self) -> Iterator[str]:
        return self.begin()


def load_shards(
    manifest: Manifest,
    *,
    tasks: Sequence[str] | None = None,
    labels: dict[str, list[str]] | None = None,
    fold: int | None = None,
    damaged: str = "error",
) -> ShardedTable:
    """The table of a manifest whose rows are shards. Leaks and copies were refused when these were written.

    Args:
        manifest: Its `rows` names the index.
        tasks: Which of its tasks; default: all.
        labels: A model's label names by task; those of the shards must be the same.
        fold: Must be None: shards have their splits.
        damaged: What is done about damaged shards (see `open_shards`).

    Raises:
        MmfuseError: A shard is damaged, there are training rows only, or the manifest says otherwise than the one the
            shards were written by.
    """
    where = manifest.source
    if fold is not None:
        raise MmfuseError(f"{where}: data.fold: shards have their splits already; shard each fold by itself")
    shards = open_shards(manifest.rows, damaged)
    _check_manifest(manifest, f"{shards.url}/manifest.yaml")
    chosen = list(manifest.tasks) if tasks is None else list(tasks)
    for task in chosen:
        if task not in manifest.tasks:
            raise MmfuseError(f"{where}: no task {task!r}; {nearest(task, manifest.tasks)}")
        _check_task(manifest, task, shards, (labels or {}).get(task))
    order = [shard for split in EVALUATED for shard in shards.of(split)]
    if not order:
        raise MmfuseError(f"{shards.url}: no shard is of split validation or test; a model is scored on one of them")
    columns = ["id", "group", "text", *(f"subgroup.{name}" for name in manifest.subgroups)]
    columns += [f"target.{task}" for task in chosen]
    rows = ShardRows(shards, order)
    return ShardedTable(
        **table_parts(manifest, {task: shards.labels[task] for task in chosen}, rows.read(0, len(rows), columns)),
        splits=[shard.split for shard in order for _ in range(shard.rows)],
        encoded=ShardImages(rows),
        shards=shards,
        with_image=np.concatenate([_with_image(shards, shard) for shard in order]),
    )


def table_parts(manifest: Manifest, labels: dict[str, list[str]], found: pa.Table) -> dict[str, Any]:
    """A Table's manifest, rows, labels and targets, of columns of shards."""
    plain = [name for name in found.column_names if name != "images" and not name.startswith("target.")]
    kept = InMemoryTable(found.select(plain))
    return {
        "manifest": manifest,
        "rows": datasets.Dataset(kept, fingerprint="shards"),  # else datasets would hash all of it
        "labels": labels,
        "targets": {
            task: task_of(manifest.tasks[task], names).from_arrow(found[f"target.{task}"])
            for task, names in labels.items()
        },
    }


def _with_image(shards: Shards, shard: Shard) -> np.ndarray:
    if shard.without_image in (0, shard.rows):
        return np.full(shard.rows, shard.without_image == 0)
    blocks = ShardRows(shards, [shard]).blocks(["images"])
    return np.concatenate([pc.list_value_length(block["images"]).to_numpy() > 0 for block in blocks])  # type: ignore[attr-defined]


def _check_manifest(manifest: Manifest, written: str) -> None:
    """What the shards hold was made by the manifest beside them: another one must not say otherwise of it."""
    then = load_manifest(written)
    for name in ("id", "group", "text", "subgroups", "splits"):
        if getattr(manifest, name) != getattr(then, name) and not (name == "text" and manifest.text is None):
            raise MmfuseError(
                f"{manifest.source}: {name}: not as in {written}, by which the shards were written: change it back, or "
                "shard again"
            )


_NOT_ENCODED = ("report_metrics", "language", "label_origin", "unit")
"""What a manifest may say otherwise of a task than the shards: their targets do not depend on it."""


def _check_task(manifest: Manifest, task: str, shards: Shards, labels: list[str] | None) -> None:
    where, now, then = manifest.source, manifest.tasks[task].to_dict(), shards.tasks.get(task)
    if then is None:
        raise MmfuseError(
            f"{where}: tasks.{task}: it is not in the shards; {nearest(task, shards.tasks)}, or shard again"
        )
    for name, value in now.items():
        if value != then.get(name) and name not in _NOT_ENCODED:
            raise MmfuseError(
                f"{where}: tasks.{task}.{name} is {value!r}, but the shards were written with {then.get(name)!r}: "
                "change it back, or shard again"
            )
    if labels is not None and labels != shards.labels[task]:
        raise MmfuseError(
            f"{where}: tasks.{task}: the shards' labels are {shards.labels[task]}, the model's are {labels}"
        )
