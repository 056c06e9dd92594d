"""Parquet files as Hugging Face `datasets` writes them: rows, class names, and images inside of the table.

Seen in public copies of Flickr8k, Flickr30k, COCO, CheXpert, ROCO and Open-I (searched 2026-11): an image is a struct
of `bytes` and `path`, or bytes alone; splits are told by the files' names (`train-00000-of-00002.parquet`) or folders;
the names of a ClassLabel's numbers stand in the schema's metadata.
"""

from __future__ import annotations

import json
import re
import threading
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mmfuse.types import MmfuseError, first_line

PARQUET = ("*.parquet", "*/*.parquet", "*/*/*.parquet")
"""Where the files of a download are looked for."""

_SPLITS = {"train": "train", "validation": "validation", "valid": "validation", "val": "validation"}
_SPLITS |= {"dev": "validation", "test": "test", "restval": "train"}
_SUFFIXES = {b"\xff\xd8\xff": ".jpg", b"\x89PNG": ".png", b"GIF8": ".gif", b"RIFF": ".webp", b"BM": ".bmp"}
_LOCK = threading.Lock()


@dataclass(frozen=True)
class Packed:
    """An image inside of a parquet file; `prepare` makes a file of it, with the same bytes.

    Attributes:
        name: The file it becomes, relative to `images/`.
        table: The parquet file.
        row: Its row there, from 0.
        column: The column: bytes, or a struct with `bytes`.
    """

    name: str
    table: Path
    row: int
    column: str

    def read(self) -> bytes | None:
        """The encoded image; None where there is none.

        Raises:
            MmfuseError: The parquet file is damaged.
        """
        try:
            with _LOCK:  # rows are asked for in about their order: of the last row groups, none is read twice
                starts = _starts(self.table)
                group = bisect_right(starts, self.row) - 1
                value = _images(self.table, group, self.column)[self.row - starts[group]].as_py()
        except (OSError, pa.ArrowException) as error:
            raise MmfuseError(first_line(error)) from error
        return value.get("bytes") if isinstance(value, dict) else value


@lru_cache(maxsize=64)
def _starts(table: Path) -> list[int]:
    metadata = pq.ParquetFile(table).metadata
    sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    return list(accumulate(sizes[:-1], initial=0))


@lru_cache(maxsize=4)
def _images(table: Path, group: int, column: str) -> pa.ChunkedArray:
    return pq.ParquetFile(table).read_row_group(group, columns=[column]).column(column)


def forget() -> None:
    """Let go of what was read: another call may meet changed files."""
    _starts.cache_clear()
    _images.cache_clear()


@dataclass(frozen=True)
class Table:
    """A parquet file of a download.

    Attributes:
        path: The file.
        split: What its name or folder says: train, validation, test, or "".
        schema: Its columns.
    """

    path: Path
    split: str
    schema: pa.Schema

    def first(self, names: Sequence[str]) -> str | None:
        """The first of these names that is a column."""
        return next((name for name in names if name in self.schema.names), None)

    def images(self) -> list[str]:
        """The columns that hold images."""
        return [field.name for field in self.schema if _is_image(field.type)]


def tables(folder: Path) -> list[Table]:
    """The parquet files of a download: train, validation, test, then others, each in the order of its names.

    Raises:
        MmfuseError: One is damaged.
    """
    found = []
    for path in sorted({path for pattern in PARQUET for path in folder.glob(pattern)}):
        try:
            schema = pq.read_schema(path)
        except (OSError, pa.ArrowException) as error:
            raise MmfuseError(f"{path}: {first_line(error)}") from error
        found.append(Table(path, _split_of(path.relative_to(folder)), schema))
    order = ("train", "validation", "test", "")
    return sorted(found, key=lambda table: (order.index(table.split), table.path))


def image_column(table: Table) -> str:
    """The column with the images.

    Raises:
        MmfuseError: There is none.
    """
    images = table.images()
    if not images:
        raise MmfuseError(f"{table.path}: no column with images inside; it has {', '.join(table.schema.names)}")
    return next((name for name in ("image", "img", "jpg") if name in images), images[0])


def copy_is_split(files: list[Table]) -> bool:
    """Whether a parquet copy tells a split: by a column, or by files of more than one."""
    return any("split" in table.schema.names for table in files) or len({table.split for table in files}) > 1


def records(table: Table, unread: Sequence[str] = ()) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a table, numbered from 1, as plain values; of images their paths alone, classes by name.

    Args:
        table: The file.
        unread: Columns that are left out.

    Raises:
        MmfuseError: It is damaged, or a class's number has no name.
    """
    columns, images, names = [], table.images(), _class_names(table.schema)
    for field in table.schema:
        if field.name in images and pa.types.is_struct(field.type) and field.type.get_field_index("path") >= 0:
            columns.append(f"{field.name}.path")
        elif field.name not in images and field.name not in unread:
            columns.append(field.name)
    try:
        number = 0
        file = pq.ParquetFile(table.path)
        for batch in file.iter_batches(1024, columns=columns):
            for record in batch.to_pylist() if columns else [{}] * batch.num_rows:
                number += 1
                yield number, {key: _named(value, names.get(key)) for key, value in record.items()}
    except (OSError, pa.ArrowException, IndexError) as error:
        raise MmfuseError(f"{table.path}: {first_line(error)}") from error


def suffix_of(table: Table, column: str) -> str:
    """What the images of a column are by the bytes of the first: `.jpg`, `.png` ...; "" where that is not known."""
    data = Packed("", table.path, 0, column).read() if pq.read_metadata(table.path).num_rows else None
    return next((suffix for start, suffix in _SUFFIXES.items() if (data or b"").startswith(start)), "")


def path_of(record: dict[str, Any], column: str) -> str:
    """The name that an image brings with it; "" if none."""
    value = record.get(column)
    return str(value.get("path") or "") if isinstance(value, dict) else ""


def texts_of(value: Any) -> list[str]:
    """A cell that holds texts, as they are found: a string, a list of them, or a list of structs with `raw`."""
    if isinstance(value, dict):
        return texts_of(value.get("raw"))
    if isinstance(value, list):
        return [text for item in value for text in texts_of(item)]
    return [] if value is None else [str(value).strip()]


def _is_image(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and _is_image(kind.field(index).type)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _split_of(path: Path) -> str:
    for part in reversed(path.parts):
        for word in re.split(r"[-_.]", part.lower()):
            if (name := word.rstrip("0123456789")) in _SPLITS:
                return _SPLITS[name]
    return ""


def _class_names(schema: pa.Schema) -> dict[str, list[str]]:
    """Column -> the names of its classes."""
    try:
        info = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = info.get("info", {}).get("features", {})
        return {
            key: f["names"] for key, f in features.items() if isinstance(f, dict) and f.get("_type") == "ClassLabel"
        }
    except (ValueError, AttributeError, KeyError):
        return {}


def _named(value: Any, names: list[str] | None) -> Any:
    if names is None or value is None:
        return value
    return names[value] if value >= 0 else None  # -1 is a class that is not told
