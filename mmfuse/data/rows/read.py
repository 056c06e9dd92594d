"""Rows of files, folders and datasets as cells (`mmfuse.cells`), whole or some thousand at a time."""

from __future__ import annotations

import io
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice

import fsspec
import pandas as pd
from fsspec.implementations.local import LocalFileSystem
from pyarrow.lib import ArrowException

from mmfuse.data.files.read import read_bytes
from mmfuse.data.rows.blocks import blocks_of, is_table, read_blocks
from mmfuse.data.rows.delimited import CsvSpec
from mmfuse.data.rows.folder_rows import holds_studies
from mmfuse.data.rows.hugging_face import find_dataset, is_dataset
from mmfuse.registry import nearest
from mmfuse.types import MmfuseError, first_line

_MAX_BYTES = 2**36


def read_rows(
    pattern: str, where: str, columns: Iterable[str] | None = None, csv: CsvSpec | None = None
) -> pd.DataFrame:
    """A csv, tsv, jsonl or parquet file, a glob, a URL, a folder or a dataset: every scalar as text, nothing guessed.

    `007` stays `007`, and "NA" and "None" are what they say. An absent value is an empty string. Of jsonl and parquet,
    lists stay lists, bytes stay bytes, and objects stay dicts (see `mmfuse.cells`).

    Args:
        pattern: As `find_files` takes it.
        where: Named in errors.
        columns: Those that are needed; of parquet, the others are then not read. Default: all, and none is needed.
        csv: How csv and tsv files are written.

    Raises:
        MmfuseError: Nothing is there, or it cannot be read, or one file lacks a needed column that another has.
    """
    wanted = None if columns is None else list(columns)
    frames: dict[str, pd.DataFrame] = {}
    for file in find_files(pattern, where):
        with _one_line(f"{where}: rows: {file}"):
            if is_table(file):
                blocks = read_blocks(io.BytesIO(read_bytes(file, _MAX_BYTES)), file, wanted, csv)
            else:
                blocks = blocks_of(file, wanted, csv)
            frames[file] = pd.concat(blocks, ignore_index=True)
    _check_files({file: frame.columns for file, frame in frames.items()}, wanted or (), where)
    frame = pd.concat(frames.values(), ignore_index=True).fillna("")
    if not len(frame):
        raise MmfuseError(f"{where}: rows: {pattern}: no rows")
    return frame


class RowFiles:
    """The same rows as of `read_rows`, in blocks; nothing of them is held.

    Args:
        pattern: Path, glob or fsspec URL; remote files are copied to a temporary one each time that they are read.
        where: Named in errors.
        csv: How csv and tsv files are written.

    Attributes:
        columns: Of all of the files.

    Raises:
        MmfuseError: As of `read_rows`.
    """

    def __init__(self, pattern: str, where: str, csv: CsvSpec | None = None):
        self.pattern, self.where, self.files, self.csv = pattern, where, find_files(pattern, where), csv
        self._columns: dict[str, dict[str, None]] = {}
        for file in self.files:
            every = file.lower().endswith(("jsonl", "ndjson"))  # any row may bring a column
            found = self._columns[file] = {}
            for frame in self._frames(file, ()) if every else islice(self._frames(file, ()), 1):
                found |= dict.fromkeys(frame.columns)
        self.columns = list(dict.fromkeys(name for found in self._columns.values() for name in found))

    def blocks(self, columns: Sequence[str], size: int) -> Iterator[pd.DataFrame]:
        """Some of the columns, `size` rows at once and what remains at the end; "" where there is no value.

        Raises:
            MmfuseError: A file lacks one of the columns, or cannot be read.
        """
        _check_files(self._columns, columns, self.where)
        held: list[pd.DataFrame] = []
        rows = total = 0
        for file in self.files:
            for frame in self._frames(file, columns):
                held.append(frame.reindex(columns=list(columns), fill_value="").fillna(""))
                rows, total = rows + len(frame), total + len(frame)
                if rows >= size:
                    joined = pd.concat(held, ignore_index=True)
                    held.clear()
                    for start in range(0, rows - size + 1, size):
                        yield joined.iloc[start : start + size]
                    held, rows = [joined.iloc[rows - rows % size :].copy()], rows % size
                    del joined  # before more is read
        if not total:
            raise MmfuseError(f"{self.where}: rows: {self.pattern}: no rows")
        if rows:
            yield pd.concat(held, ignore_index=True)

    def _frames(self, file: str, columns: Iterable[str] | None = None) -> Iterator[pd.DataFrame]:
        with _one_line(f"{self.where}: rows: {file}"):
            yield from blocks_of(file, columns, self.csv)


def _check_files(columns: Mapping[str, Iterable[str]], needed: Iterable[str], where: str) -> None:
    """Refuse a file that lacks a needed column which another has: its rows would count as empty."""
    for name in needed:
        lacking = [file for file, found in columns.items() if name not in found]
        having = [file for file, found in columns.items() if name in found]
        if lacking and having:
            raise MmfuseError(f"{where}: rows: {lacking[0]}: no column {name!r}, which {having[0]} has")


def find_files(pattern: str, where: str) -> list[str]:
    """What a manifest's `rows` name: a path, a glob or a URL of files, a folder, or the files of a dataset.

    Raises:
        MmfuseError: There is none.
    """
    if is_dataset(pattern):
        return find_dataset(pattern, where)
    try:
        files = [pattern] if os.path.lexists(pattern) else _expand(pattern)
    except Exception as error:  # every remote file system has its own exceptions
        raise MmfuseError(f"{where}: rows: {pattern}: {first_line(error)}") from error
    if not files:
        raise MmfuseError(f"{where}: rows: {pattern}: no such file")
    if files == [pattern] and os.path.isdir(pattern) and not holds_studies(pattern):
        raise MmfuseError(f"{where}: rows: {pattern}: a directory; name its files, such as {pattern.rstrip('/')}/*.csv")
    return files


def _expand(pattern: str) -> list[str]:
    system, _, paths = fsspec.get_fs_token_paths(pattern)
    return [str(path) if isinstance(system, LocalFileSystem) else system.unstrip_protocol(path) for path in paths]


@contextmanager
def _one_line(name: str) -> Iterator[None]:
    """What goes wrong while a file is read, as one line that names it."""
    try:
        yield
    except (ValueError, KeyError, OSError, ArrowException, RecursionError) as error:
        # pandas' parse errors, most of Arrow's, and MmfuseError are ValueErrors
        raise MmfuseError(f"{name}: {first_line(error)}") from error


def need_columns(there: Collection[str], names: Iterable[str], key: str, where: str) -> None:
    """Refuse rows, of which these columns are there, that lack one that a key of the manifest, or an option, names.

    Raises:
        MmfuseError: The message names the nearest column that there is.
    """
    for name in names:
        if name not in there:
            raise MmfuseError(f"{where}: {key}: the rows have no column {name!r}; {nearest(name, map(str, there))}")


def read_frames(files: Iterable[str], columns: Iterable[str], csv: CsvSpec) -> Iterator[tuple[str, pd.DataFrame]]:
    """The rows of files, some thousand at a time, each time with the file's name; for the rest as `read_blocks`.

    Raises:
        MmfuseError: One cannot be read.
    """
    for file in files:
        with _one_line(file):
            for frame in blocks_of(file, columns, csv):
                yield file, frame
