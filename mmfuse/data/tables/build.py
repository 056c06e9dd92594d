"""A manifest's files of rows as a `Table`: read, encoded and split."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
from datasets.table import InMemoryTable

from mmfuse import cells
from mmfuse.data.rows.read import need_columns, read_rows
from mmfuse.data.tables.groups import group_columns, join_groups, joins_groups
from mmfuse.data.tables.leaks import copies_error, find_copies, find_leaks
from mmfuse.data.tables.manifest import Manifest, is_numbered, row_numbers
from mmfuse.data.tables.recipe import Recipe
from mmfuse.data.tables.splits import SPLITS, parse_times, split_by_hash, split_by_time, split_stratified
from mmfuse.data.tables.table import Table, pack_images
from mmfuse.registry import nearest
from mmfuse.tasks import TaskSpec, task_of
from mmfuse.types import MmfuseError

_DEFAULT_RATIOS = {"train": 0.7, "validation": 0.1, "test": 0.2}


def read_table(
    manifest: Manifest,
    *,
    tasks: Sequence[str] | None = None,
    labels: dict[str, list[str]] | None = None,
    fold: int | None = None,
    allow_leaks: bool = False,
) -> Table:
    """Read, encode and split a manifest's rows.

    Args:
        manifest: As `load_manifest` gave it.
        tasks: Which of its tasks; default: all.
        labels: A model's label names by task; the table is then encoded with these, and any other label is an error.
        fold: Where the manifest says folds: which one is the test set, from 0.
        allow_leaks: Do not refuse groups or exact duplicates in two splits; `find_leaks` tells them.

    Raises:
        MmfuseError: A file or column is missing, an id is not unique, a target is not legal, a group or an exact
            duplicate is in two splits; the message says which and what is legal.
    """
    where = manifest.source
    chosen = list(manifest.tasks) if tasks is None else list(tasks)
    for task in chosen:
        if task not in manifest.tasks:
            raise MmfuseError(f"{where}: no task {task!r}; {nearest(task, manifest.tasks)}")
    stratify = manifest.splits.stratify
    needed = manifest.columns([*chosen, stratify] if stratify else chosen)
    frame = read_rows(manifest.rows, where, dict.fromkeys(chain(*needed.values())), manifest.csv)
    check_columns(manifest, needed, frame.columns)
    ids, groups = identify_rows(frame, manifest)
    if len(set(ids)) < len(ids) or "" in ids:
        raise id_error(manifest, Counter(ids))
    described = dict(describe_rows(frame, manifest))
    if joins_groups(manifest, frame.columns):
        groups = join_groups(frame, manifest, ids, described["text"], described["images"])
    columns = {"id": pa.array(ids, pa.string()), "group": pa.array(groups, pa.string())}
    for name in list(described):
        values = described.pop(name)
        columns[name] = pack_images(values) if name == "images" else pa.array(values, pa.string())
    # Without a fingerprint, all of the rows would be pickled for one.
    rows = datasets.Dataset(InMemoryTable(pa.table(columns)), fingerprint=uuid.uuid4().hex)

    encoded = {t: _encode(frame, manifest.tasks[t], f"{where}: tasks.{t}", (labels or {}).get(t)) for t in chosen}
    strata = None
    if stratify:
        spec = manifest.tasks[stratify]
        names, values = encoded.get(stratify) or _encode(frame, spec, f"{where}: tasks.{stratify}", None)
        strata = task_of(spec, names).one_hot(values)
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


def _encode(frame: pd.DataFrame, spec: TaskSpec, where: str, labels: list[str] | None) -> tuple[list[str], np.ndarray]:
    """The label names and encoded targets of one task; `labels` are a model's, if it is to be one's with them."""
    found = task_of(spec).read(frame, spec, where)
    names = task_of(spec).choose(task_of(spec).count(found, spec), spec, where, labels)
    return names, task_of(spec, names).encode(found, spec)


def check_columns(manifest: Manifest, needed: Mapping[str, Sequence[str]], there: Collection[str]) -> None:
    """Refuse rows that lack a column which their manifest names.

    Args:
        manifest: Of the rows.
        needed: As its `columns` gives them.
        there: The columns of the rows.

    Raises:
        MmfuseError: The message names the key, and the nearest column that there is.
    """
    for key, names in needed.items():
        if key == "group":
            names = group_columns(manifest, there)[0]
        elif key == "id" and is_numbered(manifest.id, there):
            names = []
        need_columns(there, names, key, manifest.source)


def identify_rows(frame: pd.DataFrame, manifest: Manifest, first: int = 0) -> tuple[list[str], list[str]]:
    """The ids and groups of rows; where groups are joined (see `joins_groups`), each row is one by itself.

    Args:
        frame: The rows.
        manifest: Theirs.
        first: The number of the first row, from 0; named in errors.

    Raises:
        MmfuseError: A column holds something else than texts.
    """
    where = manifest.source
    if is_numbered(manifest.id, frame.columns):
        ids = row_numbers(first, len(frame))
    else:
        ids = [i.strip() for i in cells.texts(frame, manifest.id, where, "id", first)]
    if not manifest.group or joins_groups(manifest, frame.columns):
        return ids, ids
    (name,), _ = group_columns(manifest, frame.columns)
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
        MmfuseError: A column holds what it should not.
    """
    recipe = Recipe.of(manifest)
    yield "images", recipe.images(frame, manifest.source, first)
    yield "text", recipe.texts(frame, manifest.source, first)
    for name in manifest.subgroups:
        yield f"subgroup.{name}", cells.texts(frame, name, manifest.source, "subgroups", first)


def assign_splits(
    frame: pd.DataFrame,
    manifest: Manifest,
    ids: list[str],
    groups: list[str],
    strata: np.ndarray | None,
    fold: int | None,
) -> list[str]:
    """A split for each row, as the manifest says; each row by itself unless it is `stratify`, `exact` or `time`.

    Args:
        frame: The rows.
        manifest: Theirs.
        ids: Of the rows; named in errors.
        groups: Of the rows; those of one group get one split.
        strata: `(rows, labels)` 0 or 1, of the task to stratify by.
        fold: Which fold is the test set.

    Raises:
        MmfuseError: The column says anything else, or there is no such fold.
    """
    spec, where = manifest.splits, manifest.source
    if spec.folds is None and fold is not None:
        raise MmfuseError(f"{where}: data.fold is given, but splits.folds is not; remove one or add the other")
    if spec.column:
        names = [spec.names.get(v, v) for v in map(str.strip, cells.texts(frame, spec.column, where, "splits.column"))]
        strange = next((i for i, name in enumerate(names) if name not in SPLITS), None)
        if strange is not None:
            raise MmfuseError(
                f"{where}: splits.column: row {ids[strange]!r} says {names[strange]!r}; legal: {', '.join(SPLITS)} "
                "(splits.names translates other words)"
            )
        return names
    if spec.time:
        times = parse_times(cells.texts(frame, spec.time, where, "splits.time"), ids, f"{where}: splits.time")
        return split_by_time(groups, times, spec.ratios or _DEFAULT_RATIOS, f"{where}: splits.time")

    def assign(rows: Sequence[int], shares: dict[str, float], seed: int) -> list[str]:
        members = [groups[i] for i in rows]
        if strata is None and spec.exact:
            return split_stratified(members, np.zeros((len(rows), 0)), shares, seed)
        if strata is None:
            return split_by_hash(members, shares, seed)
        return split_stratified(members, strata[list(rows)], shares, seed)

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
