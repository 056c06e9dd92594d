"""Readers of the files that public sets come in: what is damaged is an `MmfuseError` with the file and the line."""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmfuse.types import MmfuseError

_UNREADABLE = (OSError, EOFError, UnicodeDecodeError, csv.Error, zlib.error)


def find(folder: Path, patterns: Sequence[str]) -> Path | None:
    """The first file or folder by the first of these glob patterns that matches any; None if none does."""
    return next((path for pattern in patterns for path in sorted(folder.glob(pattern))[:1]), None)


def need(folder: Path, patterns: Sequence[str]) -> Path:
    """As `find`, for what must be there.

    Raises:
        MmfuseError: It is not.
    """
    found = find(folder, patterns)
    if found is None:
        raise MmfuseError(f"{folder}: no {' or '.join(patterns)} in it")
    return found


def read_csv(path: Path, columns: Sequence[str], header: bool = True) -> Iterator[dict[str, str]]:
    """The rows of a csv file, plain or gzipped, as text.

    Args:
        path: The file.
        columns: Those that must be there; without a header, all of them in their order.
        header: The first line has the names.

    Raises:
        MmfuseError: It cannot be read, lacks a column, or a line has more or fewer fields than there are names.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8-sig", newline="") as handle:
            reader = csv.reader(handle)  # type: ignore[arg-type]
            names = next(reader, []) if header else list(columns)
            for name in columns:
                if name not in names:
                    raise MmfuseError(f"{path}: no column {name!r}; it has {', '.join(names) or 'none'}")
            for fields in reader:
                if len(fields) != len(names) and fields:
                    raise MmfuseError(f"{path}: line {reader.line_num}: {len(fields)} fields, not {len(names)}")
                if fields:
                    yield dict(zip(names, fields, strict=True))
    except _UNREADABLE as error:
        raise MmfuseError(f"{path}: {_reason(error)}") from error


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    r"""The lines of a text file that are not blank, numbered from 1, without their "\n" or "\r\n".

    Raises:
        MmfuseError: It cannot be read, or is not UTF-8.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as handle:
            for number, line in enumerate(handle, start=1):
                if line.strip():
                    yield number, line.removesuffix("\n").removesuffix("\r")
    except _UNREADABLE as error:
        raise MmfuseError(f"{path}: {_reason(error)}") from error


def read_json(path: Path) -> Any:
    """A JSON file.

    Raises:
        MmfuseError: It cannot be read, or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (*_UNREADABLE, ValueError, RecursionError) as error:
        raise MmfuseError(f"{path}: {_reason(error)}") from error


def objects(value: Any, where: str) -> list[dict[str, Any]]:
    """A list of JSON objects, or an error that says where one was expected."""
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise MmfuseError(f"{where}: a list of objects is expected")
    return value


def text_of(item: dict[str, Any], key: str) -> str:
    """A JSON object's value as text; "" where it is absent or null."""
    value = item.get(key)
    return "" if value is None else str(value).strip()


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return (error.strerror or "cannot be read").lower()
    return {UnicodeDecodeError: "not UTF-8", json.JSONDecodeError: "not JSON"}.get(type(error), "damaged")
