"""COCO captions: photographs of 80 kinds of things with five captions each.

Layouts: the annotations of https://cocodataset.org/#format-data in annotations/, the pictures in train2017 ... or in
images/train2017 ... (seen in public readers, searched 2026-11); Karpathy's dataset_coco.json; parquet copies. From
memory: the numbers and the licences.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmfuse.data.public.sources import SOURCES, Card, Note, Row
from mmfuse.data.public.sources.captions import COPY, caption_manifest, captioned, copied, read_karpathy, sentences
from mmfuse.data.public.sources.files import find, objects, read_json, text_of
from mmfuse.data.public.sources.parquet import copy_is_split, tables
from mmfuse.types import MmfuseError

_KARPATHY = ("dataset_coco.json", "*/dataset_coco.json")
_YEARS, _SPLITS = (2017, 2014), ("train", "val")
_PLACES = ("annotations/", "annotations_trainval{year}/annotations/", "")
_FILES = {
    (year, split): tuple(f"{place.format(year=year)}captions_{split}{year}.json" for place in _PLACES)
    for split in _SPLITS
    for year in _YEARS
}
_ANNOTATIONS = tuple(_FILES[year, split][place] for place in range(3) for split in _SPLITS for year in _YEARS)
_PICTURES = tuple(f"{root}{split}{year}" for split in _SPLITS for root in ("", "images/") for year in _YEARS)


@SOURCES.register("coco_captions")
class CocoCaptions:
    """COCO captions; a row is a photograph with its captions."""

    card = Card(
        about="123,287 photographs of 80 kinds of things in their surroundings, with five captions each.",
        homepage="https://cocodataset.org/",
        licence="annotations CC BY 4.0; the photographs under the terms of their Flickr authors",
        citation="Lin et al. 2014, arXiv 1405.0312; Chen et al. 2015, Microsoft COCO Captions, arXiv 1504.00325",
        obtain=(
            "train2017.zip, val2017.zip and annotations_trainval2017.zip (or those of 2014) from the homepage; for "
            "Karpathy's split the images of 2014 and his dataset_coco.json"
        ),
        split=(
            "train and val by the annotations' names (captions of the test images were never published). With "
            "dataset_coco.json Karpathy's 113,287 / 5,000 / 5,000 instead, which is what papers on captions report."
        ),
        traps=(
            "With the annotations alone there is no test part: scores are those of validation.",
            "2014 and 2017 have the same images in other splits: a backbone trained on train2017 has seen most of "
            "val2014.",
            "In Karpathy's file restval is training material.",
        ),
        files=((*_KARPATHY, *_ANNOTATIONS), _PICTURES),
        layouts=(COPY,),
    )

    def rows(self, folder: Path) -> Iterator[Row | Note]:
        """A row a photograph, in the order of the annotations' images."""
        karpathy, found = find(folder, _KARPATHY), _found(folder)
        if karpathy is not None:
            if found:
                yield Note("captions and split are those of dataset_coco.json; the annotations beside it are not read")
            yield from _karpathy(karpathy, folder)
        elif find(folder, _ANNOTATIONS) is None:
            yield from copied("coco_captions", folder)
        else:
            chosen = _chosen(folder, found)
            yield from _left_out(folder, chosen)
            for split, (path, pictures) in chosen.items():
                yield from _annotated(split, path, pictures)

    def manifest(self, folder: Path | None) -> dict[str, Any]:
        """Captions of photographs."""
        plain = folder is None or find(folder, (*_KARPATHY, *_ANNOTATIONS)) is not None
        official = plain or copy_is_split(tables(folder))  # type: ignore[arg-type]
        return caption_manifest(official, {} if official else {"train": 0.9, "validation": 0.05, "test": 0.05})


def _found(folder: Path) -> dict[tuple[int, str], tuple[Path, Path]]:
    """By year and part, the annotations that are there with their pictures."""
    found = {}
    for year in _YEARS:
        for split in _SPLITS:
            path = find(folder, _FILES[year, split])
            pictures = find(folder, (f"{split}{year}", f"images/{split}{year}"))
            if path is not None and pictures is not None:
                found[year, split] = (path, pictures)
    return found


def _chosen(folder: Path, found: dict[tuple[int, str], tuple[Path, Path]]) -> dict[str, tuple[Path, Path]]:
    """The parts of the first year that has any.

    Raises:
        MmfuseError: None has.
    """
    for year in _YEARS:
        parts = {split: found[year, split] for split in _SPLITS if (year, split) in found}
        if parts:
            return parts
    there = [name for name in (*_ANNOTATIONS, *_PICTURES) if (folder / name).exists()]
    raise MmfuseError(f"{folder}: no annotations have their own pictures beside them; it has {', '.join(there)}")


def _left_out(folder: Path, chosen: dict[str, tuple[Path, Path]]) -> Iterator[Note]:
    read = [path.name for path, _ in chosen.values()]
    there = {Path(name).name for name in _ANNOTATIONS if (folder / name).exists()}
    unread = sorted(there - set(read))
    if unread:
        names = ", ".join(read)
        yield Note(f"read are the annotations that have their pictures ({names}); not {', '.join(unread)}")
    for split, part in (("train", "training"), ("val", "validation")):
        if split not in chosen:
            yield Note(f"there is no {part} part: {split} is not here")


def _annotated(split: str, path: Path, pictures: Path) -> Iterator[Row]:
    data = read_json(path)
    if not isinstance(data, dict):
        raise MmfuseError(f"{path}: an object with images and annotations is expected")
    captions: dict[str, list[str]] = {}
    for _, item in objects(data.get("annotations"), path, "annotations", ("image_id", "caption")):
        if isinstance(item, Row):
            yield item
        elif text := text_of(item, "caption"):
            captions.setdefault(text_of(item, "image_id"), []).append(text)
    known = set()
    for number, item in objects(data.get("images"), path, "images", ("id", "file_name")):
        if isinstance(item, Row):
            yield item
        else:
            name = text_of(item, "id")
            known.add(name)
            origin = Row("", path=path, line=number)
            yield captioned(pictures / text_of(item, "file_name"), captions.get(name, []), split, None, origin)
    for name in (name for name in captions if name not in known):
        yield Row(f"{split} {name}", problem="captions of an image that is not listed", path=path)


def _karpathy(path: Path, folder: Path) -> Iterator[Row]:
    for number, item in read_karpathy(path, "coco_captions"):
        if isinstance(item, Row):
            yield item
        else:
            image = _picture(folder, text_of(item, "filepath"), text_of(item, "filename"))
            yield captioned(image, sentences(item), text_of(item, "split"), None, Row("", path=path, line=number))


def _picture(folder: Path, place: str, name: str) -> Path:
    """Where a picture of 2014 is; in a download of 2017 it has only its number as name, and may be in another part."""
    number = re.sub(r"COCO_\w+_", "", name)
    places = [folder / place / name, folder / "images" / place / name]
    places += [folder / root / part / number for root in ("", "images") for part in ("train2017", "val2017")]
    return next((file for file in places if os.path.exists(file)), places[0])
