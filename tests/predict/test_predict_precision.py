import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from mmfuse.cli import app
from mmfuse.encoders import timing
from mmfuse.model import FusionModel
from mmfuse.precision import BF16, FP32, Precision
from mmfuse.predict import Predictor, files, fingerprint, open_studies, predict_to_file
from mmfuse.predict import precision as chosen
from mmfuse.predict.precision import kept_precision
from mmfuse.types import MmfuseError, Prediction, Stopped

MIXED = Precision("bf16", "fp32", "fp32")


@pytest.fixture
def timed(monkeypatch) -> dict[str, float]:
    """On a CPU with bf16, seconds of fp32 where bf16 takes one; what is asked of a clock is planted."""
    gains = {"text": 1.8, "image": 0.8}
    monkeypatch.setattr(timing, "computes_bf16", lambda device: True)
    monkeypatch.setattr(chosen, "computes_bf16", lambda device: True)

    def time_tower(tower):
        return timing.Timing(gains["text" if tower.__class__.__name__ == "TextEncoder" else "image"], 1.0)

    monkeypatch.setattr(timing, "time_tower", time_tower)
    return gains


def results(model_dir, pairs, **options) -> list[Prediction]:
    studies = open_studies(str(pairs))
    found = Predictor.from_pretrained(model_dir, **options)(studies.read(0, 20))
    return [each for each in found if isinstance(each, Prediction)]


def probabilities(found: list[Prediction]) -> torch.Tensor:
    return torch.tensor([p for each in found for task in each.tasks.values() for p in task["probabilities"].values()])


def test_bf16_is_near_fp32_and_not_the_same(model_dir, pairs, timed):
    exact, near = (probabilities(results(model_dir, pairs, precision=p)) for p in ("fp32", "bf16"))
    apart = (exact - near).abs().max()
    assert 0 < apart < 0.02


def test_a_part_that_computes_in_fp32_is_left_alone(model_dir, pairs):
    """An image tower in bf16 changes predictions, but not the text's features; and the other way round."""
    predictor = Predictor.from_pretrained(model_dir)
    sample = next(iter(open_studies(str(pairs)).read(0, 1)))
    batch, model = predictor.prepare(sample), predictor.model

    def encoded(precision):
        model.precision = precision
        with torch.inference_mode():
            text, image = model.encode(batch)
            assert text is not None
            assert image is not None
            return text.pooled, image.pooled, model(batch)["sex"]

    plain = encoded(None)
    for place, precision in enumerate((Precision(text="bf16"), Precision(image="bf16"), Precision(rest="bf16"))):
        for part, (was, found) in enumerate(zip(plain, encoded(precision), strict=True)):
            assert torch.equal(was, found) == (part not in (place, 2)), (precision, part)
    with torch.autocast("cpu", torch.bfloat16):  # an island, whatever surrounds it
        assert torch.equal(encoded(MIXED)[1], plain[1])


def test_auto_chooses_for_each_tower_and_says_why(model_dir, timed):
    predictor = Predictor.from_pretrained(model_dir, precision="auto")
    assert predictor.precision == MIXED
    assert predictor.chose == (
        "precision auto: text bf16 (bf16 is 1.80 times as fast), image fp32 (bf16 is 0.80 times as fast); fusion and "
        "heads fp32"
    )
    timed["text"] = 1.05  # not worth it
    assert Predictor.from_pretrained(model_dir, precision="auto").precision == FP32


def test_a_cpu_without_bf16_is_told(model_dir, monkeypatch):
    for module in (timing, chosen):
        monkeypatch.setattr(module, "computes_bf16", lambda device: False)
    auto = Predictor.from_pretrained(model_dir, precision="auto")
    assert (auto.precision, auto.chose) == (FP32, "precision auto: fp32, as this cpu has no instructions for bf16")
    asked = Predictor.from_pretrained(model_dir, precision="bf16")
    assert asked.precision == BF16
    assert asked.chose == "precision bf16: this CPU has no instructions for it; fp32 would be faster"
    assert Predictor.from_pretrained(model_dir).chose is None


