"""A manifest's rows as one Arrow table with encoded targets and a split for every row."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import tempfile
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import datasets
import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from datasets.table import InMemoryTable
from fsspec.implementations.local import LocalFileSystem
from pyarrow.lib import ArrowException

from mmfuse.data.images import content_hash
from mmfuse.data.manifest import PLACEHOLDER, Manifest, TaskSpec
from mmfuse.data.sections import select_sections
from mmfuse.data.shards import is_shards
from mmfuse.data.splits import split_by_hash, split_stratified
from mmfuse.data.texts import open_local, read_bytes
from mmfuse.registry import nearest
from mmfuse.types import MISSING_CLASS, MmfuseError, Sample

SPLITS = ("train", "validation", "test")
_MAX_BYTES = 2**36
_BLOCK = 8192
_DEFAULT_RATIOS = {"train": 0.7, "validation": 0.1, "test": 0.2}


@dataclass
class Table:
    """A dataset as it is trained on.

    Attributes:
        manifest: Where it comes from.
        rows: Columns `id`, `group`, `images` (list), `text` (None where missing), and `subgroup.<name>`.
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

    def captions(self, task: str, split: str) -> Iterable[str]:
        """All references of a captioning task in a split; they may be gone through more than once."""
        return [caption for captions in self.targets_of(task, split) for caption in captions]

    def images(self) -> Sequence[Sequence[str | bytes]]:
        """By row its images: paths and URLs, or encoded bytes."""
        return self.rows["images"][:]

    def sample(self, index: int) -> Sample:
        """One row as a sample, without its targets."""
        row: dict[str, Any] = self.rows[index]
        return Sample(
            id=row["id"],
            images=tuple(row["images"]),
            text=row["text"],
            group=row["group"],
            subgroups={k.removeprefix("subgroup."): v for k, v in row.items() if k.startswith("subgroup.")},
        )

    def has_text(self) -> np.ndarray:
        """`(rows,)` bool."""
        return np.array([text is not None for text in self.rows["text"]], dtype=bool)

    def has_image(self) -> np.ndarray:
        """`(rows,)` bool."""
        return np.array([bool(images) for images in self.rows["images"]], dtype=bool)

    def save_splits(self, path: Path) -> None:
        """Write `id,group,split`, a line a row."""
        with path.open("w", newline="", encoding="utf-8") as handle:
            writer = csv.writer(handle)
            writer.writerow(["id", "group", "split"])
            writer.writerows(zip(self.rows["id"], self.rows["group"], self.splits, strict=True))


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
    frame = read_rows(manifest.rows, manifest.source)
    where = manifest.source
    _need_columns(frame, [manifest.id], "id", where)
    ids = [str(i).strip() for i in frame[manifest.id]]
    repeated = [i for i, n in Counter(ids).items() if n > 1] if len(set(ids)) < len(ids) else []
    if repeated or "" in ids:
        what = f"{repeated[0]!r} stands in {ids.count(repeated[0])} rows" if repeated else "a row has none"
        raise MmfuseError(f"{where}: id: column {manifest.id!r} must name each row once, but {what}")
    groups = ids
    if manifest.group:
        _need_columns(frame, [manifest.group], "group", where)
        groups = [g.strip() or f"row {i}" for g, i in zip(frame[manifest.group], ids, strict=True)]
    columns = {
        "id": pa.array(ids, pa.string()),
        "group": pa.array(groups, pa.string()),
        "images": pa.array(_images(frame, manifest), pa.list_(pa.string())),
        "text": pa.array(_texts(frame, manifest), pa.string()),
    }
    _need_columns(frame, manifest.subgroups, "subgroups", where)
    columns |= {f"subgroup.{name}": pa.array(frame[name], pa.string()) for name in manifest.subgroups}
    # Without a fingerprint, all of the rows would be pickled for one.
    rows = datasets.Dataset(InMemoryTable(pa.table(columns)), fingerprint=uuid.uuid4().hex)

    chosen = list(manifest.tasks) if tasks is None else list(tasks)
    for task in chosen:
        if task not in manifest.tasks:
            raise MmfuseError(f"{where}: no task {task!r}; {nearest(task, manifest.tasks)}")
    encoded = {t: _encode(frame, t, manifest.tasks[t], where, (labels or {}).get(t)) for t in chosen}
    stratify = manifest.splits.stratify
    if stratify and stratify not in encoded:
        strata = _encode(frame, stratify, manifest.tasks[stratify], where, None)
    else:
        strata = encoded.get(stratify) if stratify else None
    table = Table(
        manifest=manifest,
        rows=rows,
        labels={t: names for t, (names, _) in encoded.items()},
        targets={t: values for t, (_, values) in encoded.items()},
        splits=_split(frame, manifest, ids, groups, strata, fold),
    )
    del frame, ids, groups  # what follows needs some memory of its own
    leaks = [] if allow_leaks else find_leaks(table)
    if leaks:
        raise MmfuseError(leaks[0])
    for task, copies in find_copies(table).items():
        if not manifest.tasks[task].allow_copies:
            name = table.rows[copies[0]]["id"]
            raise MmfuseError(
                f"{where}: tasks.{task}: the input text of {len(copies)} row(s), such as {name!r}, contains the "
                f"caption: the model would copy it; take that text out of text.columns, or tasks.{task}.allow_copies: "
                "true"
            )
    return table


