"""Hateful Memes: pictures with a sentence on them.

Layout as in the set's own README, seen at https://huggingface.co/datasets/neuralcatcher/hateful_memes (searched
2026-11); parquet copies have `image` or `img`, `text`, `label` and mostly `id`. dev_unseen repeats most of dev_seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmfuse.data.sources import SOURCES, Card, Layout, Note, Row
from mmfuse.data.sources.files import bad_line, find, read_jsonl, text_of
from mmfuse.data.sources.parquet import PARQUET, Packed, copy_is_split, image_column, records, suffix_of, tables

_PARTS = ("train", "dev_seen", "dev_unseen", "dev", "test_seen", "test_unseen", "test")
_TOLD = ("dev_seen", "dev_unseen", "test_seen", "test_unseen")
"""Parts that overlap, or have another split's rows beside them: each has a column of yes and no."""


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
            "train; dev_seen and dev_unseen are validation, test_seen and test_unseen test. The column part has all "
            "parts of a meme, such as dev_seen;dev_unseen, and the columns dev_seen, dev_unseen ... say yes or no."
        ),
        traps=(
            "Labels of the test parts are not in every copy: rows without one have no target, and are not scored.",
            "dev_unseen (540) repeats 400 memes of dev_seen (500): the second line is skipped, and the row has both "
            "parts. Papers report dev_seen or test_seen: metrics are broken down by columns of these names.",
            "Benign twins share picture or text within and across splits: text_only and image_only stay near chance "
            "on purpose.",
            "The content hurts: do not show it in reports without need.",
        ),
        files=(("train.jsonl",), ("dev_seen.jsonl", "dev.jsonl"), ("img",)),
        layouts=(
            Layout(
                "a Hugging Face copy in parquet files",
                (PARQUET,),
                (("image", "img"), ("text", "sentence"), ("label", "labels")),
            ),
        ),
    )

    def rows(self, folder: Path) -> Iterator[Row | Note]:
        """A row a meme, in the order of the files; a line that repeats one adds its part to the first."""
        if find(folder, ("train.jsonl",)) is None:
            yield from _copied(folder)
            return
        memes: list[Row] = []
        repeats: list[Row] = []
        first: dict[str, Row] = {}
        for part in _PARTS:
            path = find(folder, (f"{part}.jsonl",))
            if path is None:
                continue
            for number, item in read_jsonl(path):
                row = item if isinstance(item, Row) else _row(part, item, number, path)
                if row.problem is None and _adds_part(first.setdefault(row.id, row), row):
                    repeats.append(bad_line(path, number, "repeats an earlier line, whose row has this part too"))
                else:
                    memes.append(row)
        yield from memes
        yield from repeats

    def manifest(self, folder: Path | None) -> dict[str, Any]:
        """Hateful or not, from picture and text."""
        label = {"type": "classification", "column": "label", "values": {"0": "not hateful", "1": "hateful"}}
        told = [part for part in _TOLD if folder is None or find(folder, (f"{part}.jsonl",))]
        copy = folder is not None and find(folder, ("train.jsonl",)) is None
        official = folder is None or not copy or copy_is_split(tables(folder))
        by_hash = {"ratios": {"train": 0.8, "validation": 0.1, "test": 0.1}}
        told_split = {} if official else {"split_is": "none is told: 80 / 10 / 10 by hash of the meme."}
        return {
            **told_split,
            "text": {"columns": ["text"]},
            "tasks": {"hateful": {**label, "label_origin": "human"}},
            "splits": {"column": "split"} if official else by_hash,
            "subgroups": told or ["part"],
        }


def _row(part: str, meme: dict[str, Any], number: int, path: Path) -> Row:
    if not text_of(meme, "img"):
        return bad_line(path, number, "no img")
    image = path.parent / text_of(meme, "img")
    columns = _columns(part, text_of(meme, "text"), text_of(meme, "label"))
    return Row(text_of(meme, "id") or image.stem, columns, (image,), path=path, line=number)


def _columns(part: str, text: str, label: str) -> dict[str, str]:
    split = {"train": "train", "dev": "validation", "validation": "validation"}.get(part.split("_")[0], "test")
    told = {name: "yes" if name == part else "no" for name in _TOLD}
    return {"split": split, "part": part, **told, "text": text, "label": label}


def _adds_part(first: Row, row: Row) -> bool:
    """Note in a meme that it stands in another part too; False if the other line is another meme, or this one."""
    mine, other = first.columns, row.columns
    relabelled = mine["label"] and other["label"] and mine["label"] != other["label"]
    same = first.images == row.images and all(mine[key] == other[key] for key in ("split", "text"))
    if row is first or relabelled or not same:
        return False
    mine["part"] = ";".join(dict.fromkeys([*mine["part"].split(";"), other["part"]]))
    mine |= {name: "yes" for name in _TOLD if other[name] == "yes"}
    mine["label"] = mine["label"] or other["label"]
    return True


def _copied(folder: Path) -> Iterator[Row | Note]:
    files = tables(folder)
    if not copy_is_split(files):
        yield Note(
            "this Hugging Face copy tells no split: 80 / 10 / 10 by hash of the meme; scores compare with no other"
        )
    for table in files:
        column, place = image_column(table), table.path.relative_to(folder).with_suffix("").as_posix()
        suffix, text, label = (
            suffix_of(table, column),
            table.first(("text", "sentence")),
            table.first(("label", "labels")),
        )
        for number, record in records(table):
            name = str(record.get("id") or "") or f"{place}/{number:06d}"
            told = str(record.get(str(label)) if record.get(str(label)) is not None else "").lower()
            value = {"hateful": "1", "not-hateful": "0", "not hateful": "0", "non-hateful": "0"}.get(told, told)
            columns = _columns(table.split or "train", str(record.get(str(text)) or "").strip(), value)
            image = Packed(f"{name}{suffix}", table.path, number - 1, column)
            yield Row(name, columns, (image,), path=table.path, line=number)
