"""Readers of the files that public sets come in: a damaged file is an error, a damaged line one row that is skipped."""

from __future__ import annotations

import csv
import gzip
import json
import re
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmfuse.data.public.sources import Row
from mmfuse.types import MmfuseError

_UNREADABLE = (OSError, EOFError, UnicodeDecodeError, csv.Error, zlib.error)
_LETTER = re.compile("[A-Za-z]")
_MOST_LINES = 1000
"""That a quoted field of a csv may span."""


def find(folder: Path, patterns: Sequence[str]) -> Path | None:
    """The first file or folder by the first of these glob patterns that matches any; None if none does.

    Only where none does, upper and lower case count as one.
    """
    alike = (_LETTER.sub(lambda letter: f"[{letter[0].lower()}{letter[0].upper()}]", pattern) for pattern in patterns)
    return next((path for pattern in (*patterns, *alike) for path in sorted(folder.glob(pattern))[:1]), None)


def need(folder: Path, patterns: Sequence[str]) -> Path:
    """As `find`, for what must be there.

    Raises:
        MmfuseError: It is not.
    """
    found = find(folder, patterns)
    if found is None:
        raise MmfuseError(f"{folder}: no {' or '.join(patterns)} in it")
    return found


def bad_line(path: Path, line: int, problem: str) -> Row:
    """A line that is no row, as one that is skipped."""
    return Row(f"{path.name}:{line}", problem=problem, path=path, line=line)


def read_csv(
    path: Path, columns: Sequence[str], header: bool = True, starts: str | None = None
) -> Iterator[tuple[int, dict[str, str] | Row]]:
    """The rows of a csv file, plain or gzipped, as text, with the numbers of their lines; a line that is none is told.

    A quotation mark that is never closed costs its own line, not those after it.

    Args:
        path: The file.
        columns: Those that must be there; without a header, all of them in their order.
        header: The first line has the names.
        starts: How each row starts, as a regular expression: then quoted fields may span lines, as long as none of
            these starts so. None: a row is a line.

    Raises:
        MmfuseError: It cannot be read, or lacks a column.
    """
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as handle:
            lines = _Lines(handle, re.compile(starts) if starts else None)
            names = _header(path, lines, columns) if header else list(columns)
            while (record := lines.record(len(names))) is not None:
                number, fields = record
                if isinstance(fields, str):
                    yield number, bad_line(path, number, fields)
                elif fields:
                    yield number, dict(zip(names, fields, strict=True))
    except _UNREADABLE as error:
        raise MmfuseError(f"{path}: {_reason(error)}") from error


def _header(path: Path, lines: _Lines, columns: Sequence[str]) -> list[str]:
    record = lines.record(None)
    names = [] if record is None else record[1]
    if isinstance(names, str):
        raise MmfuseError(f"{path}: line 1: {names}")
    for name in columns:
        if name not in names:
            raise MmfuseError(f"{path}: no column {name!r}; it has {', '.join(names) or 'none'}")
    return names


class _Lines:
    """The lines of a csv file; it feeds `csv.reader`, which asks for another line where a field is not closed."""

    def __init__(self, handle: Any, starts: re.Pattern[str] | None):
        self.handle, self.starts, self.number = handle, starts, 0
        self.back: deque[tuple[int, bytes]] = deque()
        self.taken: list[tuple[int, bytes]] = []

    def record(self, width: int | None) -> tuple[int, list[str] | str] | None:
        """The number of the next line and its fields, or why it has none; None at the end."""
        self.taken = []
        try:
            fields: list[str] | str = next(csv.reader(self, strict=True))
        except StopIteration:
            return None
        except UnicodeDecodeError:
            fields = "not UTF-8"
        except csv.Error as error:
            fields = f"not csv: {error}"
        if isinstance(fields, list) and width is not None and fields and len(fields) != width:
            fields = f"{len(fields)} fields, not {width}"
        if isinstance(fields, str):
            self.back.extendleft(reversed(self.taken[1:]))
        return self.taken[0][0], fields

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        if self.taken and (self.starts is None or len(self.taken) >= _MOST_LINES):
            raise StopIteration
        if self.back:
            number, line = self.back.popleft()
        else:
            line = self.handle.readline()
            if not line:
                raise StopIteration
            self.number += 1
            number = self.number
        if self.taken and self.starts is not None and self.starts.match(line.decode(errors="replace")):
            self.back.appendleft((number, line))
            raise StopIteration
        self.taken.append((number, line))
        return line.decode("utf-8-sig" if number == 1 else "utf-8")


def read_lines(path: Path) -> Iterator[tuple[int, str | Row]]:
    r"""The lines of a text file that are not blank, numbered from 1, without their "\n" or "\r\n".

    Raises:
        MmfuseError: It cannot be read.
    """
    try:
        with path.open("rb") as handle:
            for number, line in enumerate(handle, start=1):
                try:
                    text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError:
                    yield number, bad_line(path, number, "not UTF-8")
                    continue
                if text.strip():
                    yield number, text.removesuffix("\n").removesuffix("\r")
    except _UNREADABLE as error:
        raise MmfuseError(f"{path}: {_reason(error)}") from error


def read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any] | Row]]:
    """The objects of a JSON-lines file, numbered by line from 1.

    Raises:
        MmfuseError: It cannot be read.
    """
    for number, line in read_lines(path):
        if isinstance(line, Row):
            yield number, line
            continue
        try:
            item = json.loads(line)
        except (ValueError, RecursionError):
            yield number, bad_line(path, number, "not JSON")
            continue
        yield number, item if isinstance(item, dict) else bad_line(path, number, "not an object")


def read_json(path: Path) -> Any:
    """A JSON file.

    Raises:
        MmfuseError: It cannot be read, or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (*_UNREADABLE, ValueError, RecursionError) as error:
        raise MmfuseError(f"{path}: {_reason(error)}") from error


def objects(
    value: Any, path: Path, name: str = "", keys: Sequence[str] = ()
) -> Iterator[tuple[int, dict[str, Any] | Row]]:
    """The objects of a JSON list, numbered from 1; an item that is none, or lacks a key, is a row that is skipped.

    Args:
        value: The list.
        path: The file that it stands in.
        name: Its key there.
        keys: What each object must have.

    Raises:
        MmfuseError: It is no list.
    """
    if not isinstance(value, list):
        raise MmfuseError(f"{path}: {name + ': ' if name else ''}a list of objects is expected")
    for number, item in enumerate(value, start=1):
        problem = None if isinstance(item, dict) else "not an object"
        if problem is None:
            problem = next((f"no {key}" for key in keys if key not in item), None)
        yield number, bad_line(path, number, problem) if problem else item


def text_of(item: dict[str, Any], key: str) -> str:
    """A JSON object's value as text; "" where it is absent or null."""
    value = item.get(key)
    return "" if value is None else str(value).strip()


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return (error.strerror or "cannot be read").lower()
    return {UnicodeDecodeError: "not UTF-8", json.JSONDecodeError: "not JSON"}.get(type(error), "damaged")
