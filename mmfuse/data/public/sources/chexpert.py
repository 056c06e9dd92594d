"""CheXpert: chest X-rays with labels mined from reports that are not part of the set.

Layouts seen in public readers (searched 2026-11): train.csv, valid.csv, their columns and paths as of
CheXpert-v1.0-small; the full size as four folders `CheXpert-v1.0 batch N (...)`, with the tables and valid/ in the
first and the training part's patients in the others; a parquet copy with classes for the labels. Blank, 0, 1, -1 and
the numbers: Irvin et al. 2019, https://arxiv.org/abs/1901.07031. From memory: the sizes of the archives.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mmfuse.data.public.sources import SOURCES, Card, Layout, Note, Row
from mmfuse.data.public.sources.files import bad_line, find, need, read_csv
from mmfuse.data.public.sources.parquet import PARQUET, Packed, Table, image_column, records, tables
from mmfuse.types import MmfuseError

FINDINGS = (
    *("No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema"),
    *("Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture"),
    "Support Devices",
)
"""The 14 observations of the CheXpert labeller."""

_BATCH = "CheXpert-v1.0 batch 1*"
_FILES = tuple(
    tuple(f"{folder}{name}.csv" for folder in ("", "CheXpert-v1.0-small/", "CheXpert-v1.0/", f"{_BATCH}/"))
    for name in ("train", "valid")
)
_COLUMNS = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *FINDINGS)


@SOURCES.register("chexpert")
class CheXpert:
    """CheXpert; a row is a study with its views."""

    card = Card(
        about=(
            "224,316 chest radiographs of 65,240 patients of Stanford Hospital with 14 labels. The labels of the "
            "training part were mined from reports by rules; those of the validation part are a vote of 3 "
            "radiologists."
        ),
        homepage="https://stanfordmlgroup.github.io/competitions/chexpert/",
        licence="Stanford University Dataset Research Use Agreement: research only, no redistribution",
        citation="Irvin et al. 2019, CheXpert: A Large Chest Radiograph Dataset, AAAI, arXiv 1901.07031",
        obtain=(
            "sign the agreement on the homepage and unpack CheXpert-v1.0-small.zip (11 GB) or CheXpert-v1.0.zip "
            "(439 GB)"
        ),
        split="train.csv and valid.csv (200 studies); patients are in one only. The test part is distributed apart.",
        traps=(
            "Blank means that the report does not mention it, -1 that it is uncertain. The manifest says empty: "
            "negative and uncertain: mask, as the paper's U-Ignore; No Finding is never 0, so empty: missing leaves "
            "it without negatives.",
            "There is no text: train image_only, or join the reports of CheXpert Plus.",
            "There is no test part here, so scores are those of the validation part that stopped the training; give "
            "splits.ratios in place of splits.column for one of your own (the group keeps patients whole).",
            "Labels of train are mined_from_text, those of validation human: they do not mean quite the same.",
        ),
        files=_FILES,
        layouts=(Layout("a Hugging Face copy in parquet files", (PARQUET,), tuple((name,) for name in _COLUMNS)),),
    )

    def root(self, folder: Path) -> Path:
        """The folder of the four batches, if this is one of them."""
        whole = folder.resolve()
        return whole.parent if whole.match("CheXpert-v1.0 batch *") else folder

    def rows(self, folder: Path) -> Iterator[Row | Note]:
        """A row a study, in the order of the csv files; views of one study must agree in their labels."""
        if find(folder, _FILES[0]) is None:
            yield from _copied(folder)
            return
        for split, patterns in zip(("train", "valid"), _FILES, strict=True):
            table = need(folder, patterns)
            studies: dict[str, list[tuple[int, dict[str, str]]]] = {}
            for number, line in read_csv(table, _COLUMNS):
                if isinstance(line, Row):
                    yield line
                elif line["Path"].count("/") < 3:
                    yield bad_line(table, number, "its Path names no patient and study")
                else:
                    studies.setdefault(line["Path"].rpartition("/")[0], []).append((number, line))
            place, lost = _places(folder, table.parent, split, studies)
            if lost:
                yield Note(
                    f"{lost} patients of {table.name} are in none of the folders: a batch of the download is absent"
                )
            for study, views in studies.items():
                yield _row(split, study, views, place, table)

    def manifest(self, folder: Path | None) -> dict[str, Any]:
        """The 14 observations, from images alone."""
        del folder
        findings = {"type": "multilabel", "columns": list(FINDINGS), "uncertain": "mask", "empty": "negative"}
        return {
            "group": "patient",
            "tasks": {"findings": {**findings, "label_origin": "mined_from_text"}},
            "splits": {"column": "split", "names": {"valid": "validation"}},
            "subgroups": ["sex"],
        }


def _row(
    split: str,
    study: str,
    views: list[tuple[int, dict[str, str]]],
    place: Callable[[tuple[str, ...]], Path],
    table: Path,
) -> Row:
    parts = tuple(study.split("/")[-3:])  # what stands before train/ or valid/ is the name of the archive
    images = tuple(place(parts) / view["Path"].rpartition("/")[2] for _, view in views)
    columns, problem = _columns(split, parts, [view for _, view in views])
    return Row("/".join(parts), columns, images, problem, table, views[0][0])


def _columns(split: str, parts: tuple[str, ...], views: list[dict[str, str]]) -> tuple[dict[str, str], str | None]:
    """A study's columns, and why they cannot be used."""
    labels = {name: views[0][name] for name in FINDINGS}
    same = all(view[name] == label for view in views for name, label in labels.items())
    columns = {
        "patient": parts[-2] if len(parts) > 1 else "",
        "split": split,
        "sex": views[0]["Sex"],
        "age": views[0]["Age"],
        "views": ";".join(view["Frontal/Lateral"] for view in views),
        "projections": ";".join(view["AP/PA"] for view in views),
        **labels,
    }
    return columns, None if same else "its views have different labels"


