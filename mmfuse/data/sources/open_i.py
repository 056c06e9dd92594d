"""Open-I (Indiana University chest X-rays): XML reports and PNG images.

Layouts seen in public readers (searched 2026-11): NLMCXR_reports.tgz and NLMCXR_png.tgz, `eCitation` with `uId`,
`AbstractText` by `Label`, `MeSH/major`, `parentImage`, whose id is the name of the PNG; Kaggle's copy,
indiana_reports.csv and indiana_projections.csv, whose pictures are called `1_IM-0001-4001.dcm.png` instead of
`CXR1_1_IM-0001-4001.png`; R2Gen's annotation.json; a parquet copy of Kaggle's columns with the pictures inside. The
set: Demner-Fushman et al. 2016, https://doi.org/10.1093/jamia/ocv080. From memory: the numbers of what can be
downloaded, and the picture columns of the parquet copy.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml.ElementTree import parse

from mmfuse.data.sources import SOURCES, Card, Layout, Note, Row
from mmfuse.data.sources.files import bad_line, find, need, read_csv
from mmfuse.data.sources.parquet import PARQUET, Packed, records, suffix_of, tables
from mmfuse.data.sources.r2gen import read_annotation

_REPORTS = ("ecgen-radiology/*.xml", "NLMCXR_reports/ecgen-radiology/*.xml", "*.xml")
_IMAGES = ("NLMCXR_png/*.png", "images/*.png", "images/images_normalized/*.png", "images_normalized/*.png", "*.png")
_KAGGLE = (("indiana_reports.csv",), ("indiana_projections.csv",), _IMAGES)
_R2GEN = (("annotation.json", "iu_xray/annotation.json"), ("images/*/*.png", "iu_xray/images/*/*.png", "images/*.png"))
_COLUMNS = ("uid", "MeSH", "Problems", "image", "indication", "comparison", "findings", "impression")
_NAME = re.compile(r"(?:CXR)?(\d+)_(?:\d+_)?(IM-[\w-]+?)(?:\.dcm)?(?:\.png)?")
_SECTIONS = ("comparison", "indication", "findings", "impression")


@SOURCES.register("open_i")
class OpenI:
    """Open-I / IU X-Ray; a row is a report with its images."""

    card = Card(
        about=(
            "3,955 chest X-ray reports of Indiana University with 7,470 images, frontal and lateral. The reports "
            "are de-identified (words taken out are XXXX), in sections, and coded by hand with MeSH terms."
        ),
        homepage="https://openi.nlm.nih.gov/faq",
        licence="CC BY-NC-ND 4.0",
        citation=(
            "Demner-Fushman et al. 2016, Preparing a collection of radiology examinations for distribution and "
            "retrieval, JAMIA 23(2), doi 10.1093/jamia/ocv080"
        ),
        obtain=(
            "https://openi.nlm.nih.gov/imgs/collections/NLMCXR_reports.tgz and NLMCXR_png.tgz; unpack the reports "
            "in DIR (they bring ecgen-radiology/) and the images in DIR/NLMCXR_png"
        ),
        split="none is official; here 70 / 10 / 20 by hash of the report.",
        traps=(
            "Patients are not named, so a report is its own group; whether any patient has two is not known.",
            "R2Gen's split, used by many papers on report generation, is no official one, and nobody can check it "
            "patient by patient.",
            "Some reports have no image: they are skipped. Many lack one of the sections; XXXX is no word.",
            "MeSH terms were coded from findings and impression: a text encoder that reads either reads the answer.",
        ),
        files=(_REPORTS, _IMAGES),
        layouts=(
            Layout("Kaggle's copy of Open-I", _KAGGLE),
            Layout("R2Gen's copy of Open-I (iu_xray)", _R2GEN),
            Layout("a Hugging Face copy in parquet files", (PARQUET,), (("uid",), ("findings",), ("impression",))),
        ),
    )

    def rows(self, folder: Path) -> Iterator[Row | Note]:
        """A row a report, in the order of the files' names, or of the table."""
        kind, kaggle, r2gen = _kind(folder), find(folder, _KAGGLE[0]), find(folder, _R2GEN[0])
        beside = [path.name for path in (kaggle, r2gen) if path is not None]
        read = {"xml": "the XML reports", "kaggle": "indiana_reports.csv"}.get(kind, "")
        unread = [name for name in beside if kind == "xml" or (kind == "kaggle" and name == "annotation.json")]
        if unread:
            yield Note(f"read are {read}; {', '.join(unread)} beside them is not")
        if kind == "xml":
            yield from _xml(folder)
        elif kind == "kaggle":
            yield from _kaggle(folder)
        elif kind == "r2gen":
            yield Note("the split is R2Gen's, which is no official one; reports have no sections, indication or MeSH")
            path = need(folder, _R2GEN[0])
            yield from read_annotation(path, find(path.parent, ("images",)) or path.parent / "images")
        else:
            yield from _parquet(folder)

    def manifest(self, folder: Path | None) -> dict[str, Any]:
        """Findings to be written from images and indication, and MeSH headings."""
        if folder is not None and _kind(folder) == "r2gen":
            report = {"type": "captioning", "column": "report", "label_origin": "human"}
            return {
                "split_is": "R2Gen's, which is no official one.",
                "tasks": {"report": report},
                "splits": {"column": "split", "names": {"val": "validation"}},
            }
        mesh = {"type": "multilabel", "column": "mesh", "separator": ";", "min_count": 20}
        return {
            "text": {"columns": ["indication"]},
            "tasks": {
                "findings": {"type": "captioning", "column": "findings", "label_origin": "human"},
                "mesh": {**mesh, "label_origin": "human"},
            },
            "splits": {"ratios": {"train": 0.7, "validation": 0.1, "test": 0.2}},
        }


