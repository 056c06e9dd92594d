"""What is never in two splits: rows of one group, by columns, by what they hold, or by a file that says it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mmfuse import cells
from mmfuse.data.readers.images import content_hash
from mmfuse.data.rows.read import need_columns, read_rows
from mmfuse.data.rows.spreadsheet import restored
from mmfuse.data.tables.manifest import CONTENT, Manifest
from mmfuse.tasks import kind_of
from mmfuse.types import MmfuseError


def group_columns(manifest: Manifest, columns: Collection[str]) -> tuple[list[str], bool]:
    """The columns that name a row's groups, and whether rows that are alike are of one group too.

    Args:
        manifest: Its `group` is none, a name, or a list of names; `content` is a column only where there is one.
        columns: Of the rows.
    """
    alike = CONTENT in manifest.group_names and CONTENT not in columns
    return [name for name in manifest.group_names if not (alike and name == CONTENT)], alike


def joins_groups(manifest: Manifest, columns: Collection[str]) -> str | None:
    """The key because of which groups are known when all rows are, or None where each row tells its own."""
    if manifest.group_file is not None:
        return "group.file"
    named, alike = group_columns(manifest, columns)
    return "group" if alike or len(named) > 1 else None


def join_groups(
    frame: pd.DataFrame, manifest: Manifest, ids: Sequence[str], texts: Sequence[Any], images: Sequence[Sequence[Any]]
) -> list[str]:
    """By row its group, where groups are joined; it depends on nothing but which rows there are.

    Rows are of one group where a column of `group` says the same of both, where they are alike (with `content`), or
    where a chain of such rows connects them. Its name is the smallest that any of its rows has.

    Args:
        frame: All rows.
        manifest: Theirs.
        ids: Of the rows; a row without any group is one by itself.
        texts: As the model reads them.
        images: As the model reads them; opened are those of rows that share their text.

    Raises:
        MmfuseError: A column holds something else than texts, or the file of groups cannot be read or lacks a row.
    """
    if manifest.group_file is not None:
        return _from_file(manifest, ids)
    named, alike = group_columns(manifest, frame.columns)
    columns = [[cell.strip() for cell in cells.texts(frame, name, manifest.source, "group")] for name in named]
    sets: list[Any] = [rows for column in columns for rows in _equal(cell or None for cell in column)]
    names = [cell or f"row {i}" for cell, i in zip(columns[0], ids, strict=True)] if named else list(ids)
    if alike:
        captioned = any(kind_of(task).is_text for task in manifest.tasks.values())
        sets += alike_rows(texts, images, captioned, manifest.urls)
    return name_groups(names, sets)


def name_groups(names: Sequence[str], sets: Iterable[Sequence[int]]) -> list[str]:
    """Names of rows, with the rows of each set, and all that sets connect, under the smallest name among them."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges = [np.stack([np.full(len(rows) - 1, rows[0]), np.asarray(rows[1:])]) for rows in sets if len(rows) > 1]
    edges += [np.stack([np.full(len(rows) - 1, rows[0]), rows[1:]]) for rows in _equal(names)]
    pairs = np.concatenate(edges, axis=1).astype(np.int64) if edges else np.zeros((2, 0), np.int64)
    graph = coo_array((np.ones(pairs.shape[1]), (pairs[0], pairs[1])), shape=(len(names), len(names)))
    _, member = connected_components(graph, directed=False)
    smallest: dict[int, str] = {}
    for part, name in zip(member.tolist(), names, strict=True):
        smallest[part] = min(smallest.get(part, name), name)
    return [smallest[part] for part in member.tolist()]


def alike_rows(
    texts: Sequence[Any], images: Sequence[Sequence[Any]], captioned: bool, urls: Sequence[str] = ()
) -> list[np.ndarray]:
    """Sets of rows with the same text and the same images (by content), which two splits must not share.

    Args:
        texts: By row.
        images: By row; opened where a text is shared. One that cannot be opened is like itself only.
        captioned: Whether images are captioned: then those with an image in common are alike too.
        urls: What may be opened beside paths (see `mmfuse.data.files.locations`).
    """
    contents: list[Any] = [None] * len(texts)
    for rows in _equal((text,) for text in texts):
        for row in rows.tolist():
            contents[row] = (texts[row], tuple(content_or_name(image, urls) for image in images[row]))
    sets = _equal(contents)
    if captioned:
        owners = [(image, row) for row, paths in enumerate(images) for image in paths]
        rows = np.array([row for _, row in owners], dtype=np.int64)
        sets += [rows[found] for found in _equal(image for image, _ in owners)]
    return sets


def content_or_name(image: str | bytes, urls: Sequence[str] = ()) -> str | bytes:
    """What tells an image from others: the hash of its bytes, or its name where it cannot be opened.

    Args:
        image: A location or encoded bytes.
        urls: What may be opened beside paths.
    """
    try:
        return content_hash(image, urls)
    except MmfuseError:
        return image


def _equal(values: Iterable[Any]) -> list[np.ndarray]:
    """Numbers of values that are equal, two or more in a set; None is equal to nothing."""
    members: dict[Any, list[int]] = defaultdict(list)
    for number, value in enumerate(values):
        if value is not None:
            members[value].append(number)
    return [np.array(numbers) for numbers in members.values() if len(numbers) > 1]


def _from_file(manifest: Manifest, ids: Sequence[str]) -> list[str]:
    where, file = f"{manifest.source}: group.file", str(manifest.group_file)
    frame = read_rows(file, where)
    need_columns(frame.columns, ["id", "group"], "group.file", f"{manifest.source}: {file}")
    group_of: dict[str, str] = {}
    columns = (cells.texts(frame, name, file, "group.file") for name in ("id", "group"))
    for row in zip(*columns, strict=True):
        name, group = map(restored, row)
        if group_of.setdefault(name.strip(), group.strip()) != group.strip():
            raise MmfuseError(f"{where}: {file}: the row {name!r} is in two groups")
    lacking = [name for name in ids if name not in group_of]
    if lacking:
        raise MmfuseError(
            f"{where}: {file}: {len(lacking)} row(s) are not in it, such as {lacking[0]!r}: write it again "
            "(mmfuse data check MANIFEST --groups FILE, with the `group` that the manifest had before)"
        )
    return [group_of[name] or f"row {name}" for name in ids]
