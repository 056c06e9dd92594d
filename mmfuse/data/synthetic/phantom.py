"""The built-in SYNTHETIC dataset with known answers, written: chest phantoms, short reports, seven labels.

`mmfuse.data.synthetic.phantom_study` says what is known of it.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mmfuse.data.synthetic.phantom_film import render
from mmfuse.data.synthetic.phantom_study import LABELS, NOTICE, Study, fraction, make_study, write_report
from mmfuse.types import MmfuseError

_MANIFEST = """\
name: phantom
version: 1
about: >-
  {notice}
  {studies} rendered chest films with short reports and known answers (seed {seed}), written by `mmfuse data phantom`.
  Opacity, effusion and pneumothorax are in the image and in the report, nodule and large_heart only in the image, risk
  only in the report; changed is the XOR of the image's nodule and the report's prior nodule.
licence: CC0-1.0
rows: data.csv
id: id
group: patient
image: {{column: image}}
text: {{columns: [text]}}
tasks:
  findings:
    type: multilabel
    column: findings
    separator: ";"
    values: [{labels}]
    empty: negative
    label_origin: synthetic
splits: {{column: split}}
subgroups: [sex, age_band]
"""
_HEAD = re.compile(rb"name: phantom(_dose)?\nversion: 1\nabout: >-\n  SYNTHETIC")
_OURS = re.compile(r"phantom-\d+-\d{6,}\.(png|txt)")


def write_phantom(out: Path, studies: int = 3000, seed: int = 0, progress: Callable[[int], None] | None = None) -> Path:
    """Write `images/ID.png`, `data.csv` and `manifest.yaml`, and return the manifest's path.

    Args:
        out: A new or empty folder, or an earlier phantom, which is replaced.
        studies: At least 1.
        seed: At least 0.
        progress: Called after each study with how many are done.

    Raises:
        MmfuseError: `out` holds something else, or a number is out of range.
    """
    about = _MANIFEST.format(notice=NOTICE, studies=studies, seed=seed, labels=", ".join(LABELS))
    return write_set(Path(out), about, studies, seed, lambda study: (render(study), _row(study)), progress)


def write_set(
    out: Path,
    about: str,
    studies: int,
    seed: int,
    draw: Callable[[Study], tuple[Image.Image, dict[str, str]]],
    progress: Callable[[int], None] | None = None,
) -> Path:
    """As `write_phantom`, with `about` as the manifest; `draw` gives the film of a study, and its row of `data.csv`."""
    manifest, table, images = out / "manifest.yaml", out / "data.csv", out / "images"
    _claim(out, studies, seed, ours=manifest.is_file() and _HEAD.match(manifest.read_bytes()) is not None)
    # The manifest first and the table last: if the writing is cut short, the folder is known as ours, and not readable.
    table.unlink(missing_ok=True)
    manifest.write_text(about, encoding="utf-8", newline="\n")
    images.mkdir(exist_ok=True)
    rows = []
    for index in range(studies):
        study = make_study(seed, index)
        film, row = draw(study)
        (images / f"{study.id}.png").write_bytes(_png(film))
        rows.append(row)
        if progress:
            progress(index + 1)
    kept = {out / row["image"] for row in rows}
    for path in images.iterdir():
        if path not in kept and _OURS.fullmatch(path.name):
            path.unlink()
    part = out / "data.csv.part"
    with part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    part.replace(table)
    return manifest


def write_pairs(out: Path, studies: int, seed: int) -> Path:
    """Write `ID.png` and `ID.txt` of each study into the folder `out`, to predict on, and return `out`.

    Raises:
        MmfuseError: `out` holds something else, or a number is out of range.
    """
    out = Path(out)
    ours = out.is_dir() and all(_OURS.fullmatch(path.name) for path in out.iterdir())
    _claim(out, studies, seed, ours=ours)
    for stale in out.iterdir():
        stale.unlink()
    for index in range(studies):
        study = make_study(seed, index)
        (out / f"{study.id}.png").write_bytes(_png(render(study)))
        (out / f"{study.id}.txt").write_text(write_report(study) + "\n", encoding="utf-8", newline="\n")
    return out


def _claim(out: Path, studies: int, seed: int, *, ours: bool) -> None:
    """Make the folder `out`, unless it holds what is not ours or nothing can be written."""
    if studies < 1 or seed < 0:
        raise MmfuseError(f"phantom: studies must be 1 or more and seed 0 or more, got {studies} and {seed}")
    if out.exists() and not out.is_dir():
        raise MmfuseError(f"phantom: {out} is a file; name a new or empty folder")
    if out.is_dir() and any(out.iterdir()) and not ours:
        raise MmfuseError(f"phantom: {out} is not empty and not a phantom; name a new or empty folder")
    out.mkdir(parents=True, exist_ok=True)


def _png(film: Image.Image) -> bytes:
    info = PngInfo()
    info.add_text("Description", NOTICE)
    buffer = BytesIO()
    film.save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def name_study(study: Study, text: str) -> dict[str, str]:
    """What each row begins with: id, patient, image, text and split."""
    drawn = fraction(f"{study.patient} split")
    return {
        "id": study.id,
        "patient": study.patient,
        "image": f"images/{study.id}.png",
        "text": text,
        "split": "train" if drawn < 0.7 else "validation" if drawn < 0.8 else "test",
    }


def _row(study: Study) -> dict[str, str]:
    """The study's row of `data.csv`; a place is empty where the finding is not truly there."""
    row = name_study(study, write_report(study))
    row |= {label: "yes" if study.truth[label] else "no" for label in LABELS}
    row["findings"] = ";".join(label for label in LABELS if study.truth[label])
    for name, place in study.places.items():
        for kind, where in place._asdict().items():
            if where:
                row[f"{name}_{kind}"] = where if study.truth[name] else ""
    return row | {"sex": study.sex, "age_band": study.age_band, "origin": "SYNTHETIC"}
