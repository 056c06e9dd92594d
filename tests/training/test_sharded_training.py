"""FSDP2 over two CPU processes must do what processes with whole weights do."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_processes import launch, losses, write_config

import mmfuse
from mmfuse.data.folder import find_study
from mmfuse.data.phantom import write_pairs
from mmfuse.predict import Predictor

FSDP = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP"}
KILLER = """
import os, signal
from mmfuse.training import loop
step = loop.Trainer._step
def killed(self, batches):
    if str(self.state.step) == os.environ.get("KILL_AT"):
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, batches)
loop.Trainer._step = killed
"""
"""A plug-in that kills its process before the step that KILL_AT says."""


@pytest.fixture
def sharded(tiny, uneven, tmp_path):
    """A config for two processes, of batches in which some have no image at all, and some no labelled target."""
    (tmp_path / "killer.py").write_text(KILLER)
    settings = [f"data.manifest={uneven}", f"plugins=[{tmp_path / 'killer.py'}]", "training.checkpoint_every=3"]

    def make(run: str, batch_size: int):
        return tiny(*settings, f"training.batch_size={batch_size}", run=run)

    return make


def equal(a: Path, b: Path) -> bool:
    first, second = load_file(a / "model" / "model.safetensors"), load_file(b / "model" / "model.safetensors")
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_sharded_training_is_training_and_survives_a_kill(sharded, tmp_path):
    mmfuse.train(sharded("one", 4))
    printed = launch(2, "train", write_config(tmp_path, sharded("two", 2)), **FSDP)
    assert "sharded by FSDP2 in 3 groups" in printed  # a layer of each tower, and the rest
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(one) == len(two) > 20
    assert np.allclose(one, two, rtol=1e-5, atol=0)

    config = write_config(tmp_path, sharded("killed", 2))
    launch(2, "train", config, code=1, KILL_AT="20", **FSDP)
    (left,) = (tmp_path / "killed" / "checkpoints").glob("step_*")
    assert left.name == "step_00000019" or left.name == "step_00000018"
    launch(2, "train", config, **FSDP)
    assert losses(tmp_path / "killed") == two
    assert equal(tmp_path / "killed", tmp_path / "two")

    folder = write_pairs(tmp_path / "pairs", 3, seed=9)
    samples = [find_study(path).sample() for path in sorted(folder.glob("*.png"))]
    said = [list(Predictor.from_pretrained(tmp_path / run / "model")(samples)) for run in ("one", "killed")]
    for plain, other in zip(*said, strict=True):
        assert other.tasks["findings"]["probabilities"] == pytest.approx(
            plain.tasks["findings"]["probabilities"], abs=1e-4
        )


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "DeepSpeed"),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "1"}, "fsdp_version 2 is expected"),
        ({**FSDP, "FSDP_CPU_RAM_EFFICIENT_LOADING": "true"}, "set it to false"),
        ({**FSDP, "FSDP_ACTIVATION_CHECKPOINTING": "true"}, "training.gradient_checkpointing"),
    ],
)
def test_launches_that_this_loop_cannot_follow_are_refused(tiny, monkeypatch, variables, message):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(mmfuse.MmfuseError, match=message):
        mmfuse.train(tiny())