def read_rows(pattern: str, where: str) -> pd.DataFrame:
    """A csv, tsv, jsonl or parquet file, a glob of them, or a URL: every column as text, nothing guessed.

    `007` stays `007`, and "NA" and "None" are what they say. An absent value is an empty string.

    Args:
        pattern: Path, glob or fsspec URL.
        where: Named in errors.

    Raises:
        MmfuseError: Nothing is there, or it cannot be read.
    """
    try:
        files = [pattern] if os.path.lexists(pattern) else _expand(pattern)
    except Exception as error:  # every remote file system has its own exceptions
        raise MmfuseError(f"{where}: rows: {pattern}: {_first_line(error)}") from error
    if not files:
        raise MmfuseError(f"{where}: rows: {pattern}: no such file")
    frames = []
    for file in files:
        try:
            frames.append(_read_one(read_bytes(file, _MAX_BYTES), file))
        except (ValueError, KeyError, OSError, ArrowException, RecursionError) as error:
            # pandas' parse errors, most of Arrow's, and MmfuseError are ValueErrors
            raise MmfuseError(f"{where}: rows: {file}: {_first_line(error)}") from error
    frame = pd.concat(frames, ignore_index=True).fillna("")
    if not len(frame):
        raise MmfuseError(f"{where}: rows: {pattern}: no rows")
    return frame


def _expand(pattern: str) -> list[str]:
    system, _, paths = fsspec.get_fs_token_paths(pattern)
    return [str(path) if isinstance(system, LocalFileSystem) else system.unstrip_protocol(path) for path in paths]


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:400]


def _read_one(data: bytes, name: str) -> pd.DataFrame:
    return pd.concat(_read_blocks(io.BytesIO(data), name), ignore_index=True)


def _read_blocks(file: BinaryIO, name: str) -> Iterator[pd.DataFrame]:
    """Some thousand rows after the other; at least one block, of no rows if there are none."""
    suffix = name.lower().rsplit(".", 1)[-1]
    if suffix == "parquet":
        yield from _parquet_blocks(file)
    elif suffix in ("jsonl", "ndjson"):
        rows = _json_rows(file)
        yield pd.DataFrame(list(islice(rows, _BLOCK)), dtype="object")
        while block := list(islice(rows, _BLOCK)):
            yield pd.DataFrame(block, dtype="object")
    elif suffix in ("csv", "tsv", "txt"):
        yield from _csv_blocks(file, "," if suffix == "csv" else "\t")
    else:
        raise MmfuseError(f"cannot tell what .{suffix} is; legal: csv, tsv, jsonl, parquet")


def _parquet_blocks(file: BinaryIO) -> Iterator[pd.DataFrame]:
    found = pq.ParquetFile(file)
    none = pa.RecordBatch.from_pylist([], schema=found.schema_arrow)
    for batch in found.iter_batches(_BLOCK) if found.metadata.num_rows else [none]:
        frame = batch.to_pandas(types_mapper=pd.ArrowDtype)
        frame.columns = frame.columns.map(str)
        _check_once(frame.columns)
        yield frame.map(_as_text)


