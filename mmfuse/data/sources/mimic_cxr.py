"""MIMIC-CXR-JPG: chest X-rays, their reports (of MIMIC-CXR), CheXpert's and NegBio's labels, the official split.

The layout is documented at https://physionet.org/content/mimic-cxr-jpg/2.1.0/ and
https://physionet.org/content/mimic-cxr/2.1.0/; names of files and columns were compared with public readers (searched
2026-11), R2Gen's annotation.json and parquet copies with findings and impression too. The set itself is credentialed
and was never seen here. From memory: how the test part was chosen.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmfuse.data.sources import SOURCES, Card, Layout, Note, Row
from mmfuse.data.sources.chexpert import FINDINGS
from mmfuse.data.sources.files import find, need, read_csv
from mmfuse.data.sources.parquet import PARQUET, Packed, copy_is_split, image_column, records, suffix_of, tables
from mmfuse.data.sources.r2gen import read_annotation
from mmfuse.data.texts import TextError, read_text

_TABLES = {
    name: (f"mimic-cxr-2.*-{name}.csv.gz", f"mimic-cxr-2.*-{name}.csv")
    for name in ("split", "metadata", "chexpert", "negbio")
}
_IMAGES = ("files",)
_REPORTS = ("mimic-cxr-reports/files/p1*", "mimic-cxr-reports/p1*", "files/p1*/p1*/s*.txt")
_LABELLERS = {"chexpert": "", "negbio": " (NegBio)"}
"""Whose table is read, and what is added to its columns' names."""
_R2GEN = (("annotation.json", "mimic_cxr/annotation.json"), ("images", "mimic_cxr/images", "files"))
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
        files=(_TABLES["split"], _IMAGES, (*_REPORTS, *_TABLES["chexpert"], *_TABLES["negbio"])),
        layouts=(
            Layout("R2Gen's copy of MIMIC-CXR (annotation.json)", _R2GEN),
            Layout("a Hugging Face copy in parquet files", (PARQUET,), (("image",), ("findings",), ("impression",))),
        ),
    )

    def rows(self, folder: Path) -> Iterator[Row | Note]:
        """A row a study, in the order of the split's file."""
        kind = _kind(folder)
        if kind == "r2gen":
            path = need(folder, _R2GEN[0])
            yield Note("these are R2Gen's rows, a picture each: labels and sections of the release are not here")
            images = find(path.parent, ("images",)) or need(folder, _R2GEN[1])
            yield from read_annotation(path, images, ("subject_id", "study_id"))
        elif kind == "parquet":
            yield from _copied(folder)
        else:
            yield from _release(folder)

    def manifest(self, folder: Path | None) -> dict[str, Any]:
        """Both labellers' findings, and the section findings to be written, from images and indication."""
        kind = "release" if folder is None else _kind(folder)
        report = {"type": "captioning", "column": "report", "label_origin": "human"}
        if kind == "r2gen":
            return {
                "group": "subject_id",
                "split_is": "as in R2Gen's annotation.json.",
                "tasks": {"report": report},
                "splits": {"column": "split", "names": {"val": "validation"}},
            }
        if kind == "parquet":
            split = folder is not None and copy_is_split(tables(folder))
            ratios = {"ratios": {"train": 0.8, "validation": 0.1, "test": 0.1}}
            findings = {key: report | {"column": key} for key in ("findings", "impression")}
            told = "that of the Hugging Face copy." if split else "none is told: 80 / 10 / 10 by hash of the row."
            return {"split_is": told, "tasks": findings, "splits": {"column": "split"} if split else ratios}
        mined = {
            "uncertain": "mask",
            "empty": "negative",
            "missing": [_NOT_LABELLED],
            "label_origin": "mined_from_text",
        }
        labels = {
            name: {"type": "multilabel", "columns": [f"{finding}{suffix}" for finding in FINDINGS], **mined}
            for name, suffix in _LABELLERS.items()
            if folder is None or find(folder, _TABLES[name]) is not None
        }
        findings = {"type": "captioning", "column": "report", "section": "findings", "label_origin": "human"}
        told = folder is None or find(folder, _REPORTS) is not None
        return {
            "group": "subject_id",
            **({"text": {"columns": ["report"], "section": ["indication"]}} if told else {}),
            "tasks": labels | ({"findings": findings} if told else {}),
            "splits": {"column": "split", "names": {"validate": "validation"}},
        }


