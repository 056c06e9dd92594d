"""Which column names the images, and where the files are that it names: found by looking for them."""

from __future__ import annotations

import os
import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from mmfuse import cells
from mmfuse.data.readers.kinds import IMAGE_SUFFIXES
from mmfuse.data.sniff.columns import Column
from mmfuse.types import MmfuseError

_MOST_FILES, _MOST_SECONDS = 500_000, 20.0
_TRIED = 300
"""Rows whose cells are looked for, spread over the table."""
_LONGEST = 4096
_ENOUGH = 0.5
"""Of the cells that are tried, so many must name a file."""
_NAMES = """
    image images img imgs picture pictures pic photo photos photograph film films frontal lateral scan scans
    filename file files path paths filepath imagepath jpg png dicom bild foto poster
"""
_NAMED = frozenset(_NAMES.split())
_COUNTED = re.compile(r"#\d+$")
FOUND = "image_file"
"""The column that is made of the files' paths."""
SEPARATORS = (";", ", ", ",", "|")


class Files:
    """The files of some suffixes below a folder, to be found by name; hidden ones are left out.

    Args:
        base: The folder.
        suffixes: Theirs, in lower case.
        every: Look at all of them, as rows are made of them, however long it takes.

    Attributes:
        paths: Relative to the folder, with `/`, sorted.
        whole: Whether all were looked at: of very many, or on a slow disk, the first only.
    """

    def __init__(self, base: Path, suffixes: Sequence[str] = IMAGE_SUFFIXES, every: bool = False):
        self.base, self.whole = base, True
        self.paths: list[str] = []
        ends, seen = time.monotonic() + _MOST_SECONDS, 0
        for folder, folders, names in os.walk(base):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            seen += len(names)
            inside = os.path.relpath(folder, base).replace(os.sep, "/")
            prefix = "" if inside == "." else f"{inside}/"
            wanted = tuple(suffixes)
            self.paths += [f"{prefix}{n}" for n in names if n.lower().endswith(wanted) and not n.startswith(".")]
            if not every and (seen > _MOST_FILES or time.monotonic() > ends):
                self.whole = False
                break
        self.paths.sort()
        self._named: dict[str, list[str]] = defaultdict(list)
        self._stems: dict[str, list[str]] = defaultdict(list)
        for path in self.paths:
            name = path.rpartition("/")[2]
            self._named[name.lower()].append(path)
            self._stems[os.path.splitext(name)[0].lower()].append(path)

    def find(self, cell: str) -> str | None:
        """The file that a cell names: with or without its suffix or its first folders; None where it is not clear."""
        plain = cell.strip().replace("\\", "/").removeprefix("./")
        name = plain.rpartition("/")[2].lower()
        if not name:
            return None
        for known in (self._named.get(name), self._stems.get(name)):
            if known:
                best = _alike(plain, known)
                if best is not None:
                    return best
        bare = _COUNTED.sub("", plain)
        return self.find(bare) if bare != plain else None


def _alike(plain: str, paths: Sequence[str]) -> str | None:
    """Of files with the right name the one whose folders agree most; None where several do."""
    if len(paths) == 1:
        return paths[0]
    wanted = plain.split("/")[-2::-1]

    def agree(path: str) -> int:
        parts = path.split("/")[-2::-1]
        return next(
            (i for i, (a, b) in enumerate(zip(wanted, parts, strict=False)) if a != b), min(len(wanted), len(parts))
        )

    counts = sorted(((agree(path), path) for path in paths), reverse=True)
    return counts[0][1] if counts[0][0] > counts[1][0] else None


@dataclass
class Images:
    """The images of a table.

    Attributes:
        column: Which names them, or has them.
        manifest: The manifest's `image`, but for a root that is relative.
        paths: By row the file below the folder that was looked at, of the rows that were tried.
        made: By row such a path, where no root and no suffix lead from the cells to the files.
        said: What was found and why.
        unsure: What may be wrong.
    """

    column: str
    manifest: dict[str, Any]
    paths: dict[int, str] = field(default_factory=dict)
    made: list[str] | None = None
    said: list[str] = field(default_factory=list)
    unsure: list[str] = field(default_factory=list)


