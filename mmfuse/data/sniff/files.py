"""A file of rows -> cells, however it is written; what `train` could not read as it is counts as made."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import os
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from mmfuse import cells
from mmfuse.data.files.read import read_bytes
from mmfuse.data.rows.delimited import CsvSpec
from mmfuse.data.rows.read import read_blocks
from mmfuse.data.sniff.delimited import Written, how_written, read_leniently
from mmfuse.extras import extra
from mmfuse.types import MmfuseError, first_line

MOST_ROWS = 200_000
"""Of a table that stays as it is, so many are looked at."""
TABLES = (".csv", ".tsv", ".tab", ".jsonl", ".ndjson", ".parquet", ".xlsx", ".xlsm", ".json")
"""Names of files that may be rows; a .txt may be, but is a text more often."""
_UNPACK = {b"\x1f\x8b": gzip.decompress, b"BZh": bz2.decompress, b"\xfd7zXZ": lzma.decompress}
_MOST_BYTES = 2**34
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}


@dataclass
class Opened:
    """Rows that were opened to be looked at.

    Attributes:
        frame: Cells as `read_rows` gives them; of encoded images a hash.
        rows: What the manifest names as `rows`.
        base: The folder in which files are looked for that the cells name.
        name: Of the data.
        csv: The manifest's `csv`.
        made: Whether `train` cannot read them as they are, so that they are written down anew.
        most: How many rows are looked at; None: all.
        whole: Whether these are all rows.
        told: By role (`Given`) the column that the layout of a folder tells.
        said: What was found, a line each.
        unsure: What may be wrong.
        packed: A parquet file with encoded images, of which `frame` has only hashes.
    """

    frame: pd.DataFrame
    rows: str
    base: Path
    name: str
    csv: dict[str, str] = field(default_factory=dict)
    made: bool = False
    most: int | None = MOST_ROWS
    whole: bool = True
    told: dict[str, str] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    unsure: list[str] = field(default_factory=list)
    packed: bytes | None = field(default=None, repr=False)

    def whole_frame(self) -> pd.DataFrame:
        """The rows to be written down, with encoded images as they are."""
        if self.packed is None:
            if self.frame.map(_is_packed).to_numpy().any():
                raise MmfuseError(f"{self.rows}: a column must be made, and its images are in the cells: name --image")
            return self.frame
        whole = pd.concat(read_blocks(io.BytesIO(self.packed), "x.parquet"), ignore_index=True).fillna("")
        more = [name for name in self.frame.columns if name not in whole.columns]
        return whole.assign(**{name: list(self.frame[name]) for name in more})


def open_file(path: Path, most: int | None = MOST_ROWS) -> Opened:
    """A csv, tsv, xlsx, json, jsonl or parquet file, packed or not.

    Args:
        path: The file.
        most: How many of its rows are looked at; None: all.

    Raises:
        MmfuseError: It is none of these, or malformed, or has no rows; the message names it.
    """
    try:
        opened = _open(path, most)
    except (ValueError, OSError, EOFError, zlib.error) as error:  # MmfuseErrors are ValueErrors
        raise MmfuseError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from error
    if not len(opened.frame) or not len(opened.frame.columns):
        raise MmfuseError(f"{path}: no rows")
    opened.frame.columns = [str(name) for name in opened.frame.columns]
    return opened


def _open(path: Path, most: int | None) -> Opened:
    data, name, made = read_bytes(path, _MOST_BYTES), path.name, False
    for mark, unpack in _UNPACK.items():
        if data.startswith(mark):
            data, made = unpack(data), True
            name = name.rpartition(".")[0] if name.lower().endswith((".gz", ".bz2", ".xz")) else name
    stem, _, suffix = name.rpartition(".") if "." in name else (name, "", "")
    opened = Opened(pd.DataFrame(), os.path.abspath(path), path.resolve().parent, stem or name, made=made, most=most)
    if made:
        opened.said.append(f"rows: {path.name} is unpacked")
    suffix = suffix.lower()
    if data.startswith(b"PAR1"):
        _take_blocks(opened, data, "x.parquet")
        opened.packed = data if opened.frame.map(_is_packed).to_numpy().any() else None
        opened.made |= suffix != "parquet"
    elif data.startswith(b"PK\x03\x04"):
        _take_spreadsheet(opened, data)
    elif suffix in ("jsonl", "ndjson") and data.lstrip()[:1] != b"[":
        _take_blocks(opened, data, "x.jsonl")
    elif data.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"[") and suffix not in ("csv", "tsv"):
        _take_json(opened, data, suffix)
    else:
        _take_delimited(opened, data, suffix)
    return opened


def _take_blocks(opened: Opened, data: bytes, name: str, csv: CsvSpec | None = None) -> None:
    take_frames(opened, read_blocks(io.BytesIO(data), name, None, csv))


def take_frames(opened: Opened, blocks: Iterable[pd.DataFrame]) -> None:
    """Take the first rows, as many as are looked at, without encoded images."""
    kept, count = [], 0
    for block in blocks:
        kept.append(block.map(_short))
        count += len(block)
        if opened.most is not None and count >= opened.most:
            opened.whole = False
            opened.unsure.append(f"rows: only the first {count:,} were looked at")
            break
    opened.frame = pd.concat(kept, ignore_index=True).fillna("")


def _is_packed(cell: Any) -> bool:
    cell = cell[0] if isinstance(cell, list) and cell else cell
    return isinstance(cell, bytes) or (isinstance(cell, dict) and isinstance(cell.get("bytes"), bytes))


def _short(cell: Any) -> Any:
    """Without an encoded image, which is told apart by its hash."""
    if isinstance(cell, bytes):
        return hashlib.sha256(cell).digest()
    if isinstance(cell, dict) and isinstance(cell.get("bytes"), bytes):
        return {**cell, "bytes": hashlib.sha256(cell["bytes"]).digest()}
    if isinstance(cell, list) and cell and isinstance(cell[0], (bytes, dict)):
        return [_short(item) for item in cell]
    return cell


def _take_spreadsheet(opened: Opened, data: bytes) -> None:
    with extra("excel", "a spreadsheet; save its sheet as CSV UTF-8, or"):
        import openpyxl
    book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True)
    sheet = book.worksheets[0]
    rows = [["" if cell is None else str(cell) for cell in row] for row in sheet.iter_rows(values_only=True)]
    rows = [row for row in rows if any(map(str.strip, row))]
    header = [name or f"Unnamed: {number}" for number, name in enumerate(rows[0])] if rows else []
    opened.frame, opened.made = pd.DataFrame(rows[1:], columns=header, dtype="object"), True
    others = [sheet.title for sheet in book.worksheets[1:]]
    opened.said.append(f"rows: the sheet {sheet.title!r}")
    if others:
        opened.unsure.append(f"rows: the other sheets are not read: {', '.join(others)}")


def _take_json(opened: Opened, data: bytes, suffix: str) -> None:
    try:
        value = json.loads(data.decode("utf-8-sig"))
    except ValueError:
        _take_blocks(opened, data, "x.jsonl")  # objects line by line
        opened.made |= suffix not in ("jsonl", "ndjson")
        return
    records = list(_records(value))
    opened.frame = frame_of(records)
    opened.made = True
    opened.said.append(f"rows: {len(records)} objects of a JSON file")


def frame_of(records: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Objects as rows of cells, "" where one lacks a field."""
    rows = [{str(name): cells.as_cell(value) for name, value in record.items()} for record in records]
    return pd.DataFrame(rows, dtype="object").fillna("")


