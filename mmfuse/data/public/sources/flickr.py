"""Flickr8k and Flickr30k: photographs with five captions each.

Layouts seen in public copies and readers (searched 2026-11): Flickr8k.token.txt with Flickr_8k.*Images.txt (in some
copies not all three); Kaggle's captions.txt; Flickr30k's results_20130124.token and Kaggle's results.csv; Karpathy's
dataset_*.json; flickr_annotations_30k.csv beside flickr30k-images.zip on Hugging Face, and parquet copies. From memory:
the numbers, the licences and where the files are got.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmfuse.data.public.sources import SOURCES, Card, Layout, Note, Row
from mmfuse.data.public.sources.captions import (
    COPY,
    Caption,
    by_image,
    caption_manifest,
    captioned,
    check_names,
    copied,
    pictures,
    read_karpathy,
    read_table,
    read_tokens,
    sentences,
)
from mmfuse.data.public.sources.files import bad_line, find, read_csv, read_lines, text_of
from mmfuse.data.public.sources.parquet import copy_is_split, tables

_BELOW = ("", "Flickr8k_text/", "*/", "*/*/")
_TOKENS = tuple(f"{folder}Flickr8k.token.txt" for folder in _BELOW)
_KAGGLE = ("captions.txt", "captions.csv")
_IMAGES_8K = ("Images", "images", "Flicker8k_Dataset", "Flickr8k_Dataset/Flicker8k_Dataset", "Flickr8k_Dataset")
_IMAGES_8K += ("*/Images", "*/Flicker8k_Dataset", "*/*/Flicker8k_Dataset")
_SPLITS = {s: tuple(f"{folder}Flickr_8k.{s}Images.txt" for folder in _BELOW) for s in ("train", "dev", "test")}
_KARPATHY_8K, _KARPATHY_30K = ((f"dataset_{name}.json", f"*/dataset_{name}.json") for name in ("flickr8k", "flickr30k"))
_TOKENS_30K = ("results_20130124.token", "flickr30k/results_20130124.token", "*.token")
_RESULTS = ("results.csv", "flickr30k_images/results.csv")
_ANNOTATIONS = ("flickr_annotations_30k.csv",)
_IMAGES_30K = ("flickr30k_images/flickr30k_images", "flickr30k-images", "flickr30k_images", "Images", "images")
_IMAGES_30K += ("*/flickr30k-images", "*/flickr30k_images")


@SOURCES.register("flickr8k")
class Flickr8k:
    """Flickr8k; a row is a photograph with its captions."""

    card = Card(
        about="8,091 photographs of people and animals with five captions each.",
        homepage="https://hockenmaier.cs.illinois.edu/8k-pictures.html",
        licence="the photographs belong to their Flickr authors; for non-commercial research and education only",
        citation="Hodosh, Young and Hockenmaier 2013, Framing Image Description as a Ranking Task, JAIR 47",
        obtain=(
            "Flickr8k_Dataset.zip and Flickr8k_text.zip (by the form on the homepage), or Kaggle's "
            "adityajn105/flickr8k (Images/ and captions.txt, without the split)"
        ),
        split=(
            "Flickr_8k.trainImages.txt 6,000, devImages 1,000, testImages 1,000; without these three files 80 / 10 "
            "/ 10 by hash of the photograph."
        ),
        traps=(
            "91 photographs are in none of the three lists: they are skipped where the lists are there.",
            "Flickr8k.token.txt captions 2258277193_586949ec62.jpg.1, which is no file.",
            "Kaggle's copy has no split, so scores on it do not compare with published ones.",
        ),
        files=((*_TOKENS, *_KAGGLE), _IMAGES_8K),
        layouts=(Layout("Karpathy's dataset_flickr8k.json", (_KARPATHY_8K, _IMAGES_8K)), COPY),
    )

    def rows(self, folder: Path) -> Iterator[Row | Note]:
        """A row a photograph, in the order of the captions."""
        lists = {split: path for split, patterns in _SPLITS.items() if (path := find(folder, patterns))}
        tokens, kaggle, karpathy = (find(folder, patterns) for patterns in (_TOKENS, _KAGGLE, _KARPATHY_8K))
        path = tokens or kaggle
        if karpathy and (path is None or len(lists) < len(_SPLITS)):
            yield from _beside(karpathy, ", and the split", tokens, kaggle, *lists.values())
            yield from _karpathy("flickr8k", karpathy, folder, _IMAGES_8K)
        elif path:
            yield from _beside(
                path, ", the split from its lists" if lists else "", kaggle if tokens else None, karpathy
            )
            captions, bad = by_image(read_tokens(path) if path == tokens else read_table(path))
            check_names("flickr8k", (Path(name).stem for name in captions), path)
            yield from bad
            yield from _listed(path, captions, lists, pictures(folder, _IMAGES_8K, captions) or folder)
        else:
            yield from copied("flickr8k", folder)

    def manifest(self, folder: Path | None) -> dict[str, Any]:
        """Captions of photographs."""
        ratios = {"train": 0.8, "validation": 0.1, "test": 0.1}
        return caption_manifest(folder is None or _official_8k(folder), ratios)


@SOURCES.register("flickr30k")
class Flickr30k:
    """Flickr30k; a row is a photograph with its captions."""

    card = Card(
        about="31,783 photographs of everyday scenes with five captions each.",
        homepage="https://shannon.cs.illinois.edu/DenotationGraph/",
        licence="the photographs belong to their Flickr authors; for non-commercial research and education only",
        citation="Young, Lai, Hodosh and Hockenmaier 2014, From image descriptions to visual denotations, TACL 2",
        obtain=(
            "the images by the form on the homepage, or Kaggle's hsankesara/flickr-image-dataset (with "
            "results.csv); Karpathy's dataset_flickr30k.json from "
            "https://cs.stanford.edu/people/karpathy/deepimagesent/"
        ),
        split=(
            "none by the authors. Papers use Karpathy's (29,000 / 1,014 / 1,000), taken from dataset_flickr30k.json "
            "if it is there; else 94 / 3 / 3 by hash of the photograph."
        ),
        traps=(
            "Line 20,001 of results.csv (2199200615.jpg, caption 4) lacks its second separator; it is read all the "
            "same.",
            "Without dataset_flickr30k.json scores do not compare with published ones.",
            "The same event was photographed several times: near copies may be in two splits.",
        ),
        files=((*_KARPATHY_30K, *_RESULTS), _IMAGES_30K),
        layouts=(
            Layout("the original results_20130124.token", (_TOKENS_30K, _IMAGES_30K)),
            Layout("Kaggle's captions.txt", (_KAGGLE, _IMAGES_30K)),
            Layout("Hugging Face's flickr_annotations_30k.csv", (_ANNOTATIONS, _IMAGES_30K)),
            COPY,
        ),
    )

    def rows(self, folder: Path) -> Iterator[Row | Note]:
        """A row a photograph, in the order of the captions."""
        karpathy, annotations = find(folder, _KARPATHY_30K), find(folder, _ANNOTATIONS)
        plain = [path for patterns in (_TOKENS_30K, _RESULTS, _KAGGLE) if (path := find(folder, patterns))]
        if karpathy:
            yield from _beside(karpathy, ", and the split", annotations, *plain)
            yield from _karpathy("flickr30k", karpathy, folder, _IMAGES_30K)
        elif annotations:
            yield from _beside(annotations, ", and the split", *plain)
            yield from _annotated(annotations, folder)
        elif plain:
            yield from _beside(plain[0], "", *plain[1:])
            captions, bad = by_image((read_tokens if plain[0].suffix == ".token" else read_table)(plain[0]))
            check_names("flickr30k", (Path(name).stem for name in captions), plain[0])
            yield Note(
                "no official split is here: 94 / 3 / 3 by hash of the photograph, so scores compare with no published "
                "ones (dataset_flickr30k.json beside it would give Karpathy's)"
            )
            yield from bad
            images = pictures(folder, _IMAGES_30K, captions) or folder
            for name, found in captions.items():
                origin = Row("", path=plain[0], line=found[0].line)
                yield captioned(images / name, [caption.text for caption in found], "", None, origin)
        else:
            yield from copied("flickr30k", folder)

    def manifest(self, folder: Path | None) -> dict[str, Any]:
        """Captions of photographs."""
        official = folder is None or find(folder, (*_KARPATHY_30K, *_ANNOTATIONS)) is not None
        if folder is not None and not official and find(folder, (*_TOKENS_30K, *_RESULTS, *_KAGGLE)) is None:
            official = copy_is_split(tables(folder))
        return caption_manifest(official, {"train": 0.94, "validation": 0.03, "test": 0.03})


def _official_8k(folder: Path) -> bool:
    if find(folder, _KARPATHY_8K) or any(find(folder, patterns) for patterns in _SPLITS.values()):
        return True
    return find(folder, (*_TOKENS, *_KAGGLE)) is None and copy_is_split(tables(folder))


def _beside(path: Path, split: str, *others: Path | None) -> Iterator[Note]:
    """Which of several files is read."""
    names = [other.name for other in others if other is not None and other != path]
    if names:
        yield Note(f"captions are read from {path.name}{split}; {', '.join(names)} beside it is not read")


def _listed(
    table: Path, captions: dict[str, list[Caption]], lists: dict[str, Path], images: Path
) -> Iterator[Row | Note]:
    """Flickr8k's photographs by the lists that are there; those in no list are skipped, or train if its list is not."""
    listed: dict[str, dict[str, None]] = {}
    alike = {name.casefold(): name for name in captions}
    for split, path in lists.items():
        for _, line in read_lines(path):
            if isinstance(line, Row):
                yield line
            else:
                name = Path(line.strip()).name
                name = alike.get(name.casefold()) or f"{name}.jpg"  # some copies' lists have no suffixes
                listed.setdefault(alike.get(name.casefold(), name), {})[split] = None
    rest = sum(name not in listed for name in captions)
    absent = [f"Flickr_8k.{split}Images.txt" for split in _SPLITS if split not in lists]
    other = "train" if lists and "train" not in lists else ""
    if not lists:
        yield Note(
            "no official split is here (Flickr_8k.trainImages.txt, devImages, testImages): 80 / 10 / 10 by hash of the "
            "photograph, so scores compare with no published ones"
        )
    elif absent:
        unlisted = (
            f"; {rest} photographs are in no list and {'taken for training' if other else 'skipped'}" if rest else ""
        )
        parts = [part for split, part in (("dev", "validation"), ("test", "test")) if split not in lists]
        lacks = f"; there is no {' and no '.join(parts)} part" if parts else ""
        yield Note(f"the official split is not whole: {' and '.join(absent)} not there{unlisted}{lacks}")
    for name, found in captions.items():
        parts = list(listed.get(name, [other] if other else []))
        problem = "in none of the split's files" if lists and not parts else None
        problem = f"in several of the split's files: {', '.join(parts)}" if len(parts) > 1 else problem
        texts, origin = [caption.text for caption in found], Row("", path=table, line=found[0].line)
        yield captioned(images / name, texts, parts[0] if parts else "", problem, origin)


