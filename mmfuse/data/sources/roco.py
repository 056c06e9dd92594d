"""ROCO: figures of radiology from PubMed Central with captions and UMLS concepts; versions 1 and 2 are two sets.

Version 2: `SPLIT_captions.csv` with ID and Caption, `SPLIT_concepts.csv` with ID and CUIs, `SPLIT_images.zip` as on
https://doi.org/10.5281/zenodo.10821435 and in public readers (searched 2026-11); numbers from Rückert et al. 2024. From
memory: that CUIs are separated by ";". Version 1: https://github.com/razorx89/roco-dataset, `data/SPLIT/radiology/`
with captions.txt, cuis.txt and dlinks.txt (ID, TAB, value), whose script stores the pictures as images/PMCID_NAME;
Kaggle's copy has all_data/ for data/, and SPLITdata.csv with id, name and caption. Parquet copies of both have image,
image_id and caption, of version 2 also cui.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

from mmfuse.data.sources import SOURCES, Card, Layout, Note, Row
from mmfuse.data.sources.captions import check_names
from mmfuse.data.sources.files import bad_line, find, need, read_csv, read_lines
from mmfuse.data.sources.parquet import (
    PARQUET,
    Packed,
    copy_is_split,
    image_column,
    records,
    suffix_of,
    tables,
    texts_of,
)

_SPLITS = ("train", "valid", "test")
_COPY = Layout("a Hugging Face copy in parquet files", (PARQUET,), (("image",), ("image_id",), ("caption",)))
_SPLITS_V1 = ("train", "validation", "test")
_ROOTS = ("data", "all_data", ".")
_KINDS = ("radiology", "non-radiology")
_CAPTIONS, _CUIS, _PICTURES = (
    tuple(f"{root}{kind}/{name}" for kind in _KINDS for root in ("*/*/", "*/"))
    for name in ("captions*.txt", "cuis*.txt", "images/*")
)


def _images(split: str) -> tuple[str, ...]:
    return (f"{split}_images/{split}", split, f"{split}_images")


@SOURCES.register("roco_v2")
class RocoV2:
    """ROCOv2; a row is a figure with its caption and concepts."""

    card = Card(
        about=(
            "79,789 radiology figures of open-access articles with captions and UMLS concepts. CT, MRI, X-ray, "
            "ultrasound and others, of all parts of the body."
        ),
        homepage="https://doi.org/10.5281/zenodo.10821435",
        licence="figures CC BY or CC BY-NC each, by license_information.csv; for all together: non-commercial",
        citation="Rückert et al. 2024, ROCOv2: Radiology Objects in COntext Version 2, Scientific Data 11:688",
        obtain="from Zenodo: SPLIT_images.zip, SPLIT_captions.csv and SPLIT_concepts.csv of train, valid and test",
        split="train 59,958, valid 9,904, test 9,927, by the files' names.",
        traps=(
            "Concepts were mined from the captions: never give the caption as text of the concepts task.",
            "Figures of one article may be in several splits; license_information.csv names the articles. The "
            "official split is kept, and a figure is its own group.",
            "Captions tell what no picture shows (age, history, arrows). Near copies of a figure are common.",
        ),
        files=tuple(f for s in _SPLITS for f in ((f"{s}_captions.csv",), (f"{s}_concepts.csv",), _images(s))),
        layouts=(_COPY,),
    )

    def rows(self, folder: Path) -> Iterator[Row | Note]:
        """A row a figure, in the order of the captions' files."""
        if find(folder, ("train_captions.csv",)) is None:
            yield from _copied("roco_v2", folder)
            return
        for split in _SPLITS:
            images = need(folder, _images(split))
            concepts = {}
            for _, line in read_csv(need(folder, (f"{split}_concepts.csv",)), ("ID", "CUIs"), starts="ROCO"):
                if isinstance(line, Row):
                    yield line
                else:
                    concepts[line["ID"]] = line["CUIs"]
            table = need(folder, (f"{split}_captions.csv",))
            for number, line in read_csv(table, ("ID", "Caption"), starts="ROCO"):
                if isinstance(line, Row):
                    yield line
                    continue
                name = line["ID"]
                columns = {"split": split, "caption": line["Caption"].strip(), "concepts": concepts.get(name, "")}
                yield Row(name, columns, (images / f"{name}.jpg",), None, table, number)

    def manifest(self, folder: Path | None) -> dict[str, Any]:
        """Captions and concepts, from the figure alone."""
        copy = folder is not None and find(folder, ("train_captions.csv",)) is None
        return _manifest(folder if copy else None, {"valid": "validation"})