def find_images(columns: Mapping[str, Column], base: Path, named: str | None, apart: Iterable[str]) -> Images | None:
    """The column of images, and the root and suffix with which its cells name files.

    Args:
        columns: Of the table.
        base: Where the table is; looked at are this folder, those below it, and the one above where none is there.
        named: The column that the user has named.
        apart: Columns that are something else.
    """
    chosen = [columns[named]] if named else [column for name, column in columns.items() if name not in set(apart)]
    packed = [column for column in chosen if _are_images(column)]
    if packed:
        best = max(packed, key=_name_speaks)
        return Images(best.name, {"column": best.name}, said=[f"image: {best.name}: encoded images in the cells"])
    known = [(column, found) for column in chosen if (found := _as_they_stand(column, base))]
    if known:
        column, (found, looked) = max(known, key=lambda one: _name_speaks(one[0]))
        whole = all(os.path.isabs(path) for path in found.values())
        where = {} if whole else {"root": str(base)}
        told = _count(column.name, len(found), looked) + ("" if whole else f" below {_short(str(base), base)}")
        lost = _lost(column.name, len(found), looked)
        return Images(column.name, {"column": column.name, **where}, found, said=[told], unsure=lost)
    web = [c for c in chosen if c.is_url and (_name_speaks(c) or _look_like_files(c))]
    files = Files(base)
    tried = _try(chosen, files)
    if not tried and not web and base.parent != base and _may_look_above(base):
        files = Files(base.parent)
        tried = _try(chosen, files)
    if tried:
        return _placed(max(tried, key=lambda one: one.score), columns, files)
    if web:
        best = max(web, key=_name_speaks)
        protocol = best.filled[0].partition("://")[0]
        unsure = [f"image: {best.name}: addresses, not tried; they are read while training"]
        said = [f"image: {best.name}: it holds addresses of images"]
        return Images(best.name, {"column": best.name, "urls": [protocol]}, said=said, unsure=unsure)
    alike = [column for column in chosen if _look_like_files(column)]
    if not alike and named is None:
        return None
    best = max(alike or chosen, key=_name_speaks)
    unsure = f"image: {best.name}: none of its files is found in {base.name} or below; correct image.root"
    return Images(best.name, {"column": best.name, "root": str(base)}, unsure=[unsure])


def _may_look_above(base: Path) -> bool:
    return base.parent not in (Path("/"), Path.home(), Path("/tmp"), Path.home().parent)


def _are_images(column: Column) -> bool:
    some = [cell for cell in column.cells if cell not in ("", [], {})][:50]
    parts = [part for cell in some for part in (cell if isinstance(cell, list) else [cell])]
    packed = [isinstance(part, bytes) or (isinstance(part, dict) and "bytes" in part) for part in parts]
    return bool(packed) and all(packed)


