"""ROCO version 2: figures of radiology from PubMed Central with captions and UMLS concepts.

Layout (`SPLIT_captions.csv` with ID and Caption, `SPLIT_concepts.csv` with ID and CUIs, `SPLIT_images.zip`) as on
https://doi.org/10.5281/zenodo.10821435 and in public readers (searched 2026-11); numbers from Rückert et al. 2024. From
memory: that CUIs are separated by ";".
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmfuse.data.sources import SOURCES, Card, Row
from mmfuse.data.sources.files import need, read_csv

_SPLITS = ("train", "valid", "test")


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
    )

    def rows(self, folder: Path) -> Iterator[Row]:
        """A row a figure, in the order of the captions' files."""
        for split in _SPLITS:
            images = need(folder, _images(split))
            table = read_csv(folder / f"{split}_concepts.csv", ("ID", "CUIs"))
            concepts = {line["ID"]: line["CUIs"] for line in table}
            for line in read_csv(folder / f"{split}_captions.csv", ("ID", "Caption")):
                name = line["ID"]
                columns = {"split": split, "caption": line["Caption"].strip(), "concepts": concepts.get(name, "")}
                yield Row(name, columns, (images / f"{name}.jpg",))

    def manifest(self, folder: Path | None) -> dict[str, Any]:
        """Captions and concepts, from the figure alone."""
        del folder
        concepts = {"type": "multilabel", "column": "concepts", "separator": ";", "min_count": 50}
        return {
            "tasks": {
                "caption": {"type": "captioning", "column": "caption", "label_origin": "human"},
                "concepts": {**concepts, "label_origin": "mined_from_text"},
            },
            "splits": {"column": "split", "names": {"valid": "validation"}},
        }
