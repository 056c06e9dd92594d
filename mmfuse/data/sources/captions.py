"""Photographs with five captions each: Flickr8k, Flickr30k and COCO.

Layouts: Flickr8k.token.txt with Flickr_8k.*Images.txt, or Kaggle's captions.txt; Flickr30k's results.csv, with its one
line that lacks a separator; Karpathy's dataset_*.json. They are seen in many public readers (searched 2026-11). COCO's
annotations: https://cocodataset.org/#format-data. From memory: the numbers, the licences and where the files are got.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmfuse.data.sources import SOURCES, Card, Row
from mmfuse.data.sources.files import find, need, objects, read_csv, read_json, read_lines, text_of

_NAMES = {"val": "validation", "dev": "validation", "restval": "train"}

_FLICKR8K_TOKENS = ("Flickr8k.token.txt", "Flickr8k_text/Flickr8k.token.txt", "captions.txt")
_FLICKR8K_IMAGES = ("Images", "images", "Flicker8k_Dataset", "Flickr8k_Dataset/Flicker8k_Dataset")
_FLICKR8K_SPLITS = {
    split: (f"Flickr_8k.{split}Images.txt", f"Flickr8k_text/Flickr_8k.{split}Images.txt")
    for split in ("train", "dev", "test")
}
_FLICKR30K_CAPTIONS = ("dataset_flickr30k.json", "results.csv", "flickr30k_images/results.csv")
_FLICKR30K_IMAGES = ("flickr30k_images/flickr30k_images", "flickr30k-images", "flickr30k_images", "Images", "images")
_FLICKR30K_LINE = re.compile(r"([^|]+)\|\s*(\d+)\s*\|?\s*(.*)")
_COCO_KARPATHY = ("dataset_coco.json",)
_COCO_CAPTIONS = {
    split: tuple(f"annotations/captions_{split}{y}.json" for y in (2017, 2014)) for split in ("train", "val")
}


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
        files=(_FLICKR8K_TOKENS, _FLICKR8K_IMAGES),
    )

    def rows(self, folder: Path) -> Iterator[Row]:
        """A row a photograph, in the order of the captions."""
        images, splits = need(folder, _FLICKR8K_IMAGES), _flickr8k_splits(folder)
        captions: dict[str, list[str]] = {}
        for name, caption in _flickr8k_captions(need(folder, _FLICKR8K_TOKENS)):
            captions.setdefault(name, []).append(caption)
        for name, texts in captions.items():
            problem = "in none of the split's files" if splits and name not in splits else None
            yield _captioned(images / name, texts, splits.get(name, ""), problem)

    def manifest(self, folder: Path | None) -> dict[str, Any]:
        """Captions of photographs."""
        ratios = {"train": 0.8, "validation": 0.1, "test": 0.1}
        return _caption_manifest(folder is None or bool(_flickr8k_splits(folder)), ratios)


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
        files=(_FLICKR30K_CAPTIONS, _FLICKR30K_IMAGES),
    )

    def rows(self, folder: Path) -> Iterator[Row]:
        """A row a photograph, in the order of the captions."""
        images, table = need(folder, _FLICKR30K_IMAGES), need(folder, _FLICKR30K_CAPTIONS)
        if table.suffix == ".json":
            yield from _karpathy(table, images)
            return
        captions: dict[str, list[str]] = {}
        for number, line in list(read_lines(table))[1:]:
            found = _FLICKR30K_LINE.fullmatch(line)
            if found is None:
                yield Row(f"line {number}", problem="not a line of image | number | caption", path=table)
            else:
                captions.setdefault(found[1].strip(), []).append(found[3].strip())
        for name, texts in captions.items():
            yield _captioned(images / name, texts, "")

    def manifest(self, folder: Path | None) -> dict[str, Any]:
        """Captions of photographs."""
        official = folder is None or need(folder, _FLICKR30K_CAPTIONS).suffix == ".json"
        return _caption_manifest(official, {"train": 0.94, "validation": 0.03, "test": 0.03})


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
        files=(tuple(dict.fromkeys((*_COCO_KARPATHY, *_COCO_CAPTIONS["train"]))), ("train2017", "train2014")),
    )

    def rows(self, folder: Path) -> Iterator[Row]:
        """A row a photograph, in the order of the annotations' images."""
        karpathy = find(folder, _COCO_KARPATHY)
        if karpathy is not None:
            yield from _karpathy(karpathy, folder)
            return
        for split, patterns in _COCO_CAPTIONS.items():
            path = need(folder, patterns)
            data = read_json(path)
            captions: dict[str, list[str]] = {}
            for item in objects(data.get("annotations") if isinstance(data, dict) else None, f"{path}: annotations"):
                captions.setdefault(text_of(item, "image_id"), []).append(text_of(item, "caption"))
            for item in objects(data.get("images"), f"{path}: images"):
                image = folder / path.stem.removeprefix("captions_") / text_of(item, "file_name")
                yield _captioned(image, captions.pop(text_of(item, "id"), []), split)
            for name in captions:
                yield Row(f"{split} {name}", problem="captions of an image that is not listed", path=path)

    def manifest(self, folder: Path | None) -> dict[str, Any]:
        """Captions of photographs."""
        del folder
        return _caption_manifest(True, {})


def _captioned(image: Path, captions: list[str], split: str, problem: str | None = None) -> Row:
    columns = {"split": split, "captions": json.dumps(captions, ensure_ascii=False)}
    return Row(image.stem, columns, (image,), problem or (None if captions else "no caption"), image)


def _caption_manifest(official: bool, ratios: dict[str, float]) -> dict[str, Any]:
    return {
        "tasks": {"caption": {"type": "captioning", "column": "captions", "label_origin": "human"}},
        "splits": {"column": "split", "names": _NAMES} if official else {"ratios": ratios},
    }


def _karpathy(path: Path, root: Path) -> Iterator[Row]:
    data = read_json(path)
    for item in objects(data.get("images") if isinstance(data, dict) else None, f"{path}: images"):
        texts = [text_of(s, "raw") for s in objects(item.get("sentences"), f"{path}: sentences")]
        yield _captioned(root / text_of(item, "filepath") / text_of(item, "filename"), texts, text_of(item, "split"))


def _flickr8k_captions(path: Path) -> Iterator[tuple[str, str]]:
    if path.name == "captions.txt":
        for line in read_csv(path, ("image", "caption")):
            yield line["image"].strip(), line["caption"].strip()
        return
    for _, line in read_lines(path):
        name, _, caption = line.partition("\t")
        yield name.rpartition("#")[0] or name, caption.strip()


def _flickr8k_splits(folder: Path) -> dict[str, str]:
    """Split by name of the image; {} where not all three lists are there."""
    lists = {split: find(folder, patterns) for split, patterns in _FLICKR8K_SPLITS.items()}
    if None in lists.values():
        return {}
    return {line.strip(): split for split, path in lists.items() if path for _, line in read_lines(path)}
