"""A batch of one value a channel is told at the start, and only where there is one."""

import copy
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from mmfuse.config import ImageEncoderConfig, config_from_dict
from mmfuse.data.batches.stream import plan_stream
from mmfuse.encoders.image import build_image_encoder
from mmfuse.model import FusionModel
from mmfuse.training.lone_images import check_lone_images
from mmfuse.types import MmfuseError

TASKS = {"y": {"type": "classification", "labels": ["a", "b"]}}
SMALL = {"channels": [8, 8, 8, 8]}
ALONE = r"batch_size: 11 leaves .* single image.* \(images of 32 x 32\).*batch_norm: frozen, .*training.batch_size$"


def model_of(name="resnet10t", size=(32, 32), options=SMALL, **own):
    config = ImageEncoderConfig(name=name, pretrained=False, size=list(size), options=dict(options or {}), **own)
    return FusionModel(None, build_image_encoder(config), {"name": "image_only", "out_dim": 8}, TASKS)


@pytest.fixture(scope="module")
def model():
    return model_of()


class Rows:
    """As much of a PairDataset as is asked: how many images each row has, all of the training split."""

    def __init__(self, images, dropout=0.0, hides=lambda row, epoch: False):
        self.images, self.modality_dropout = [[0] * n for n in images], {"image": dropout}
        self.hides, self.epoch = hides, 0
        self.table = SimpleNamespace(indices=lambda split: list(range(len(images))))

    def __len__(self):
        return len(self.images)

    def lengths(self):
        return np.zeros(len(self), dtype=np.int64)

    def at(self, epoch):
        found = copy.copy(self)
        found.epoch = epoch
        return found

    def hidden(self, row):
        return "image" if self.hides(row, self.epoch) else None


def config_of(batch_size, **changes):
    values = {"name": "x", "data": {"manifest": "x"}, "training": {"batch_size": batch_size, "epochs": 3}}
    return config_from_dict(values, [f"{key}={value}" for key, value in changes.items()])


def refused(model, rows, config, **options):
    try:
        check_lone_images(model, rows, config, **options)
    except MmfuseError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("images", "batch_size", "world", "alone"),
    [
        ([1] * 12, 11, 1, True),  # 11 and 1
        ([1] * 12, 12, 1, False),
        ([1] * 12, 6, 1, False),
        ([1] * 12, 1, 1, True),
        ([1], 8, 1, True),
        ([2], 8, 1, False),  # packed: what counts is images
        ([2] * 12, 11, 1, False),
        ([2] * 12, 1, 1, False),
        ([0] * 12, 11, 1, False),
        ([1] + [0] * 11, 12, 1, True),
        ([1] * 12 + [0], 12, 1, None),  # 12 and 1: whether the last one has an image, the seed says
        ([1] * 13, 4, 3, False),  # 4, 4, 4, and a last one of fewer rows than processes is left out
        ([1] * 15, 4, 3, True),  # and a last one each
        ([1] * 16, 4, 3, True),  # and 2, 1, 1
        ([1] * 18, 4, 3, False),
    ],
)
def test_a_single_image_is_found_for_any_number_of_processes(model, images, batch_size, world, alone):
    told = refused(model, Rows(images), config_of(batch_size), world=world)
    assert alone is None or bool(told) == alone


def test_the_message_names_the_keys(model):
    with pytest.raises(MmfuseError, match=ALONE):
        check_lone_images(model, Rows([1] * 12), config_of(11))


def test_what_modality_dropout_hides_is_counted_epoch_by_epoch(model):
    rows = Rows([1] * 12, 0.3, lambda row, epoch: epoch == 2 and row > 0)
    assert refused(model, rows, config_of(12))
    assert not refused(model, rows, config_of(12, **{"training.epochs": 2}))
    assert not refused(model, Rows([1] * 12, 0.3, lambda row, epoch: row > 1), config_of(12))


def test_only_epochs_and_steps_that_are_trained_count(model):
    plan_of = {
        seed: refused(model, Rows([1] * 12), config_of(11, seed=seed, **{"training.max_steps": 1})) for seed in range(8)
    }
    assert {bool(told) for told in plan_of.values()} == {True, False}  # the lone row is first or second
    frozen = {"image_encoder.frozen": "true"}
    assert not refused(model, Rows([1] * 12), config_of(11, **frozen))
    assert not refused(model, Rows([1] * 12), config_of(11, **frozen, **{"image_encoder.unfreeze_epoch": 3}))
    assert refused(model, Rows([1] * 12), config_of(11, **frozen, **{"image_encoder.unfreeze_epoch": 2}))


@pytest.mark.parametrize(("rows", "alone"), [(33, True), (40, False)])
def test_streamed_rows_are_counted_too(model, rows, alone):
    """4 lanes of 8 and one of 9 rows in batches of 4: the last one takes 5, or with 10 rows a lane 2."""
    plan = plan_stream(rows, 4, 64, 7 if alone else 4, 1)
    told = refused(model, Rows([]), config_of(plan.batch_size), stream=SimpleNamespace(plan=plan))
    assert bool(told) == any(len(part) == 1 for step in plan for part in step) == alone


@pytest.mark.parametrize(
    ("name", "size", "options"),
    [
        ("resnet10t", (32, 32), SMALL),
        ("resnet10t", (64, 64), SMALL),
        ("mobilenetv3_small_050", (32, 32), None),
        ("lcnet_035", (64, 64), None),
        ("resnest14d", (64, 64), None),  # its attention has a norm behind the mean over the map, at any size
        ("vit_tiny_patch16_224", (32, 32), {"depth": 1, "embed_dim": 16, "num_heads": 2}),
    ],
)
def test_it_is_refused_where_torch_would_end_the_run_and_only_there(name, size, options):
    model = model_of(name, size, options).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    told = refused(model, Rows([1]), config_of(1))
    assert all(tensor.equal(before[name]) for name, tensor in model.state_dict().items())
    assert model.image_encoder.training
    pixels = torch.zeros(1, 3, *size, dtype=torch.uint8)
    with pytest.raises(ValueError, match="Expected more than 1 value per channel") if told else nullcontext():
        model.image_encoder(pixels)


def test_frozen_statistics_need_no_second_image():
    assert not refused(model_of(batch_norm="frozen"), Rows([1]), config_of(1))


def test_a_norm_of_a_fusion_needs_a_second_row(model):
    """Of a plug-in: none of mmfuse's own has one."""

    class Normed(nn.Module):
        uses, reads, out_dim = ("image",), frozenset({"pooled"}), 8

        def __init__(self, inner):
            super().__init__()
            self.inner, self.norm = inner, nn.BatchNorm1d(8)

        def forward(self, text, image):
            fused = self.inner(text, image)
            return fused._replace(pooled=self.norm(fused.pooled))

    normed = model_of(size=(64, 64))
    normed.fusion = Normed(normed.fusion)
    assert "single row" in refused(normed, Rows([0] * 12), config_of(11))
    assert not refused(normed, Rows([1] * 12), config_of(12))
