"""Rows of Hugging Face datasets, `hf:NAME@SPLIT`: the Arrow and parquet files of a folder, or of a name on the Hub."""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from mmfuse.data.rows.arrow_cells import class_names, dataset_cells, wanted_of
from mmfuse.registry import nearest
from mmfuse.types import MmfuseError, first_line

PREFIX, SPLIT = "hf:", "split"
"""How `rows` begins, and the column that says in which split a row is, where `rows` names none."""
_BLOCK, _BLOCK_BYTES = 8192, 16 * 2**20
_SHARD = re.compile(r"[-_.]?\d+(-of-\d+)?$")


def is_dataset(location: str) -> bool:
    """Whether a location is that of a dataset; `hf://...` is a URL."""
    return location.startswith(PREFIX) and not location.startswith(f"{PREFIX}//")


class DatasetFile(NamedTuple):
    """One file of a dataset, named `hf:PATH@SPLIT`; the split is empty where rows are not to say it."""

    path: str
    split: str

    @classmethod
    def of(cls, name: str) -> DatasetFile:
        """From its name."""
        path, _, split = name.removeprefix(PREFIX).rpartition("@")
        return cls(path, split)

    @property
    def name(self) -> str:
        """As `find_files` gives it."""
        return f"{PREFIX}{self.path}@{self.split}"


def split_name(location: str) -> tuple[str, str]:
    """The folder or name of a dataset, and its splits: joined by +, empty for all."""
    name, at, splits = location.removeprefix(PREFIX).rpartition("@")
    return (name, splits) if at and "/" not in splits else (location.removeprefix(PREFIX), "")


def find_dataset(location: str, where: str) -> list[str]:
    """The files of a dataset, each as `DatasetFile.name`.

    Args:
        location: `hf:NAME@SPLIT`: a folder that `save_to_disk` wrote or that holds parquet files, else a name on the
            Hub. Several splits are joined by +. Where none is named, rows are those of all splits, and the column
            `split` says of which, unless the dataset has a column of that name.
        where: Named in errors.

    Raises:
        MmfuseError: There is no such dataset or split.
    """
    name, said = split_name(location)
    wanted = said.split("+") if said else []
    if os.path.isdir(name):
        there = _in_folder(os.path.abspath(name), where)
    elif not name or os.path.isabs(name) or name.startswith(".") or name.count("/") > 1:
        raise MmfuseError(f"{where}: rows: {location}: no such folder")
    else:
        there = _on_hub(name, wanted, where)
    for split in wanted:
        if split not in there:
            raise MmfuseError(f"{where}: rows: {location}: no split {split!r}; {nearest(split, list(there))}")
    return [DatasetFile(path, "" if said else split).name for split in wanted or there for path in there[split]]


def _in_folder(folder: str, where: str) -> dict[str, list[str]]:
    """By split its files."""
    described = os.path.join(folder, "dataset_dict.json")
    try:
        if os.path.isfile(described):
            with open(described, "rb") as file:
                names = json.load(file)["splits"]
            return {split: _saved(os.path.join(folder, split)) for split in names}
        if os.path.isfile(os.path.join(folder, "state.json")):
            return {"train": _saved(folder)}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MmfuseError(f"{where}: rows: {folder}: not as save_to_disk writes it: {first_line(error)}") from error
    found: dict[str, list[str]] = defaultdict(list)
    for place, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            if name.endswith(".parquet"):
                found[_split_of(os.path.relpath(os.path.join(place, name), folder))].append(os.path.join(place, name))
    if not found:
        raise MmfuseError(
            f"{where}: rows: {folder}: neither saved by save_to_disk nor a folder of parquet files; of images and "
            f"texts, or of tables, leave {PREFIX} out"
        )
    return dict(sorted(found.items()))


def _saved(folder: str) -> list[str]:
    with open(os.path.join(folder, "state.json"), "rb") as file:
        state = json.load(file)
    if state.get("_indices_data_files"):
        raise ValueError("rows are chosen by an index: save it again with datasets 2.0 or later")
    return [os.path.join(folder, os.path.basename(each["filename"])) for each in state["_data_files"]]


def _split_of(file: str) -> str:
    """`train` of train.parquet, of data/train-00000-of-00002.parquet and of train/0000.parquet."""
    parent, stem = os.path.basename(os.path.dirname(file)), os.path.basename(file).removesuffix(".parquet")
    return _SHARD.sub("", stem) or parent or "train"


def _on_hub(name: str, wanted: list[str], where: str) -> dict[str, list[str]]:
    import datasets

    try:
        splits = wanted or datasets.get_dataset_split_names(name)
        loaded = {split: datasets.load_dataset(name, split=split) for split in splits}
    except Exception as error:  # the Hub's client, the network and each format have their own exceptions
        why = f"no such folder, and from the Hub: {first_line(error)}"
        raise MmfuseError(f"{where}: rows: {PREFIX}{name}: {why}") from error
    return {split: [each["filename"] for each in data.cache_files] for split, data in loaded.items()}


def dataset_blocks(file: str, columns: Iterable[str] | None) -> Iterator[pd.DataFrame]:
    """Rows of a dataset's file as cells, some thousand at a time; class numbers as their names.

    Args:
        file: As `find_dataset` names it.
        columns: Those that are needed; none: only their names are told. Default: all.
    """
    path, split = DatasetFile.of(file)
    opened = pq.ParquetFile(path) if path.endswith(".parquet") else pa.ipc.open_stream(pa.memory_map(path))
    schema = opened.schema_arrow if isinstance(opened, pq.ParquetFile) else opened.schema
    classes = class_names(schema)
    told = bool(split) and SPLIT not in schema.names
    names = [*schema.names, *([SPLIT] if told else [])]
    wanted = wanted_of(names, columns)
    rows = 0
    for batch in _batches(opened, [name for name in wanted if name in schema.names]) if wanted else ():
        cells = {name: dataset_cells(batch.column(name), classes.get(name)) for name in batch.schema.names}
        cells |= {SPLIT: [split] * len(batch)} if told else {}
        rows += len(batch)
        yield pd.DataFrame({name: cells[name] for name in wanted}, dtype="object")
    if not rows:
        yield pd.DataFrame(columns=names, dtype="object")


def _batches(opened: Any, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Blocks of no more rows than fit into some memory."""
    if isinstance(opened, pq.ParquetFile):
        groups = [opened.metadata.row_group(i) for i in range(opened.metadata.num_row_groups)]
        each = max((group.total_byte_size // max(1, group.num_rows) for group in groups), default=0)
        yield from opened.iter_batches(max(1, min(_BLOCK, _BLOCK_BYTES // max(1, each))), columns=columns)
        return
    for whole in opened:
        batch = whole.select(columns)
        rows = max(1, min(_BLOCK, _BLOCK_BYTES // max(1, batch.nbytes // max(1, len(batch)))))
        for start in range(0, len(batch), rows):
            yield batch.slice(start, rows)
