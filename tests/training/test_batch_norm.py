"""`image_encoder.batch_norm: sync` is another way to take statistics, and changes nothing else."""

from types import SimpleNamespace

import pytest
import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import nn

import mmfuse
from mmfuse.config import ImageEncoderConfig
from mmfuse.encoders.image import ImageEncoder, build_image_encoder
from mmfuse.training.batch_norm import check_images, check_sync, is_synchronised, synchronise

FAMILIES = {
    "test_resnet": nn.BatchNorm2d,
    "levit_128s": nn.BatchNorm1d,
    "test_byobnet": BatchNormAct2d,
    "test_coatnet": BatchNormAct2d,
    "efficientnet_lite0": BatchNormAct2d,
    "mobilenetv3_small_050": BatchNormAct2d,
    "rexnet_100": BatchNormAct2d,
}
"""Timm architectures, and a class of norm that each has."""


def tower(name: str) -> ImageEncoder:
    """A random one whose norms are unlike those of a new network: an error in any of them shows."""
    torch.manual_seed(0)
    size = [224, 224] if name.startswith("levit") else [64, 64]
    found = build_image_encoder(ImageEncoderConfig(name=name, pretrained=False, size=size, batch_norm="sync"))
    for module in found.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
    return found.eval()


@torch.no_grad()
def features(encoder: ImageEncoder) -> torch.Tensor:
    pixels = torch.randint(0, 256, (2, 3, *encoder.preprocessing.size), generator=torch.Generator().manual_seed(1))
    return encoder(pixels.to(torch.uint8)).tokens


@pytest.mark.parametrize("name", FAMILIES)
def test_the_conversion_leaves_features_weights_and_names_as_they_are(name):
    encoder = tower(name)
    assert any(type(module) is FAMILIES[name] for module in encoder.modules())
    before, state = features(encoder), encoder.state_dict()
    own = {id(p) for p in encoder.parameters()}
    settings = [
        (m.eps, m.momentum, m.affine, m.track_running_stats, m.training, m.weight.requires_grad)
        for m in encoder.modules()
        if isinstance(m, nn.modules.batchnorm._BatchNorm)
    ]
    next(m for m in encoder.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)).requires_grad_(False)
    settings[0] = (*settings[0][:-1], False)
    synchronise(encoder)
    norms = [m for m in encoder.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert all(isinstance(m, nn.SyncBatchNorm) for m in norms)
    assert torch.equal(features(encoder), before)
    assert {id(p) for p in encoder.parameters()} == own  # the optimiser's and the saved ones
    found = [(m.eps, m.momentum, m.affine, m.track_running_stats, m.training, m.weight.requires_grad) for m in norms]
    assert found == settings
    plain = build_image_encoder(
        ImageEncoderConfig(name=name, pretrained=False, size=list(encoder.preprocessing.size), batch_norm="sync")
    )
    assert list(encoder.state_dict()) == list(state) == list(plain.state_dict())
    plain.load_state_dict(encoder.state_dict())
    assert torch.equal(features(plain.eval()), before)


def test_a_norm_of_which_a_part_would_be_lost_is_refused():
    class Scaled(nn.BatchNorm2d):
        """Does more than its base."""

    encoder = tower("test_resnet")
    encoder.model.extra = Scaled(4)  # type: ignore[assignment]
    with pytest.raises(mmfuse.MmfuseError, match=r"'test_resnet' has norms of its own \(Scaled\); frozen or train"):
        synchronise(encoder)


def test_it_is_for_several_processes_with_gpus_and_with_images_in_every_batch(tiny):
    sync = tiny("image_encoder.batch_norm=sync")
    frozen = tiny("image_encoder.batch_norm=sync", "image_encoder.frozen=true")
    assert [is_synchronised(config, 2) for config in (sync, frozen, tiny())] == [True, False, False]
    assert not is_synchronised(sync, 1)
    cpu = SimpleNamespace(num_processes=2, device=torch.device("cpu"))
    with pytest.raises(mmfuse.MmfuseError, match=r"^image_encoder.batch_norm: sync is for GPUs, and these 2 processes"):
        check_sync(sync, cpu)  # type: ignore[arg-type]
    check_sync(sync, SimpleNamespace(num_processes=2, device=torch.device("cuda")))  # type: ignore[arg-type]
    check_images(sync, 2, False)
    check_images(sync, 1, True)
    with pytest.raises(mmfuse.MmfuseError, match="some rows of the training split have none"):
        check_images(sync, 2, True)
    hiding = tiny("image_encoder.batch_norm=sync", "training.modality_dropout.image=0.1")
    with pytest.raises(mmfuse.MmfuseError, match=r"training.modality_dropout.image hides them"):
        check_images(hiding, 2, False)