def test_timing_a_tower_changes_nothing_of_it(model_dir):
    model = FusionModel.from_pretrained(model_dir).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    for tower in (model.text_encoder, model.image_encoder):
        assert isinstance(tower, (timing.TextEncoder, timing.ImageEncoder))
        found = timing.time_tower(tower)
        assert found.fp32 > 0 < found.bf16
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert model.image_encoder is not None
    assert model.training
    assert model.image_encoder.training


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv"])
def test_a_run_that_goes_on_keeps_its_precision_and_refuses_another(
    model_dir, pairs, tmp_path, monkeypatch, timed, name
):
    def run(out, precision, stop=False):
        predictor = Predictor.from_pretrained(model_dir, chunk=8, precision=precision)
        of_run = fingerprint(predictor.model, predictor.missing, precision=predictor.precision)
        with monkeypatch.context() as patch:
            if stop:
                patch.setattr(files, "sync", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            predict_to_file(predictor, open_studies(str(pairs)), out, fingerprint=of_run)

    run(tmp_path / "whole" / name, "auto")
    out = tmp_path / name
    with pytest.raises(Stopped):
        run(out, "auto", stop=True)
    assert kept_precision(str(out)) == MIXED
    with pytest.raises(MmfuseError, match="another model or other options"):
        run(out, "fp32")
    timed["image"] = 2.0  # another moment, another machine
    run(out, kept_precision(str(out)))
    assert out.read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert kept_precision(str(out)) is None


def test_fp32_keeps_what_runs_of_before_kept(model_dir, pairs, tmp_path, monkeypatch):
    """A run of a version without the option is gone on with: neither its identity nor its state has a new word."""
    predictor = Predictor.from_pretrained(model_dir)
    assert fingerprint(predictor.model, "error", precision=FP32) == fingerprint(predictor.model, "error")
    monkeypatch.setattr(files, "sync", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(Stopped):
        predict_to_file(predictor, open_studies(str(pairs)), tmp_path / "out.jsonl")
    assert "precision" not in json.loads((tmp_path / "out.jsonl.progress").read_text())
    assert kept_precision(str(tmp_path / "out.jsonl")) == FP32


def test_the_command_tells_what_was_chosen_and_keeps_it(model_dir, pairs, tmp_path, monkeypatch, timed):
    command = ["predict", str(model_dir), str(pairs), "--out", str(tmp_path / "out.jsonl"), "--precision", "auto"]
    with monkeypatch.context() as patch:
        patch.setattr(files, "sync", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert CliRunner().invoke(app, command).exit_code != 0
    timed["image"] = 2.0
    found = CliRunner().invoke(app, command)
    assert found.exit_code == 0
    assert "precision auto: text bf16, image fp32, fusion and heads fp32, as the interrupted run chose" in found.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--precision", "fp16"], "--precision 'fp16' is not legal with --engine local; legal: auto, fp32, bf16"),
        (["--precision", "int8"], "--precision 'int8' is not legal with --engine local"),
        (["--engine", "cloud"], "--engine 'cloud' is not legal; legal: local, ray"),
    ],
)
def test_what_is_not_legal_is_told_before_a_model_is_loaded(options, words, tmp_path):
    found = CliRunner().invoke(app, ["predict", "nowhere", str(tmp_path), *options])
    assert isinstance(found.exception, MmfuseError) or found.exit_code == 2
    assert words in str(found.exception) + found.output


def test_damaged_words_of_a_run_are_told(tmp_path: Path):
    progress = tmp_path / "out.jsonl.progress"
    for text, words in (("{", "damaged"), ('{"precision": {"text": "fp8"}}', "fp32 or bf16 is expected")):
        progress.write_text(text)
        with pytest.raises(MmfuseError, match=words):
            kept_precision(str(tmp_path / "out.jsonl"))
