"""Paths of a row that a column names or that a template is filled to, and the texts of files at them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import pandas as pd

from mmfuse import cells
from mmfuse.data.files.locations import place, read_location
from mmfuse.data.readers.documents import decode_report
from mmfuse.types import MmfuseError

PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
"""What stands for a column in a template."""
_MAX_BYTES = 10_000_000


def template_columns(template: str) -> list[str]:
    """The columns that a template names."""
    return list(dict.fromkeys(PLACEHOLDER.findall(template)))


def filled(
    frame: pd.DataFrame, template: str, separator: str | None, where: str, key: str, first: int
) -> list[list[str]]:
    """By row the paths that a template makes of its columns; none where one of them is empty.

    A template of one column makes one path of each item of a list, or of a text that `separator` divides.

    Args:
        frame: Rows as `read_rows` gives them.
        template: Such as `{id}.jpg`.
        separator: What stands between the parts of a cell.
        where: Named in errors.
        key: That gives the template; named in errors.
        first: The number of the first row, from 0; named in errors.

    Raises:
        MmfuseError: A cell is no text.
    """
    names = template_columns(template)
    if len(names) == 1:
        named = _named(frame, names[0], separator, where, key, first)
        return [[PLACEHOLDER.sub(lambda _, part=part: part, template) for part in parts] for parts in named]
    rows = []
    for values in zip(*(cells.texts(frame, name, where, key, first) for name in names), strict=True):
        said = {name: value.strip() for name, value in zip(names, values, strict=True)}
        rows.append([PLACEHOLDER.sub(lambda found, said=said: said[found[1]], template)] if all(said.values()) else [])
    return rows


def _named(
    frame: pd.DataFrame, column: str, separator: str | None, where: str, key: str, first: int
) -> list[list[str]]:
    rows = []
    for row, cell in enumerate(frame[column], start=first + 1):
        try:
            parts = cells.images(cell, separator)
            if any(isinstance(part, bytes) for part in parts):
                raise MmfuseError("bytes, where a path is expected")
        except MmfuseError as error:
            raise MmfuseError(f"{where}: {key}: {column}, row {row}: {error}") from error
        rows.append(parts)
    return rows


def read_texts(
    frame: pd.DataFrame, files: str, root: str, missing: Sequence[str], where: str, first: int
) -> Iterator[str]:
    """By row the text of its files, several joined by a blank line; "" where its cell is empty.

    Args:
        frame: Rows as `read_rows` gives them.
        files: A column of paths, or a template of them.
        root: What they are relative to.
        missing: Cells that mean that there is none.
        where: Named in errors.
        first: The number of the first row, from 0; named in errors.

    Raises:
        MmfuseError: A cell is no path, or a file cannot be read: the row, and the reason.
    """
    key, template = "text.files", files if PLACEHOLDER.search(files) else f"{{{files}}}"
    permitted = (root,) if "://" in root else ()
    for row, paths in enumerate(filled(frame, template, None, where, key, first), start=first + 1):
        parts = []
        for path in paths:
            try:
                if path in missing:
                    continue
                if "://" in path:
                    raise MmfuseError("a URL, where the path of a file is expected")
                parts.append(decode_report(read_location(place(path, root), _MAX_BYTES, permitted)))
            except MmfuseError as error:
                name = path.rsplit("/", 1)[-1]
                raise MmfuseError(f"{where}: {key}: {files}, row {row}: {name!r:.200}: {error}") from error
        yield "\n\n".join(filter(None, parts))
