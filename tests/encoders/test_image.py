"""The image tower gives what timm gives, on pixels that it normalises itself."""

import json
from typing import Any

import numpy as np
import pytest
import timm
import torch
from timm.data.config import resolve_model_data_config

from mmfuse.config import ImageEncoderConfig
from mmfuse.encoders.image import ImageEncoder, Preprocessing, build_image_encoder
from mmfuse.types import MmfuseError

VIT = {"depth": 2, "embed_dim": 48, "num_heads": 3}
SWIN = {"embed_dim": 24, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4}
# name: options of the architecture, size, (h, w, prefix tokens)
ARCHITECTURES = {
    "resnet10t": ({}, [64, 96], (2, 3, 0)),
    "tf_efficientnet_lite0": ({}, [64, 96], (2, 3, 0)),
    "vit_tiny_patch16_224": (VIT, [32, 48], (2, 3, 1)),
    "swin_tiny_patch4_window7_224": (SWIN, [64, 96], (8, 12, 0)),
}


def build(name="resnet10t", **config):
    torch.manual_seed(0)
    options, size, _ = ARCHITECTURES.get(name, ({}, [32, 32], None))
    values = {"options": options, "size": size, **config}
    return build_image_encoder(ImageEncoderConfig(name=name, pretrained=False, **values))


@pytest.fixture(scope="module")
def encoders():
    return {name: build(name).eval() for name in ARCHITECTURES}


def pixels_for(encoder, count=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, *encoder.preprocessing.size), generator=generator, dtype=torch.uint8)


def librarys_own(encoder, pixels):
    """timm's maps and pooled vector, of pixels normalised as its documentation says."""
    cfg = resolve_model_data_config(encoder.model)
    x = (pixels.float() / 255 - torch.tensor(cfg["mean"])[:, None, None]) / torch.tensor(cfg["std"])[:, None, None]
    with torch.no_grad():
        maps = encoder.model.forward_features(x)
        return maps, encoder.model.forward_head(maps, pre_logits=True)


def refusal(**config):
    with pytest.raises(MmfuseError) as error:
        build(**config)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_features_are_the_librarys_own_output(encoders, name):
    encoder, (h, w, prefix) = encoders[name], ARCHITECTURES[name][2]
    pixels = pixels_for(encoder)
    with torch.no_grad():
        found = encoder(pixels)
    maps, pooled = librarys_own(encoder, pixels)
    torch.testing.assert_close(found.pooled, pooled, rtol=1e-4, atol=1e-5)
    assert encoder.grid == (h, w, prefix)
    assert found.tokens.shape == (3, prefix + h * w, encoder.dim)
    assert found.mask.all()
    assert found.present.all()
    for row in range(h):  # tokens run row by row, whatever the library's memory layout
        for column in range(w):
            at = prefix + row * w + column
            if maps.ndim == 3:
                expected = maps[:, at]
            elif name.startswith("swin"):
                expected = maps[:, row, column]
            else:
                expected = maps[:, :, row, column]
            torch.testing.assert_close(found.tokens[:, at], expected, rtol=1e-4, atol=1e-5)


