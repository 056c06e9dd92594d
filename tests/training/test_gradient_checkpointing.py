"""Gradient checkpointing computes the same with less memory."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file

import mmfuse
from mmfuse.config import ImageEncoderConfig, TextEncoderConfig
from mmfuse.data.load import load_table
from mmfuse.data.synthetic.phantom_findings import write_language
from mmfuse.data.tables.manifest import load_manifest
from mmfuse.encoders.image import ImageEncoder, build_image_encoder
from mmfuse.encoders.text import TextEncoder, build_text_encoder
from mmfuse.predict import prepare_pairs
from mmfuse.training.build import build_model
from mmfuse.types import MmfuseError

DEEP = [
    "text_encoder.options={hidden_size: 16, num_hidden_layers: 3, num_attention_heads: 2, intermediate_size: 64}",
    "image_encoder.options={depth: 3, embed_dim: 16, num_heads: 2, drop_rate: 0.1, drop_path_rate: 0.1}",
    "tasks.report.decoder={hidden_dim: 16, num_layers: 3, num_heads: 2, max_length: 24, vocab_size: 200}",
    "training.max_steps=3",
]


@pytest.fixture(scope="session")
def captions(phantom):
    return write_language(phantom.parent, 0)[0]


def losses(run_dir) -> list[float]:
    lines = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if "loss" in line]


def kept_bytes(config) -> int:
    """What the forward pass of a batch keeps for the backward pass."""
    table = load_table(load_manifest(config.data.manifest))
    model = build_model(config, table).train()
    batch = prepare_pairs(model, table)[list(range(16))]
    parameters, kept = {p.untyped_storage().data_ptr() for p in model.parameters()}, {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in parameters:
            kept[tensor.untyped_storage().data_ptr()] = tensor  # alive, so that no other one gets its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(batch)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def test_the_same_bits_with_dropout_and_less_is_kept(tiny, captions):
    """BERT, ViT and GPT-2, all with dropout; the validation in between runs without autograd."""
    options = [f"data.manifest={captions}", *DEEP, "training.batch_size=16"]
    plain, saving = (tiny(*options, f"training.gradient_checkpointing={on}", run=str(on)) for on in ("false", "true"))
    a, b = mmfuse.train(plain), mmfuse.train(saving)
    assert len(losses(a.dir)) == 3
    assert losses(a.dir) == losses(b.dir)
    first, second = load_file(a.model_dir / "model.safetensors"), load_file(b.model_dir / "model.safetensors")
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert kept_bytes(saving) < 0.4 * kept_bytes(plain)
    assert mmfuse.train(dataclasses.replace(saving, output_dir=str(a.dir))).steps == 3  # the key makes no other run


@pytest.mark.parametrize(
    ("tower", "message"),
    [
        (ImageEncoderConfig("resnet10t", False, {"channels": [8, 8, 8, 8]}), "image_encoder: 'resnet10t' would count"),
        (ImageEncoderConfig("pit_ti_224", False, pooling="mean"), "image_encoder: 'pit_ti_224' cannot"),
        (
            TextEncoderConfig("xlm", False, {"emb_dim": 8, "n_layers": 1, "n_heads": 1}),
            "text_encoder: a xlm model cannot",
        ),
    ],
)
def test_a_tower_that_cannot_is_named(tower, message):
    encoder = build_image_encoder(tower) if isinstance(tower, ImageEncoderConfig) else build_text_encoder(tower, ["a"])
    with pytest.raises(MmfuseError, match=f"^training.gradient_checkpointing: {message}"):
        encoder.checkpoint_gradients()


def test_a_tower_that_is_never_trained_is_not_asked(tiny, monkeypatch):
    config = tiny("image_encoder.frozen=true", "training.gradient_checkpointing=true")
    asked = []
    for tower in (ImageEncoder, TextEncoder):
        monkeypatch.setattr(tower, "checkpoint_gradients", lambda self: asked.append(type(self)))
    build_model(config, load_table(load_manifest(config.data.manifest)))
    assert asked == [TextEncoder]