def _csv_blocks(file: BinaryIO, separator: str) -> Iterator[pd.DataFrame]:
    zeros = sum(part.count(b"\0") for part in iter(lambda: file.read(2**20), b""))
    if 10 * zeros > file.tell():  # a stray one is a fault of its row, which `data check` tells
        raise ValueError("NUL bytes: no text, or in another encoding than UTF-8")
    options: dict[str, Any] = {
        "sep": separator,
        "dtype": "object",
        "keep_default_na": False,
        "na_filter": False,
        "encoding": "utf-8-sig",
    }
    file.seek(0)
    header = pd.read_csv(file, header=None, nrows=1, **options)
    _check_once([name for name in header.iloc[0] if name])  # pandas would number the second one
    file.seek(0)
    blocks: Any = pd.read_csv(file, chunksize=_BLOCK, **options)
    with blocks:
        for frame in blocks:
            if not isinstance(frame.index, pd.RangeIndex):  # pandas has made row names of the first column
                raise ValueError(
                    "the rows have more fields than the header: one that holds the separator must be in quotes"
                )
            yield frame


def _json_rows(file: BinaryIO) -> Iterator[dict[str, str]]:
    for number, data in enumerate(file, start=1):  # at each \n alone: other line breaks are legal inside a string
        try:
            line = data.decode("utf-8-sig" if number == 1 else "utf-8")
            if not line.strip():
                continue
            row = json.loads(line, object_pairs_hook=_json_object)
        except MmfuseError as error:
            raise ValueError(f"line {number}: {error}") from error
        except ValueError as error:
            raise ValueError(f"line {number}: not JSON: {error}") from error
        except RecursionError as error:
            raise ValueError(f"line {number}: nested too deep") from error
        if not isinstance(row, dict):
            raise ValueError(f"line {number}: an object, {{...}}, is expected")
        yield {k: _as_text(v).encode(errors="backslashreplace").decode() for k, v in row.items()}  # of UTF-16's halves


def _json_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        _check_once([name for name, _ in pairs])
    return found


def _check_once(names: Iterable[str]) -> None:
    for name, n in Counter(names).items():
        if n > 1:
            raise MmfuseError(f"the column {name!r} stands there twice")


def _as_text(value: Any) -> str:
    if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return ""
    return value if isinstance(value, str) else json.dumps(value) if isinstance(value, (list, dict)) else str(value)


def _need_columns(frame: pd.DataFrame, names: Iterable[str], key: str, where: str) -> None:
    for name in names:
        if name not in frame.columns:
            raise MmfuseError(
                f"{where}: {key}: the rows have no column {name!r}; {nearest(name, map(str, frame.columns))}"
            )


def _images(frame: pd.DataFrame, manifest: Manifest) -> list[list[str]]:
    spec = manifest.image
    if spec is None:
        return [[] for _ in range(len(frame))]
    names = spec.columns or [str(spec.column)]
    _need_columns(frame, names, "image.column" if spec.column else "image.columns", manifest.source)
    rows = []
    for values in zip(*(frame[name] for name in names), strict=True):
        parts = [p for v in values for p in (v.split(spec.separator) if spec.separator else [v])]
        rows.append([p if "://" in p or os.path.isabs(p) else f"{spec.root}/{p}" for p in map(str.strip, parts) if p])
    return rows


def _texts(frame: pd.DataFrame, manifest: Manifest) -> list[str | None]:
    spec = manifest.text
    if spec is None:
        return [None] * len(frame)
    _need_columns(frame, spec.columns, "text.columns", manifest.source)
    absent = {"", *spec.missing}
    texts: list[str | None] = []
    for values in zip(*(frame[name] for name in spec.columns), strict=True):
        parts = {n: ("" if v.strip() in absent else v.strip()) for n, v in zip(spec.columns, values, strict=True)}
        if spec.sections:
            chosen = {name: select_sections(report, spec.sections) for name, report in parts.items()}
            parts = {name: "" if text in absent else text for name, text in chosen.items()}
        if not any(parts.values()):
            texts.append(None)
        elif spec.template is None:
            texts.append("\n".join(p for p in parts.values() if p))
        else:
            texts.append(_fill(spec.template, parts).strip() or None)
    return texts


def _fill(template: str, parts: dict[str, str]) -> str:
    return PLACEHOLDER.sub(lambda found: parts[found[1]], template)


def _encode(
    frame: pd.DataFrame, task: str, spec: TaskSpec, where: str, labels: list[str] | None
) -> tuple[list[str], np.ndarray]:
    """The label names and encoded targets of one task; `labels` are a model's, if it is to be one's with them."""
    path = f"{where}: tasks.{task}"
    columns = [spec.column] if spec.column else list(spec.columns or [])
    _need_columns(frame, columns, f"tasks.{task}", where)
    if spec.type == "captioning":
        return [], _encode_captions(frame, columns, spec, path)
    if spec.type == "classification":
        return _encode_classes(list(frame[columns[0]]), spec, path, labels)
    if spec.columns:
        return _encode_label_columns(frame, spec, path, labels)
    return _encode_label_lists(list(frame[columns[0]]), spec, path, labels)