@SOURCES.register("roco_v1")
class RocoV1:
    """ROCO version 1; a row is a figure with its caption and concepts."""

    card = Card(
        about=(
            "81,825 radiology figures (and 6,127 others) of open-access articles with captions and UMLS concepts: "
            "version 1 of ROCO. Version 2 is another set, with other figures, names and split."
        ),
        homepage="https://github.com/razorx89/roco-dataset",
        licence="figures under the licences of their articles (licences.txt)",
        citation="Pelka et al. 2018, Radiology Objects in COntext (ROCO), MICCAI LABELS, LNCS 11043",
        obtain=(
            "clone https://github.com/razorx89/roco-dataset and run its scripts/fetch.py, which downloads the pictures "
            "to data/SPLIT/radiology/images; or Kaggle's virajbagal/roco-dataset"
        ),
        split="train, validation and test, by the folders' names.",
        traps=(
            "Concepts were mined from the captions: never give the caption as text of the concepts task.",
            "Non-radiology figures are rows too, where their pictures are there: the column kind tells them.",
            "Many articles have moved since 2018: pictures that could not be fetched are skipped.",
        ),
        files=(_CAPTIONS, _PICTURES),
        layouts=(_COPY,),
    )

    def rows(self, folder: Path) -> Iterator[Row | Note]:
        """A row a figure, in the order of the splits and of their captions."""
        if find(folder, _CAPTIONS) is None:
            yield from _copied("roco_v1", folder)
            return
        absent = []
        for split in _SPLITS_V1:
            for kind in _KINDS:
                place = find(folder, tuple(f"{root}/{split}/{kind}" for root in _ROOTS))
                path = find(place, ("captions.txt", "captions_*.txt")) if place else None
                if path is None or place is None or find(place, ("images/*",)) is None:
                    absent.append(f"{split}/{kind}")
                else:
                    yield from _figures(split, kind, place, path)
        if absent:
            yield Note(f"no captions or no pictures are there of {', '.join(absent)}")
        if find(folder, _CUIS) is None:
            yield Note("no cuis.txt is here, so there is no task concepts")

    def manifest(self, folder: Path | None) -> dict[str, Any]:
        """Captions and concepts, from the figure alone."""
        copy = folder is not None and find(folder, _CAPTIONS) is None
        keys = _manifest(folder if copy else None, {})
        if copy:
            return keys
        if folder is not None and find(folder, _CUIS) is None:
            del keys["tasks"]["concepts"]
        return keys | {"subgroups": ["kind"]}


def _manifest(copy: Path | None, names: dict[str, str]) -> dict[str, Any]:
    """Both versions' manifest.

    Args:
        copy: The folder, if it is one of parquet files.
        names: The split's own words.
    """
    concepts = {"type": "multilabel", "column": "concepts", "separator": ";", "min_count": 50}
    tasks = {
        "caption": {"type": "captioning", "column": "caption", "label_origin": "human"},
        "concepts": {**concepts, "label_origin": "mined_from_text"},
    }
    if copy is None:
        return {"tasks": tasks, "splits": {"column": "split", **({"names": names} if names else {})}}
    files = tables(copy)
    if not any("cui" in table.schema.names for table in files):
        del tasks["concepts"]
    if copy_is_split(files):
        return {"tasks": tasks, "splits": {"column": "split"}}
    ratios = {"train": 0.8, "validation": 0.1, "test": 0.1}
    return {"split_is": "none is told: 80 / 10 / 10 by hash.", "tasks": tasks, "splits": {"ratios": ratios}}


def _copied(name: str, folder: Path) -> Iterator[Row | Note]:
    files, rows = tables(folder), []
    official = copy_is_split(files)
    if not official:
        yield Note("this Hugging Face copy tells no split, so it is by hash: scores compare with no published ones")
    for table in files:
        column = image_column(table)
        suffix = suffix_of(table, column)
        for number, record in records(table):
            figure = str(record.get("image_id") or "")
            columns = {"split": table.split if official else "", "caption": str(record.get("caption") or "").strip()}
            columns["concepts"] = ";".join(texts_of(record.get("cui")))
            image = Packed(f"{table.split or 'images'}/{figure}{suffix}", table.path, number - 1, column)
            rows.append(Row(figure, columns, (image,), None, table.path, number))
    check_names(name, (row.id for row in rows), folder)
    yield from rows


def _figures(split: str, kind: str, place: Path, path: Path) -> Iterator[Row]:
    concepts: dict[str, str] = {}
    cuis = find(place, ("cuis.txt", "cuis_*.txt"))
    for _, line in read_lines(cuis) if cuis else ():
        if isinstance(line, str):
            name, *found = (part.strip() for part in line.split("\t"))
            concepts[name] = ";".join(part for part in found if part)
        else:
            yield line
    files = yield from _file_names(place)
    for number, line in read_lines(path):
        if isinstance(line, Row):
            yield line
            continue
        name, tab, caption = line.partition("\t")
        name, caption = name.strip(), caption.strip()
        if not (name and tab and caption):
            yield bad_line(path, number, "no caption" if name and tab else "not a line of ID, TAB, caption")
            continue
        columns = {"split": split, "kind": kind, "caption": caption, "concepts": concepts.get(name, "")}
        names = [found for found in (files.get(name), f"{name}.jpg") if found]
        images = [place / "images" / found for found in names]
        image = next((file for file in images if os.path.exists(file)), images[0])
        yield Row(name, columns, (image,), None, path, number)


def _file_names(place: Path) -> Generator[Row, None, dict[str, str]]:
    """Figure -> its picture's name; damaged lines are yielded on the way."""
    found: dict[str, str] = {}
    links = find(place, ("dlinks.txt", "dlinks_*.txt"))
    for number, line in read_lines(links) if links else ():
        parts = line.split("\t") if isinstance(line, str) else []
        archive = next((word for word in " ".join(parts[1:-1]).split() if word.endswith(".tar.gz")), "")
        if len(parts) > 2 and archive:
            found[parts[0].strip()] = f"{Path(archive).name.removesuffix('.tar.gz')}_{parts[-1].strip()}"
        else:
            yield line if isinstance(line, Row) else bad_line(links or place, number, "not a line of ID, link, file")
    table = find(place, ("traindata.csv", "valdata.csv", "validationdata.csv", "testdata.csv"))
    for _, line in read_csv(table, ("id", "name"), starts="ROCO") if table else ():
        if isinstance(line, Row):
            yield line
        else:
            found[line["id"].strip()] = line["name"].strip()
    return found
