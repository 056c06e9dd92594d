"""CheXpert: chest X-rays with labels mined from reports that are not part of the set.

The layout (train.csv, valid.csv, their columns and paths) is that of CheXpert-v1.0-small, seen in public readers of it
(searched 2026-11). Blank, 0, 1, -1 and the numbers: Irvin et al. 2019, https://arxiv.org/abs/1901.07031. From memory:
the sizes of the archives.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmfuse.data.sources import SOURCES, Card, Row
from mmfuse.data.sources.files import need, read_csv

FINDINGS = (
    *("No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema"),
    *("Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture"),
    "Support Devices",
)
"""The 14 observations of the CheXpert labeller."""

_FILES = tuple(
    tuple(f"{folder}{name}.csv" for folder in ("", "CheXpert-v1.0-small/", "CheXpert-v1.0/"))
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
    )

    def rows(self, folder: Path) -> Iterator[Row]:
        """A row a study, in the order of the csv files; views of one study must agree in their labels."""
        for split, patterns in zip(("train", "valid"), _FILES, strict=True):
            table = need(folder, patterns)
            studies: dict[str, list[dict[str, str]]] = {}
            for line in read_csv(table, _COLUMNS):
                studies.setdefault(line["Path"].rpartition("/")[0], []).append(line)
            for study, views in studies.items():
                yield _row(split, study, views, table.parent)

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


def _row(split: str, study: str, views: list[dict[str, str]], root: Path) -> Row:
    parts = study.split("/")[-3:]  # what stands before train/ or valid/ is the name of the archive
    images = tuple(root.joinpath(*parts, view["Path"].rpartition("/")[2]) for view in views)
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
    return Row("/".join(parts), columns, images, None if same else "its views have different labels", images[0])
