"""MIMIC-CXR-JPG: chest X-rays, their reports (of MIMIC-CXR), CheXpert's and NegBio's labels, the official split.

The layout is documented at https://physionet.org/content/mimic-cxr-jpg/2.1.0/ and
https://physionet.org/content/mimic-cxr/2.1.0/; names of files and columns were compared with public readers (searched
2026-11). The set itself is credentialed and was never seen here. From memory: how the test part was chosen.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmfuse.data.sources import SOURCES, Card, Row
from mmfuse.data.sources.chexpert import FINDINGS
from mmfuse.data.sources.files import need, read_csv
from mmfuse.data.texts import TextError, read_text

_TABLES = {
    name: (f"mimic-cxr-2.*-{name}.csv.gz", f"mimic-cxr-2.*-{name}.csv")
    for name in ("split", "metadata", "chexpert", "negbio")
}
_IMAGES = ("files",)
_REPORTS = ("mimic-cxr-reports/files/p1*", "mimic-cxr-reports/p1*", "files/p1*/p1*/s*.txt")
_NOT_LABELLED = "not labelled"


@SOURCES.register("mimic_cxr")
class MimicCxr:
    """MIMIC-CXR-JPG with the reports of MIMIC-CXR; a row is a study with its views."""

    card = Card(
        about=(
            "377,110 chest radiographs of 227,827 studies and 65,379 patients of Beth Israel Deaconess Medical "
            "Center, with free-text reports. The labels were mined from the same reports by CheXpert's and NegBio's "
            "rules."
        ),
        homepage="https://physionet.org/content/mimic-cxr-jpg/2.1.0/",
        licence=(
            "PhysioNet Credentialed Health Data License 1.5.0: training in human research, a signed agreement, no "
            "sharing"
        ),
        citation=(
            "Johnson et al. 2019, MIMIC-CXR-JPG, arXiv 1901.07042; Johnson et al. 2019, MIMIC-CXR, Scientific Data "
            "6; Goldberger et al. 2000, PhysioNet"
        ),
        obtain=(
            "as a credentialed user of PhysioNet: mimic-cxr-jpg (files/ and the four mimic-cxr-2.0.0-*.csv.gz in "
            "DIR) and mimic-cxr-reports.zip of mimic-cxr, unpacked to DIR/mimic-cxr-reports (or into DIR itself)"
        ),
        split="mimic-cxr-2.0.0-split.csv.gz: train, validate and test, by patient.",
        traps=(
            "Labels were mined from the report: a text encoder that reads findings or impression reads the answer. "
            "The manifest gives it the section indication alone (text.section), and captions are the section "
            "findings.",
            "Patients have many studies; the group is subject_id.",
            "Blank means not mentioned, -1 uncertain: empty: negative and uncertain: mask by the manifest. A study "
            "that the labeller's file lacks says 'not labelled', and is masked.",
            "The test part are patients of whom a report was labelled by hand: findings are not as frequent as in "
            "train.",
            "Reports compare with earlier films that are not shown to the model.",
        ),
        files=(*_TABLES.values(), _IMAGES, _REPORTS),
    )

    def rows(self, folder: Path) -> Iterator[Row]:
        """A row a study, in the order of the split's file."""
        reports = need(folder, _REPORTS)
        reports = reports.parents[2] if reports.suffix == ".txt" else reports.parent
        split = need(folder, _TABLES["split"])
        views = {row["dicom_id"]: row["ViewPosition"] for row in _table(folder, "metadata", "dicom_id", "ViewPosition")}
        labels = {
            name: {r["study_id"]: r for r in _table(folder, name, "study_id", *FINDINGS)}
            for name in ("chexpert", "negbio")
        }
        studies: dict[str, list[dict[str, str]]] = {}
        for line in read_csv(split, ("dicom_id", "study_id", "subject_id", "split")):
            studies.setdefault(line["study_id"], []).append(line)
        for study, lines in studies.items():
            subject = lines[0]["subject_id"]
            place = Path(f"p{subject[:2]}", f"p{subject}", f"s{study}")
            columns = {"subject_id": subject, "split": lines[0]["split"]}
            columns["views"] = ";".join(views.get(line["dicom_id"], "") for line in lines)
            columns |= _labels(labels["chexpert"].get(study), "") | _labels(labels["negbio"].get(study), " (NegBio)")
            images = tuple(folder / "files" / place / f"{line['dicom_id']}.jpg" for line in lines)
            path, problem = reports / place.with_suffix(".txt"), None
            if any((line["subject_id"], line["split"]) != (subject, columns["split"]) for line in lines):
                path, problem = split, "its images are of two patients or splits"
            try:
                columns["report"] = "" if problem else read_text(path)
            except TextError as error:
                problem = f"report: {error}"
            yield Row(study, columns, images, problem, path)

    def manifest(self, folder: Path | None) -> dict[str, Any]:
        """Both labellers' findings, and the section findings to be written, from images and indication."""
        del folder
        mined = {
            "uncertain": "mask",
            "empty": "negative",
            "missing": [_NOT_LABELLED],
            "label_origin": "mined_from_text",
        }
        negbio = [f"{name} (NegBio)" for name in FINDINGS]
        return {
            "group": "subject_id",
            "text": {"columns": ["report"], "section": ["indication"]},
            "tasks": {
                "chexpert": {"type": "multilabel", "columns": list(FINDINGS), **mined},
                "negbio": {"type": "multilabel", "columns": negbio, **mined},
                "findings": {"type": "captioning", "column": "report", "section": "findings", "label_origin": "human"},
            },
            "splits": {"column": "split", "names": {"validate": "validation"}},
        }


def _table(folder: Path, name: str, *columns: str) -> Iterator[dict[str, str]]:
    return read_csv(need(folder, _TABLES[name]), columns)


def _labels(line: dict[str, str] | None, suffix: str) -> dict[str, str]:
    return {f"{name}{suffix}": line[name] if line else _NOT_LABELLED for name in FINDINGS}