def _value_map(spec: TaskSpec) -> dict[str, str] | None:
    """Raw value -> label, or None where every value is its own label."""
    return {v: v for v in spec.values} if isinstance(spec.values, list) else spec.values


def _rare(counts: Counter[str], spec: TaskSpec, labels: list[str] | None) -> set[str]:
    """The labels that `min_count` leaves out; never one of a model's `labels`."""
    return {name for name, n in counts.items() if n < spec.min_count} - set(labels or ())


def _fit_labels(found: set[str], rare: set[str], spec: TaskSpec, path: str, labels: list[str] | None) -> list[str]:
    """The label names: the model's if given (then nothing else may occur), else in the manifest's or sorted order."""
    if labels is not None:
        strange = sorted(found - set(labels))
        if strange:
            raise MmfuseError(f"{path}: label {strange[0]!r} is not one of the model's; {nearest(strange[0], labels)}")
        return labels
    table = _value_map(spec)
    names = [name for name in (dict.fromkeys(table.values()) if table else sorted(found)) if name not in rare]
    if len(names) < (2 if spec.type == "classification" else 1):
        raise MmfuseError(f"{path}: only {names} is left as label; a task needs more (see values, min_count)")
    return names


def _encode_classes(
    column: list[str], spec: TaskSpec, path: str, labels: list[str] | None
) -> tuple[list[str], np.ndarray]:
    table, absent = _value_map(spec), {"", *spec.missing}
    values: list[str | None] = []
    for row, raw in enumerate(column):
        raw = raw.strip()
        if raw in absent:
            values.append(None)
        elif table is None:
            values.append(raw)
        elif raw in table:
            values.append(table[raw])
        elif spec.other == "missing":
            values.append(None)
        else:
            raise MmfuseError(
                f"{path}: row {row + 1}: {raw!r} is not in values; {nearest(raw, table)} (or other: missing)"
            )
    counts = Counter(v for v in values if v is not None)
    if table is not None and spec.min_count > 1:  # by default, a declared class may have no row
        counts.update(dict.fromkeys(table.values(), 0))
    rare = _rare(counts, spec, labels)
    values = [None if v in rare else v for v in values]
    names = _fit_labels({v for v in values if v is not None}, rare, spec, path, labels)
    code = {name: i for i, name in enumerate(names)}
    return names, np.array([MISSING_CLASS if v is None else code[v] for v in values], dtype=np.int64)


def _encode_label_lists(
    column: list[str], spec: TaskSpec, path: str, labels: list[str] | None
) -> tuple[list[str], np.ndarray]:
    table, absent, separator = _value_map(spec), set(spec.missing), (spec.separator or "").strip() or spec.separator
    rows: list[list[str] | None] = []
    for row, raw in enumerate(column):
        raw = raw.strip()
        if raw in absent or (not raw and spec.empty == "missing"):
            rows.append(None)
            continue
        found = [part.strip() for part in raw.split(separator) if part.strip()]
        strange = [part for part in found if table is not None and part not in table]
        if strange and spec.other == "error":
            raise MmfuseError(
                f"{path}: row {row + 1}: {strange[0]!r} is not in values; {nearest(strange[0], table or [])}"
            )
        rows.append([table[part] if table else part for part in found if part not in strange])
    counts = Counter(label for found in rows if found for label in set(found))
    counts.update(dict.fromkeys((table or {}).values(), 0))
    rare = _rare(counts, spec, labels)
    rows = [None if found is None else [f for f in found if f not in rare] for found in rows]
    names = _fit_labels({label for found in rows if found for label in found}, rare, spec, path, labels)
    code = {name: i for i, name in enumerate(names)}
    targets = np.zeros((len(rows), len(names)), dtype=np.float32)
    for i, found in enumerate(rows):
        if found is None:
            targets[i] = np.nan
        else:
            targets[i, [code[f] for f in found]] = 1
    return names, targets


