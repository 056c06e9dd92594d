"""The conformance suite of towers passes on ours, and fails on every defect planted here."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmfuse.encoders.features import FeatureTower, pooled_features
from mmfuse.encoders.towers import TOWERS
from mmfuse.testing import SUITES, ConformanceError, check
from mmfuse.types import MmfuseError

CHECKS = SUITES["tower"].checks


@pytest.mark.parametrize("name", TOWERS.names())
def test_registered_tower_conforms(name):
    check("tower", name)


def test_a_variant_conforms_and_an_unknown_option_is_the_users_error():
    check("tower", "features", pooling="first")
    with pytest.raises(MmfuseError, match="pooling"):
        check("tower", "features", poling="first")


class Layer(FeatureTower):
    """Standardised numbers through a linear layer: a tower without defect, from which those below differ by one.

    Reference: none.
    Differs: nothing.
    Prefer when: testing.
    """

    mean: torch.Tensor

    def __init__(self, width, out_dim=5):
        super().__init__()
        self.dim = out_dim
        self.register_buffer("mean", torch.zeros(width))
        self.layer = nn.Linear(width, out_dim)

    def fit(self, items):
        self.mean.copy_(torch.from_numpy(np.concatenate(list(items)).mean(0)))

    def forward(self, values, mask):
        return pooled_features(self.layer(values - self.mean), mask)


class IgnoresTheMask(Layer):
    def forward(self, values, mask):
        found = super().forward(values, mask)
        return found._replace(pooled=found.tokens.mean(1))


class OfTheBatch(Layer):
    def forward(self, values, mask):
        found = super().forward(values, mask)
        return found._replace(pooled=found.pooled - found.pooled.mean(0))


class Random(Layer):
    def forward(self, values, mask):
        found = super().forward(values, mask)
        return found._replace(pooled=F.dropout(found.pooled, 0.5))


class Unsaved(Layer):
    def fit(self, items):
        self.offset = torch.from_numpy(np.concatenate(list(items)).mean(0))

    def forward(self, values, mask):
        return super().forward(values - getattr(self, "offset", 0.0), mask)


class OtherWidth(Layer):
    def __init__(self, width, out_dim=5):
        super().__init__(width, out_dim)
        self.dim = out_dim + 1


class NeverFrozen(Layer):
    def freeze(self, frozen):
        self.frozen = frozen


class Unused(Layer):
    def __init__(self, width, out_dim=5):
        super().__init__(width, out_dim)
        self.other = nn.Linear(width, out_dim)


class Forgetful(Layer):
    def __init__(self, width, out_dim=5):
        super().__init__(width, out_dim)
        self.drawn = np.random.normal(size=out_dim)

    def forward(self, values, mask):
        found = super().forward(values, mask)
        return found._replace(pooled=found.pooled + torch.from_numpy(self.drawn))


class OfUnitLength(Layer):
    def forward(self, values, mask):
        return pooled_features(self.layer(values / values.norm(dim=-1, keepdim=True)), mask)


class NeedsAnOption(Layer):
    def __init__(self, width, out_dim):
        super().__init__(width, out_dim)


DEFECTS = [
    (IgnoresTheMask, "padding", "padding changes the features"),
    (OfTheBatch, "rows", "beside other rows"),
    (Random, "repeats", "draws at random"),
    (Unsaved, "saves", "loaded again"),
    (OtherWidth, "shapes", "is `dim` its width"),
    (NeverFrozen, "freezes", "training mode|requires a gradient"),
    (Unused, "freezes", "has no part in the features"),
    (Forgetful, "repeats", "another generator"),
    (OfUnitLength, "missing", "a division by its length"),
    (NeedsAnOption, "protocol", "need defaults: out_dim"),
]


@pytest.fixture
def register(monkeypatch):
    def add(cls):
        monkeypatch.setitem(TOWERS._classes, "mine", cls)
        cls.__doc__ = Layer.__doc__

    return add


def test_the_one_without_defect_passes(register):
    register(Layer)
    check("tower", "mine")


@pytest.mark.parametrize(("cls", "title", "said"), DEFECTS, ids=lambda value: getattr(value, "__name__", None))
def test_a_planted_defect_is_caught(register, cls, title, said):
    register(cls)
    with pytest.raises(ConformanceError, match=said):
        CHECKS[title]("mine")
