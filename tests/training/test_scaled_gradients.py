"""fp16 scales its loss: a gradient that overflows is no error, a loss that is no number is one. Tried on the CPU."""

import json

import pytest
import torch
from accelerate.optimizer import AcceleratedOptimizer
from safetensors.torch import load_file
from torch.amp import GradScaler  # type: ignore[attr-defined]

import mmfuse
from mmfuse.training import loop
from mmfuse.training.methods import METHODS, Method
from mmfuse.types import MmfuseError


class Overflowing(GradScaler):
    """Of which some backward passes overflow, from 1."""

    def __init__(self, at):
        super().__init__("cpu", init_scale=8.0)
        self.at, self.calls = at, 0

    def scale(self, outputs):
        self.calls += 1
        found = super().scale(outputs)
        return found * float("inf") if self.calls in self.at else found


@pytest.fixture
def overflow(monkeypatch):
    """Train with a scaler as Accelerate does on a GPU: `overflow({2, 3})`."""

    def begin(at):
        init = loop.Trainer.__init__

        def scaled(self, *args, **kwargs):
            init(self, *args, **kwargs)
            scaler = self.accelerator.scaler = Overflowing(at)
            self.prepared = AcceleratedOptimizer(self.optimizer, device_placement=False, scaler=scaler)
            self.accelerator.unscale_gradients = lambda *_: scaler.unscale_(self.optimizer)

        monkeypatch.setattr(loop.Trainer, "__init__", scaled)

    return begin


@pytest.fixture
def reading(monkeypatch):
    """A method that reads gradients, and would change them."""
    monkeypatch.setattr(METHODS, "_classes", {**METHODS._classes, "reading": Reading})


class Reading(Method):
    edits_gradients = True

    def gradients(self, learner, step):
        pass


@pytest.mark.parametrize("options", [[], ["training.method=reading"], ["training.clip_norm=null"]], ids=str)
def test_a_gradient_that_overflows_skips_a_step(tiny, overflow, reading, options):
    overflow({2})
    run = mmfuse.train(tiny(*options, "training.max_steps=3"))
    lines = [json.loads(line) for line in (run.dir / "metrics.jsonl").read_text().splitlines()]
    first, second, third = (line for line in lines if "loss" in line)
    assert second["skipped"] is True
    assert second["grad_norm"] is None
    assert not {"skipped"} & (set(first) | set(third))
    assert 0 < third["grad_norm"] < 100  # of the gradient as it is, not as it was scaled


def test_the_weights_stay_and_the_scale_is_kept(tiny, overflow, kill_at):
    config, kept = tiny("training.checkpoint_every=1", "training.max_steps=4"), []
    for at in ((), (1,)):
        overflow(at)
        kill_at(config, 1)
        (last,) = (config.run_dir / "checkpoints").glob("step_*")
        kept.append(load_file(last / "weights.safetensors"))
    assert json.loads((last / "state.json").read_text())["step"] == 2
    assert all(torch.equal(kept[0][name], kept[1][name]) for name in kept[0])
    assert json.loads((last / "state.json").read_text())["scaler"]["scale"] == 4.0


def test_what_overflows_at_any_scale_ends_the_run(tiny, overflow):
    overflow(range(1, 99))
    with pytest.raises(MmfuseError, match=r"^the gradient is not finite in fp16 at step \d+, however it is scaled"):
        mmfuse.train(tiny("training.epochs=5"))
