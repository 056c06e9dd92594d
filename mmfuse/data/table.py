"""A manifest's rows as one Arrow table with encoded targets and a split for every row."""

from __future__ import annotations

import csv
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from datasets.table import InMemoryTable

from mmfuse.data import cells
from mmfuse.data.groups import group_columns, join_groups, joins_groups
from mmfuse.data.leaks import copies_error, find_copies, find_leaks
from mmfuse.data.manifest import Manifest
from mmfuse.data.recipe import Recipe
from mmfuse.data.rows import need_columns, read_rows
from mmfuse.data.shards import is_shards
from mmfuse.data.splits import SPLITS, parse_times, split_by_hash, split_by_time, split_stratified
from mmfuse.data.spreadsheet import harmless
from mmfuse.data.targets import encode_targets, labelled, one_hot
from mmfuse.registry import nearest
from mmfuse.types import MmfuseError, Sample

_DEFAULT_RATIOS = {"train": 0.7, "validation": 0.1, "test": 0.2}


@dataclass
class Table:
    """A dataset as it is trained on.

    Attributes:
        manifest: Where it comes from.
        rows: Columns `id`, `group`, `text` (None where missing), `subgroup.<name>`, and `images`: lists of locations,
            or of structs of `bytes` and `path` where any image is encoded in the table itself.
        labels: By task, the label names in the order of the logits.
        targets: By task, `(rows,)` int64 with -100 where missing, or `(rows, L)` float32 with NaN where missing; of a
            captioning task `(rows,)` objects, the tuple of references, empty where missing.
        splits: By row: train, validation or test.
    """

    manifest: Manifest
    rows: datasets.Dataset
    labels: dict[str, list[str]]
    targets: dict[str, np.ndarray]
    splits: list[str]

    block: ClassVar[int | None] = None
    """Where images are read from shards, how many rows' at once."""

    def __len__(self) -> int:
        return len(self.rows)

    def indices(self, split: str) -> list[int]:
        """The rows of a split, in the table's order.

        Raises:
            MmfuseError: No such split, or it is empty.
        """
        chosen = [i for i, name in enumerate(self.splits) if name == split]
        if not chosen:
            counts = ", ".join(f"{name} {n}" for name, n in sorted(Counter(self.splits).items()))
            raise MmfuseError(f"{self.manifest.source}: no row is in split {split!r}; rows a split: {counts}")
        return chosen

    def counts(self) -> dict[str, int]:
        """Rows a split, of those splits that have any."""
        return dict(Counter(self.splits))

    def lacks(self, split: str) -> dict[str, int]:
        """How many rows of a split have no `text`, and no `image`."""
        rows = self.indices(split)
        return {"text": int((~self.has_text()[rows]).sum()), "image": int((~self.has_image()[rows]).sum())}

    def texts(self, split: str) -> Iterable[str]:
        """The texts of a split, empty where there is none; they may be gone through more than once."""
        texts: list[str | None] = self.rows["text"][:]
        return [texts[row] or "" for row in self.indices(split)]

    def targets_of(self, task: str, split: str) -> np.ndarray:
        """A task's targets of a split, as in `targets`."""
        return self.targets[task][self.indices(split)]

    def has_target(self, task: str, split: str) -> bool:
        """Whether any row of a split says anything of a task."""
        return bool(labelled(self.targets_of(task, split)).any())

    def captions(self, task: str, split: str) -> Iterable[str]:
        """All references of a captioning task in a split; they may be gone through more than once."""
        return [caption for captions in self.targets_of(task, split) for caption in captions]

    def images(self) -> Sequence[Sequence[str | bytes]]:
        """By row its images: paths and URLs, or encoded bytes."""
        column = self.rows.data.column("images")
        return PackedImages(column) if pa.types.is_struct(column.type.value_type) else self.rows["images"][:]

    def columns(self, rows: Sequence[int]) -> dict[str, list[Any]]:
        """Some of `rows` as columns, their images as locations and encoded bytes."""
        found: dict[str, list[Any]] = self.rows[rows]
        return {**found, "images": [unpack_images(images) for images in found["images"]]}

    def sample(self, index: int) -> Sample:
        """One row as a sample, without its targets."""
        row: dict[str, Any] = self.rows[index]
        return Sample(
            id=row["id"],
            images=tuple(unpack_images(row["images"])),
            text=row["text"],
            group=row["group"],
            urls=self.manifest.urls,
            subgroups={k.removeprefix("subgroup."): v for k, v in row.items() if k.startswith("subgroup.")},
        )

    def has_text(self) -> np.ndarray:
        """`(rows,)` bool."""
        return np.array([text is not None for text in self.rows["text"]], dtype=bool)

    def has_image(self) -> np.ndarray:
        """`(rows,)` bool."""
        lengths = pc.list_value_length(self.rows.data.column("images"))  # type: ignore[attr-defined]
        return lengths.fill_null(0).to_numpy() > 0

    def save_splits(self, path: Path) -> None:
        """Write `id,group,split`, a line a row; for people, so each cell is `harmless`."""
        with path.open("w", newline="", encoding="utf-8") as handle:
            writer = csv.writer(handle)
            writer.writerow(["id", "group", "split"])
            rows = zip(self.rows["id"], self.rows["group"], self.splits, strict=True)
            writer.writerows(map(harmless, row) for row in rows)


