"""Runs on a card against the same on the CPU: training, resume, memory, waits, predictions."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from side_by_side import BF16 as BF16_APART
from side_by_side import CPU, FP32, Waits, apart, losses, processes_on, train_on

import mmfuse
from mmfuse.data.rows.folder import find_study
from mmfuse.data.synthetic.phantom import write_pairs
from mmfuse.data.synthetic.phantom_findings import write_language
from mmfuse.evaluation.explain import explain_caption
from mmfuse.model import FusionModel
from mmfuse.precision import BF16
from mmfuse.predict import Predictor, open_studies, predict_to_file
from mmfuse.training import loop
from mmfuse.types import Failure

pytestmark = pytest.mark.gpu

TWENTY_STEPS = 1e-3
"""How far losses may be apart after the rounding of twenty steps, relative to the loss."""
MIB = 2**20
LION = ("training.optimizer=lion", "training.learning_rate=3e-4")


@pytest.fixture(autouse=True)
def _fp32(side):
    with side.at(FP32):
        yield


class Killed(BaseException):
    """Nothing in the library may catch it."""


def watch_steps(monkeypatch, around) -> None:
    """Let `around(number, step)` call each step of training, which it is given."""
    step = loop.Trainer.step
    monkeypatch.setattr(
        loop.Trainer, "step", lambda self, batches: around(self.state.step, lambda: step(self, batches))
    )


def test_twenty_steps_of_training(side, tiny):
    """With modality dropout, balanced weights, accumulation and clipping."""
    chosen = ["training.max_steps=20", "training.accumulation=2", "training.epochs=8"]
    chosen += ["training.modality_dropout={text: 0.2, image: 0.2}", "tasks.findings.class_weights=balanced"]
    found, wanted = (train_on(d, tiny(*chosen, run=f"run_{n}")) for n, d in enumerate((side.device, CPU)))
    assert len(losses(found)) == 20
    np.testing.assert_allclose(losses(found), losses(wanted), rtol=TWENTY_STEPS)


@pytest.mark.parametrize(
    "chosen",
    [
        ("training.method=fgm", "training.optimizer={name: sgd, momentum: 0.9}"),
        ("training.task_weights=uncertainty", "fusion={name: mixture_of_experts, out_dim: 16}", *LION),
        ("training.optimizer=adafactor", "training.gradient_checkpointing=true"),
        ("text_encoder.adapter=bit_fit", "image_encoder.frozen=true"),
    ],
    ids=["fgm, sgd", "uncertainty, lion", "adafactor, checkpointing", "bit_fit, cached images"],
)
def test_what_a_run_may_choose(side, tiny, chosen):
    found, wanted = (
        train_on(device, tiny("training.max_steps=4", *chosen, run=f"run_{number}"))
        for number, device in enumerate((side.device, CPU))
    )
    np.testing.assert_allclose(losses(found), losses(wanted), rtol=TWENTY_STEPS)


@pytest.mark.parametrize("fusion", ["concat", "cross_attention"])
def test_cached_features_are_those_of_the_cpu(side, tiny, fusion):
    """Pooled vectors, and tokens."""
    chosen = ["text_encoder.frozen=true", "image_encoder.frozen=true", f"fusion={{name: {fusion}, out_dim: 16}}"]
    found, wanted = (train_on(d, tiny(*chosen, run=f"run_{n}")) for n, d in enumerate((side.device, CPU)))
    np.testing.assert_allclose(losses(found), losses(wanted), rtol=TWENTY_STEPS)


@pytest.mark.parametrize("precision", ["bf16", "auto"])
def test_bf16_trains_to_near_the_loss_of_fp32(side, tiny, precision):
    chosen = ["training.max_steps=20", "training.epochs=4"]
    run = train_on(side.device, tiny(*chosen, f"training.mixed_precision={precision}", run="half"))
    half, whole = losses(run), losses(train_on(CPU, tiny(*chosen, run="whole")))
    np.testing.assert_allclose(half, whole, rtol=0.03)
    if side.real or precision == "bf16":  # a CPU may be faster without
        assert half != whole
    if side.real and precision == "auto":
        assert FusionModel.from_pretrained(run / "model").scored_in == BF16


@pytest.mark.parametrize(("deterministic", "off"), [("false", 1e-4), ("true", 0.0)])
def test_a_killed_run_goes_on_as_if_nothing_was(side, tiny, monkeypatch, deterministic, off):
    """On a card some sums have no order, so two undisturbed runs may differ too: not to the bit, unless it is asked."""
    chosen = ["training.epochs=2", "training.checkpoint_every=3", f"training.deterministic={deterministic}"]
    wanted = train_on(side.device, tiny(*chosen, run="whole"))

    def stop(number, step):
        if number == 7:
            raise Killed
        return step()

    with monkeypatch.context() as patched:
        watch_steps(patched, stop)
        with pytest.raises(Killed):
            train_on(side.device, tiny(*chosen, run="killed"))
    (kept,) = (path for path in (Path(tiny(run="killed").output_dir) / "checkpoints").glob("step_*"))
    assert kept.name == "step_00000006"
    found = train_on(side.device, tiny(*chosen, run="killed"))
    np.testing.assert_allclose(losses(found), losses(wanted), rtol=off)


def test_memory_is_flat_over_fifty_steps(side, tiny, monkeypatch):
    """Behind the first ten steps, whose batches are as long as any."""
    taken = []

    def measure(number, step):
        found = step()
        if side.real:
            taken.append((torch.cuda.memory_allocated(), torch.cuda.memory_reserved()))
        return found

    watch_steps(monkeypatch, measure)
    chosen = ["training.max_steps=50", "training.epochs=20", "fusion={name: cross_attention, out_dim: 16}"]
    assert len(losses(train_on(side.device, tiny(*chosen)))) == 50
    side.card_only("the memory of a card")
    allocated, reserved = (np.array(column) for column in zip(*taken, strict=True))
    assert allocated[30:].max() <= allocated[10:30].max() + MIB
    assert reserved[-1] <= reserved[20] + 4 * MIB


@pytest.mark.parametrize("fusion", ["concat", "cross_attention"])
def test_a_step_waits_for_the_card_at_most_once(side, tiny, monkeypatch, fusion):
    """From the beginning of one to that of the next; with rows that lack an image, of which the card is not asked."""
    waits = Waits()

    def count(number, step):
        if side.real:
            waits.begin() if 3 <= number < 7 else waits.end()
        return step()

    watch_steps(monkeypatch, count)
    chosen = ["training.max_steps=8", "training.epochs=8", "training.modality_dropout={text: 0.2, image: 0.2}"]
    train_on(side.device, tiny(*chosen, f"fusion={{name: {fusion}, out_dim: 16}}"))
    side.card_only("how often a step waits for the card")
    assert len(waits.found) == 4
    assert all(len(places) <= 1 for places in waits.found), waits.found


@pytest.fixture
def trained(side, tiny):
    """A model folder that was trained on the card."""
    return train_on(side.device, tiny("training.max_steps=6")) / "model"


@pytest.fixture
def folder(device, tmp_path):
    """Studies, one without a picture and one without a text."""
    pairs = write_pairs(tmp_path / "pairs", 40, seed=3)
    stems = sorted(path.stem for path in pairs.glob("*.png"))
    (pairs / f"{stems[5]}.png").write_bytes(b"no picture")
    (pairs / f"{stems[20]}.txt").unlink()
    return pairs


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", FP32), ("bf16", BF16_APART), ("auto", BF16_APART)])
def test_predictions_of_a_folder(side, trained, folder, tmp_path, precision, tolerance):
    said = []
    for name in (str(side.device), "cpu"):
        chosen = "fp32" if name == "cpu" and said else precision
        predictor = Predictor.from_pretrained(trained, device=name, batch_size=8, missing="allow", precision=chosen)
        assert next(predictor.model.parameters()).device.type == torch.device(name).type
        counts = predict_to_file(predictor, open_studies(str(folder)), tmp_path / f"{name}.jsonl", overwrite=True)
        assert (counts.predictions, counts.errors) == (39, 1)
        rows = map(json.loads, (tmp_path / f"{name}.jsonl").read_text().splitlines())
        said.append({row["id"]: list(row["tasks"]["findings"]["probabilities"].values()) for row in rows})
    found, wanted = said
    assert list(found) == list(wanted)
    assert apart(list(found.values()), list(wanted.values())) <= tolerance


def test_evaluation(side, trained, phantom):
    reports = []
    for device in (CPU, side.device):
        with processes_on(device):
            reports.append(mmfuse.evaluate(trained, phantom, split="validation", resamples=20))
    wanted, found = (report["tasks"]["findings"]["metrics"] for report in reports)
    for name, score in wanted.items():
        assert found[name]["value"] == pytest.approx(score["value"], abs=1e-4)


def test_captions_of_a_trained_model_and_their_words_over_the_image(side, tiny, phantom, tmp_path):
    manifest, *_ = write_language(phantom.parent, 0)
    decoder = "{hidden_dim: 16, num_layers: 1, num_heads: 2, max_length: 24, vocab_size: 200}"
    chosen = [f"data.manifest={manifest}", f"tasks.report.decoder={decoder}", "training.max_steps=4"]
    model = train_on(side.device, tiny(*chosen, "fusion={name: cross_attention, out_dim: 16}")) / "model"
    pairs = write_pairs(tmp_path / "pairs", 5, seed=9)
    samples = [find_study(path).sample() for path in sorted(pairs.glob("*.png"))]
    own, reference = (Predictor.from_pretrained(model, device=name) for name in (str(side.device), "cpu"))
    for found, wanted in zip(own(samples), reference(samples), strict=True):
        assert not isinstance(found, Failure)
        assert not isinstance(wanted, Failure)
        assert found.tasks["report"]["caption"] == wanted.tasks["report"]["caption"]
        assert found.tasks["report"]["score"] == pytest.approx(wanted.tasks["report"]["score"], abs=1e-3)
    explained, expected = (explain_on(predictor, samples[0]) for predictor in (own, reference))
    assert apart(explained, expected) <= 1e-3


def explain_on(predictor, sample) -> np.ndarray:
    words, _ = explain_caption(predictor, sample, "report")
    return np.stack([word.images for word in words])


def test_a_benchmark_on_frozen_towers(side, tiny, tmp_path):
    """Its cells share towers that the first of them has moved, and its diagnostics fuse what was kept on the CPU."""
    config = asdict(tiny("text_encoder.frozen=true", "image_encoder.frozen=true", "training.epochs=1"))
    shared = {key: config[key] for key in ("data", "text_encoder", "image_encoder", "training", "cache")}
    own = {"strategies": {"cross_attention": None}, "width": 8, "seeds": 1, "resamples": 100}
    own |= {"name": "tiny", "output_dir": str(tmp_path / "benchmark"), "emap_rows": 8, "diagnostic_rows": 12}
    with processes_on(side.device):
        found = mmfuse.benchmark({**shared, **own})
    assert found.summary["provenance"]["device"] == side.device.type
    assert all(cell["status"] == "done" for cell in results(tmp_path / "benchmark"))


def results(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
