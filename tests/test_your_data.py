"""What docs/your_data.md tells a newcomer to do, done: DICOM films, full reports, no Python."""

import csv
import json
import os
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from child_processes import run_child

pydicom = pytest.importorskip("pydicom")

PAGE = (Path(__file__).parents[1] / "docs" / "your_data.md").read_text(encoding="utf-8")
REPORT = "INDICATION: {}\n\nFINDINGS: {}\n\nIMPRESSION: As above."


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def write_film(path, seed):
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = pydicom.uid.DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    dataset.PatientName = "Doe^Jane"
    dataset.Rows = dataset.Columns = 48
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.PixelData = np.random.default_rng(seed).integers(0, 4096, (48, 48), np.uint16).tobytes()
    dataset.save_as(path, enforce_file_format=True)


@pytest.fixture
def folder(tmp_path):
    """What the page says came from the archive; 24 patients with two studies each."""
    (tmp_path / "films").mkdir()
    (tmp_path / "incoming").mkdir()
    rows = []
    for i in range(48):
        films = [f"{i}.dcm"] if i % 3 else [f"{i}.dcm", f"{i}b.dcm"]
        for k, film in enumerate(films):
            write_film(tmp_path / "films" / film, 100 * i + k)
        report = REPORT.format(f"Cough for {i} days, seen by ward {i * 7 % 11}.", f"Opacity number {i}.")
        rows.append([f"s{i}", f"p{i // 2}", ";".join(films), report, ["opacity", "", "opacity,effusion"][i % 3]])
    with (tmp_path / "studies.csv").open("w", newline="") as handle:
        csv.writer(handle).writerows([["id", "patient", "film", "report", "finding"], *rows])
    for i in (7, 8):
        write_film(tmp_path / "incoming" / f"{i}.dcm", i)
        (tmp_path / "incoming" / f"{i}.txt").write_text(REPORT.format("Fever.", "Whatever this says."))
    (tmp_path / "incoming" / "9.dcm").write_bytes(b"no film at all")
    return tmp_path


def test_the_page_from_folder_to_prediction(folder):
    manifest, train = blocks("yaml")
    assert len((manifest + train).splitlines()) <= 20
    (folder / "studies.yaml").write_text(manifest)
    config = yaml.safe_load(train)
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config["text_encoder"] = {
        "name": "bert",
        "pretrained": False,
        "vocab_size": 200,
        "max_length": 32,
        "options": small,
    }
    config["image_encoder"] |= {"name": "resnet10t", "pretrained": False, "size": [32, 32]}
    config["training"] |= {"epochs": 1}
    (folder / "train.yaml").write_text(yaml.safe_dump(config))
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    commands = [shlex.split(line) for block in blocks("sh") for line in block.splitlines()]
    assert [command[1] for command in commands] == ["data", "train", "predict"]
    for command in commands:
        command = [sys.executable, "-m", "mmfuse.cli", *command[1:]]
        done = run_child(command, folder, environment)
        assert done.returncode == 0, done.stdout + done.stderr
    assert (folder / "audit").is_dir()
    said = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert [row["id"] for row in said] == ["7", "8"]
    (wrong,) = map(json.loads, (folder / "predictions.errors.jsonl").read_text().splitlines())
    assert wrong["id"] == "9"
    # the same model says the same of a study whose findings say something else
    (folder / "incoming" / "7.txt").write_text(REPORT.format("Fever.", "Something else altogether."))
    command = [*commands[2][1:-1], "again.jsonl"]
    done = run_child([sys.executable, "-m", "mmfuse.cli", *command], folder, environment)
    assert done.returncode == 0, done.stderr
    assert json.loads((folder / "again.jsonl").read_text().splitlines()[0])["tasks"] == said[0]["tasks"]