def load_table(
    manifest: Manifest,
    *,
    tasks: Sequence[str] | None = None,
    labels: dict[str, list[str]] | None = None,
    fold: int | None = None,
    allow_leaks: bool = False,
    damaged: str = "error",
) -> Table:
    """Read, encode and split a manifest's rows.

    Args:
        manifest: As `load_manifest` gave it.
        tasks: Which of its tasks; default: all.
        labels: A model's label names by task; the table is then encoded with these, and any other label is an error.
        fold: Where the manifest says folds: which one is the test set, from 0.
        allow_leaks: Do not refuse groups or exact duplicates in two splits; `find_leaks` tells them.
        damaged: Where the rows are shards, what is done about damaged ones (see `open_shards`).

    Returns:
        All rows; of shards those of validation and test, as `mmfuse.data.stream.ShardedTable` says.

    Raises:
        MmfuseError: A file or column is missing, an id is not unique, a target is not legal, a group or an exact
            duplicate is in two splits; the message says which and what is legal.
    """
    if is_shards(manifest.rows):
        from mmfuse.data.stream import load_shards  # which is made of Tables

        return load_shards(manifest, tasks=tasks, labels=labels, fold=fold, damaged=damaged)
    where = manifest.source
    chosen = list(manifest.tasks) if tasks is None else list(tasks)
    for task in chosen:
        if task not in manifest.tasks:
            raise MmfuseError(f"{where}: no task {task!r}; {nearest(task, manifest.tasks)}")
    stratify = manifest.splits.stratify
    needed = needed_columns(manifest, [*chosen, stratify] if stratify else chosen)
    frame = read_rows(manifest.rows, where, needed, manifest.csv)
    ids, groups = identify_rows(frame, manifest)
    if len(set(ids)) < len(ids) or "" in ids:
        raise id_error(manifest, Counter(ids))
    described = dict(describe_rows(frame, manifest))
    if joins_groups(manifest, frame.columns):
        groups = join_groups(frame, manifest, ids, described["text"], described["images"])
    columns = {"id": pa.array(ids, pa.string()), "group": pa.array(groups, pa.string())}
    for name in list(described):
        values = described.pop(name)
        columns[name] = _pack_images(values) if name == "images" else pa.array(values, pa.string())
    # Without a fingerprint, all of the rows would be pickled for one.
    rows = datasets.Dataset(InMemoryTable(pa.table(columns)), fingerprint=uuid.uuid4().hex)

    encoded = {t: encode_targets(frame, t, manifest.tasks[t], where, (labels or {}).get(t)) for t in chosen}
    if stratify and stratify not in encoded:
        strata = encode_targets(frame, stratify, manifest.tasks[stratify], where, None)
    else:
        strata = encoded.get(stratify) if stratify else None
    table = Table(
        manifest=manifest,
        rows=rows,
        labels={t: names for t, (names, _) in encoded.items()},
        targets={t: values for t, (_, values) in encoded.items()},
        splits=assign_splits(frame, manifest, ids, groups, strata, fold),
    )
    del frame, ids, groups  # what follows needs some memory of its own
    leaks = [] if allow_leaks else find_leaks(table)
    if leaks:
        raise MmfuseError(leaks[0])
    for task, copies in find_copies(table).items():
        if not manifest.tasks[task].allow_copies:
            raise copies_error(where, task, len(copies), table.rows[copies[0]]["id"])
    return table


def needed_columns(manifest: Manifest, tasks: Iterable[str]) -> list[str]:
    """All columns that a manifest names, of its tasks those of `tasks`."""
    targets = [name for task in tasks for name in manifest.tasks[task].named]
    splits = [name for name in (manifest.splits.column, manifest.splits.time) if name]
    others = [manifest.id, *manifest.group_names, *splits]
    return list(dict.fromkeys([*others, *Recipe.of(manifest).columns(), *targets, *manifest.subgroups]))


def identify_rows(frame: pd.DataFrame, manifest: Manifest, first: int = 0) -> tuple[list[str], list[str]]:
    """The ids and groups of rows; where groups are joined (see `joins_groups`), each row is one by itself.

    Args:
        frame: The rows.
        manifest: Theirs.
        first: The number of the first row, from 0; named in errors.

    Raises:
        MmfuseError: A column is missing, or holds something else than texts.
    """
    where = manifest.source
    need_columns(frame, [manifest.id], "id", where)
    ids = [i.strip() for i in cells.texts(frame, manifest.id, where, "id", first)]
    if not manifest.group or joins_groups(manifest, frame.columns):
        return ids, ids
    (name,), _ = group_columns(manifest, frame.columns)
    need_columns(frame, [name], "group", where)
    groups = cells.texts(frame, name, where, "group", first)
    return ids, [g.strip() or f"row {i}" for g, i in zip(groups, ids, strict=True)]


