"""What sets of captioned photographs share: Karpathy's json, token files, csv files, parquet files.

Seen in public copies and readers (searched 2026-11): `NAME#NUMBER<TAB>CAPTION` of the token files, some of whose lines
have spaces for the TAB; Kaggle's captions.txt (`image,caption` or `image_name,comment_number,comment`) and results.csv
(`image_name| comment_number| comment`, with one line that lacks a separator); Karpathy's dataset_*.json; the columns of
parquet copies.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmfuse.data.sources import Layout, Note, Row
from mmfuse.data.sources.files import bad_line, find, objects, read_csv, read_json, read_lines, text_of
from mmfuse.data.sources.parquet import (
    PARQUET,
    Packed,
    Table,
    copy_is_split,
    image_column,
    path_of,
    records,
    suffix_of,
    tables,
    texts_of,
)
from mmfuse.types import MmfuseError

NAMES = {"val": "validation", "dev": "validation", "restval": "train"}
_TEXTS = ("caption", "captions", "sentences_raw", "sentences", "raw", "caption_0", "answer")
_FILES = ("filename", "file_name", "image_filename", "image_name")
COPY = Layout("a Hugging Face copy in parquet files", (PARQUET,), (("image", "img", "jpg"), _TEXTS))

_MARKED = re.compile(r"(\S.*?)#(\d)(?:\s+(.*))?")
_PIPED = re.compile(r"([^|]+)\|\s*(\d+)\s*\|?\s*(.*)")
_PIPED_PAIR = re.compile(r"([^|]+)(\|)(.*)")


@dataclass(frozen=True)
class Caption:
    """One caption of one photograph.

    Attributes:
        image: The photograph's file name.
        text: The caption.
        line: Where it stands, from 1.
    """

    image: str
    text: str
    line: int


def caption_manifest(official: bool, ratios: dict[str, float]) -> dict[str, Any]:
    """Captions to be written; the split is the release's column, or by hash."""
    shares = " / ".join(f"{100 * share:g}" for share in ratios.values())
    return {
        **({} if official else {"split_is": f"none is here: {shares} by hash of the photograph."}),
        "tasks": {"caption": {"type": "captioning", "column": "captions", "label_origin": "human"}},
        "splits": {"column": "split", "names": NAMES} if official else {"ratios": ratios},
    }


def captioned(
    image: Path | Packed, captions: list[str], split: str, problem: str | None = None, origin: Row | None = None
) -> Row:
    """A photograph with its captions; one without any is told.

    Args:
        image: The photograph.
        captions: Its captions.
        split: As the release says it; "" if it does not.
        problem: Why it cannot be used.
        origin: A row whose file and line are taken, and of an image inside of a parquet file the id.
    """
    columns = {"split": split, "captions": json.dumps(captions, ensure_ascii=False)}
    problem = problem or (None if captions else "no caption")
    path, line = (origin.path, origin.line) if origin else (None, None)
    if isinstance(image, Packed):
        return Row(origin.id if origin else image.name, columns, (image,), problem, path, line)
    if problem or path is None:
        path, line = image, None  # a photograph that is left out is told by its own file
    return Row(image.stem, columns, (image,), problem, path, line)


def read_tokens(path: Path) -> Iterator[Caption | Row]:
    """The lines of a token file; a line without a TAB is read where its `#NUMBER` tells the caption's beginning."""
    for number, line in read_lines(path):
        if isinstance(line, Row):
            yield line
            continue
        name, tab, text = line.partition("\t")
        if tab:
            name = name.rpartition("#")[0] or name
        else:
            found = _MARKED.fullmatch(line)
            name, text = (found[1], found[3] or "") if found else ("", "")
        if not name.strip():
            yield bad_line(path, number, "not a line of image#number, TAB, caption")
        elif not text.strip():
            yield bad_line(path, number, "no caption")
        else:
            yield Caption(name.strip(), text.strip(), number)


def read_table(path: Path) -> Iterator[Caption | Row]:
    """The lines of a csv file with a caption each, by its header separated by commas or `|`.

    Raises:
        MmfuseError: The header names no image and caption.
    """
    _, header = next(read_lines(path), (1, ""))
    names = [name.strip() for name in re.split(r"[,|]", header)] if isinstance(header, str) else []
    image = next((name for name in ("image", "image_name") if name in names), None)
    text = next((name for name in ("caption", "comment") if name in names), None)
    if image is None or text is None:
        raise MmfuseError(f"{path}: no columns image and caption; it has {(', '.join(names) or 'none')[:80]}")
    lines = _piped(path, len(names)) if "|" in str(header) else _separated(path, image, text)
    for item in lines:
        yield bad_line(path, item.line, "no caption") if isinstance(item, Caption) and not item.text else item


def _separated(path: Path, image: str, text: str) -> Iterator[Caption | Row]:
    for number, line in read_csv(path, (image, text)):
        yield line if isinstance(line, Row) else Caption(line[image].strip(), line[text].strip(), number)


def _piped(path: Path, width: int) -> Iterator[Caption | Row]:
    for number, line in list(read_lines(path))[1:]:
        found = (_PIPED if width > 2 else _PIPED_PAIR).fullmatch(line) if isinstance(line, str) else None
        if isinstance(line, Row):
            yield line
        elif found is None:
            yield bad_line(path, number, "not a line of image | number | caption")
        else:
            yield Caption(found[1].strip(), found[3].strip(), number)