def _encode_captions(frame: pd.DataFrame, columns: list[str], spec: TaskSpec, path: str) -> np.ndarray:
    """By row its references: of a list, of a column with a separator, or of several columns."""
    absent = {"", *spec.missing}
    found = np.empty(len(frame), dtype=object)
    for row, values in enumerate(zip(*(frame[name] for name in columns), strict=True)):
        parts: list[str] = []
        for value in values:
            if value.startswith("["):  # a list in jsonl or parquet
                parts += _caption_list(value, path, row)
            else:
                parts += value.split(spec.separator) if spec.separator else [value]
        if spec.section:
            parts = [select_sections(report, [spec.section]) for report in parts]
        found[row] = tuple(dict.fromkeys(" ".join(p.split()) for p in parts if p.strip() not in absent))
    if not any(found):
        raise MmfuseError(f"{path}: no row has a caption")
    return found


def _caption_list(value: str, path: str, row: int) -> list[str]:
    try:
        parts = json.loads(value)
    except ValueError:
        return [value]  # a text that begins with a bracket
    if not all(isinstance(part, str) for part in parts):
        raise MmfuseError(f"{path}: row {row + 1}: a list of captions is expected to hold strings only")
    return parts


_POSITIVE, _NEGATIVE, _UNCERTAIN = {"1", "1.0", "yes", "true"}, {"0", "0.0", "no", "false"}, {"-1", "-1.0"}


def _encode_label_columns(
    frame: pd.DataFrame, spec: TaskSpec, path: str, labels: list[str] | None
) -> tuple[list[str], np.ndarray]:
    uncertain = {"mask": np.nan, "positive": 1.0, "negative": 0.0}[spec.uncertain]
    absent = {"", *spec.missing}
    names, columns = [], []
    for name in spec.columns or []:
        values = np.full(len(frame), np.nan, dtype=np.float32)
        for row, raw in enumerate(frame[name]):
            raw = raw.strip()
            if not raw and spec.empty == "negative":
                values[row] = 0.0
            elif raw in absent:
                continue
            elif raw.lower() in _POSITIVE or raw.lower() in _NEGATIVE:
                values[row] = raw.lower() in _POSITIVE
            elif raw in _UNCERTAIN:
                values[row] = uncertain
            else:
                raise MmfuseError(
                    f"{path}: column {name!r}, row {row + 1}: {raw!r}; legal: 1, 0, -1 (uncertain), empty"
                )
        if name in (labels or ()) or np.nansum(values) >= spec.min_count:
            names.append(name)
            columns.append(values)
    found = _fit_labels(set(names), set(), spec, path, labels)
    order = [names.index(name) if name in names else None for name in found]
    empty = np.full(len(frame), np.nan, dtype=np.float32)
    return found, np.stack([empty if i is None else columns[i] for i in order], axis=1)


def one_hot(target: np.ndarray, num_labels: int) -> np.ndarray:
    """Encoded targets of either kind as `(rows, L)` 0/1 float64; a missing one is 0 everywhere."""
    if target.ndim == 2:
        return np.nan_to_num(target.astype(np.float64))
    return np.eye(num_labels + 1)[np.where(target == MISSING_CLASS, num_labels, target)][:, :num_labels]


def _split(
    frame: pd.DataFrame,
    manifest: Manifest,
    ids: list[str],
    groups: list[str],
    strata: tuple[list[str], np.ndarray] | None,
    fold: int | None,
) -> list[str]:
    spec, where = manifest.splits, manifest.source
    if spec.folds is None and fold is not None:
        raise MmfuseError(f"{where}: data.fold is given, but splits.folds is not; remove one or add the other")
    if spec.column:
        _need_columns(frame, [spec.column], "splits.column", where)
        names = [spec.names.get(v, v) for v in (str(cell).strip() for cell in frame[spec.column])]
        strange = next((i for i, name in enumerate(names) if name not in SPLITS), None)
        if strange is not None:
            raise MmfuseError(
                f"{where}: splits.column: row {ids[strange]!r} says {names[strange]!r}; legal: {', '.join(SPLITS)} "
                "(splits.names translates other words)"
            )
        return names

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


def find_leaks(table: Table) -> list[str]:
    """Groups, and exact duplicates, that are in two splits: a sentence for each kind, naming two rows; [] for none.

    A duplicate is a row with the same text and the same images (by content) as another; one whose images cannot be
    opened counts as itself. Only rows that share their text are opened.
    """
    where = table.manifest.source
    found = (_leaked_groups(table), _leaked_duplicates(table), _leaked_images(table))
    return [f"{where}: {sentence}" for sentence in found if sentence]