def _as_they_stand(column: Column, base: Path) -> tuple[dict[int, str], int] | None:
    """By row the path, of a column of paths of images that need no looking for, whole ones or from the base.

    Returns:
        With how many rows were tried; None of another column.
    """
    rows = [row for row, cell in enumerate(column.cells) if cell not in ("", [], {})]
    rows, found = rows[:: max(1, len(rows) // _TRIED)], {}
    for row in rows:
        try:
            locations = cells.images(column.cells[row])
        except MmfuseError:
            return None
        paths = [path for path in locations if isinstance(path, str) and len(path) < _LONGEST]
        if not paths or len(paths) < len(locations) or not paths[0].lower().endswith(IMAGE_SUFFIXES):
            return None
        if os.path.isfile(base / paths[0]):
            found[row] = paths[0]
    all_alike = len({os.path.isabs(path) for path in found.values()}) == 1
    return (found, len(rows)) if all_alike and len(found) >= _ENOUGH * len(rows) else None


def _name_speaks(column: Column) -> int:
    return 2 if _NAMED & set(column.words) else 0


def _look_like_files(column: Column) -> bool:
    some = column.filled[:: max(1, len(column.filled) // _TRIED)]
    return bool(some) and sum(one.lower().endswith(IMAGE_SUFFIXES) for one in some) > 0.8 * len(some)


@dataclass
class _Tried:
    column: Column
    separator: str | None
    found: dict[int, str]
    looked: int

    @property
    def score(self) -> tuple[float, int, int]:
        """How many cells name a file, whether they name it whole, and whether the column's name says so."""
        some = list(self.found)[:50]
        whole = sum(self.column.texts[row].lower().endswith(IMAGE_SUFFIXES) for row in some)
        return round(len(self.found) / self.looked, 1), whole * 2 > len(some), _name_speaks(self.column)


def _try(columns: Iterable[Column], files: Files) -> list[_Tried]:
    """The columns whose cells name files."""
    tried = []
    for column in columns if files.paths else ():
        rows = [row for row, text in enumerate(column.texts) if text or isinstance(column.cells[row], (list, dict))]
        rows = rows[:: max(1, len(rows) // _TRIED)]
        if not rows or (column.kind == "text" and column.length > 12):
            continue
        for separator in (None, *SEPARATORS):
            if separator and not any(separator in column.texts[row] for row in rows):
                continue
            found = {row: path for row in rows if (path := _first(column.cells[row], separator, files))}
            if (
                len(found) >= _ENOUGH * len(rows)
                and len(set(found.values())) * 3 > len(set(map(str, column.counts))) / 3
            ):
                tried.append(_Tried(column, separator, found, len(rows)))
                break
    return tried


def _first(cell: cells.Cell, separator: str | None, files: Files) -> str | None:
    """The file that the first image of a cell names, if all of them name one."""
    try:
        locations = [image for image in cells.images(cell, separator) if isinstance(image, str)]
    except MmfuseError:
        return None
    found = [files.find(image) for image in locations]
    return found[0] if found and None not in found else None


def _placed(best: _Tried, columns: Mapping[str, Column], files: Files) -> Images:
    """How the cells of a column lead to their files: by a root, a suffix, a template, or not at all."""
    column, found = best.column, best.found
    first = {row: _location(column.cells[row], best.separator) for row in found}
    ways = Counter(_way(first[row], path, files.base) for row, path in found.items())
    way, often = ways.most_common(1)[0]
    count = _count(column.name, len(found), best.looked)
    images = Images(column.name, {"column": column.name}, found, unsure=_lost(column.name, len(found), best.looked))
    if not files.whole:
        images.unsure.append(f"image: only the first {len(files.paths):,} files of images were looked at")
    bare = not set("{}") & set(column.name) and column.kind == "text"
    if way is not None and often >= 0.98 * len(found) and (bare or not way[1]):
        template = f"{{{column.name}}}{way[1]}"
        images.manifest = {"template": template} if way[1] else images.manifest
        images.manifest["root"] = way[0]
        images.manifest |= {"separator": best.separator} if best.separator else {}
        tail = f" as {template}" if way[1] else ""
        images.said.append(f"{count}{tail} below {_short(way[0], files.base)}")
    else:
        images.manifest = {"column": FOUND, "root": str(files.base)}
        images.manifest |= {"separator": ";"} if best.separator or column.kind == "list" else {}
        files = files if files.whole else Files(files.base, every=True)
        images.made = [_of_row(cell, best.separator, files) for cell in column.cells]
        images.said.append(f"{count}{_tail(ways)}: their paths are the new column {FOUND}")
    return images


def _count(name: str, found: int, looked: int) -> str:
    return f"image: {name}: {found} of {looked} cells that were tried name a file"


def _lost(name: str, found: int, looked: int) -> list[str]:
    return [f"image: {name}: {looked - found} of {looked} files were not found"] if found < looked else []


def _short(root: str, base: Path) -> str:
    """A folder as it is told: from the one that was looked at."""
    place = Path(root)
    return (place.relative_to(base.parent) if place.is_relative_to(base.parent) else Path(place.name)).as_posix()


def _tail(ways: Counter[tuple[str, str] | None]) -> str:
    suffixes = {way[1] for way in ways if way is not None}
    several = ", in several folders" if len({way and way[0] for way in ways}) > 1 else ""
    return f"{several}, with {' or '.join(sorted(filter(None, suffixes)))} behind it" if any(suffixes) else several


def _location(cell: cells.Cell, separator: str | None) -> str:
    return next(image for image in cells.images(cell, separator) if isinstance(image, str))


def _way(cell: str, path: str, base: Path) -> tuple[str, str] | None:
    """The root and the suffix that lead from a cell to a file; None where there is none."""
    suffix = "" if path.endswith(cell) or cell.endswith(path) else PurePosixPath(path).suffix
    whole = f"{cell}{suffix}"
    if path == whole or path.endswith(f"/{whole}"):
        root = path[: len(path) - len(whole)].rstrip("/")
        return str(base / root) if root else str(base), suffix
    if whole.endswith(f"/{path}"):
        above = whole[: -len(path)].strip("/")
        if base.as_posix().endswith(f"/{above}"):
            return base.as_posix()[: -len(above)].rstrip("/"), suffix
    return None


def _of_row(cell: cells.Cell, separator: str | None, files: Files) -> str:
    try:
        locations = [image for image in cells.images(cell, separator) if isinstance(image, str)]
    except MmfuseError:
        return ""
    return ";".join(files.find(image) or image for image in locations)
