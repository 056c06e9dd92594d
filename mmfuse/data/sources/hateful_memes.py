"""Hateful Memes: pictures with a sentence on them.

Layout as in the set's own README, seen at https://huggingface.co/datasets/neuralcatcher/hateful_memes (searched
2026-11). From memory: dev_unseen repeats most of dev_seen.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmfuse.data.sources import SOURCES, Card, Row
from mmfuse.data.sources.files import read_lines, text_of
from mmfuse.types import MmfuseError

_PARTS = ("train", "dev_seen", "dev_unseen", "dev", "test_seen", "test_unseen", "test")


@SOURCES.register("hateful_memes")
class HatefulMemes:
    """Hateful Memes; a row is a meme."""

    card = Card(
        about=(
            "About 12,000 memes, hateful or not, of picture and text. Many come with a harmless twin that differs "
            "in the picture or in the text alone, so that neither tells by itself."
        ),
        homepage="https://hatefulmemeschallenge.com",
        licence="Meta's Hateful Memes Dataset License Agreement (LICENSE.txt of the set): research only, no sharing",
        citation="Kiela et al. 2020, The Hateful Memes Challenge, arXiv 2005.04790",
        obtain=(
            "accept the licence on the homepage; unpack, so that train.jsonl, dev_seen.jsonl, ... and img/ are in DIR"
        ),
        split=(
            "train; dev_seen and dev_unseen are validation, test_seen and test_unseen test (column part tells which)."
        ),
        traps=(
            "Labels of the test parts are not in every copy: rows without one have no target, and are not scored.",
            "dev_unseen repeats memes of dev_seen: the second is skipped. Papers report dev_seen or test_seen; "
            "choose by the column part.",
            "Benign twins share picture or text within and across splits: text_only and image_only stay near chance "
            "on purpose.",
            "The content hurts: do not show it in reports without need.",
        ),
        files=(("train.jsonl",), ("dev_seen.jsonl", "dev.jsonl"), ("img",)),
    )

    def rows(self, folder: Path) -> Iterator[Row]:
        """A row a meme, in the order of the files."""
        for part in _PARTS:
            path = folder / f"{part}.jsonl"
            for number, line in read_lines(path) if path.exists() else ():
                yield _row(part, line, number, path)

    def manifest(self, folder: Path | None) -> dict[str, Any]:
        """Hateful or not, from picture and text."""
        del folder
        label = {"type": "classification", "column": "label", "values": {"0": "not hateful", "1": "hateful"}}
        return {
            "text": {"columns": ["text"]},
            "tasks": {"hateful": {**label, "label_origin": "human"}},
            "splits": {"column": "split"},
            "subgroups": ["part"],
        }


def _row(part: str, line: str, number: int, path: Path) -> Row:
    try:
        meme = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise MmfuseError(f"{path}: line {number}: not JSON") from error
    if not isinstance(meme, dict) or "img" not in meme:
        raise MmfuseError(f"{path}: line {number}: an object with img is expected")
    split = {"train": "train", "dev": "validation"}.get(part.split("_")[0], "test")
    columns = {"split": split, "part": part, "text": text_of(meme, "text"), "label": text_of(meme, "label")}
    image = path.parent / text_of(meme, "img")
    return Row(text_of(meme, "id") or image.stem, columns, (image,))
