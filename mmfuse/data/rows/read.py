"""Files of rows: csv, tsv, jsonl and parquet, as cells (`mmfuse.cells`), whole or some thousand at a time."""

from __future__ import annotations

import io
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from itertools import islice
from typing import Any, BinaryIO

import fsspec
import pandas as pd
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem
from pyarrow.lib import ArrowException

from mmfuse import cells
from mmfuse.data.files.read import open_local, read_bytes
from mmfuse.data.rows.arrow_cells import cells_of
from mmfuse.data.rows.delimited import CsvSpec, read_delimited
from mmfuse.data.rows.table_kinds import check_kind
from mmfuse.registry import nearest
from mmfuse.types import MmfuseError, first_line

_MAX_BYTES = 2**36
BLOCK = 8192
_BLOCK_BYTES = 16 * 2**20


def read_rows(
    pattern: str, where: str, columns: Iterable[str] | None = None, csv: CsvSpec | None = None
) -> pd.DataFrame:
    """A csv, tsv, jsonl or parquet file, a glob of them, or a URL: every scalar as text, nothing guessed.

    `007` stays `007`, and "NA" and "None" are what they say. An absent value is an empty string. Of jsonl and parquet,
    lists stay lists, bytes stay bytes, and objects stay dicts (see `mmfuse.cells`).

    Args:
        pattern: Path, glob or fsspec URL.
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
            blocks = read_blocks(io.BytesIO(read_bytes(file, _MAX_BYTES)), file, wanted, csv)
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
        with _one_line(f"{self.where}: rows: {file}"), open_table(file) as handle:
            yield from read_blocks(handle, file, columns, self.csv)


def _check_files(columns: Mapping[str, Iterable[str]], needed: Iterable[str], where: str) -> None:
    """Refuse a file that lacks a needed column which another has: its rows would count as empty."""
    for name in needed:
        lacking = [file for file, found in columns.items() if name not in found]
        having = [file for file, found in columns.items() if name in found]
        if lacking and having:
            raise MmfuseError(f"{where}: rows: {lacking[0]}: no column {name!r}, which {having[0]} has")


def find_files(pattern: str, where: str) -> list[str]:
    """The files of a manifest's `rows`: a path, a glob or a URL.

    Raises:
        MmfuseError: There is none.
    """
    try:
        files = [pattern] if os.path.lexists(pattern) else _expand(pattern)
    except Exception as error:  # every remote file system has its own exceptions
        raise MmfuseError(f"{where}: rows: {pattern}: {first_line(error)}") from error
    if not files:
        raise MmfuseError(f"{where}: rows: {pattern}: no such file")
    if files == [pattern] and os.path.isdir(pattern):
        raise MmfuseError(f"{where}: rows: {pattern}: a directory; name its files, such as {pattern.rstrip('/')}/*.csv")
    return files


@contextmanager
def _one_line(name: str) -> Iterator[None]:
    """What goes wrong while a file is read, as one line that names it."""
    try:
        yield
    except (ValueError, KeyError, OSError, ArrowException, RecursionError) as error:
        # pandas' parse errors, most of Arrow's, and MmfuseError are ValueErrors
        raise MmfuseError(f"{name}: {first_line(error)}") from error


def _expand(pattern: str) -> list[str]:
    system, _, paths = fsspec.get_fs_token_paths(pattern)
    return [str(path) if isinstance(system, LocalFileSystem) else system.unstrip_protocol(path) for path in paths]


def read_blocks(
    file: BinaryIO, name: str, columns: Iterable[str] | None = None, csv: CsvSpec | None = None
) -> Iterator[pd.DataFrame]:
    """Some thousand rows after the other; at least one block, of no rows if there are none.

    Args:
        file: At its beginning.
        name: Of the file, whose suffix says what it is.
        columns: Those that are needed: of parquet, the others are not read, and where none is, no row. Default: all.
        csv: How a csv or tsv file is written.

    Raises:
        MmfuseError: It is not what its name says, or malformed; the message does not name it.
    """
    suffix, csv = name.lower().rsplit(".", 1)[-1], csv or CsvSpec()
    check_kind(file, suffix, csv.encoding)
    if suffix == "parquet":
        yield from _parquet_blocks(file, columns)
    elif suffix in ("jsonl", "ndjson"):
        rows = _json_rows(file)
        yield pd.DataFrame(list(islice(rows, BLOCK)), dtype="object")
        while block := list(islice(rows, BLOCK)):
            yield pd.DataFrame(block, dtype="object")
    else:
        with closing(read_delimited(file, suffix, csv, BLOCK)) as blocks:
            for header, rows in blocks:
                _check_once(header)
                yield _frame(header, map(list, zip(*rows, strict=True)) if rows else [[] for _ in header])


def _frame(names: Sequence[str], columns: Iterable[list[Any]]) -> pd.DataFrame:
    return pd.DataFrame(dict(zip(names, columns, strict=True)), dtype="object")


def _parquet_blocks(file: BinaryIO, columns: Iterable[str] | None) -> Iterator[pd.DataFrame]:
    found = pq.ParquetFile(file)
    names = found.schema_arrow.names
    _check_once(names)
    wanted = set(names if columns is None else columns)
    if not found.metadata.num_rows or not wanted:
        yield pd.DataFrame(columns=names, dtype="object")
        return
    # Where one is not there, all are read: it is told with the nearest that is.
    chosen = [name for name in names if name in wanted] if wanted <= set(names) else names
    groups = [found.metadata.row_group(i) for i in range(found.metadata.num_row_groups)]
    each = max((group.total_byte_size // max(1, group.num_rows) for group in groups), default=0)
    rows = max(1, min(BLOCK, _BLOCK_BYTES // max(1, each)))  # of images, 8192 would be gigabytes
    for batch in found.iter_batches(rows, columns=chosen):
        yield _frame(batch.schema.names, map(cells_of, batch.columns))


def _json_rows(file: BinaryIO) -> Iterator[dict[str, cells.Cell]]:
    for number, data in enumerate(file, start=1):  # at each \n alone: other line breaks are legal inside a string
        try:
            line = data.decode("utf-8-sig" if number == 1 else "utf-8")
            if not line.strip():
                continue
            row = json.loads(line, object_pairs_hook=_json_object)
            cell = _escaped(cells.as_cell(row)) if isinstance(row, dict) else None
        except MmfuseError as error:
            raise ValueError(f"line {number}: {error}") from error
        except UnicodeDecodeError as error:
            raise ValueError(f"line {number}: not UTF-8, as JSON is: save it so") from error
        except ValueError as error:
            raise ValueError(f"line {number}: not JSON: {error}") from error
        except RecursionError as error:
            raise ValueError(f"line {number}: nested too deep") from error
        if cell is None:
            raise ValueError(f"line {number}: an object, {{...}}, is expected")
        yield cell


def _escaped(cell: Any) -> Any:
    """Without halves of UTF-16 pairs, which JSON can hold and no UTF-8."""
    if isinstance(cell, str):
        return cell if cell.isascii() else cell.encode(errors="backslashreplace").decode()
    if isinstance(cell, list):
        return [_escaped(item) for item in cell]
    return {name: _escaped(item) for name, item in cell.items()} if isinstance(cell, dict) else cell


def _json_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        _check_once([name for name, _ in pairs])
    return found


def _check_once(names: Iterable[str]) -> None:
    for name, n in Counter(names).items():
        if n > 1:
            raise MmfuseError(f"the column {name!r} is there twice")


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
        with _one_line(file), open_table(file) as handle:
            for frame in read_blocks(handle, file, columns, csv):
                yield file, frame


@contextmanager
def open_table(path: str) -> Iterator[BinaryIO]:
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
            raise MmfuseError(first_line(error)) from error
        copy.seek(0)
        yield copy
