"""What the loss has beside the tasks' own: chosen by name, checked, the same however a step is cut."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import mmfuse
from mmfuse.config import config_from_dict
from mmfuse.data.load import load_table
from mmfuse.data.tables.manifest import load_manifest
from mmfuse.fusion.concat import ConcatFusion
from mmfuse.predict import prepare_pairs
from mmfuse.training.build import build_model
from mmfuse.training.learner import Learner
from mmfuse.training.objectives import OBJECTIVES, choose
from mmfuse.types import MmfuseError, Step


class Spread(nn.Module):
    """The mean square of the fused vectors: reads only these."""

    reads = frozenset({"fused"})

    def __init__(self, model, scale=1.0):
        super().__init__()
        self.scale = nn.Parameter(torch.full((1,), scale))

    def forward(self, said, batch, step):
        assert said.text is None
        assert said.image is None
        return self.scale[0] * said.fused.pooled.square().mean(1).sum() / step.rows


@pytest.fixture
def spread(monkeypatch):
    monkeypatch.setitem(OBJECTIVES._classes, "spread", Spread)


@pytest.fixture
def two_tasks(phantom, tmp_path) -> str:
    """An override: the phantom with a class beside its labels."""
    manifest = phantom.read_text().replace("tasks:\n", "tasks:\n  sex: {type: classification, column: sex}\n")
    (tmp_path / "two.yaml").write_text(manifest.replace("rows: data.csv", f"rows: {phantom.parent / 'data.csv'}"))
    text = (tmp_path / "two.yaml").read_text()
    (tmp_path / "two.yaml").write_text(text.replace("{column: image}", f"{{column: image, root: {phantom.parent}}}"))
    return f"data.manifest={tmp_path / 'two.yaml'}"


def learner_of(config):
    table = load_table(load_manifest(config.data.manifest))
    model = build_model(config, table).train()
    learner = Learner(model, config)
    batch = prepare_pairs(model, table)[list(range(6))]
    heads: Any = dict(model.heads.items())
    targets = {task: float(head.count(batch[f"target.{task}"])) for task, head in heads.items()}
    return learner, batch, Step(0, 1, 0, 0, targets, 6.0)


def steps(run_dir: Path) -> list[dict]:
    return [line for line in map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines()) if "loss" in line]


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (["uncertanty"], r"objectives\[0\]: unknown objective 'uncertanty'.*did you mean 'uncertainty'"),
        ([{"name": "uncertainty", "tasks": 2}], r"objectives\[0\]: objective.tasks is not an option"),
        ([{"name": "uncertainty", "weight": 2.0}], "has no term of its own that a weight could change"),
        (["uncertainty", "uncertainty"], r"objectives\[1\]: 'uncertainty' stands there twice"),
        ([{"name": "auxiliary", "weight": -1}], "weight: -1: a number of at least 0"),
        ([3], r"objectives\[0\]: 3: the name of an? objective"),
    ],
)
def test_what_is_no_objective_is_refused(chosen, message):
    with pytest.raises(MmfuseError, match=message):
        choose(chosen, "fixed", auxiliary=False)


def test_an_objective_that_the_model_cannot_have_is_refused_before_training(tiny, tmp_path):
    with pytest.raises(MmfuseError, match="fusion 'concat' has no loss of its own"):
        mmfuse.train(tiny("training.objectives=[auxiliary]"))
    assert not (tmp_path / "run").exists()


def test_learned_task_weights_are_an_objective(tiny, two_tasks):
    """Kendall's `exp(-s) l + s / 2`, and the old key means it."""
    old, new, plain = (
        learner_of(tiny(two_tasks, *options))
        for options in (["training.task_weights=uncertainty"], ["training.objectives=[uncertainty]"], [])
    )
    for learner, _, _ in (old, new):
        with torch.no_grad():
            learner.objectives["uncertainty"].log_variances["sex"].fill_(0.5)
            learner.objectives["uncertainty"].log_variances["findings"].fill_(-0.3)
    (a, told), (b, _), (_, own) = (learner(batch, step) for learner, batch, step in (old, new, plain))
    assert a.equal(b)
    assert told.parts.equal(own.parts)
    logs = torch.tensor([0.5, -0.3])
    assert old[0].parts == ["sex", "findings"]
    assert float(a.detach()) == pytest.approx(float((torch.exp(-logs) * own.parts + logs / 2).sum()), rel=1e-6)


