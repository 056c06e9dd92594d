"""What people hold: each kind predicts what the file of it predicts, or is an error of its own."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from mmfuse.predict import Predictor, SampleStudies, predict_to_file
from mmfuse.predict.samples import to_sample
from mmfuse.types import Failure, MmfuseError, Sample

TEXT = "No finding."


@pytest.fixture(scope="module")
def predictor(model_dir):
    """In batches of one: what else is in a batch moves the last bit."""
    return Predictor.from_pretrained(model_dir, batch_size=1)


@pytest.fixture
def files(tmp_path):
    """A gray and a colour picture as arrays and as PNG files."""
    rng = np.random.default_rng(0)
    arrays = {
        "gray": rng.integers(0, 256, (40, 50), dtype=np.uint8),
        "colour": rng.integers(0, 256, (40, 50, 3), dtype=np.uint8),
    }
    for name, array in arrays.items():
        Image.fromarray(array).save(tmp_path / f"{name}.png")
    return {name: (array, tmp_path / f"{name}.png") for name, array in arrays.items()}


def predict(predictor, *images):
    results = list(predictor({"image": image, "text": TEXT} for image in images))
    assert [r for r in results if isinstance(r, Failure)] == []
    return [result.tasks for result in results]


def test_every_kind_of_image_predicts_what_its_file_predicts(predictor, files):
    for name, (array, path) in files.items():
        kinds = [
            str(path),
            path,
            path.as_uri(),
            path.read_bytes(),
            bytearray(path.read_bytes()),
            {"bytes": path.read_bytes(), "path": None},
            {"bytes": None, "path": str(path)},
            array,
            np.asfortranarray(array),
            array[::-1][::-1],
            array / 255,
            (array / 255).astype(np.float32),
            Image.fromarray(array),
            Image.open(path),  # not decoded yet
            [array],
            np.array([str(path)], dtype=object),
        ]
        kinds += [array[:, :, None]] if name == "gray" else [Image.fromarray(array).convert("RGBA")]
        found = predict(predictor, *kinds)
        assert all(tasks == found[0] for tasks in found)
    assert predict(predictor, files["gray"][0]) != predict(predictor, files["colour"][0])


def test_a_pil_image_is_read_as_its_file_upright_and_over_the_background(predictor, tmp_path):
    rng = np.random.default_rng(1)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(tmp_path / "turned.png", exif=exif)
    Image.fromarray(rng.integers(0, 256, (40, 50, 4), dtype=np.uint8)).save(tmp_path / "clear.png")
    Image.fromarray(rng.integers(0, 4096, (40, 50)).astype(np.uint16)).save(tmp_path / "deep.png")
    Image.fromarray(rng.integers(0, 2, (40, 50)).astype(bool)).save(tmp_path / "bits.png")
    for path in sorted(tmp_path.glob("*.png")):
        with Image.open(path) as image:
            file, held = predict(predictor, path, image)
        assert file == held, path.name


def test_one_image_that_many_samples_share_is_decoded_once_and_by_one_thread(predictor, files):
    image = Image.open(files["colour"][1])
    found = predict(predictor, *[image] * 40)
    assert all(tasks == found[0] for tasks in found)


@dataclass
class Tensor:
    """What says that it is of a library of tensors."""


Tensor.__module__ = "tensorflow.python"


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (np.zeros((3, 40, 50), np.uint8), r"image: an array of shape \(3, 40, 50\).*array.transpose\(1, 2, 0\)"),
        (np.zeros((40, 50, 4), np.uint8), "shape .*RGBA"),
        (np.zeros((2, 40, 50, 3), np.uint8), "of several images, give a list"),
        (np.zeros((0, 50), np.uint8), "shape"),
        (np.zeros(50, np.uint8), "shape"),
        (np.array(5, np.uint8), "shape"),
        (np.full((4, 4), 200.0), r"floats from 200 to 200; legal: in \[0, 1\].*255"),
        (np.full((4, 4), -0.5), r"legal: in \[0, 1\]"),
        (np.full((4, 4), np.nan), "not all of them finite"),
        (np.zeros((4, 4), np.int64), "an array of int64: its scale is not known"),
        (np.zeros((4, 4), np.uint16), "an array of uint16"),
        (np.zeros((4, 4), bool), "an array of bool"),
        (torch.zeros(3, 4, 4), r"a Tensor, whose order of axes and scale.*permute\(1, 2, 0\)"),
        (Tensor(), "a Tensor, whose order"),
        (7, "a path, a URL, bytes, a PIL image, a numpy array or a list of them is expected, not int"),
        (io.BytesIO(b"x"), "not BytesIO"),
        ({"url": "x"}, "not dict"),
        (b"no picture", "image: not an image"),
        (b"", "empty file"),
        ("nowhere/film.png", "image film.png: no such file"),
    ],
)
def test_an_image_that_is_none_is_a_failure_of_its_sample(predictor, files, image, reason):
    good = {"image": files["gray"][0], "text": TEXT}
    before, result, after = predictor([good, {"id": "x", "image": image, "text": TEXT}, good])
    assert isinstance(result, Failure)
    assert result.id == "x"
    assert "\n" not in result.reason
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(result.reason)
    assert before.tasks == after.tasks


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("film.png", "a Sample or a dict is expected, not str"),
        (("film.png", TEXT), "not tuple"),
        (None, "not NoneType"),
        ({"image": None, "txt": TEXT}, "the key 'txt'; legal: id, image, images, text (did you mean 'text'?)"),
        ({"image": "a", "images": ["b"]}, "image and images"),
        ({"text": 3}, "text: a str is expected, not int"),
        ({"text": b"SECRET"}, "text: a str is expected, not bytes"),
        ({"text": ["SECRET"]}, "text: a str is expected, not list"),
        (Sample("s", (), 3.5), "text: a str is expected, not float"),  # type: ignore[arg-type]
        ({}, "no text, and the model was trained without missing text"),
    ],
)
def test_a_sample_that_is_none_is_a_failure_at_its_position(predictor, files, given, reason):
    good = {"image": files["gray"][0], "text": TEXT}
    before, result, after = predictor([good, given, good])
    assert (before.id, result.id, after.id) == ("0", "s" if isinstance(given, Sample) else "1", "2")
    assert isinstance(result, Failure)
    assert reason in result.reason
    assert "SECRET" not in result.reason
    assert before.tasks == after.tasks


@pytest.mark.parametrize("nothing", [None, float("nan"), np.float32("nan"), pd.NA, pd.NaT, "", " \n"])
def test_what_is_not_there_is_missing(model_dir, files, nothing):
    predictor = Predictor.from_pretrained(model_dir, missing="allow")
    image, text = {"image": files["gray"][0], "text": nothing}, {"image": nothing, "text": TEXT}
    views = {"images": [nothing, files["gray"][0]], "text": TEXT}
    results = list(predictor([image, text, views, Sample("s", (), nothing), {**text, "id": nothing}]))
    assert [getattr(r, "present", None) for r in results] == [("image",), ("text",), ("text", "image"), None, ("text",)]
    assert isinstance(results[3], Failure)
    assert results[3].reason.startswith("nothing to predict from")
    assert results[4].id == "4"


def test_ids_are_those_given_or_the_position(predictor, files):
    image = files["gray"][0]
    rows = pd.DataFrame({"id": [7, 8], "text": [TEXT, TEXT]}).to_dict("records")
    assert [r.id for r in predictor({**row, "image": image} for row in rows)] == ["7", "8"]
    assert [r.id for r in predictor([{"image": image, "text": TEXT}] * 2)] == ["0", "1"]


def test_one_sample_in_place_of_a_list_is_refused(predictor, files):
    for one in (Sample("a", (), TEXT), {"text": TEXT}, "film.png"):
        with pytest.raises(MmfuseError, match=r"a list of samples is expected, not a \w+: give \[sample\]"):
            list(predictor(one))


def test_what_is_in_memory_goes_to_a_file_too(predictor, files, tmp_path):
    (gray, path), (colour, _) = files["gray"], files["colour"]
    studies = SampleStudies([{"id": "a", "image": gray, "text": TEXT}, Sample("b", (path,), TEXT), {"image": 3}])
    counts = predict_to_file(predictor, studies, tmp_path / "p.jsonl")
    assert (counts.predictions, counts.errors) == (2, 1)
    others = [
        SampleStudies([{"id": "a", "image": image, "text": TEXT}]).identity
        for image in (gray, colour, gray.T, gray / 255, Image.fromarray(gray), gray.astype(int), gray.astype(int) + 1)
    ]
    assert others[0] == others[3] == others[4]  # the same picture
    assert len(set(others)) == 4


def test_a_sample_is_kept_as_it_is():
    sample = Sample("a", ("x.png", b"y"), " text ", "g", {"t": 1}, {"sex": "F"}, "a problem")
    assert to_sample(sample, 5) == sample
    assert to_sample({"id": "a", "images": [Path("x.png"), [b"y"]]}, 5) == Sample("a", ("x.png", b"y"), group="a")