def id_error(manifest: Manifest, counts: Counter[str]) -> MmfuseError:
    """What is said where ids, of which there are so many each, do not name each row once."""
    repeated = next((i for i, n in counts.items() if i and n > 1), None)
    what = "a row has none" if repeated is None else f"{repeated!r} stands in {counts[repeated]} rows"
    return MmfuseError(f"{manifest.source}: id: column {manifest.id!r} must name each row once, but {what}")


def describe_rows(frame: pd.DataFrame, manifest: Manifest, first: int = 0) -> Iterator[tuple[str, list[Any]]]:
    """The other columns of `Table.rows`, one after the other; images as locations and bytes.

    Args:
        frame: The rows.
        manifest: Theirs.
        first: The number of the first row, from 0; named in errors.

    Raises:
        MmfuseError: A column is missing, or holds what it should not.
    """
    recipe = Recipe.of(manifest)
    yield "images", recipe.images(frame, manifest.source, first)
    yield "text", recipe.texts(frame, manifest.source, first)
    need_columns(frame, manifest.subgroups, "subgroups", manifest.source)
    for name in manifest.subgroups:
        yield f"subgroup.{name}", cells.texts(frame, name, manifest.source, "subgroups", first)


_IMAGE = pa.struct([("bytes", pa.large_binary()), ("path", pa.string())])


def _pack_images(rows: Sequence[Sequence[str | bytes]]) -> pa.Array:
    if not any(isinstance(image, bytes) for images in rows for image in images):
        return pa.array(rows, pa.list_(pa.string()))
    packed = ([{"bytes": i, "path": None} if isinstance(i, bytes) else {"path": i} for i in images] for images in rows)
    return pa.array(packed, pa.list_(_IMAGE))


class PackedImages(Sequence):
    """By row its images, locations and bytes, taken out of an Arrow column when they are asked for."""

    def __init__(self, column: pa.ChunkedArray):
        self.column = column

    def __len__(self) -> int:
        return len(self.column)

    def __getitem__(self, row: Any) -> Any:
        return unpack_images(self.column[row].as_py())


def unpack_images(images: Sequence[Any]) -> list[str | bytes]:
    """A row's images out of `Table.rows`, as locations and bytes."""
    return [image if not isinstance(image, dict) else image["path"] or image["bytes"] for image in images]


def assign_splits(
    frame: pd.DataFrame,
    manifest: Manifest,
    ids: list[str],
    groups: list[str],
    strata: tuple[list[str], np.ndarray] | None,
    fold: int | None,
) -> list[str]:
    """A split for each row, as the manifest says; each row by itself unless it is `stratify`, `exact` or `time`.

    Args:
        frame: The rows.
        manifest: Theirs.
        ids: Of the rows; named in errors.
        groups: Of the rows; those of one group get one split.
        strata: Label names and encoded targets of the task to stratify by.
        fold: Which fold is the test set.

    Raises:
        MmfuseError: The column is missing or says anything else, or there is no such fold.
    """
    spec, where = manifest.splits, manifest.source
    if spec.folds is None and fold is not None:
        raise MmfuseError(f"{where}: data.fold is given, but splits.folds is not; remove one or add the other")
    if spec.column:
        need_columns(frame, [spec.column], "splits.column", where)
        names = [spec.names.get(v, v) for v in map(str.strip, cells.texts(frame, spec.column, where, "splits.column"))]
        strange = next((i for i, name in enumerate(names) if name not in SPLITS), None)
        if strange is not None:
            raise MmfuseError(
                f"{where}: splits.column: row {ids[strange]!r} says {names[strange]!r}; legal: {', '.join(SPLITS)} "
                "(splits.names translates other words)"
            )
        return names
    if spec.time:
        need_columns(frame, [spec.time], "splits.time", where)
        times = parse_times(cells.texts(frame, spec.time, where, "splits.time"), ids, f"{where}: splits.time")
        return split_by_time(groups, times, spec.ratios or _DEFAULT_RATIOS, f"{where}: splits.time")

    def assign(rows: Sequence[int], shares: dict[str, float], seed: int) -> list[str]:
        members = [groups[i] for i in rows]
        if strata is None and spec.exact:
            return split_stratified(members, np.zeros((len(rows), 0)), shares, seed)
        if strata is None:
            return split_by_hash(members, shares, seed)
        return split_stratified(members, one_hot(strata[1], len(strata[0]))[list(rows)], shares, seed)

    everything = range(len(ids))
    if spec.folds is None:
        return assign(everything, spec.ratios or _DEFAULT_RATIOS, spec.seed)
    total = spec.folds * spec.repeats
    if fold is None or not 0 <= fold < total:
        raise MmfuseError(f"{where}: the manifest says {total} folds: choose one with data.fold=0 to {total - 1}")
    repeat, number = divmod(fold, spec.folds)
    seed = spec.seed + 1000 * repeat
    parts = assign(everything, {str(k): 1 / spec.folds for k in range(spec.folds)}, seed)
    rest = [i for i in everything if parts[i] != str(number)]
    shares = {"train": 1 - spec.validation, "validation": spec.validation}
    names = ["test"] * len(ids)
    for i, name in zip(rest, assign(rest, shares, seed + 1 + number), strict=True):
        names[i] = name
    return names
