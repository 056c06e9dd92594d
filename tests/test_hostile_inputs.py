"""The corpus of broken, odd and hostile inputs: none crashes, hangs or is lost, and each gets the right verdict."""

import json
import os
import re
import shutil
import sys
import warnings

import hostile_inputs
import numpy as np
import pytest
import torch
from child_processes import run_child

from mmfuse.config import ImageEncoderConfig, TextEncoderConfig, load_config
from mmfuse.data.batches.loader import make_loader
from mmfuse.data.batches.pairs import PairDataset
from mmfuse.data.load import load_table
from mmfuse.data.readers.images import ImageOptions
from mmfuse.data.tables.manifest import load_manifest
from mmfuse.encoders.image import build_image_encoder
from mmfuse.encoders.text import build_text_encoder
from mmfuse.predict import Predictor, TableStudies
from mmfuse.types import Failure, MmfuseError, Prediction, Sample


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return hostile_inputs.write_model(tmp_path_factory.mktemp("hostile") / "model")


def predict(model, source, folder):
    """Run `mmfuse predict` as a user does: exit code, complaints, and the rows of both files by id."""
    out = folder / "out.jsonl"
    code = "import torch; torch.set_num_threads(1); from mmfuse.cli import main; main()"
    command = [sys.executable, "-c", code, "predict", model, source, "--out", out]
    done = run_child(command)
    rows = [
        [json.loads(line) for line in path.read_bytes().splitlines()]
        for path in (out, out.with_suffix(".errors.jsonl"))
    ]
    assert all(len({row["id"] for row in file}) == len(file) for file in rows)
    return done.returncode, done.stdout + done.stderr, *({row["id"]: row for row in file} for file in rows)


def printable(name):
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def test_every_study_is_predicted_or_refused_with_its_reason(model, tmp_path):
    studies = [case for kind in ("images", "texts", "dicoms", "documents") for case in hostile_inputs.cases(kind)]
    hostile_inputs.write_studies(tmp_path / "studies", studies)
    code, said, good, bad = predict(model, tmp_path / "studies", tmp_path)
    assert code == 0, said
    assert "Traceback" not in said
    assert len(said.splitlines()) <= 3, said
    wrong = {}
    for case in studies:
        name = printable(case.name)
        reason = bad.pop(name, {}).get("reason")
        row = good.pop(name, None)
        told = "; ".join(row["notices"]) if row is not None else reason or "lost"
        if isinstance(case.verdict, hostile_inputs.Notice):
            right = row is not None and re.search(case.verdict, told)
        elif case.verdict is None:
            right = row is not None and not told
        else:
            right = row is None and reason is not None and re.search(case.verdict, reason)
        if not right or "\n" in told or hostile_inputs.PATIENT in told:
            wrong[name] = (case.verdict, told)
        if row is not None:
            p = [p for task in row["tasks"].values() for p in task["probabilities"].values()]
            assert np.isfinite(p).all()
    assert not wrong
    assert not good
    assert not bad


def refusal(read, path):
    """Why it cannot be read: one line that names the file, and nothing of a patient. None if it was read."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            read(path)
            return None
        except MmfuseError as error:
            reason = str(error)
    assert len(reason.splitlines()) == 1
    assert len(reason) < 1500
    assert str(path) in reason
    return reason.replace(str(path), "FILE").replace(str(path.parent), "FOLDER")


def check(case, path, read):
    case.write(path)
    judge(refusal(read, path), case.verdict)


def judge(reason, verdict):
    assert (reason is None) == (verdict is None), reason
    assert verdict is None or re.search(verdict, reason), reason


def all_cases(kind):
    return pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in hostile_inputs.cases(kind)])


@all_cases("tables")
def test_tables(case, tmp_path):
    check(case, tmp_path / f"table{case.suffix}", lambda path: TableStudies(str(path)))


@all_cases("manifests")
def test_manifests(case, tmp_path):
    (tmp_path / "rows.csv").write_text(hostile_inputs.ROWS)
    check(case, tmp_path / f"case{case.suffix}", lambda path: load_table(load_manifest(path)))


@all_cases("configs")
def test_configs(case, tmp_path):
    check(case, tmp_path / f"config{case.suffix}", load_config)


@pytest.mark.parametrize(("change", "verdict"), hostile_inputs.MODELS.values(), ids=hostile_inputs.MODELS)
def test_model_folders(model, tmp_path, change, verdict):
    folder = shutil.copytree(model, tmp_path / "model")
    change(folder)
    judge(refusal(Predictor.from_pretrained, folder), verdict)


TOWERS = [
    hostile_inputs.edit(text_encoder={}, image_encoder={"architecture": 1}),
    hostile_inputs.config_is(b"[" * 100_000),
    hostile_inputs.config_is(b"[1]"),
    hostile_inputs.instead("config.json", os.mkfifo),
    hostile_inputs.weights(lambda state: state.clear() or state.update(x=torch.zeros(1))),
]


@pytest.mark.parametrize("tower", ["text_encoder", "image_encoder"])
@pytest.mark.parametrize("change", TOWERS)
def test_towers_of_a_damaged_model_folder(model, tmp_path, tower, change):
    folder = shutil.copytree(model, tmp_path / "model")
    change(folder)
    name = f"mmfuse-model:{folder}"
    build = {
        "text_encoder": lambda: build_text_encoder(TextEncoderConfig(name=name), []),
        "image_encoder": lambda: build_image_encoder(ImageEncoderConfig(name=name)),
    }
    with pytest.raises(MmfuseError, match=f"{tower}.name: "):
        build[tower]()


def test_what_a_table_may_name_as_an_image(model, tmp_path):
    folder = tmp_path / "table"
    folder.mkdir()
    (folder / "good.png").write_bytes(hostile_inputs.encode(hostile_inputs.picture(), "PNG"))
    rows = [{"id": name, "image": cell, "text": "normal"} for name, (cell, _) in hostile_inputs.CELLS.items()]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    studies = TableStudies(str(folder / "rows.jsonl"))
    found = {result.id: result for result in Predictor.from_pretrained(model)(studies.read(0, len(studies)))}
    assert set(found) == set(hostile_inputs.CELLS)
    for name, (_, verdict) in hostile_inputs.CELLS.items():
        if verdict is None:
            assert isinstance(found[name], Prediction)
        else:
            assert isinstance(found[name], Failure)
            assert re.search(verdict, found[name].reason), (name, found[name].reason)
            assert "root:" not in found[name].reason


def test_a_training_images_error_is_one_line_from_another_process_too(tmp_path):
    (tmp_path / "rows.csv").write_text("id,image\n1,a.png\n")
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "m.yaml").write_text("name: m\nrows: rows.csv\nid: id\nimage: {column: image}\n")
    pairs = PairDataset(load_table(load_manifest(tmp_path / "m.yaml")), token_ids=None, image_options=ImageOptions())
    with pytest.raises(MmfuseError, match=r"^row '1': image .*a.png: empty file$"):
        next(iter(make_loader(pairs, [[0]], 1)))


def test_a_report_of_half_a_pair_is_read(model):
    (found,) = Predictor.from_pretrained(model, missing="allow")([Sample("1", text="normal \ud83d heart")])
    assert isinstance(found, Prediction)


def test_the_corpus_is_large():
    kinds = ("images", "texts", "tables", "manifests", "configs")
    counts = {kind: len(hostile_inputs.cases(kind)) for kind in kinds}
    assert min(counts.values()) >= 15, counts
    assert sum(counts.values()) + len(hostile_inputs.MODELS) + len(hostile_inputs.CELLS) >= 250, counts
