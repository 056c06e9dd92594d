import itertools
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mmfuse.data.rows.folder import pair_folder
from mmfuse.predict import Predictor
from mmfuse.types import Failure, MmfuseError, Prediction, Sample


def probabilities(result: Prediction) -> list[float]:
    return [p for task in result.tasks.values() for p in task["probabilities"].values()]


@pytest.fixture(scope="module")
def samples(pairs) -> list[Sample]:
    return [entry.sample() for entry in pair_folder(pairs)[0]]


def test_every_sample_has_one_result_in_its_place(model_dir, samples):
    results = list(Predictor.from_pretrained(model_dir, chunk=16)(samples))
    assert [r.id for r in results] == [s.id for s in samples]
    failures = {i: r.reason for i, r in enumerate(results) if isinstance(r, Failure)}
    assert sorted(failures) == [5, 20, 41]
    assert "not an image" in failures[5]
    assert "no text" in failures[20]
    assert "binary" in failures[41]


@pytest.mark.parametrize("device", ["graphics", "meta", "cuda:99"])
def test_a_device_that_is_not_there_is_told_with_those_that_are(model_dir, device):
    with pytest.raises(MmfuseError, match=f"^device: '{device}' cannot be used: .*; available: cpu"):
        Predictor.from_pretrained(model_dir, device=device)


@pytest.mark.parametrize(("batch_size", "chunk"), [(1, 512), (7, 512), (32, 9)])
def test_batch_and_chunk_change_nothing(model_dir, samples, batch_size, chunk):
    good = [s for s in samples if s.problem is None and s.text][:20]
    one = Predictor.from_pretrained(model_dir)(good)
    other = Predictor.from_pretrained(model_dir, batch_size=batch_size, chunk=chunk)(good)
    for a, b in zip(one, other, strict=True):
        if isinstance(a, Prediction):
            assert np.allclose(probabilities(a), probabilities(b), atol=2e-6)


