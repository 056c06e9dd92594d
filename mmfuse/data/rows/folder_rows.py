"""A folder of images and texts as rows, a study a row, with what a table of labels in it says of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pandas as pd

from mmfuse.data.readers.kinds import kind_of
from mmfuse.data.rows.arrow_cells import wanted_of
from mmfuse.data.rows.folder import Entry, pair_folder
from mmfuse.types import MmfuseError

ID, IMAGE, TEXT, FOLDER, PARENT = "id", "image_file", "text_file", "folder", "parent"
COLUMNS = (ID, IMAGE, TEXT, FOLDER, PARENT)
"""Of each study: its id (`pair_folder`), the paths of its images and texts, and the last two folders of its id."""
LABELS = tuple(f"{name}.{suffix}" for name in ("labels", "metadata") for suffix in ("csv", "tsv", "jsonl", "parquet"))
"""Tables of a folder that say more of its studies: by the column `id`, or `file_name`, as Hugging Face's have it."""
_FILE_NAME = "file_name"


def folder_blocks(
    folder: str, columns: Iterable[str] | None, read: Callable[[str], Iterator[pd.DataFrame]]
) -> Iterator[pd.DataFrame]:
    """The rows of a folder: `COLUMNS`, and those of its table of labels; in one block, as only paths are held.

    A study of which the table says nothing has empty cells.

    Args:
        folder: As `pair_folder` reads it.
        columns: Those that are needed; none: only their names are told. Default: all.
        read: Gives the rows of a table.

    Raises:
        MmfuseError: There is no study; files do not pair; there are several tables of labels, or one names a study
            that is not there, or one twice, or has none of the two columns, or one of `COLUMNS` beside.
    """
    entries, _ = pair_folder(folder)
    _check_problems(entries)
    frame = pd.DataFrame([_row(entry) for entry in entries], columns=list(COLUMNS), dtype="object")
    tables = [name for name in LABELS if os.path.isfile(os.path.join(folder, name))]
    if len(tables) > 1:
        raise MmfuseError(f"{' and '.join(tables)}: one table of labels is expected")
    for name in tables:
        said = pd.concat(read(os.path.join(folder, name)), ignore_index=True).fillna("")
        frame = frame.join(_by_study(said, name, entries, folder), on=ID).fillna("")
    wanted = wanted_of(list(frame.columns), columns)
    yield frame.reindex(columns=wanted) if wanted else frame.head(0)


def holds_studies(folder: str) -> bool:
    """Whether there is any image or text in a folder, or below it."""
    files = (os.path.join(place, name) for place, _, names in os.walk(folder) for name in names)
    return any(kind_of(file) in ("image", "text") for file in files)


def _check_problems(entries: list[Entry]) -> None:
    problems = [entry for entry in entries if entry.problem is not None]
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise MmfuseError(f"{problems[0].id!r}: {problems[0].problem}{more}")


def _row(entry: Entry) -> list[Any]:
    images, texts = ([os.path.abspath(path) for path in paths] for paths in entry.files())
    *_, parent, folder, _ = ("", "", *entry.id.split("/"))
    return [entry.id, images, texts, folder, parent]


def _by_study(said: pd.DataFrame, name: str, entries: list[Entry], folder: str) -> pd.DataFrame:
    """The rows of a table of labels by the ids of studies, without the column that names them."""
    key = next((column for column in (ID, _FILE_NAME) if column in said), None)
    if key is None:
        raise MmfuseError(f"{name}: no column {ID!r} or {_FILE_NAME!r}, which names the study")
    taken = [column for column in said if column in COLUMNS and column != key]
    if taken:
        raise MmfuseError(f"{name}: the column {taken[0]!r} is what the folder says: rename it")
    ids = {entry.id for entry in entries}
    of_file = {os.path.relpath(path, folder): entry.id for entry in entries for path in (*entry.images, *entry.texts)}
    found = []
    for row, cell in enumerate(said[key], 1):
        named = cell.strip() if isinstance(cell, str) else ""
        found.append(named if named in ids else of_file.get(named))
        if found[-1] is None:
            raise MmfuseError(f"{name}: row {row}: {named!r:.200}: no such study in the folder")
    twice = next((id for id, again in zip(found, pd.Series(found).duplicated(), strict=True) if again), None)
    if twice is not None:
        raise MmfuseError(f"{name}: {twice!r} is there twice")
    return said.drop(columns=key).set_axis(found)
