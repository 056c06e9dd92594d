"""FSDP2 over two CPU processes must do what processes with whole weights do."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser
from child_processes import free_port, run_child
from safetensors.torch import load_file
from test_processes import losses, write_config

import mmfuse
from mmfuse.data.load import load_table
from mmfuse.data.rows.folder import find_study
from mmfuse.data.synthetic.phantom import write_pairs
from mmfuse.data.tables.manifest import load_manifest
from mmfuse.predict import Predictor
from mmfuse.training.build import build_model
from mmfuse.training.learner import Learner
from mmfuse.training.sharded import prepare_sharding

CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "accelerate").glob("*.yaml"))
KILLER = """
import os, signal
from mmfuse.training import loop
step = loop.Trainer.step
def killed(self, batches):
    if str(self.state.step) == os.environ.get("KILL_AT"):
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, batches)
loop.Trainer.step = killed
"""
"""A plug-in that kills its process before the step that KILL_AT says."""


def launch(config: str, **variables: str) -> str | None:
    """Train in two sharded CPU processes, as configs/accelerate/fsdp2.yaml says; None where they did not end well."""
    (accelerate,) = (str(path) for path in CONFIGS if path.stem == "fsdp2")
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", accelerate, "--num_processes", "2"]
    command += ["--main_process_port", str(free_port()), "-m", "mmfuse.cli", "train", config]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    done = run_child(command, env=environment | variables)
    assert variables or done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr if done.returncode == 0 else None


@pytest.fixture
def sharded(tiny, uneven, tmp_path):
    """A config for two processes, of batches in which some have no image at all, and some no labelled target."""
    (tmp_path / "killer.py").write_text(KILLER)
    settings = [f"data.manifest={uneven}", f"plugins=[{tmp_path / 'killer.py'}]", "training.checkpoint_every=3"]
    settings += ["training.epochs=1"]

    def make(run: str, batch_size: int, *more: str):
        return tiny(*settings, f"training.batch_size={batch_size}", *more, run=run)

    return make


def equal(a: Path, b: Path) -> bool:
    first, second = load_file(a / "model" / "model.safetensors"), load_file(b / "model" / "model.safetensors")
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_sharded_training_is_training_and_survives_a_kill(sharded, tmp_path):
    mmfuse.train(sharded("one", 4))
    printed = launch(write_config(tmp_path, sharded("two", 2))) or ""
    assert "sharded by FSDP2 in 3 groups" in printed  # a layer of each tower, and the rest
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(one) == len(two) == 16
    assert np.allclose(one, two, rtol=1e-5, atol=0)

    config = write_config(tmp_path, sharded("killed", 2))
    assert launch(config, KILL_AT="8") is None
    (left,) = (tmp_path / "killed" / "checkpoints").glob("step_*")
    assert left.name == "step_00000006"
    launch(config)
    assert losses(tmp_path / "killed") == two
    assert equal(tmp_path / "killed", tmp_path / "two")

    folder = write_pairs(tmp_path / "pairs", 3, seed=9)
    samples = [find_study(path).sample() for path in sorted(folder.glob("*.png"))]
    said = [list(Predictor.from_pretrained(tmp_path / run / "model")(samples)) for run in ("one", "killed")]
    for plain, other in zip(*said, strict=True):
        assert other.tasks["findings"]["probabilities"] == pytest.approx(
            plain.tasks["findings"]["probabilities"], abs=1e-4
        )


def test_moved_inputs_and_lion_are_sharded_too(sharded, tmp_path):
    """With batches that lack a modality, for which a process runs a blank that nothing moves."""
    chosen = ("training.method=fgm", "training.optimizer=lion", "training.learning_rate=3e-4", "training.max_steps=4")
    mmfuse.train(sharded("one", 4, *chosen))
    launch(write_config(tmp_path, sharded("two", 2, *chosen)))
    assert len(losses(tmp_path / "one")) == 4
    assert np.allclose(losses(tmp_path / "one"), losses(tmp_path / "two"), rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"ACCELERATE_USE_MEGATRON_LM": "true"}, "Megatron-LM"),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "1"}, "fsdp_version 2 is expected"),
        ({"FSDP_CPU_RAM_EFFICIENT_LOADING": "true"}, "set it to false"),
        ({"FSDP_ACTIVATION_CHECKPOINTING": "true"}, "training.gradient_checkpointing"),
    ],
)
def test_launches_that_this_loop_cannot_follow_are_refused(tiny, monkeypatch, variables, message):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(mmfuse.MmfuseError, match=message):
        mmfuse.train(tiny())


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_accelerate_knows_every_key_of_its_configs(path):
    """Its loader refuses an unknown key, and its launcher would pass over one of a section's."""
    config = load_config_from_file(str(path))
    assert config.distributed_type.value == yaml.safe_load(path.read_text())["distributed_type"]
    known = set(vars(launch_command_parser().parse_args(["script.py"])))
    assert {*config.fsdp_config, *config.deepspeed_config} <= known
    assert f"--config_file {path.relative_to(path.parents[2])}" in path.read_text()


def test_a_single_number_cannot_be_sharded_and_is_named(tiny):
    config = tiny("fusion.name=gated_cross_attention")
    model = build_model(config, load_table(load_manifest(config.data.manifest)))
    with pytest.raises(mmfuse.MmfuseError, match=r"'gated_cross_attention': fusion.*attention_gate is a single number"):
        prepare_sharding(Learner(model, config))