def _kind(folder: Path) -> str:
    if find(folder, _TABLES["split"]) is not None:
        return "release"
    return "r2gen" if find(folder, _R2GEN[0]) is not None else "parquet"


def _release(folder: Path) -> Iterator[Row | Note]:
    reports = find(folder, _REPORTS)
    if reports is None:
        yield Note("the reports (mimic-cxr-reports) are not here, so there is no text and no task findings")
    else:
        reports = reports.parents[2] if reports.suffix == ".txt" else reports.parent
    split = need(folder, _TABLES["split"])
    labellers = [name for name in _LABELLERS if find(folder, _TABLES[name]) is not None]
    absent = [name for name in _LABELLERS if name not in labellers]
    if absent:
        names = " and ".join(absent)
        yield Note(f"mimic-cxr-2.*-{names}.csv.gz is not here, so there is no task {names}")
    if find(folder, _TABLES["metadata"]) is None:
        yield Note("mimic-cxr-2.*-metadata.csv.gz is not here, so the column views is empty")
    tables: dict[str, dict[str, dict[str, str]]] = {"metadata": {}}
    wanted = {"metadata": ("dicom_id", "ViewPosition")} | dict.fromkeys(labellers, ("study_id", *FINDINGS))
    for name, columns in wanted.items():
        tables[name], path = {}, find(folder, _TABLES[name])
        for _, line in read_csv(path, columns) if path else ():
            if isinstance(line, Row):
                yield line
            else:
                tables[name][line[columns[0]]] = line
    studies: dict[str, list[tuple[int, dict[str, str]]]] = {}
    for number, line in read_csv(split, ("dicom_id", "study_id", "subject_id", "split")):
        if isinstance(line, Row):
            yield line
        else:
            studies.setdefault(line["study_id"], []).append((number, line))
    for study, lines in studies.items():
        yield _study(study, lines, tables, labellers, folder, reports, split)


def _study(
    study: str,
    numbered: list[tuple[int, dict[str, str]]],
    tables: dict[str, dict[str, dict[str, str]]],
    labellers: list[str],
    folder: Path,
    reports: Path | None,
    split: Path,
) -> Row:
    number, lines = numbered[0][0], [line for _, line in numbered]
    subject = lines[0]["subject_id"]
    place = Path(f"p{subject[:2]}", f"p{subject}", f"s{study}")
    columns = {"subject_id": subject, "split": lines[0]["split"]}
    columns["views"] = ";".join(tables["metadata"].get(line["dicom_id"], {}).get("ViewPosition", "") for line in lines)
    for name in labellers:
        columns |= _labels(tables[name].get(study), _LABELLERS[name])
    images = tuple(folder / "files" / place / f"{line['dicom_id']}.jpg" for line in lines)
    if any((line["subject_id"], line["split"]) != (subject, columns["split"]) for line in lines):
        columns["report"] = ""
        return Row(study, columns, images, "its images are of two patients or splits", split, number)
    if reports is None:
        return Row(study, columns | {"report": ""}, images, None, split, number)
    try:
        columns["report"] = read_text(reports / place.with_suffix(".txt"))
    except TextError as error:
        return Row(study, columns, images, f"report: {error}", reports / place.with_suffix(".txt"))
    return Row(study, columns, images, None, split, number)


def _labels(line: dict[str, str] | None, suffix: str) -> dict[str, str]:
    return {f"{name}{suffix}": line[name] if line else _NOT_LABELLED for name in FINDINGS}


def _copied(folder: Path) -> Iterator[Row | Note]:
    files = tables(folder)
    official = copy_is_split(files)
    yield Note(
        "this Hugging Face copy names no patients: a row is its own group, and a patient may be in two splits; it has "
        "no labels and no indication"
    )
    for table in files:
        column = image_column(table)
        suffix, place = suffix_of(table, column), table.path.relative_to(folder).with_suffix("").as_posix()
        for number, record in records(table):
            name = f"{place}/{number:06d}"
            columns = {key: " ".join(str(record.get(key) or "").split()) for key in ("findings", "impression")}
            columns = {"split": str(record.get("split") or table.split) if official else "", **columns}
            image = Packed(f"{name}{suffix}", table.path, number - 1, column)
            yield Row(name, columns, (image,), None, table.path, number)