def _records(value: Any) -> Iterator[dict[str, Any]]:
    """The objects of a JSON file that are its rows.

    Of an object of lists the longest one; what its objects name as `x_id` is joined from the list `xs` (as COCO's
    annotations name their images). Of an object of objects each, with its name as `key`.
    """
    if isinstance(value, list):
        yield from (item for item in value if isinstance(item, dict))
        return
    lists = {key: found for key, found in value.items() if isinstance(found, list) and _are_objects(found)}
    if not lists:
        if value and _are_objects(list(value.values())):
            yield from ({"key": key, **item} for key, item in value.items())
        return
    longest = max(lists, key=lambda key: len(lists[key]))
    joined = {}
    for key, found in lists.items():
        link = f"{re.sub('ies$', 'y', key).removesuffix('s')}_id"
        if key != longest and link in lists[longest][0] and "id" in found[0]:
            joined[link] = key, {item.get("id"): item for item in found}
    for item in lists[longest]:
        row = dict(item)
        for link, (key, by_id) in joined.items():
            for name, more in by_id.get(item.get(link), {}).items():
                if name != "id":
                    row.setdefault(name if name not in item else f"{key}_{name}", more)
        yield row


def _are_objects(found: list[Any]) -> bool:
    return bool(found) and all(isinstance(item, dict) for item in found)


def _take_delimited(opened: Opened, data: bytes, suffix: str) -> None:
    if b"\0" in data[:4096] and not data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise MmfuseError("no table: csv, tsv, xlsx, json, jsonl and parquet are read")
    written = how_written(data, suffix)
    known = suffix if suffix in ("csv", "tsv", "txt") else "csv"
    spec = CsvSpec(written.separator, written.encoding)
    usual = "," if known == "csv" else "\t"
    opened.csv = {} if written.separator == usual else {"separator": written.separator}
    opened.csv |= {} if written.encoding == "utf-8" else {"encoding": written.encoding}
    opened.made |= suffix != known
    said = f"rows: {_SEPARATORS[written.separator]} between fields, {written.encoding.upper()}"
    strict = None
    if written.header:
        try:
            _take_blocks(opened, data, f"x.{known}", spec)
        except MmfuseError as error:
            strict = first_line(error)
    if strict or not written.header:
        _take_leniently(opened, data, written, strict)
    header = "the first line names the columns" if written.header else "no line names the columns"
    opened.said.append(f"{said}, {header}")
    if opened.made:
        opened.csv = {}


def _take_leniently(opened: Opened, data: bytes, written: Written, why: str | None) -> None:
    rows, left_out = read_leniently(data, written)
    names = [name.strip() for name in rows[0]] if written.header else []
    if not written.header:
        names = [f"column_{number}" for number in range(1, len(rows[0]) + 1)]
        opened.unsure.append(f"rows: no header, so its columns are called {', '.join(names)}")
    elif len(set(names)) < len(names):
        raise MmfuseError(why or "a column is there twice")
    else:
        opened.unsure.append(
            f"rows: malformed ({why}): read with quotation marks as part of the texts where they do not fit, "
            f"{left_out} line(s) left out"
        )
    opened.frame = pd.DataFrame(rows[1 if written.header else 0 :], columns=names, dtype="object")
    opened.made = True