def by_image(captions: Iterable[Caption | Row]) -> tuple[dict[str, list[Caption]], list[Row]]:
    """The captions by photograph, in the order in which each is first named, and the lines that are none."""
    found: dict[str, list[Caption]] = {}
    bad = []
    for item in captions:
        if isinstance(item, Row):
            bad.append(item)
        else:
            found.setdefault(item.image, []).append(item)
    return found, bad


def pictures(folder: Path, patterns: Sequence[str], names: Iterable[str]) -> Path | None:
    """The folder, of those that match, which has one of the first of these files; else the first that is there."""
    wanted = [name for name, _ in zip(names, range(20), strict=False)]
    places = [place for pattern in patterns for place in sorted(folder.glob(pattern)) if place.is_dir()]
    held = (place for place in places if any(os.path.exists(place / name) for name in wanted))
    return next(held, places[0] if places else find(folder, patterns))


def read_karpathy(path: Path, name: str) -> Iterator[tuple[int, dict[str, Any] | Row]]:
    """The photographs of a dataset_*.json.

    Raises:
        MmfuseError: It is damaged, or says that it is another set's.
    """
    data = read_json(path)
    if not isinstance(data, dict):
        raise MmfuseError(f"{path}: an object with images is expected")
    other = data.get("dataset")
    if other in ("flickr8k", "flickr30k", "coco") and not name.startswith(other):
        other = "coco_captions" if other == "coco" else other
        raise MmfuseError(f"{path}: it says that it is of {other}: mmfuse data prepare {other}")
    yield from objects(data.get("images"), path, "images", ("filename", "sentences", "split"))


def sentences(item: dict[str, Any]) -> list[str]:
    """The captions of a photograph of Karpathy's; what is no sentence is none."""
    found = item.get("sentences")
    texts = [text_of(s, "raw") for s in found if isinstance(s, dict)] if isinstance(found, list) else []
    return [text for text in texts if text]


def copied(name: str, folder: Path) -> Iterator[Row | Note]:
    """The photographs of a parquet copy; the captions of one file's rows are put together."""
    files = tables(folder)
    official = copy_is_split(files)
    found: dict[tuple[str, str], tuple[Row, list[str]]] = {}
    rows = [row for table in files for row in _copied(table, folder, official)]
    paths = Counter(row.path for row in rows)
    for row in rows:
        file = row.file or (row.path if paths[row.path] == 1 else "") or row.number
        known = found.setdefault((row.split, file), (row.origin(file), []))
        known[1].extend(row.texts)
    check_names(name, (origin.id for origin, _ in found.values()), folder)
    if not official:
        yield Note("this Hugging Face copy tells no split, so it is by hash: scores compare with no published ones")
    for (split, _), (origin, texts) in found.items():
        yield captioned(origin.images[0], texts, split, None, origin)


@dataclass(frozen=True)
class _Copied:
    """A row of a parquet copy: what names its image (a column, the image's own path, its place), split and texts."""

    table: Path
    column: str
    line: int
    file: str
    path: str
    number: str
    split: str
    texts: list[str]

    def origin(self, name: str) -> Row:
        """The row without its texts, by the name of its image."""
        image = Packed(f"{self.split or 'images'}/{name}", self.table, self.line - 1, self.column)
        return Row(name.removesuffix(Path(name).suffix), {}, (image,), path=self.table, line=self.line)


def _copied(table: Table, folder: Path, official: bool) -> Iterator[_Copied]:
    column = image_column(table)
    suffix, place = suffix_of(table, column), table.path.relative_to(folder).with_suffix("").as_posix()
    texts = [name for name in table.schema.names if re.fullmatch(r"caption_\d+", name)] or [str(table.first(_TEXTS))]
    for number, record in records(table):
        file = next((Path(str(record[key])).name for key in _FILES if record.get(key)), "")
        split = str(record.get("split") or table.split) if official else ""
        found = [text for key in texts for text in texts_of(record.get(key)) if text]
        path = Path(path_of(record, column)).name
        yield _Copied(table.path, column, number, file, path, f"{place}/{number:06d}{suffix}", split, found)


_NAMED = {
    "flickr8k": re.compile(r"\d+_[0-9a-f]{10}(\.jpg)?"),
    "flickr30k": re.compile(r"\d{5,11}"),
    "coco_captions": re.compile(r"(COCO_\w+_)?\d{12}"),
    "roco_v1": re.compile(r"ROCO_\d+"),
    "roco_v2": re.compile(r"ROCOv2_\w+"),
}
"""How the sets name their photographs, without suffix."""


def check_names(name: str, stems: Iterable[str], where: Path) -> None:
    """Refuse a download whose photographs all have names of another set.

    Raises:
        MmfuseError: They have.
    """
    known = list(stems)
    for other, pattern in _NAMED.items():
        if other != name and known and all(pattern.fullmatch(stem) for stem in known):
            raise MmfuseError(
                f"{where}: this looks like {other}, by the names of its pictures: mmfuse data prepare {other}"
            )
