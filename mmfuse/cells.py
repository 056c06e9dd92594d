"""What stands in a cell of a table: a text, a list, an encoded image or an object; and how a column takes it.

`mmfuse.data.rows.read` gives every scalar as text, "" where it is absent. Lists stay lists, bytes stay bytes, and
objects (structs of parquet) stay dicts, as only whoever names a column knows which of these may stand there.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from mmfuse.types import MmfuseError

Cell = str | bytes | list | dict
"""Lists hold cells, and numbers as they are; None is left out of them."""

_STRING = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_ITEM = rf"(?:{_STRING}|[-+]?\d[\d.]*(?:e[-+]?\d+)?|True|False|None)"
# Python would join 'a' 'b' to 'ab', so commas are asked for before it is asked.
_PYTHON = re.compile(rf"[\[({{]\s*(?:{_ITEM}\s*(?:,\s*{_ITEM}\s*)*(?:,\s*)?)?[\])}}]", re.DOTALL | re.IGNORECASE)
_NUMPY = re.compile(
    rf"(?:array\()?\[\s*{_STRING}(?:\s*+(?:,\s*+)?(?:{_STRING}|\.\.\.))*+\s*\](?:,\s*dtype=\w+)?\)?", re.DOTALL
)
_ESCAPE = re.compile(r"\\(?:([^\n\\'\"abfnrtv0-7xNuU])|.)", re.DOTALL)
_BRACKETS = re.compile(r"\[.*\]|\{[^{}]+\}|\w+\([\[{].*[\]}]\)", re.DOTALL)
_BASE64 = re.compile(  # of JPEG, PNG, GIF, WebP, BMP and TIFF
    r"data:[\w/+.;=-]*,|(?:/9j/|iVBORw0KGgo|R0lGOD|UklGR|Qk|SUkq|TU0A)[A-Za-z0-9+/\s]{200,}+=*\s*+\Z"
)
_AS_JSON = 'write it as JSON, such as ["a", "b"], or the table as jsonl or parquet'


def as_cell(value: Any) -> Cell:
    """A value of a row, as a library gives it, as a cell."""
    if isinstance(value, str):
        return value
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, dict):
        return {str(name): as_cell(item) for name, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset, np.ndarray)):
        return [_item(item) for item in value if item is not None]
    if value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and np.isnan(value)):
        return ""
    return str(value)


def _item(value: Any) -> Any:
    return value if isinstance(value, (bool, int, float)) else as_cell(value)


def to_arrow(column: Sequence[Cell], where: str) -> pa.Array:
    """A column of cells as Arrow has it: texts, or lists, bytes or structs with null where there is none.

    Raises:
        MmfuseError: Its cells are of several kinds; the message begins with `where`.
    """
    if all(isinstance(cell, str) for cell in column):
        return pa.array(column, pa.string())
    listed = any(isinstance(cell, list) for cell in column)
    values = [None if cell == "" else [cell] if listed and not isinstance(cell, list) else cell for cell in column]
    try:
        return pa.array(values)
    except pa.ArrowException as error:
        raise MmfuseError(f"{where}: its cells are of several kinds") from error


def kind_of(cell: Any) -> str:
    """What a cell is, in words that quote nothing of it."""
    if isinstance(cell, bytes):
        return f"{len(cell):,} bytes"
    if isinstance(cell, list):
        return f"a list of {len(cell)}"
    return "an object with fields" if isinstance(cell, dict) else "a text" if isinstance(cell, str) else "a number"


def texts(frame: pd.DataFrame, column: str, where: str, key: str, first: int = 0) -> list[str]:
    """A column of texts.

    Args:
        frame: Rows as `read_rows` gives them.
        column: Which; it is there.
        where: Named in errors.
        key: That names the column; named in errors.
        first: The number of the first row, from 0; named in errors.

    Raises:
        MmfuseError: A cell is a list, bytes or an object.
    """
    values = list(frame[column])
    for row, value in enumerate(values, start=first + 1):
        if type(value) is not str:
            way = {
                bytes: "images go into image.column; a text must be of type string, not binary",
                list: "make it one text, or give each part a column of its own",
                dict: "give each of its fields a column of its own",
            }[type(value)]
            raise MmfuseError(
                f"{where}: {key}: column {column!r}, row {row}: {kind_of(value)}, where a text is expected; {way}"
            )
    return values


def labels(cell: Cell) -> list[str] | None:
    """The labels of a cell that is a list, or a JSON or Python list in a text; None where it is another text.

    Raises:
        MmfuseError: It is something else, or holds something else; the message is the reason.
    """
    found = _listed(cell)
    if found is None and isinstance(cell, str) and (_NUMPY.fullmatch(cell) or _BRACKETS.fullmatch(cell)):
        raise MmfuseError(f"it looks like a list, but is neither JSON nor Python, whose items have commas; {_AS_JSON}")
    if found is not None and not all(isinstance(item, (str, bool, int, float)) for item in found):
        raise MmfuseError(f"a list that holds {_strange(found, str, bool, int, float)}, where labels are expected")
    return None if found is None else [str(item).strip() for item in found if str(item).strip()]


def captions(cell: Cell) -> list[str] | None:
    """The texts of a cell that is a list, or a JSON or Python list in a text; None where it is another text.

    Raises:
        MmfuseError: It is something else, or holds something else; the message is the reason.
    """
    found = _listed(cell)
    if found is None and isinstance(cell, str) and _NUMPY.fullmatch(cell):
        raise MmfuseError(f"it looks like a list, but its items have no commas between them; {_AS_JSON}")
    if found is not None and not all(isinstance(item, str) for item in found):
        raise MmfuseError(
            f"a list of captions is expected to hold strings only, but one of them is {_strange(found, str)}"
        )
    return found


def images(cell: Cell, separator: str | None = None) -> list[str | bytes]:
    """The images of a cell, each a location or encoded bytes: of a text, bytes, a struct of both, or a list of these.

    Args:
        cell: As `read_rows` gives it; a struct has `bytes` or `path`, as Hugging Face's datasets write them.
        separator: What stands between the locations of one text.

    Raises:
        MmfuseError: It is something else; the message is the reason.
    """
    if isinstance(cell, str):
        found = captions(cell) if cell[:1] in "[a" and cell[-1:] in ("]", ")") else None  # a file may be named (a).png
        parts = found if found is not None else cell.split(separator) if separator and cell[:5] != "data:" else [cell]
    else:
        parts = cell if isinstance(cell, list) else [cell]
    return [image for part in parts for image in _image(part)]


def _image(part: Any) -> Iterator[str | bytes]:
    if isinstance(part, dict):
        if not part.keys() <= {"bytes", "path"}:
            raise MmfuseError("an object whose fields are not bytes and path, where an image is expected")
        data = part.get("bytes", "")
        if isinstance(data, str) and data:
            raise MmfuseError("a text in the field bytes: JSON holds no bytes; use parquet, or name files")
        part = data or part.get("path", "")
    if isinstance(part, str):
        if _BASE64.match(part):
            raise MmfuseError(
                "an image written in a text (base64): keep the images as files, or their bytes in parquet"
            )
        if part.strip():
            yield part.strip()
    elif isinstance(part, bytes):
        yield part
    else:
        raise MmfuseError(f"{kind_of(part)}, where an image is expected: its path or its encoded bytes")


def _strange(found: Sequence[Any], *legal: type) -> str:
    return kind_of(next(item for item in found if not isinstance(item, legal)))


def _listed(cell: Cell) -> list[Any] | None:
    """A list, also one that is written in a text as JSON or Python write it (tuples and sets too); None for none."""
    if isinstance(cell, list):
        return cell
    if not isinstance(cell, str):
        raise MmfuseError(f"{kind_of(cell)}, where a text or a list of texts is expected")
    text = cell.strip()
    if text == "set()":
        return []
    if text[:1] not in ("[", "(", "{") or text == "{}":
        return None
    try:
        found = json.loads(text) if text[0] == "[" else None
    except (ValueError, RecursionError):
        found = None
    if found is None and _PYTHON.fullmatch(text):
        try:
            # Python keeps a backslash that escapes nothing, and warns of it on standard error, a line a cell.
            text = _ESCAPE.sub(lambda mark: rf"\\{mark[1]}" if mark[1] else mark[0], text)
            found = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            return None
        if isinstance(found, (set, frozenset)):  # in the order in which they are written
            found = ast.literal_eval(f"[{text[1:-1]}]")
    return as_cell(found) if isinstance(found, (list, tuple)) else None  # type: ignore[return-value]