def test_a_prediction_says_what_the_model_says(model_dir, samples):
    predictor = Predictor.from_pretrained(model_dir)
    result = next(iter(predictor(samples[:1])))
    assert set(result.tasks) == {"findings", "sex"}
    findings = result.tasks["findings"]
    assert findings["labels"] == [name for name, p in findings["probabilities"].items() if p >= 0.5]
    sex = result.tasks["sex"]
    assert sex["label"] == max(sex["probabilities"], key=sex["probabilities"].get)
    assert sum(sex["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert result.present == ("text", "image")


def test_a_missing_modality_is_an_error_unless_it_is_allowed(model_dir, samples):
    whole = samples[0]
    lacking = [Sample("text", (), whole.text), Sample("image", whole.images, None), Sample("none", (), " ")]
    strict = list(Predictor.from_pretrained(model_dir)(lacking))
    assert all(isinstance(r, Failure) for r in strict)
    free = list(Predictor.from_pretrained(model_dir, missing="allow")(lacking))
    assert [r.present for r in free[:2]] == [("text",), ("image",)]
    assert isinstance(free[2], Failure)
    trained = Predictor.from_pretrained(model_dir)
    trained.model.accepts_missing = ["image"]
    assert isinstance(next(iter(trained(lacking[:1]))), Prediction)


def test_a_long_report_is_cut_with_a_notice(model_dir, samples):
    long = Sample("long", samples[0].images, (samples[0].text or "") * 200)
    result = next(iter(Predictor.from_pretrained(model_dir)([long])))
    assert result.notices == ("report truncated at 48 tokens",)


def test_the_first_of_several_frames_is_a_notice_with_the_files_name(model_dir, samples, tmp_path):
    pages, single = tmp_path / "a\nb.dcm", samples[0].images[0]
    more = {"save_all": True, "append_images": [Image.new("L", (9, 9), 99)] * 2}
    Image.new("L", (9, 9)).save(pages, "TIFF", **more)
    data, text = pages.read_bytes(), samples[0].text
    given = [
        Sample("path", (str(pages),), text),
        Sample("second of two", (single, str(pages)), text),
        Sample("bytes", (data,), text),
        Sample("bytes of two", (data, single, data), text * 200),
        Sample("one frame", (single,), text),
        Sample("no text", (str(pages),), None),
    ]
    results = list(Predictor.from_pretrained(model_dir, missing="allow")(given))
    assert [result.notices for result in results] == [
        ("image a\\nb.dcm: first of 3 frames",),
        ("image a\\nb.dcm: first of 3 frames",),
        ("image: first of 3 frames",),
        ("report truncated at 48 tokens", "image 1 of 3: first of 3 frames", "image 3 of 3: first of 3 frames"),
        (),
        ("image a\\nb.dcm: first of 3 frames",),
    ]


def test_several_images_and_bytes(model_dir, samples):
    with open(samples[0].images[0], "rb") as handle:
        data = handle.read()
    both = Sample("both", (samples[0].images[0], data), samples[0].text)
    one = Sample("one", (samples[0].images[0],), samples[0].text)
    a, b = Predictor.from_pretrained(model_dir)([both, one])
    assert np.allclose(probabilities(a), probabilities(b), atol=2e-6)  # the mean of an image and itself


def test_samples_are_drawn_two_chunks_ahead_at_most(model_dir, samples):
    drawn = 0

    def stream():
        nonlocal drawn
        for sample in itertools.cycle(samples):
            drawn += 1
            yield sample

    results = Predictor.from_pretrained(model_dir, chunk=8)(stream())
    for _ in range(8):
        next(results)
    assert drawn <= 16


def test_options_that_are_not_legal(model_dir):
    with pytest.raises(MmfuseError, match="legal: error, allow"):
        Predictor.from_pretrained(model_dir, missing="maybe")
    with pytest.raises(MmfuseError, match="batch_size"):
        Predictor.from_pretrained(model_dir, batch_size=0)


def test_threads_and_gradients_are_left_alone(model_dir, samples):
    before = torch.get_num_threads(), torch.is_grad_enabled()
    list(Predictor.from_pretrained(model_dir)(samples[:3]))
    assert before == (torch.get_num_threads(), torch.is_grad_enabled())


def test_a_row_without_a_finite_number_is_an_error_and_the_others_are_not(model_dir, samples):
    """Half precision overflows on some rows; a probability that is no number must not pass for one."""
    predictor: Any = Predictor.from_pretrained(model_dir)
    good = [s for s in samples if s.problem is None and s.text]
    ids, _ = predictor.model.text_encoder.tokenize([s.text for s in good])
    has = np.array([np.isin(np.arange(1000), row) for row in ids])
    token = int(abs(has.mean(axis=0) - 0.5).argmin())  # in about half of the texts
    with torch.no_grad():
        predictor.model.text_encoder.model.get_input_embeddings().weight[token] = torch.inf
    for result, broken in zip(predictor(good), has[:, token], strict=True):
        if isinstance(result, Prediction):
            assert not broken
            assert np.isfinite(probabilities(result)).all()
        else:
            assert broken == ("no finite number" in result.reason)
    assert 5 < has[:, token].sum() < len(good) - 5


def test_encoded_images_do_not_wait_for_their_chunk(model_dir, pairs):
    """Of 200 studies of one chunk, at most two windows of images are in memory as bytes."""
    image = sorted(pairs.glob("*.png"))[0].read_bytes()
    alive, most = 0, 0

    class Counted(bytes):
        def __del__(self):
            nonlocal alive
            alive -= 1

    def source():
        nonlocal alive, most
        for i in range(200):
            alive, most = alive + 1, max(most, alive + 1)
            yield Sample(str(i), (Counted(image),), "No finding.")

    results = list(Predictor.from_pretrained(model_dir, threads=1)(source()))
    assert [isinstance(result, Prediction) for result in results] == [True] * 200
    assert [result.present for result in results] == [("text", "image")] * 200
    assert most <= 130
