"""Open-I (Indiana University chest X-rays): XML reports and PNG images.

The layout of NLMCXR_reports.tgz and NLMCXR_png.tgz is seen in public readers of it (searched 2026-11): `eCitation`
with `uId`, `AbstractText` by `Label`, `MeSH/major`, `parentImage`, whose id is the name of the PNG. The set:
Demner-Fushman et al. 2016, https://doi.org/10.1093/jamia/ocv080. From memory: the numbers of what can be downloaded.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml.ElementTree import parse

from mmfuse.data.sources import SOURCES, Card, Row
from mmfuse.data.sources.files import need

_REPORTS = ("ecgen-radiology/*.xml", "NLMCXR_reports/ecgen-radiology/*.xml", "*.xml")
_IMAGES = ("NLMCXR_png/*.png", "images/*.png", "*.png")
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
    )

    def rows(self, folder: Path) -> Iterator[Row]:
        """A row a report, in the order of the files' names."""
        reports, images = need(folder, _REPORTS).parent, need(folder, _IMAGES).parent
        for path in sorted(reports.glob("*.xml")):
            try:
                root = parse(path).getroot()
                assert root is not None  # a document without one is a ParseError
            except (OSError, ParseError, ValueError, LookupError):  # a ValueError is also what defusedxml forbids
                yield Row(path.stem, problem="the report is not XML", path=path)
                continue
            yield _row(root, path, images)

    def manifest(self, folder: Path | None) -> dict[str, Any]:
        """Findings to be written from images and indication, and MeSH headings."""
        del folder
        mesh = {"type": "multilabel", "column": "mesh", "separator": ";", "min_count": 20}
        return {
            "text": {"columns": ["indication"]},
            "tasks": {
                "findings": {"type": "captioning", "column": "findings", "label_origin": "human"},
                "mesh": {**mesh, "label_origin": "human"},
            },
            "splits": {"ratios": {"train": 0.7, "validation": 0.1, "test": 0.2}},
        }


def _row(root: Element, path: Path, images: Path) -> Row:
    identity = root.find(".//uId")
    name = (identity.get("id") if identity is not None else None) or path.stem
    sections = [(part.get("Label", "").strip().lower(), _text(part)) for part in root.iter("AbstractText")]
    major = [text for text in map(_text, root.iter("major")) if text]
    columns = {key: "\n".join(text for label, text in sections if label == key and text) for key in _SECTIONS}
    columns |= {
        "report": "\n".join(f"{label.upper()}: {text}" for label, text in sections if text),
        "mesh": ";".join(dict.fromkeys(term.split("/")[0].strip() for term in major)),
        "mesh_major": ";".join(major),
        "mesh_automatic": ";".join(text for text in map(_text, root.iter("automatic")) if text),
    }
    named = [part.get("id") for part in root.iter("parentImage")]
    pictures = tuple(images / f"{image}.png" for image in dict.fromkeys(named) if image)
    return Row(name, columns, pictures, problem=None if pictures else "the report names no image", path=path)


def _text(part: Element) -> str:
    return " ".join("".join(part.itertext()).split())
