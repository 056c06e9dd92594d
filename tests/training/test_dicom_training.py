"""DICOM end to end: training from the feature cache, and prediction."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

import mmfuse
from mmfuse.predict import Predictor
from mmfuse.types import Sample


def as_dicom(png, path):
    """The same 8-bit gray picture as a DICOM file."""
    pixels = np.asarray(Image.open(png).convert("L"))
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = SecondaryCaptureImageStorage, "1.2.3"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    dataset.PixelData = pixels.tobytes() + b"\0" * (pixels.size % 2)
    dataset.save_as(path, enforce_file_format=True)


@pytest.fixture
def films(phantom, tmp_path):
    """The manifest of the same studies, with every image as DICOM."""
    folder = shutil.copytree(phantom.parent, tmp_path / "films")
    with open(folder / "data.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        name = row["image"].replace(".png", ".dcm")
        as_dicom(folder / row["image"], folder / name)
        (folder / row["image"]).unlink()
        row["image"] = name
    with open(folder / "data.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return folder / phantom.name


def test_dicom_trains_and_predicts_as_the_same_pictures_do(tiny, films, phantom):
    """The frozen tower's features come out of the cache, the predictor reads by itself."""
    overrides = ("training.epochs=1", "image_encoder.frozen=true")
    runs = [
        mmfuse.train(tiny(*overrides, run="png")),
        mmfuse.train(tiny(*overrides, f"data.manifest={films}", run="dcm")),
    ]
    lines = [[json.loads(line) for line in (run.dir / "metrics.jsonl").read_text().splitlines()] for run in runs]
    png, dcm = ([line["loss"] for line in each if "loss" in line] for each in lines)
    assert png == dcm
    predictor = Predictor.from_pretrained(runs[0].model_dir)
    name = next(films.parent.glob("images/*.dcm")).stem
    sources = (phantom.parent / "images" / f"{name}.png", films.parent / "images" / f"{name}.dcm")
    png, dcm = predictor([Sample("same", (str(path),), "SYNTHETIC. No effusion.") for path in sources])
    assert png == dcm
