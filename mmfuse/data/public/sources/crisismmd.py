"""CrisisMMD version 2.0: tweets with pictures of seven disasters.

Layout (`crisismmd_datasplit_all/task_TASK_text_img_SPLIT.tsv`, `data_image/EVENT/DATE/FILE`) as on
https://crisisnlp.qcri.org/crisismmd and in public readers (searched 2026-11). From memory: the number of tweets.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmfuse.data.public.sources import SOURCES, Card, Row
from mmfuse.data.public.sources.files import bad_line, need, read_lines
from mmfuse.types import MmfuseError

_TASKS, _SPLITS = ("informative", "humanitarian", "damage"), ("train", "dev", "test")
_IMAGES = ("data_image", "CrisisMMD_v2.0/data_image")
_TABLES = ("crisismmd_datasplit_all", "CrisisMMD_v2.0/crisismmd_datasplit_all")
_LABELS = ("informative_text", "informative_image", "humanitarian_text", "humanitarian_image", "damage")
_COLUMNS = ("event_name", "tweet_id", "image_id", "tweet_text", "image", "label")


@SOURCES.register("crisismmd")
class CrisisMmd:
    """CrisisMMD; a row is a picture with its tweet."""

    card = Card(
        about=(
            "18,082 pictures of 16,058 tweets on seven disasters of 2017. Picture and text were labelled apart: is "
            "it informative, of which humanitarian kind, how bad is the damage (pictures only)."
        ),
        homepage="https://crisisnlp.qcri.org/crisismmd",
        licence="CC BY-NC-SA 4.0; the tweets under X's terms",
        citation=(
            "Alam, Ofli and Imran 2018, CrisisMMD, ICWSM; Ofli, Alam and Imran 2020 (the split), ISCRAM, arXiv "
            "2004.11838"
        ),
        obtain=(
            "https://crisisnlp.qcri.org/data/crisismmd/CrisisMMD_v2.0.tar.gz and crisismmd_datasplit_all.zip; "
            "unpack both in DIR (or the second in DIR/CrisisMMD_v2.0)"
        ),
        split=(
            "the files train, dev and test of each task (13,608 / 2,237 / 2,237 for informative and humanitarian). "
            "split is that of the first task which has the picture, in the order informative, humanitarian, damage."
        ),
        traps=(
            "Labels of text and picture often disagree: informative_text and informative_image are tasks of their "
            "own. Papers on fusion use the rows where they agree (crisismmd_datasplit_agreed_label, not read here).",
            "A tweet has up to four pictures, so its text stands in several rows; the group is tweet_id.",
            "Each task has its own split files: where they differ, split_humanitarian and split_damage tell.",
            "Retweets and near copies are many; links in the text are dead.",
        ),
        files=(_IMAGES, _TABLES),
    )

    def rows(self, folder: Path) -> Iterator[Row]:
        """A row a picture, in the order in which the files first name it; then lines that are damaged."""
        root, found, damaged = need(folder, _IMAGES).parent, {}, []
        for task in _TASKS:
            for split in _SPLITS:
                path = need(folder, _TABLES) / f"task_{task}_text_img_{split}.tsv"
                for number, line in _read(path):
                    if isinstance(line, Row):
                        damaged.append(line)
                        continue
                    name, origin = line["image_id"], (path, number)
                    row = found.setdefault(name, (_columns(line, split), root / line["image"], origin))[0]
                    if row[f"split_{task}"]:
                        damaged.append(bad_line(path, number, "a second line on one picture"))
                    else:
                        row |= _labels(task, line) | {f"split_{task}": split}
        for name, (columns, image, (path, number)) in found.items():
            yield Row(name, columns, (image,), None, path, number)
        yield from damaged

    def manifest(self, folder: Path | None) -> dict[str, Any]:
        """Five tasks, from picture and tweet."""
        del folder
        return {
            "group": "tweet_id",
            "text": {"columns": ["text"]},
            "tasks": {name: {"type": "classification", "column": name, "label_origin": "human"} for name in _LABELS},
            "splits": {"column": "split", "names": {"dev": "validation"}},
            "subgroups": ["event"],
        }


def _columns(line: dict[str, str], split: str) -> dict[str, str]:
    columns = {"tweet_id": line["tweet_id"], "split": split, "event": line["event_name"], "text": line["tweet_text"]}
    return columns | dict.fromkeys(_LABELS, "") | {f"split_{task}": "" for task in _TASKS}


def _labels(task: str, line: dict[str, str]) -> dict[str, str]:
    if task == "damage":
        return {"damage": line["label"]}
    return {f"{task}_text": line["label_text"], f"{task}_image": line["label_image"]}


def _read(path: Path) -> Iterator[tuple[int, dict[str, str] | Row]]:
    """The lines of a tsv, whose quotation marks are part of the tweets."""
    needed = _COLUMNS if "_damage_" in path.name else (*_COLUMNS, "label_text", "label_image")
    names: list[str] = []
    for number, line in read_lines(path):
        fields = [field.strip() for field in line.split("\t")] if isinstance(line, str) else []
        if not names:
            names = fields
            for name in needed:
                if name not in names:
                    raise MmfuseError(f"{path}: no column {name!r}; it has {', '.join(names) or 'none'}")
        elif isinstance(line, Row):
            yield number, line
        elif len(fields) != len(names):
            yield number, bad_line(path, number, "another number of fields")
        else:
            found = dict(zip(names, fields, strict=True))
            yield number, found if found["image_id"] else bad_line(path, number, "no image_id")