def _karpathy(name: str, path: Path, folder: Path, places: tuple[str, ...]) -> Iterator[Row | Note]:
    items = list(read_karpathy(path, name))
    files = [text_of(item, "filename") for _, item in items if not isinstance(item, Row)]
    check_names(name, (Path(file).stem for file in files), path)
    images = pictures(folder, places, files) or folder
    for number, item in items:
        if isinstance(item, Row):
            yield item
        else:
            image = images / text_of(item, "filepath") / text_of(item, "filename")
            yield captioned(image, sentences(item), text_of(item, "split"), None, Row("", path=path, line=number))


def _annotated(path: Path, folder: Path) -> Iterator[Row]:
    """Flickr30k as on Hugging Face: raw is a JSON list of captions."""
    lines = list(read_csv(path, ("raw", "split", "filename")))
    images = pictures(folder, _IMAGES_30K, (line["filename"] for _, line in lines if isinstance(line, dict))) or folder
    for number, line in lines:
        if isinstance(line, Row):
            yield line
            continue
        try:
            texts = json.loads(line["raw"])
        except ValueError:
            texts = None
        if not isinstance(texts, list):
            yield bad_line(path, number, "raw is not a JSON list of captions")
        else:
            texts = [str(text).strip() for text in texts]
            yield captioned(images / line["filename"], texts, line["split"], None, Row("", path=path, line=number))
