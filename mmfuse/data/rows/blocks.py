"""One file of rows, or one folder, as cells (`mmfuse.cells`), some thousand rows at a time."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from itertools import islice
from typing import Any, BinaryIO

import fsspec
import pandas as pd
import pyarrow.parquet as pq

from mmfuse import cells
from mmfuse.data.files.read import open_local
from mmfuse.data.rows.arrow_cells import cells_of, wanted_of
from mmfuse.data.rows.delimited import CsvSpec, read_delimited
from mmfuse.data.rows.folder_rows import folder_blocks
from mmfuse.data.rows.hugging_face import dataset_blocks, is_dataset
from mmfuse.data.rows.table_kinds import check_kind
from mmfuse.types import MmfuseError, first_line

BLOCK = 8192
_BLOCK_BYTES = 16 * 2**20


def is_table(file: str) -> bool:
    """Whether what `find_files` names is a file of rows, not one of a dataset, and no folder."""
    return not is_dataset(file) and not os.path.isdir(file)


def blocks_of(file: str, columns: Iterable[str] | None = None, csv: CsvSpec | None = None) -> Iterator[pd.DataFrame]:
    """The rows of what `find_files` names: a file, a dataset's file, or a folder; for the rest as `read_blocks`.

    Raises:
        MmfuseError: It cannot be read; the message does not name it.
    """
    if is_dataset(file):
        yield from dataset_blocks(file, columns)
    elif not is_table(file):
        yield from folder_blocks(file, columns, partial(blocks_of, csv=csv))
    else:
        with open_table(file) as handle:
            yield from read_blocks(handle, file, columns, csv)


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
    chosen = wanted_of(names, columns)
    if not found.metadata.num_rows or not chosen:
        yield pd.DataFrame(columns=names, dtype="object")
        return
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