def _kind(folder: Path) -> str:
    if find(folder, _REPORTS) is not None:
        return "xml"
    if find(folder, _KAGGLE[0]) is not None:
        return "kaggle"
    return "r2gen" if find(folder, _R2GEN[0]) is not None else "parquet"


def _xml(folder: Path) -> Iterator[Row]:
    images = _finder(need(folder, _IMAGES).parent)
    for path in sorted(need(folder, _REPORTS).parent.glob("*.xml")):
        try:
            root = parse(path).getroot()
            assert root is not None  # a document without one is a ParseError
        except (OSError, ParseError, ValueError, LookupError):  # a ValueError is also what defusedxml forbids
            yield Row(path.stem, problem="the report is not XML", path=path)
            continue
        yield _row(root, path, images)


def _finder(folder: Path) -> Callable[[str], Path]:
    """What finds a picture by its name without suffix, the original's or Kaggle's."""

    @cache
    def others() -> dict[tuple[str, str], Path]:
        names = ((path, _NAME.fullmatch(path.name)) for path in sorted(folder.glob("*.png")))
        return {(name[1], name[2]): path for path, name in names if name}

    def picture(name: str) -> Path:
        path, found = folder / f"{name}.png", _NAME.fullmatch(name)
        return path if os.path.exists(path) or not found else others().get((found[1], found[2]), path)

    return picture


def _row(root: Element, path: Path, images: Callable[[str], Path]) -> Row:
    identity = root.find(".//uId")
    name = (identity.get("id") if identity is not None else None) or path.stem
    sections = [(part.get("Label", "").strip().lower(), _text(part)) for part in root.iter("AbstractText")]
    major = [text for text in map(_text, root.iter("major")) if text]
    columns = _columns(sections, major)
    columns |= {
        "mesh_automatic": ";".join(text for text in map(_text, root.iter("automatic")) if text),
    }
    named = [part.get("id") for part in root.iter("parentImage")]
    pictures = tuple(images(image) for image in dict.fromkeys(named) if image)
    return Row(name, columns, pictures, problem=None if pictures else "the report names no image", path=path)


def _text(part: Element) -> str:
    return " ".join("".join(part.itertext()).split())


def _columns(sections: list[tuple[str, str]], major: list[str]) -> dict[str, str]:
    columns = {key: "\n".join(text for label, text in sections if label == key and text) for key in _SECTIONS}
    return columns | {
        "report": "\n".join(f"{label.upper()}: {text}" for label, text in sections if text),
        "mesh": ";".join(dict.fromkeys(term.split("/")[0].strip() for term in major)),
        "mesh_major": ";".join(major),
    }


def _kaggle(folder: Path) -> Iterator[Row]:
    reports, projections = need(folder, _KAGGLE[0]), need(folder, _KAGGLE[1])
    find_picture = _finder(need(folder, _IMAGES).parent)
    known: set[str] = set()
    views: dict[str, list[tuple[int, str, str]]] = {}
    for number, line in read_csv(projections, ("uid", "filename", "projection")):
        if isinstance(line, Row):
            yield line
        else:
            views.setdefault(line["uid"], []).append((number, line["filename"], line["projection"]))
    for number, line in read_csv(reports, _COLUMNS, starts=r"\d+,"):
        if isinstance(line, Row):
            yield line
            continue
        found = views.get(line["uid"], [])
        known.add(line["uid"])
        images = tuple(find_picture(name.strip().removesuffix(".png")) for _, name, _ in found)
        columns = _of_table(line) | {"projections": ";".join(view for *_, view in found)}
        problem = None if found else "the report names no image"
        yield Row(f"CXR{line['uid']}", columns, images, problem, reports, number)
    for uid, found in views.items():
        for number, _, _ in found if uid not in known else ():
            yield bad_line(projections, number, "a picture of a report that is not there")


def _of_table(line: dict[str, str]) -> dict[str, str]:
    """The columns of Kaggle's table under the names of the XML's."""
    sections = [(key, " ".join(line[key].split())) for key in _SECTIONS]
    columns = _columns(sections, [term.strip() for term in line["MeSH"].split(";") if term.strip()])
    return columns | {"problems": line["Problems"], "examination": line["image"]}


def _parquet(folder: Path) -> Iterator[Row]:
    for table in tables(folder):
        pictures = {column: suffix_of(table, column) for column in table.images()}
        for number, record in records(table):
            line = {key: "" if record.get(key) is None else str(record[key]) for key in _COLUMNS}
            name = f"CXR{line['uid']}"
            images = [
                Packed(f"{name}/{column}{suffix}", table.path, number - 1, column)
                for column, suffix in pictures.items()
            ]
            there = tuple(image for image in images if image.read() is not None)
            views = ";".join(image.column.removeprefix("img_") for image in there)
            problem = None if there else "no image"
            yield Row(name, _of_table(line) | {"projections": views}, there, problem, table.path, number)
