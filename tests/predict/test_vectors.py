"""Vectors in files: every id is in one of two, and a killed run goes on."""

import json

import numpy as np
import pandas as pd
import pytest

import mmfuse as library
from mmfuse.predict import Predictor, open_studies
from mmfuse.predict import files as writing
from mmfuse.predict.vectors import Embedder, embed_to_file


class Killed(BaseException):
    """Nothing in the library may catch it."""


def embedder(model_dir, what="fused", chunk=7) -> Embedder:
    return Embedder(Predictor.from_pretrained(model_dir, chunk=chunk), what)


def test_every_study_has_a_vector_or_a_reason(model_dir, pairs, tmp_path, mmfuse):
    code, said, _ = mmfuse("embed", model_dir, pairs, "--out", tmp_path / "v.parquet")
    assert code == 0
    assert "60 studies: 57 vectors of 16 numbers in" in said
    found = pd.read_parquet(tmp_path / "v.parquet")
    failed = [json.loads(line)["id"] for line in (tmp_path / "v.errors.jsonl").read_text().splitlines()]
    assert sorted([*found["id"], *failed]) == list(open_studies(str(pairs)).ids())
    assert mmfuse("embed", model_dir, pairs, "--out", tmp_path / "v.npy", "--overwrite")[0] == 0
    np.testing.assert_array_equal(np.load(tmp_path / "v.npy"), np.stack(list(found["vector"])))
    ids = [json.loads(line) for line in (tmp_path / "v.ids.jsonl").read_text().splitlines()]
    assert ids == list(found["id"])


@pytest.mark.parametrize("suffix", [".parquet", ".npy"])
def test_a_killed_run_goes_on_to_the_same_bytes(model_dir, pairs, tmp_path, monkeypatch, suffix):
    studies = open_studies(str(pairs))
    embed_to_file(embedder(model_dir), studies, tmp_path / f"whole{suffix}")
    appended, append = 0, writing.append

    def stopping(*args):
        nonlocal appended
        appended += 1
        if appended == 20:
            raise Killed
        append(*args)

    with monkeypatch.context() as patched:
        patched.setattr(writing, "append", stopping)
        with pytest.raises(Killed):
            embed_to_file(embedder(model_dir), studies, tmp_path / f"killed{suffix}")
    with pytest.raises(library.MmfuseError, match="another model or other options was interrupted here"):
        embed_to_file(embedder(model_dir, "text"), studies, tmp_path / f"killed{suffix}")
    embed_to_file(embedder(model_dir), studies, tmp_path / f"killed{suffix}")
    for name in (suffix, ".errors.jsonl"):
        assert (tmp_path / f"killed{name}").read_bytes() == (tmp_path / f"whole{name}").read_bytes()
    assert not list(tmp_path.glob("*.partial*"))


def test_a_text_is_embedded_without_its_image_and_the_reverse(model_dir, pairs):
    """The three broken studies: a broken image, no text, a text that is none."""
    studies = open_studies(str(pairs))
    samples = list(studies.read(0, len(studies)))
    for what, lost in (("fused", 3), ("text", 2), ("image", 2)):
        found = list(embedder(model_dir, what)(samples))
        assert sum(not isinstance(one, np.ndarray) for one in found) == lost, what


@pytest.mark.parametrize("out", ["v.csv", "v"])
def test_a_name_that_tells_no_format_is_refused(model_dir, pairs, tmp_path, mmfuse, out):
    code, _, said = mmfuse("embed", model_dir, pairs, "--out", tmp_path / out)
    assert (code, "legal: .parquet, .npy" in said) == (2, True)
