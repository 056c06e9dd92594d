from typing import Any

import pytest
from torch import nn

from mmfuse.config import config_from_dict
from mmfuse.training.trained import ever_trained, freeze_towers, towers


class Encoder(nn.Linear):
    frozen = False

    def freeze(self, frozen):
        self.frozen = frozen


class Model(nn.Module):
    def __init__(self, image=True):
        super().__init__()
        self.text_encoder, self.image_encoder = Encoder(1, 1), Encoder(1, 1) if image else None
        self.fusion = nn.BatchNorm1d(1)


def config(**text):
    return config_from_dict({"name": "x", "data": {"manifest": "m.yaml"}, "text_encoder": text})


@pytest.mark.parametrize(
    ("text", "first"),
    [({}, 0), ({"frozen": True}, None), ({"frozen": True, "unfreeze_epoch": 2}, 2)],
)
def test_a_tower_says_from_which_epoch_it_is_trained(text, first):
    assert config(**text).text_encoder.first_trained == first


@pytest.mark.parametrize("text", [{}, {"frozen": True}, {"frozen": True, "unfreeze_epoch": 2}])
def test_what_is_ever_trained_is_all_but_towers_frozen_for_good(text):
    model: Any = Model()
    left_out = {"text_encoder.weight", "text_encoder.bias"} if text == {"frozen": True} else set()
    assert ever_trained(model, config(**text)) == set(model.state_dict()) - left_out


def test_a_tower_is_frozen_until_its_epoch():
    model: Any = Model()

    def frozen(epoch=None, **text):
        freeze_towers(model, config(**text), epoch)
        return model.text_encoder.frozen

    later = {"frozen": True, "unfreeze_epoch": 2}
    assert [frozen(epoch, **later) for epoch in (0, 1, 2, 3)] == [True, True, False, False]
    assert not frozen(**later)  # without an epoch: what is trained some day is not frozen
    assert [frozen(epoch, frozen=True) for epoch in (None, 0, 9)] == [True] * 3
    assert not frozen(0)
    assert not model.image_encoder.frozen


def test_a_tower_that_the_model_has_not_is_passed_over():
    model: Any = Model(image=False)
    assert [tower.name for tower in towers(model, config())] == ["text_encoder"]
