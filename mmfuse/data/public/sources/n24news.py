"""N24News: articles of the New York Times with a picture, in 24 sections.

Layouts (`news/nytimes_SPLIT.json`, `imgs/IMAGE_ID.jpg`; or nytimes_dataset.json alone, without split and article_id,
and images/) and fields as in https://github.com/billywzh717/N24News and public readers (searched 2026-11). From memory:
the number of articles.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmfuse.data.public.sources import SOURCES, Card, Layout, Note, Row
from mmfuse.data.public.sources.files import bad_line, find, need, objects, read_json, text_of

_FILES = {s: (f"news/nytimes_{s}.json", f"nytimes_{s}.json") for s in ("train", "dev", "test")}
_WHOLE = tuple(f"{root}nytimes_dataset{kind}.json" for kind in ("_full", "") for root in ("", "news/"))
_IMAGES = ("imgs", "images")
_TEXTS = ("headline", "abstract", "caption", "body")


@SOURCES.register("n24news")
class N24News:
    """N24News; a row is an article with its picture."""

    card = Card(
        about="About 60,000 articles of the New York Times with a picture, its caption, and one of 24 sections.",
        homepage="https://github.com/billywzh717/N24News",
        licence=(
            "none is stated; texts and pictures belong to the New York Times and its photographers: research only"
        ),
        citation="Wang, Shan, Zhang and Yang 2022, N24News, LREC, https://aclanthology.org/2022.lrec-1.729",
        obtain=(
            "the Google Drive link in the repository's README; unpacked: news/nytimes_train.json, ..._dev, "
            "..._test, imgs/"
        ),
        split="nytimes_train.json, nytimes_dev.json and nytimes_test.json.",
        traps=(
            "The paper compares headline, caption, abstract and body one by one: say which you gave as text. The "
            "manifest gives headline and abstract; body nearly always tells the section.",
            "The address of an article names its section, so it is not among the columns.",
            "Sections overlap in what they print (Science, Health and Well): their confusion is not all error.",
        ),
        files=(*_FILES.values(), _IMAGES),
        layouts=(
            Layout("the repository's nytimes_dataset.json with images/", (_WHOLE, _IMAGES)),
            Layout("nytimes_train.json without all of its other parts", (_FILES["train"], _IMAGES)),
        ),
    )

    def rows(self, folder: Path) -> Iterator[Row | Note]:
        """A row an article, in the order of the files."""
        images, whole, parts = need(folder, _IMAGES), find(folder, _WHOLE), _parts(folder)
        if "train" in parts or whole is None:
            absent = [f"nytimes_{split}.json" for split in _FILES if split not in parts]
            if absent:
                yield Note(f"the official split is not whole: {' and '.join(absent)} not there")
            for split, path in parts.items():
                yield from _read(path, images, {}, split)
            return
        listed = {row.id: split for split, path in parts.items() for row in _read(path, images, {}, split)}
        yield Note(
            "the official split is not whole: what is in neither of the files that are there is taken for training"
            if listed
            else "no official split is here (nytimes_train.json, ..._dev, ..._test): 80 / 10 / 10 by hash of the "
            "article, so scores compare with no published ones"
        )
        other = whole.with_name("nytimes_dataset.json")
        if other != whole and other.exists():
            yield Note(f"read is {whole.name}; {other.name} beside it, which has no body, is not")
        yield from _read(whole, images, listed, "train" if listed else "")

    def manifest(self, folder: Path | None) -> dict[str, Any]:
        """The section, from picture, headline and abstract."""
        official = folder is None or bool(_parts(folder))
        by_hash = {"ratios": {"train": 0.8, "validation": 0.1, "test": 0.1}}
        told = {} if official else {"split_is": "none is here: 80 / 10 / 10 by hash of the article."}
        return {
            **told,
            "group": "article_id",
            "text": {"columns": ["headline", "abstract"]},
            "tasks": {"section": {"type": "classification", "column": "section", "label_origin": "metadata"}},
            "splits": {"column": "split", "names": {"dev": "validation"}} if official else by_hash,
        }


def _parts(folder: Path) -> dict[str, Path]:
    """The files of the official split that are there."""
    return {split: path for split, patterns in _FILES.items() if (path := find(folder, patterns)) is not None}


def _read(path: Path, images: Path, listed: dict[str, str], split: str) -> Iterator[Row]:
    """The articles of a file; the split is that which is listed for the picture, or else the given one."""
    for number, item in objects(read_json(path), path, keys=("section",)):
        if isinstance(item, Row):
            yield item
            continue
        name, article = text_of(item, "image_id"), text_of(item, "article_id")
        if not article:  # the repository's file has none; the address would tell the section
            address = text_of(item, "article_url")
            article = hashlib.sha256(address.encode()).hexdigest()[:16] if address else name
        columns = {"article_id": article, "split": listed.get(name, split), "section": text_of(item, "section")}
        columns |= {key: text_of(item, key) for key in _TEXTS}
        if name:
            yield Row(name, columns, (images / f"{name}.jpg",), None, path, number)
        else:
            yield bad_line(path, number, "no image_id")
