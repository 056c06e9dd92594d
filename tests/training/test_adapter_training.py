"""Adapters in training: nothing else of a tower is trained, and a model folder is a plain model's."""

import json

import pytest
import torch
from plugin_runs import assert_works, plugin_of, tiny_run
from safetensors.torch import load_file

from mmfuse.config import ImageEncoderConfig, config_from_dict
from mmfuse.data.load import load_table
from mmfuse.data.tables.manifest import load_manifest
from mmfuse.encoders.adapters import adapt, adapted_names, merge_adapter
from mmfuse.encoders.features import PrecomputedFeatures
from mmfuse.encoders.image import build_image_encoder
from mmfuse.model import FusionModel
from mmfuse.registry import load_plugin
from mmfuse.testing import check
from mmfuse.training.build import build_model
from mmfuse.training.run import train
from mmfuse.training.trained import ever_trained, freeze_towers
from mmfuse.types import MmfuseError


@pytest.fixture
def table(phantom):
    return load_table(load_manifest(phantom))


@pytest.mark.heavy
def test_the_adapter_of_the_page_trains_and_is_merged(tmp_path):
    plugin = plugin_of("An adapter", tmp_path)
    values = tiny_run(tmp_path, plugin, text_encoder={"adapter": {"name": "tiny_lora", "rank": 3}})
    assert_works(values, "tiny_lora", "adapters")
    model = FusionModel.from_pretrained(tmp_path / "run" / "model")  # the plug-in is not loaded here
    keys = {name for name in model.state_dict() if name.startswith("text_encoder.")}
    values["text_encoder"].pop("adapter")
    own = build_model(config_from_dict(values), load_table(load_manifest(values["data"]["manifest"]))).state_dict()
    assert keys == {name for name in own if name.startswith("text_encoder.")}
    moved = {name for name in keys if not torch.equal(model.state_dict()[name], own[name])}
    assert moved
    assert all(name.endswith(".weight") for name in moved)
    assert any(".query." in name for name in moved)
    assert json.loads((tmp_path / "run" / "model" / "config.json").read_text())["plugins"] == {}


def test_only_biases_are_trained(table, tiny):
    config = tiny("text_encoder.adapter=bit_fit", "image_encoder.adapter.name=bit_fit", "training.epochs=1")
    model = build_model(config, table)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for epoch in (None, 0, 1):
        freeze_towers(model, config, epoch)
        released = {name for name, p in model.named_parameters() if p.requires_grad and "_encoder." in name}
        assert released == {name for name in ever_trained(model, config) if "_encoder." in name}
        assert released
        assert all(name.endswith(".bias") for name in released)
    run = train(config)
    after = load_file(run.model_dir / "model.safetensors")
    towers = [name for name in after if "_encoder." in name]
    moved = {name for name in towers if not torch.equal(after[name], before[name])}
    assert moved
    assert all(name.endswith(".bias") for name in moved)
    state = load_file(next((run.dir / "checkpoints").glob("best_*.safetensors")))
    assert not [name for name in state if "_encoder." in name and not name.endswith(".bias")]
    assert "by the adapter `bit_fit`" in (run.model_dir / "README.md").read_text()


def test_merged_is_unmerged(tmp_path):
    load_plugin(plugin_of("An adapter", tmp_path))
    torch.manual_seed(0)
    config = ImageEncoderConfig(
        "vit_tiny_patch16_224", False, options={"depth": 1, "embed_dim": 16, "num_heads": 2}, size=[32, 32]
    )
    tower = build_image_encoder(config).eval()
    names = list(tower.state_dict())
    pixels = torch.randint(0, 256, (2, 3, 32, 32)).to(torch.uint8)
    plain = tower(pixels).pooled.detach()
    adapt(tower, "tiny_lora", "image_encoder.adapter")
    assert torch.equal(tower(pixels).pooled, plain)
    with torch.no_grad():
        for name, parameter in tower.named_parameters():
            if name in adapted_names(tower):
                parameter += 0.1 * torch.randn_like(parameter)
    unmerged = tower(pixels).pooled.detach()
    assert not torch.allclose(unmerged, plain, atol=1e-3)
    merge_adapter(tower)
    assert list(tower.state_dict()) == names
    assert torch.allclose(tower(pixels).pooled, unmerged, atol=1e-6)
    check("adapter", "tiny_lora", rank=1)


def test_batch_norms_learn_their_biases_but_no_statistics():
    config = ImageEncoderConfig("test_efficientnet", False, size=[32, 32], batch_norm="train")
    with pytest.raises(MmfuseError, match=r"batch statistics are in no adapter: set image_encoder\.batch_norm: frozen"):
        adapt(build_image_encoder(config), "bit_fit", "image_encoder.adapter")
    config.batch_norm = "frozen"
    tower = build_image_encoder(config)
    adapt(tower, "bit_fit", "image_encoder.adapter")
    assert any("bn" in name for name in adapted_names(tower))
    before = {name: tensor.clone() for name, tensor in tower.named_buffers()}
    tower.train()(torch.randint(0, 256, (2, 3, 32, 32)).to(torch.uint8)).pooled.sum().backward()
    assert all(torch.equal(tensor, before[name]) for name, tensor in tower.named_buffers())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["text_encoder.adapter=bit_fits"], "text_encoder.adapter: unknown adapter 'bit_fits'.*did you mean 'bit_fit'"),
        (["text_encoder.adapter={name: bit_fit, rank: 2}"], "text_encoder.adapter: adapter.rank is not an option"),
        (["text_encoder.adapter=3"], "text_encoder.adapter: 3: the name of an adapter"),
        (
            ["text_encoder.adapter=bit_fit", "text_encoder.frozen=true"],
            "text_encoder.adapter has no effect with text_encoder.frozen: true and no unfreeze_epoch",
        ),
    ],
)
def test_what_is_refused(tiny, changes, said):
    with pytest.raises(MmfuseError, match=said):
        train(tiny(*changes))


def test_a_tower_without_weights_is_refused():
    with pytest.raises(MmfuseError, match=r"image_encoder\.adapter: bit_fit: this tower has no biases"):
        adapt(PrecomputedFeatures(4), "bit_fit", "image_encoder.adapter")


def test_an_adapter_that_begins_later(tiny, table):
    config = tiny("text_encoder.adapter=bit_fit", "text_encoder.frozen=true", "text_encoder.unfreeze_epoch=1")
    model = build_model(config, table)
    freeze_towers(model, config, 0)
    assert not any(p.requires_grad for p in model.text_encoder.parameters())
    freeze_towers(model, config, 1)
    assert {n for n, p in model.text_encoder.named_parameters() if p.requires_grad} == adapted_names(model.text_encoder)
    assert all(name.endswith(".bias") for name in adapted_names(model.text_encoder))
