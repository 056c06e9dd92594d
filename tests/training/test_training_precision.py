"""`training.mixed_precision: auto`: one choice for a run, kept, and told."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import mmfuse
from mmfuse.encoders import timing
from mmfuse.model import FusionModel
from mmfuse.precision import FP32, Precision
from mmfuse.training import loop
from mmfuse.training.arithmetic import arithmetic
from mmfuse.training.launch import check_precision

MIXED = Precision("bf16", "fp32", "fp32")
AUTO = ("training.mixed_precision=auto", "training.epochs=1")


@pytest.fixture
def timed(monkeypatch) -> dict[str, float]:
    """How many times as fast bf16 is, planted, on a CPU that has it; `passes` counts what was asked."""
    gains = {"text": 1.8, "image": 0.8, "passes": 0.0}
    monkeypatch.setattr(timing, "computes_bf16", lambda device: True)

    def time_tower(tower):
        gains["passes"] += 1
        return timing.Timing(gains["text" if isinstance(tower, timing.TextEncoder) else "image"], 1.0)

    monkeypatch.setattr(timing, "time_tower", time_tower)
    return gains


def losses(folder: Path) -> list[float]:
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if "loss" in line]


def test_auto_is_chosen_for_each_tower_told_and_written_down(tiny, timed, capsys, phantom):
    run = mmfuse.train(tiny(*AUTO))
    said = capsys.readouterr().err
    assert "training.mixed_precision auto: text bf16 (bf16 is 1.80 times as fast), image fp32" in said
    assert json.loads((run.dir / "precision.json").read_text())["precision"] == MIXED.to_dict()
    assert run.report["precision"] == "precision text bf16, image fp32, fusion and heads fp32"
    card = (run.model_dir / "README.md").read_text()
    assert "- trained and scored in: text bf16, image fp32, fusion and heads fp32" in card
    assert "precision text bf16, image fp32, fusion and heads fp32." in card

    model = FusionModel.from_pretrained(run.model_dir)
    assert (model.scored_in, model.precision) == (MIXED, None)
    again = mmfuse.evaluate(model, phantom, resamples=0, analyses=[], batch_size=16)
    for task, scores in again["tasks"].items():  # the run's own report, to the digit
        own = run.report["tasks"][task]["metrics"]
        assert {name: score["value"] for name, score in scores["metrics"].items()} == {
            name: score["value"] for name, score in own.items()
        }
    assert again["precision"].endswith("fusion and heads fp32, as in the model's own report")
    plain = mmfuse.evaluate(model, phantom, resamples=0, analyses=[], precision="fp32")
    assert plain["precision"].startswith("precision fp32; the model's own report is in text bf16")
    assert plain["tasks"] != again["tasks"]
    assert model.precision is None


def test_auto_with_nothing_to_gain_is_the_run_without_it(tiny, timed):
    """What auto does around a tower changes no bit; nor does its timing."""
    plain = mmfuse.train(tiny("training.epochs=1"))
    timed["text"] = timed["image"] = 1.0
    run = mmfuse.train(tiny(*AUTO, run="auto"))
    assert losses(run.dir) == losses(plain.dir)
    assert "precision" not in run.report
    assert "precision" not in json.loads((run.model_dir / "config.json").read_text())


def test_the_timing_of_a_run_leaves_its_weights_and_draws_alone(tiny, monkeypatch):
    """With real passes, forwards and backwards: the run that follows has the losses of one without."""
    dropout = "text_encoder.options.hidden_dropout_prob=0.1"
    plain = mmfuse.train(tiny("training.epochs=1", dropout))
    monkeypatch.setattr(timing, "computes_bf16", lambda device: True)
    monkeypatch.setattr(timing, "GAIN", 1e9)
    seen = []
    backward = torch.Tensor.backward
    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "backward", lambda self, *a, **o: (seen.append(1), backward(self, *a, **o))[1])
        run = mmfuse.train(tiny(*AUTO, dropout, run="auto"))
    assert len(seen) == len(losses(run.dir)) + 2 * 2 * (1 + timing.REPEATS)
    assert losses(run.dir) == losses(plain.dir)


def test_a_resumed_run_keeps_the_choice_and_ends_with_the_same_bits(tiny, timed, kill_at, capsys):
    every = ("training.checkpoint_every=2", "training.mixed_precision=auto", "training.epochs=1")
    whole = mmfuse.train(tiny(*every))
    config = tiny(*every, run="killed")
    kill_at(config, 3)
    timed["text"], timed["image"], timed["passes"] = 0.5, 2.0, 0  # another moment, another machine
    kept = config.run_dir / "precision.json"
    said = kept.read_text()
    kept.write_text("{}")
    with pytest.raises(mmfuse.MmfuseError, match=r"precision\.json: damaged; put it back, or --restart"):
        mmfuse.train(config)
    kept.write_text(said)
    run = mmfuse.train(config)
    assert timed["passes"] == 0
    assert losses(run.dir) == losses(whole.dir)
    assert (run.model_dir / "model.safetensors").read_bytes() == (whole.model_dir / "model.safetensors").read_bytes()


def test_a_run_that_never_began_chooses_anew(tiny, timed, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(loop.Trainer, "fit", lambda self: (_ for _ in ()).throw(mmfuse.MmfuseError("no")))
        with pytest.raises(mmfuse.MmfuseError, match="no"):
            mmfuse.train(tiny(*AUTO))
    assert not tiny().run_dir.exists()
    timed["text"] = 1.0
    run = mmfuse.train(tiny(*AUTO))
    assert json.loads((run.dir / "precision.json").read_text())["precision"] == FP32.to_dict()


def test_a_cpu_without_bf16_trains_in_fp32(tiny, monkeypatch, capsys):
    monkeypatch.setattr(timing, "computes_bf16", lambda device: False)
    mmfuse.train(tiny(*AUTO, "training.max_steps=1"))
    assert "training.mixed_precision auto: fp32, as this cpu has no instructions for bf16" in capsys.readouterr().err


def test_frozen_features_are_computed_and_kept_by_precision(tiny, timed, tmp_path):
    """In the cache, bf16 has a place of its own, and fp32 the one that it always had."""
    frozen = ("text_encoder.frozen=true", f"cache.dir={tmp_path / 'cache'}", "training.max_steps=1")

    def kept() -> dict[str, set[str | None]]:
        found: dict[str, set[str | None]] = {}
        for path in (tmp_path / "cache" / "features").glob("*/identity.json"):
            said = json.loads(path.read_text())
            found.setdefault(said["tower"], set()).add(said.get("precision"))
        return found

    mmfuse.train(tiny(*frozen, run="plain"))
    assert kept() == {"text": {None}}
    mmfuse.train(tiny(*frozen, *AUTO, run="auto"))
    assert kept() == {"text": {None, "bf16"}}
    mmfuse.train(tiny(*frozen, "training.mixed_precision=bf16", run="steps"))  # as ever: the steps alone
    assert kept() == {"text": {None, "bf16"}}


def test_bf16_of_the_steps_alone_is_told_on_the_card(tiny):
    run = mmfuse.train(tiny("training.max_steps=1", "training.mixed_precision=bf16"))
    assert "- trained in: bf16, scored in: fp32" in (run.model_dir / "README.md").read_text()
    assert "precision" not in run.report


@pytest.mark.parametrize("variable", ["ACCELERATE_USE_DEEPSPEED", "ACCELERATE_MIXED_PRECISION"])
def test_what_casts_by_itself_is_refused_with_auto(tiny, monkeypatch, variable):
    monkeypatch.setenv(variable, "bf16" if variable.endswith("PRECISION") else "true")
    with pytest.raises(mmfuse.MmfuseError, match=r"training.mixed_precision(:| is auto, but ACCELERATE_MIXED)"):
        mmfuse.train(tiny(*AUTO))


def test_fsdp_is_refused_with_auto(tiny):
    sharded = SimpleNamespace(is_fsdp2=True, device=torch.device("cpu"))
    with pytest.raises(mmfuse.MmfuseError, match=r"training\.mixed_precision: FSDP2 casts .*; bf16 or null"):
        check_precision(tiny(*AUTO), sharded)  # type: ignore[arg-type]


def test_a_gpus_settings_hold_for_the_run_alone(tiny, monkeypatch):
    monkeypatch.setattr(os, "environ", dict(os.environ))  # what it adds is not for other tests

    def now():
        return (
            torch.get_float32_matmul_precision(),
            torch.are_deterministic_algorithms_enabled(),
            torch.backends.cudnn.deterministic,
        )

    before = now()
    for overrides, wanted in (
        ((), before),
        (AUTO, ("high", *before[1:])),
        (("training.deterministic=true",), (before[0], True, True)),
    ):
        with arithmetic(tiny(*overrides).training, SimpleNamespace(type="cuda")):  # type: ignore[arg-type]
            assert now() == wanted
        assert now() == before
        with arithmetic(tiny(*overrides).training, torch.device("cpu")):
            assert now() == before


def test_deterministic_changes_no_bit_on_a_cpu(tiny):
    one, other = (
        mmfuse.train(tiny("training.epochs=1", *more, run=f"r{len(more)}"))
        for more in ((), ("training.deterministic=true",))
    )
    assert losses(one.dir) == losses(other.dir)
