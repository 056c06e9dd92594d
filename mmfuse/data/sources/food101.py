"""UPMC Food-101: pictures of dishes from web pages, with the pages' titles.

Layout (`images/SPLIT/CLASS/FILE`, `texts/SPLIT_titles.csv` of file, title and class, without a header) as in public
readers and https://github.com/YiLunLee/missing_aware_prompts DATA.md (searched 2026-11). Numbers from memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmfuse.data.sources import SOURCES, Card, Row
from mmfuse.data.sources.files import need, read_csv

_SPLITS = ("train", "test")
_STARTS = r"[\w-]+\.(jpg|jpeg|png),"


@SOURCES.register("food101")
class Food101:
    """UPMC Food-101; a row is a picture with the title of its page."""

    card = Card(
        about="About 90,000 pictures of 101 dishes, found by image search, with the titles of the web pages.",
        homepage="https://visiir.isir.upmc.fr/explore",
        licence="none is stated; pictures and titles belong to the pages' owners: research only",
        citation="Wang et al. 2015, Recipe recognition with large multimodal food dataset, IEEE ICME Workshops",
        obtain="Kaggle's gianmarco96/upmcfood101, with images/train, images/test and texts/*.csv",
        split="train and test (about 67,972 and 22,716); no validation part.",
        traps=(
            "Titles name the class: it was the search word. A bag of words is right for most rows, so a fusion's "
            "gain means nothing beside the text_only row.",
            "There is no validation part: without one, nothing stops the training early and nothing is calibrated. "
            "splits.ratios in place of splits.column gives one, but no longer the official test.",
            "Labels of train and test are what the search engine found, unchecked: many pictures show no food.",
            "The ETHZ Food-101 is another set, with other pictures.",
        ),
        files=tuple(f for s in _SPLITS for f in ((f"images/{s}",), (f"texts/{s}_titles.csv",))),
    )

    def rows(self, folder: Path) -> Iterator[Row]:
        """A row a title, in the order of the csv files; then the pictures without one."""
        for split in _SPLITS:
            images, titled = need(folder, (f"images/{split}",)), set()
            table = need(folder, (f"texts/{split}_titles.csv",))
            for number, line in read_csv(table, ("file", "title", "class"), header=False, starts=_STARTS):
                if isinstance(line, Row):
                    yield line
                    continue
                image = images / line["class"].strip() / line["file"].strip()
                titled.add(image)
                columns = {"split": split, "title": line["title"].strip(), "dish": line["class"].strip()}
                yield Row(f"{split}/{image.stem}", columns, (image,), None, table, number)
            for image in sorted(images.glob("*/*")):
                if image not in titled:
                    yield Row(f"{split}/{image.stem}", problem="a picture without a title", path=image)

    def manifest(self, folder: Path | None) -> dict[str, Any]:
        """The dish, from picture and title."""
        del folder
        return {
            "text": {"columns": ["title"]},
            "tasks": {"dish": {"type": "classification", "column": "dish", "label_origin": "metadata"}},
            "splits": {"column": "split"},
        }
