"""N24News: articles of the New York Times with a picture, in 24 sections.

Layout (`news/nytimes_SPLIT.json`, `imgs/IMAGE_ID.jpg`) and fields as in https://github.com/billywzh717/N24News and
public readers (searched 2026-11). From memory: the field headline, the number of articles.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmfuse.data.sources import SOURCES, Card, Row
from mmfuse.data.sources.files import need, objects, read_json, text_of

_FILES = {s: (f"news/nytimes_{s}.json", f"nytimes_{s}.json") for s in ("train", "dev", "test")}
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
    )

    def rows(self, folder: Path) -> Iterator[Row]:
        """A row an article, in the order of the files."""
        images = need(folder, _IMAGES)
        for split, patterns in _FILES.items():
            path = need(folder, patterns)
            for item in objects(read_json(path), str(path)):
                name = text_of(item, "image_id")
                columns = {
                    "article_id": text_of(item, "article_id"),
                    "split": split,
                    "section": text_of(item, "section"),
                }
                columns |= {key: text_of(item, key) for key in _TEXTS}
                problem = None if name else "no image_id"
                yield Row(name or columns["article_id"], columns, (images / f"{name}.jpg",), problem, path)

    def manifest(self, folder: Path | None) -> dict[str, Any]:
        """The section, from picture, headline and abstract."""
        del folder
        return {
            "group": "article_id",
            "text": {"columns": ["headline", "abstract"]},
            "tasks": {"section": {"type": "classification", "column": "section", "label_origin": "metadata"}},
            "splits": {"column": "split", "names": {"dev": "validation"}},
        }