def test_a_run_of_before_whose_model_had_the_task_weights_is_resumed(tiny, two_tasks, kill_at):
    options = (two_tasks, "training.task_weights=uncertainty", "training.checkpoint_every=3", "training.epochs=1")
    whole = mmfuse.train(tiny(*options, run="whole"))
    config = tiny(*options, run="old")
    kill_at(config, 4)
    (left,) = (Path(config.output_dir) / "checkpoints").glob("step_*")
    weights = load_file(left / "weights.safetensors")
    prefix = "objectives.uncertainty."
    assert f"{prefix}log_variances.sex" in weights
    save_file({name.removeprefix(prefix): weight for name, weight in weights.items()}, left / "weights.safetensors")
    run = Path(config.output_dir) / "config.yaml"  # nor had it the keys that came with objectives
    lines = [line for line in run.read_text().splitlines() if line.strip() not in ("objectives: []", "method: plain")]
    run.write_text("\n".join(lines))
    again = mmfuse.train(config)
    assert [line["loss"] for line in steps(again.dir)] == [line["loss"] for line in steps(whole.dir)]
    a, b = (load_file(run.model_dir / "model.safetensors") for run in (whole, again))
    assert all(a[name].equal(b[name]) for name in a)


def test_a_fusions_own_loss_counts_by_its_weight_and_is_told(tiny, monkeypatch):
    monkeypatch.setattr(ConcatFusion, "auxiliary_loss", lambda self: torch.ones(()) * 3, raising=False)
    (a, told), (b, _) = (
        learner(batch, step)
        for learner, batch, step in map(
            learner_of, (tiny(), tiny("training.objectives=[{name: auxiliary, weight: 0.5}]"))
        )
    )
    assert told.parts[1] == 3
    assert float((a - b).detach()) == pytest.approx(1.5, rel=1e-5)
    run = mmfuse.train(tiny("training.max_steps=1"))
    (line,) = steps(run.dir)
    assert line["losses"]["objectives.auxiliary"] == 3
    assert line["loss"] == pytest.approx(sum(line["losses"].values()))


def test_an_objective_is_trained_kept_and_resumed(tiny, spread, killed_at):
    """It is given what it reads alone; its parameter moves, is in the checkpoint, and not in the model."""
    options = ("training.objectives=[{name: spread, weight: 0.1}]", "training.checkpoint_every=3", "training.epochs=1")
    whole = mmfuse.train(tiny(*options, run="whole"))
    again = killed_at(tiny(*options, run="killed"), 4)
    kept = [load_file(next(run.dir.glob("checkpoints/best_*"))) for run in (whole, again)]
    assert kept[0]["objectives.spread.scale"] != 1
    assert kept[0].keys() == kept[1].keys()
    assert all(kept[0][name].equal(kept[1][name]) for name in kept[0])
    assert not any("spread" in name for name in load_file(whole.model_dir / "model.safetensors"))


def test_another_objective_is_another_run(tiny, spread, kill_at):
    kill_at(tiny("training.objectives=[{name: spread, weight: 0.1}]", "training.checkpoint_every=2"), 3)
    with pytest.raises(MmfuseError, match=r"another config \(training\.objectives"):
        mmfuse.train(tiny("training.objectives=[{name: spread, weight: 0.2}]", "training.checkpoint_every=2"))


def test_a_layer_of_the_command_line_replaces_the_list(tiny):
    values = {"name": "x", "data": {"manifest": "m"}, "training": {"objectives": ["uncertainty"]}}
    assert config_from_dict(values, ["training.objectives=[]"]).training.objectives == []
