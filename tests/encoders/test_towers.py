"""What a model folder, which may be anyone's, can say of a tower over features; and what a batch of its items is."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mmfuse.config import ImageEncoderConfig
from mmfuse.data.batches.collate import Item, collate
from mmfuse.data.tables.inputs import TableInputs
from mmfuse.encoders.features import FeatureTower, PrecomputedFeatures, pooled_features
from mmfuse.encoders.towers import TOWERS, GivenFeatures, build_feature_tower, build_tower, tower_from_spec
from mmfuse.model import FusionModel
from mmfuse.types import MmfuseError

SPEC = {"tower": "features", "width": 4, "options": {"pooling": "mean"}}
TASKS = {"label": {"type": "classification", "labels": ["no", "yes"]}}


@pytest.fixture
def lifted(monkeypatch):
    """A registered tower with a weight."""

    class Lifted(FeatureTower):
        def __init__(self, width, out_dim=8, name=""):
            super().__init__()
            self.dim = out_dim
            self.layer = nn.Linear(width, out_dim)

        def forward(self, values, mask):
            return pooled_features(self.layer(values), mask)

    monkeypatch.setitem(TOWERS._classes, "lifted", Lifted)


def model(text=None):
    return FusionModel(text, build_feature_tower("features", 4, {}), {"name": "image_only", "out_dim": 8}, TASKS)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tower": "featuers"}, "unknown tower 'featuers'"),
        ({"tower": "timm"}, "one that reads features is expected"),
        ({"tower": ["features"]}, "one that reads features is expected"),
        ({"width": 10**7}, "a number from 1 to 1000000"),
        ({"width": True}, "a number from 1 to 1000000"),
        ({"width": "4"}, "a number from 1 to 1000000"),
        ({"width": 1}, r"1 number\(s\) a vector"),
        ({"options": {"poling": "mean"}}, "tower.poling is not an option"),
        ({"options": {"width": 3}}, "tower.width is not an option"),
        ({"options": ["mean"]}, "numbers and plain words are expected"),
        ({"options": {"pooling": "/etc/passwd"}}, "numbers and plain words are expected"),
        ({"options": {"pooling": "../mean"}}, "numbers and plain words are expected"),
        ({"options": {"pooling": "max"}}, "'max' is not legal"),
        ({"options": None}, "numbers and plain words are expected"),
    ],
)
def test_what_a_folder_may_not_say_of_a_tower(tmp_path, change, said):
    model().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["image_encoder"] == {"tower": "features", "width": 4, "options": {}}
    config["image_encoder"] |= change
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(MmfuseError, match=said):
        FusionModel.from_pretrained(tmp_path)


def test_a_folder_cannot_ask_for_more_than_its_weights(tmp_path, lifted):
    tower = build_feature_tower("lifted", 4, {})
    FusionModel(None, tower, {"name": "image_only", "out_dim": 8}, TASKS).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    loaded = FusionModel.from_pretrained(tmp_path)
    assert torch.equal(loaded.image_encoder.layer.weight, tower.layer.weight)
    config["image_encoder"] |= {"width": 10**6, "options": {"out_dim": 10**6}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(MmfuseError, match=r"describes a larger model than model\.safetensors holds"):
        FusionModel.from_pretrained(tmp_path)
    config["image_encoder"] |= {"width": 5, "options": {}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(MmfuseError, match=r"does not fit|larger"):
        FusionModel.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "file", ["../other.npz", "/etc/a.npz", "https://host/a.npz", "a.pkl", "a/../../b.npz", "memory://a.npz"]
)
def test_a_folder_names_no_file_outside_the_tables(file):
    values = {"id": "id", "image": {"features": {"file": file}}}
    with pytest.raises(MmfuseError, match=r"inputs\.image\.features\.file: .* a file below the table's own folder"):
        TableInputs.from_dict(values, ("image",))
    values["image"]["features"]["file"] = "features/a.npz"
    assert TableInputs.from_dict(values, ("image",)).recipe.image.features.file == "features/a.npz"


def test_a_saved_tower_is_taken_as_it_is(tmp_path, lifted):
    tower = build_feature_tower("lifted", 4, {"out_dim": 6})
    FusionModel(None, tower, {"name": "image_only", "out_dim": 8}, TASKS).save_pretrained(tmp_path)
    config = ImageEncoderConfig(name=f"mmfuse-model:{tmp_path}", frozen=True)
    again = build_tower("image", config, list, GivenFeatures(None, None))
    assert torch.equal(again.layer.weight, tower.layer.weight)
    assert again.frozen
    with pytest.raises(MmfuseError, match="has no text encoder"):
        build_tower("text", ImageEncoderConfig(name=f"mmfuse-model:{tmp_path}"), list, GivenFeatures(None, None))


def test_a_spec_of_before_is_a_text_or_an_image():
    with pytest.raises(KeyError):  # the encoders' own reading, which the folder's reader tells in one line
        tower_from_spec("image", {}, Path())


def test_items_are_packed_with_their_rows():
    one, two = np.ones((1, 4), np.float32), np.full((3, 4), 2, np.float32)
    items = [
        Item(5, "a", values={"image": one}),
        Item(6, "b", values={"image": None}),
        Item(7, "c", values={"image": two}),
    ]
    batch = collate(items)
    assert batch["image_row"].tolist() == [0, 2]
    assert batch["image_view"].tolist() == [0, 0]
    assert batch["image_values"].shape == (2, 3, 4)
    assert batch["image_values_mask"].tolist() == [[True, False, False], [True] * 3]
    assert "image_values" not in collate([Item(5, "a")])
    fusion = model().eval()
    _, image = fusion.encode(batch)
    assert image.present.tolist() == [True, False, True]
    assert torch.equal(image.pooled[0], torch.ones(4))
    assert torch.equal(image.pooled[1], fusion.missing_tokens["image"])
    _, nothing = fusion.encode(collate([Item(5, "a", values={"image": None})]))
    assert nothing.present.tolist() == [False]


def test_first_is_the_first_token():
    values, mask = torch.arange(12.0).reshape(1, 3, 4), torch.tensor([[True, True, False]])
    assert torch.equal(PrecomputedFeatures(4)(values, mask).pooled, values[:, :2].mean(1))
    assert torch.equal(PrecomputedFeatures(4, "first")(values, mask).pooled, values[:, 0])