def _leaked_groups(table: Table) -> str | None:
    for first, row in _across_splits(table, "group"):
        a, b = table.rows[first], table.rows[row]
        if a["group"] == b["group"]:
            return (
                f"group {b['group']!r} is in two splits: row {a['id']!r} is {table.splits[first]}, row {b['id']!r} is "
                f"{table.splits[row]}; a group must be in one"
            )
    return None


def _leaked_duplicates(table: Table) -> str | None:
    keys = _hashes(table, "text")
    shared = np.isin(keys, [keys[row] for _, row in _across_splits(table, "text")])
    first_of: dict[tuple[str | None, tuple[str, ...]], int] = {}
    leaks = []
    for i in np.flatnonzero(shared).tolist():
        row = table.rows[i]
        first = first_of.setdefault((row["text"], tuple(_content(path) for path in row["images"])), i)
        if table.splits[first] != table.splits[i]:
            leaks.append((first, i))
    if not leaks:
        return None
    a, b = (table.rows[i]["id"] for i in leaks[0])
    return (
        f"{len(leaks)} exact duplicate(s) across splits, such as rows {a!r} and {b!r}: same text and images; remove "
        "them, or give duplicates the same group"
    )


def _across_splits(table: Table, column: str) -> Iterator[tuple[int, int]]:
    """Rows in another split than the first row with the same hash, that row before each."""
    keys, splits = _hashes(table, column), np.array([SPLITS.index(name) for name in table.splits], dtype=np.int8)
    _, first, value = np.unique(keys, return_index=True, return_inverse=True)
    first = first[value]
    for row in np.flatnonzero(splits != splits[first]).tolist():
        yield int(first[row]), row


def _hashes(table: Table, column: str) -> np.ndarray:
    """`(rows,)` int64: 8 bytes for each text of a column; equal ones are alike, and others almost never."""
    rows = table.rows.select_columns([column])
    blocks = (rows[start : start + _BLOCK][column] for start in range(0, len(rows), _BLOCK))
    return np.fromiter((hash(value) for block in blocks for value in block), dtype=np.int64, count=len(rows))


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


def iter_samples(path: str, id_column: str, image_column: str, text_column: str) -> Iterator[Sample]:
    """The rows of a table as samples to predict, in its order; some thousand rows are in memory at once.

    Args:
        path: A csv, tsv, jsonl or parquet file, or its fsspec URL; a remote one is first copied to a temporary file.
        id_column: Of the ids.
        image_column: Of paths, which are relative to the table's folder, or URLs.
        text_column: Of the reports.

    Raises:
        MmfuseError: It cannot be read, the id column or both of the others are missing, or a row has no id; what
            depends on all rows is told after the last one.
    """
    folder, names = os.path.dirname(path), (id_column, image_column, text_column)
    seen: dict[str, None] = {}
    rows, nameless = 0, None
    try:
        with _open_table(path) as file:
            for frame in _read_blocks(file, path):
                seen |= dict.fromkeys(frame.columns)
                frame, empty = frame.fillna(""), [""] * len(frame)
                for id, image, text in zip(*(frame.get(name, empty) for name in names), strict=True):
                    rows, id, image = rows + 1, id.strip(), image.strip()
                    nameless = nameless or (None if id else rows)
                    if image and "://" not in image:
                        image = os.path.join(folder, image)
                    yield Sample(id, (image,) if image else (), text.strip() or None, group=id)
    except (ValueError, KeyError, OSError, ArrowException, RecursionError) as error:  # as in read_rows
        raise MmfuseError(f"{path}: {_first_line(error)}") from error
    if not rows:
        raise MmfuseError(f"{path}: no rows")
    found = pd.DataFrame(columns=list(seen))  # of jsonl, any row may have brought a column
    _need_columns(found, [id_column], "--id-column", path)
    if image_column not in seen and text_column not in seen:
        _need_columns(found, [image_column], "--image-column", path)
    if nameless:
        raise MmfuseError(f"{path}: --id-column {id_column}: row {nameless} has no id")


@contextmanager
def _open_table(path: str) -> Iterator[BinaryIO]:
    """A local file as it is; of a remote one a copy on this machine's disk, as it is read more than once."""
    if "://" not in path:
        with open_local(path) as file:
            yield file
        return
    with tempfile.TemporaryFile() as copy:
        try:
            with fsspec.open(path, "rb") as remote:
                shutil.copyfileobj(remote, copy)  # type: ignore[arg-type]
        except Exception as error:  # every remote file system has its own exceptions
            raise MmfuseError(_first_line(error)) from error
        copy.seek(0)
        yield copy