def test_a_vit_is_pooled_by_its_first_token_or_by_the_mean_over_patches(encoders):
    encoder = encoders["vit_tiny_patch16_224"]
    pixels = pixels_for(encoder)
    maps, _ = librarys_own(encoder, pixels)
    assert encoder.pooling == "cls"
    mean = build("vit_tiny_patch16_224", pooling="mean").eval()
    with torch.no_grad():
        torch.testing.assert_close(encoder(pixels).pooled, maps[:, 0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(mean(pixels).pooled, maps[:, 1:].mean(1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_images_features_do_not_depend_on_its_batch_mates(encoders, name):
    encoder = encoders[name]
    pixels = pixels_for(encoder, 4)
    with torch.no_grad():
        together, alone = encoder(pixels), encoder(pixels[2:3])
    torch.testing.assert_close(together.pooled[2:3], alone.pooled, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together.tokens[2:3], alone.tokens, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["resnet10t", "vit_tiny_patch16_224"])
def test_the_pixels_own_mean_and_scale_are_the_models(encoders, name):
    encoder = encoders[name]
    cfg = encoder.model.pretrained_cfg
    assert (encoder.preprocessing.mean, encoder.preprocessing.std) == (tuple(cfg["mean"]), tuple(cfg["std"]))
    np.testing.assert_allclose(encoder.mean.flatten(), 255 * np.array(cfg["mean"]), rtol=1e-6)
    np.testing.assert_allclose(1 / encoder.scale.flatten(), 255 * np.array(cfg["std"]), rtol=1e-6)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_parameter_gets_a_gradient(name):
    encoder = build(name).train()
    encoder(pixels_for(encoder)).tokens.square().sum().backward()
    assert [n for n, p in encoder.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("name", ["resnet10t", "vit_tiny_patch16_224"])
def test_a_frozen_tower_stays_in_eval_mode_and_gets_no_gradient(name):
    encoder = build(name, frozen=True)
    torch.nn.Sequential(encoder).train()
    assert not any(module.training for module in encoder.modules())
    before = {n: b.clone() for n, b in encoder.named_buffers()}
    found = encoder(pixels_for(encoder))
    assert not found.tokens.requires_grad
    assert not any(p.requires_grad for p in encoder.parameters())
    assert all(torch.equal(b, before[n]) for n, b in encoder.named_buffers())
    encoder.freeze(False)
    encoder.train()
    assert all(module.training for module in encoder.modules())
    assert encoder(pixels_for(encoder)).tokens.requires_grad


@pytest.mark.parametrize(("batch_norm", "trained"), [("frozen", False), ("train", True), ("auto", True)])
def test_batch_statistics_are_frozen_or_kept_up_by_declared_choice(batch_norm, trained):
    encoder = build(batch_norm=batch_norm).train()
    norms = {n: m for n, m in encoder.named_modules() if isinstance(m, torch.nn.BatchNorm2d)}
    before = {n: m.running_mean.clone() for n, m in norms.items()}
    encoder(pixels_for(encoder))
    moved = [not torch.equal(m.running_mean, before[n]) for n, m in norms.items()]
    assert (len(moved) > 5, set(moved)) == (True, {trained})
    assert {p.requires_grad for m in norms.values() for p in m.parameters()} == {trained}
    assert encoder.model.conv1[0].weight.requires_grad
    encoder.freeze(True)
    encoder.freeze(False)
    assert {p.requires_grad for m in norms.values() for p in m.parameters()} == {trained}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_spec_rebuilds_the_tower(encoders, name):
    encoder = encoders[name]
    rebuilt = ImageEncoder.from_spec(json.loads(json.dumps(encoder.spec()))).eval()
    rebuilt.load_state_dict(encoder.state_dict())
    assert (rebuilt.preprocessing, rebuilt.pooling) == (encoder.preprocessing, encoder.pooling)
    assert (rebuilt.batch_norm, rebuilt.grid, rebuilt.dim) == (encoder.batch_norm, encoder.grid, encoder.dim)
    pixels = pixels_for(encoder)
    with torch.no_grad():
        for a, b in zip(rebuilt(pixels), encoder(pixels), strict=True):
            assert torch.equal(a, b)


def test_the_size_is_the_models_own_unless_another_is_wanted():
    assert build("resnet10t", size=None).preprocessing.size == (176, 176)  # what timm trained it with
    assert build("vit_tiny_patch16_224", size=[32, 64]).grid == (2, 4, 1)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"name": "resnet10"},
            "image_encoder.name: 'resnet10' cannot be built (RuntimeError: Unknown model (resnet10))",
        ),
        ({"options": {"dept": 2}}, "unexpected keyword argument 'dept'"),
        ({"name": "vit_tiny_patch16_224", "options": {"dept": 2}}, "unexpected keyword argument 'dept'"),
        ({"pooling": "cls"}, "image_encoder.pooling: 'resnet10t' has no CLS token; legal: mean, auto"),
        ({"name": "local-dir:/nowhere"}, "image_encoder.name: local-dir:/nowhere: no config.json in that folder"),
        ({"name": "vgg11", "size": [8, 8]}, "image_encoder.size: 'vgg11' cannot read images of 8 x 8 pixels"),
    ],
)
def test_what_cannot_be_built_is_one_line(monkeypatch, config, message):
    if config.get("name") == "vgg11":  # the real one has 130 million parameters
        monkeypatch.setattr(timm, "create_model", lambda *args, **kwargs: TooSmall())
    assert message in refusal(**config)


class TooSmall(torch.nn.Conv2d):
    """A model that needs more than 8 x 8 pixels."""

    def __init__(self):
        super().__init__(3, 4, kernel_size=9)
        statistics = {"mean": (0,) * 3, "std": (1,) * 3}
        self.pretrained_cfg = {
            "input_size": (3, 224, 224),
            "interpolation": "bilinear",
            "architecture": "x",
            **statistics,
        }

    def forward_features(self, x):
        return self(x)


def test_a_folder_without_an_architecture_is_one_line(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert "cannot be built" in refusal(name=f"local-dir:{tmp_path}")


def test_a_model_that_is_neither_here_nor_on_the_hub_is_one_line():
    with pytest.raises(MmfuseError, match=r"image_encoder.name: 'timm/nothing' cannot be built") as error:
        build_image_encoder(ImageEncoderConfig(name="timm/nothing"))
    assert "\n" not in str(error.value)


def test_the_real_efficientnet_gives_the_librarys_own_output(pretrained):
    name = f"local-dir:{pretrained / 'efficientnet_lite0'}"
    encoder = build_image_encoder(ImageEncoderConfig(name=name, frozen=True, size=[96, 96])).train()
    model: Any = timm.create_model(name, pretrained=True, num_classes=0).eval()
    assert encoder.model.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(value, encoder.model.state_dict()[n]) for n, value in model.state_dict().items())
    pixels = pixels_for(encoder)
    mean, std = (torch.tensor(model.pretrained_cfg[key])[:, None, None] for key in ("mean", "std"))
    with torch.no_grad():
        maps = model.forward_features((pixels / 255 - mean) / std)
        pooled = model.forward_head(maps, pre_logits=True)
    found = encoder(pixels)
    torch.testing.assert_close(found.pooled, pooled, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.tokens, maps.flatten(2).transpose(1, 2), rtol=1e-3, atol=1e-3)
    assert (encoder.dim, encoder.batch_norm) == (1280, "frozen")


def test_a_size_that_cuts_patches_is_refused():
    """timm would leave out the pixels behind the last whole patch, in silence."""
    config = ImageEncoderConfig(name="vit_tiny_patch16_224", pretrained=False, size=[40, 32], options={"depth": 1})
    with pytest.raises(MmfuseError, match=r"\[40, 32\] is not a multiple of .*16 x 16 patches"):
        build_image_encoder(config)


@pytest.mark.parametrize(("name", "folded"), [("resnet10t", 13), ("tf_efficientnet_lite0", 49), ("convnext_atto", 0)])
def test_folded_batch_norms_change_nothing(name, folded):
    encoder = build_image_encoder(ImageEncoderConfig(name=name, pretrained=False, size=[64, 64])).train()
    pixels = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for _ in range(3):
            encoder(pixels)  # statistics that are not those of a new layer
        before = encoder.eval()(pixels)
        assert encoder.fold_batch_norm() >= folded
        after = encoder(pixels)
    assert torch.allclose(before.tokens, after.tokens, atol=1e-4 * before.tokens.abs().max())


def test_a_model_that_reads_a_convolution_twice_is_left_as_it_was():
    class Twice(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = torch.nn.Conv2d(3, 8, 3, stride=8), torch.nn.BatchNorm2d(8)

        def forward_features(self, x):
            y = self.conv(x)
            return self.norm(y) + y

    values = {"resize": "squash", "interpolation": "bilinear", "background": "white"}
    preprocessing = Preprocessing(size=(32, 32), mean=(0.5,) * 3, std=(0.25,) * 3, **values)
    model = Twice()
    torch.nn.init.normal_(model.norm.bias)
    model.norm.running_var.fill_(4.0)
    encoder = ImageEncoder(model, {"name": "twice", "options": {}}, preprocessing).eval()
    pixels = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        before = encoder(pixels).tokens
        assert encoder.fold_batch_norm() == 0
        assert torch.equal(encoder(pixels).tokens, before)
