"""The adapter of last layers: which weights it releases, and that nothing before them gets a gradient."""

import pytest
import torch

from mmfuse.config import ImageEncoderConfig, TextEncoderConfig
from mmfuse.encoders.adapters import adapt, adapted_names
from mmfuse.encoders.features import PrecomputedFeatures
from mmfuse.encoders.image import build_image_encoder
from mmfuse.encoders.text import build_text_encoder
from mmfuse.types import MmfuseError

SIZES = {
    "bert": {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32},
    "distilbert": {"dim": 16, "n_layers": 3, "n_heads": 2, "hidden_dim": 32},
    "albert": {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32},
}


def text(kind="bert"):
    config = TextEncoderConfig(kind, False, vocab_size=100, max_length=12, options=SIZES[kind])
    return build_text_encoder(config, ["a cough and a fever"])


def image(name, **options):
    return build_image_encoder(ImageEncoderConfig(name, False, size=[32, 32], batch_norm="frozen", options=options))


@pytest.mark.parametrize(("kind", "own"), [("bert", "encoder.layer"), ("distilbert", "transformer.layer")])
def test_of_a_text_tower_the_last_transformer_layers(kind, own):
    tower = text(kind)
    adapt(tower, {"name": "last_layers", "layers": 2}, "text_encoder.adapter")
    of = {number: [n for n, _ in tower.named_parameters() if f"{own}.{number}." in n] for number in range(3)}
    assert adapted_names(tower) == {*of[1], *of[2]}
    ids = torch.tensor(tower.tokenize(["a cough"])[0])
    tower.train()(ids, torch.ones_like(ids, dtype=torch.bool)).tokens.sum().backward()
    assert {n for n, p in tower.named_parameters() if p.grad is not None} == adapted_names(tower)


@pytest.mark.parametrize(
    ("name", "options", "own"),
    [
        ("vit_tiny_patch16_224", {"depth": 3, "embed_dim": 16, "num_heads": 2}, ("blocks.1.", "blocks.2.", "norm.")),
        ("test_efficientnet", {}, ("blocks.3.0.", "blocks.4.0.", "conv_head")),
        ("test_resnet", {}, ("layer3.0.", "layer4.0.")),
    ],
)
def test_of_an_image_tower_what_timm_counts_as_layers(name, options, own):
    tower = image(name, **options)
    adapt(tower, {"name": "last_layers", "layers": 2}, "image_encoder.adapter")
    assert adapted_names(tower)
    assert all(n.removeprefix("model.").startswith(own) for n in adapted_names(tower))
    norms = [n for n, m in tower.named_modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert not [n for n in adapted_names(tower) if n.rpartition(".")[0] in norms]
    weights = {n for n, p in tower.named_parameters() if p.ndim > 1 and n.removeprefix("model.").startswith(own)}
    assert weights <= adapted_names(tower)
    before = {n: b.clone() for n, b in tower.named_buffers()}
    tower.train()(torch.randint(0, 256, (2, 3, 32, 32)).to(torch.uint8)).tokens.sum().backward()
    assert {n for n, p in tower.named_parameters() if p.grad is not None} == adapted_names(tower)
    assert all(torch.equal(b, before[n]) for n, b in tower.named_buffers())


@pytest.mark.parametrize(
    ("tower", "layers", "said"),
    [
        (lambda: text(), 4, "x_encoder.adapter: last_layers: layers: 4: this tower has 3"),
        (lambda: text(), 0, "layers: 0 is not legal; a number of at least 1"),
        (lambda: text("albert"), 1, "x_encoder.adapter: last_layers: a albert model has no list of its 3 layers"),
        (lambda: PrecomputedFeatures(4), 1, "x_encoder.adapter: last_layers: this tower has no layers"),
    ],
)
def test_what_is_refused(tower, layers, said):
    with pytest.raises(MmfuseError, match=said):
        adapt(tower(), {"name": "last_layers", "layers": layers}, "x_encoder.adapter")