def _places(
    folder: Path, beside: Path, split: str, studies: dict[str, Any]
) -> tuple[Callable[[tuple[str, ...]], Path], int]:
    """Where the studies of a part are, and how many patients are nowhere.

    They are below the table's folder, or in the batches, where the training part's patients have no train/ above them.

    Raises:
        MmfuseError: No patient of the part is anywhere.
    """
    if (beside / split).is_dir():
        return lambda parts: beside.joinpath(*parts), 0
    batches = sorted(path for pattern in ("*batch*", "*batch*/*batch*") for path in folder.glob(pattern))
    patients: dict[str, Path] = {}
    for place in (folder / split, *batches, *(batch / split for batch in batches)):
        if place.is_dir() and (place.name == split or split == "train"):
            names = (entry.name for entry in os.scandir(place) if entry.name.startswith("patient"))
            patients |= {name: place / name for name in names}
    lost = {study.split("/")[-2] for study in studies} - patients.keys()
    if studies and not patients:
        raise MmfuseError(
            f"{folder}: this looks like CheXpert at full size, and none of its {split} pictures is here: unpack the "
            "folders 'CheXpert-v1.0 batch 2 (train 1)', 3 and 4 beside batch 1"
        )

    def place_of(parts: tuple[str, ...]) -> Path:
        return patients.get(parts[-2], beside / Path(*parts[:-1])).joinpath(parts[-1])

    return place_of, len(lost)


_MEANT = {"unlabeled": "", "uncertain": "-1.0", "absent": "0.0", "present": "1.0"}
"""The copy's classes, as the release writes them."""


def _copied(folder: Path) -> Iterator[Row]:
    studies: dict[str, list[tuple[dict[str, str], Packed, Table, int]]] = {}
    for table in tables(folder):
        column = image_column(table)
        for number, record in records(table):
            view = {key: "" if record[key] is None else str(record[key]) for key in _COLUMNS}
            view |= {name: _MEANT.get(view[name], view[name]) for name in FINDINGS}
            image = Packed("/".join(view["Path"].split("/")[-4:]), table.path, number - 1, column)
            studies.setdefault(view["Path"].rpartition("/")[0], []).append((view, image, table, number))
    for study, views in studies.items():
        parts = tuple(study.split("/")[-3:])
        columns, problem = _columns(parts[0], parts, [view for view, *_ in views])
        _, _, table, number = views[0]
        yield Row("/".join(parts), columns, tuple(image for _, image, *_ in views), problem, table.path, number)
