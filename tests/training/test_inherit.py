"""A run that begins from a finished model: what it takes over, what it tells, and what it refuses."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

import mmfuse
from mmfuse.config import config_from_dict
from mmfuse.data.load import load_table
from mmfuse.data.synthetic.phantom_dose import write_doses
from mmfuse.data.synthetic.phantom_findings import write_language
from mmfuse.data.tables.manifest import load_manifest
from mmfuse.model import FusionModel
from mmfuse.training.build import build_model
from mmfuse.training.inherit import inherit
from mmfuse.types import MmfuseError

SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
DECODER = {"hidden_dim": 16, "num_layers": 1, "num_heads": 2, "max_length": 24, "vocab_size": 200}


@pytest.fixture(scope="module")
def captions(phantom) -> Path:
    """The phantom with findings and captions."""
    return write_language(phantom.parent, 0)[0]


@pytest.fixture(scope="module")
def parent(captions, tmp_path_factory) -> Path:
    """A model folder with the tasks `findings` and `report`, of weights that no seed gives."""
    values = {
        "name": "parent",
        "data": {"manifest": str(captions), "num_workers": 0},
        "text_encoder": {"name": "bert", "pretrained": False, "options": SIZES, "max_length": 48},
        "image_encoder": {"name": "test_resnet", "pretrained": False, "size": [32, 32], "batch_norm": "frozen"},
        "fusion": {"name": "gated", "out_dim": 16},
        "tasks": {"report": {"decoder": DECODER}},
    }
    model = build_model(config_from_dict(values), load_table(load_manifest(captions)))
    torch.manual_seed(99)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    folder = tmp_path_factory.mktemp("parent") / "model"
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def child(parent, captions, tmp_path):
    """A config of seconds that begins from it; overrides are key=value, `task` what the manifest says of findings."""

    def make(*overrides, run="run", **task):
        manifest = captions
        if task:
            said = yaml.safe_load(captions.read_text())
            said["tasks"]["findings"] = task if "type" in task else said["tasks"]["findings"] | task
            manifest = captions.with_name("changed.yaml")
            manifest.write_text(yaml.safe_dump(said, sort_keys=False))
        values = {
            "name": "child",
            "init_from": str(parent),
            "output_dir": str(tmp_path / run),
            "data": {"manifest": str(manifest), "num_workers": 0, "tasks": ["findings"]},
            "training": {"epochs": 1, "batch_size": 8, "learning_rate": 0.003, "patience": None},
        }
        return config_from_dict(values, overrides)

    return make


def built(config) -> tuple[FusionModel, list[str]]:
    config = inherit(config)
    told: list[str] = []
    return build_model(
        config, load_table(load_manifest(config.data.manifest), tasks=config.data.tasks), told.append
    ), told


def test_all_of_it_is_taken_over(child, parent):
    then = load_file(parent / "model.safetensors")
    model, told = built(child("data.tasks=null"))
    now = model.state_dict()
    assert now.keys() == then.keys()
    assert all(torch.equal(now[name], then[name]) for name in then)
    assert told == []
    assert model.fusion_config == {"name": "gated", "out_dim": 16}
    assert (model.text_encoder.max_length, model.image_encoder.preprocessing.size) == (48, (32, 32))


def test_rows_of_a_head_go_with_their_labels(child, parent):
    was: Any = FusionModel.from_pretrained(parent).heads["findings"]
    kept = [label for label in reversed(was.labels) if label != "nodule"]
    model, told = built(child(values={"nodule": "fracture", **{label: label for label in kept}}))
    head: Any = model.heads["findings"]
    assert head.labels == ["fracture", *kept]
    for row, label in enumerate(kept, 1):
        assert torch.equal(head.linear.weight[row], was.linear.weight[was.labels.index(label)])
        assert head.linear.bias[row] == was.linear.bias[was.labels.index(label)]
    assert told[0] == (
        f"init_from: findings: {len(kept)} labels keep their weights, 1 new ('fracture'), 1 gone ('nodule')"
    )
    assert told[1] == "init_from: report: no such task here; the model's head is left out"


def test_a_number_is_said_the_same_on_another_scale(tmp_path):
    def config(manifest, **more):
        values = {"name": "doses", "data": {"manifest": str(manifest)}, "fusion": {"name": "text_only", "out_dim": 8}}
        values["text_encoder"] = {"name": "bert", "pretrained": False, "options": SIZES, "max_length": 16}
        return config_from_dict({**values, **more})

    first, second = (write_doses(tmp_path / f"doses{seed}", 40 + seed, seed=seed) for seed in (0, 1))
    tables = [load_table(load_manifest(manifest)) for manifest in (first, second)]
    before = build_model(config(first), tables[0])
    before.save_pretrained(tmp_path / "model")
    values = {"name": "more", "init_from": str(tmp_path / "model"), "data": {"manifest": str(second)}}
    after = build_model(inherit(config_from_dict(values)), tables[1])
    heads: list[Any] = [model.heads["level"] for model in (before, after)]
    assert heads[0].task.center != heads[1].task.center
    x = torch.randn(5, 8)
    old, new = (head.linear(x) * head.task.scale + head.task.center for head in heads)
    assert torch.allclose(old, new, atol=1e-5)


def test_a_run_goes_on_from_it_and_says_so(child, parent, kill_at):
    whole = mmfuse.train(child("fusion.name=gated", "image_encoder.frozen=true", "cache.enabled=false", run="whole"))
    facts = json.loads((whole.dir / "environment.json").read_text())["init_from"]
    digest = hashlib.sha256((parent / "model.safetensors").read_bytes()).hexdigest()
    assert facts == {"path": str(parent), "sha256": digest}
    assert digest in (whole.model_dir / "README.md").read_text()
    then, now = (load_file(folder / "model.safetensors") for folder in (parent, whole.model_dir))
    assert all(torch.equal(now[n], then[n]) for n in now if n.startswith("image_encoder."))
    assert not torch.equal(now["heads.findings.linear.weight"], then["heads.findings.linear.weight"])
    again = child("image_encoder.frozen=true", "cache.enabled=false", "training.checkpoint_every=3", run="killed")
    kill_at(again, 4)
    resumed = load_file(mmfuse.train(str(again.run_dir / "config.yaml")).model_dir / "model.safetensors")
    assert all(torch.equal(resumed[name], now[name]) for name in now)


def test_captions_go_on(child):
    config = child("data.tasks=[report]", "training.max_steps=1", "tasks.report.decoder.label_smoothing=0.1")
    assert mmfuse.train(config).report["tasks"]["report"]["n"]
    model, _ = built(config)
    assert model.heads["report"].label_smoothing == 0.1


def test_last_layers_of_it_can_be_trained(child, parent):
    layers = "{name: last_layers, layers: 1}"
    run = mmfuse.train(
        child(f"text_encoder.adapter={layers}", f"image_encoder.adapter={layers}", "training.max_steps=2")
    )
    then, now = (load_file(folder / "model.safetensors") for folder in (parent, run.model_dir))
    moved = {name for name in now if "_encoder." in name and not torch.equal(now[name], then[name])}
    assert moved
    assert all("encoder.layer.0." in name or "layer4." in name for name in moved)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["fusion.name=late"], r"fusion\.name: 'late' is asked for, but the model in .* has 'gated'"),
        (["fusion.out_dim=8"], r"fusion\.out_dim: 8 is asked for, but the model in .* has 16"),
        (["init_from=nowhere"], "nowhere: no model folder: config.json is missing"),
        (
            ["data.tasks=[report]", "tasks.report.decoder.num_layers=2"],
            r"decoder\.num_layers has no effect with init_from",
        ),
    ],
)
def test_what_does_not_fit_is_refused(child, overrides, said):
    with pytest.raises(MmfuseError, match=said):
        mmfuse.train(child(*overrides))


@pytest.mark.parametrize("key", ["text_encoder.name=bert-base-cased", "image_encoder.size=[64, 64]"])
def test_another_tower_is_refused(child, key):
    with pytest.raises(MmfuseError, match=f"command line: {key.partition('=')[0]} has no effect with init_from: .*"):
        child(key)


def test_a_task_of_another_kind_is_refused(child):
    with pytest.raises(MmfuseError, match=r"init_from: tasks\.findings is classification here, and multilabel in the"):
        built(child(type="classification", column="sex", label_origin="synthetic"))


def test_a_model_in_the_runs_own_folder_is_refused(child, parent):
    with pytest.raises(MmfuseError, match=r"init_from: .* lies in the run's own folder; choose another name or output"):
        mmfuse.train(child(f"output_dir={parent.parent}"), restart=True)


def test_a_hostile_folder_is_refused_in_a_line(child, parent, tmp_path):
    bad = tmp_path / "bad"
    bad.mkdir()
    said = json.loads((parent / "config.json").read_text())
    for fusion in ([], "gated", {"name": 3}, {"name": "gated", "out_dim": 10**9}):
        (bad / "config.json").write_text(json.dumps({**said, "fusion": fusion}))
        with pytest.raises(MmfuseError) as error:
            mmfuse.train(child(f"init_from={bad}"))
        assert "\n" not in str(error.value)


def test_a_preset_gives_way(parent, captions):
    values = {"name": "x", "preset": "balanced", "init_from": str(parent), "data": {"manifest": str(captions)}}
    config = inherit(config_from_dict(values))
    assert config.fusion == {"name": "gated", "out_dim": 16}
    assert config.text_encoder.name == f"mmfuse-model:{parent}"
    assert config.text_encoder.adapter == {"name": "last_layers", "layers": 2}
