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


class BatchNormed(Layer):
    norm = nn.BatchNorm1d

    def __init__(self, width, out_dim=5):
        super().__init__(width, out_dim)
        self.normed = self.norm(out_dim)

    def forward(self, values, mask):
        found = super().forward(values, mask)
        return found._replace(pooled=self.normed(found.pooled))


class LayerNormed(BatchNormed):
    norm = nn.LayerNorm


class RollsInTraining(Layer):
    def forward(self, values, mask):
        found = super().forward(values, mask)
        return found._replace(pooled=found.pooled + 0.1 * found.pooled.roll(1, 0)) if self.training else found


class Counts(Layer):
    def __init__(self, width, out_dim=5):
        super().__init__(width, out_dim)
        self.steps = 0

    def forward(self, values, mask):
        self.steps += self.training
        found = super().forward(values, mask)
        return found._replace(pooled=found.pooled / (1 + 0.1 * self.steps))


class SavedCount(Counts):
    def __init__(self, width, out_dim=5):
        super().__init__(width, out_dim)
        del self.steps
        self.register_buffer("steps", torch.zeros(()))


class SpreadOfRows(Layer):
    def forward(self, values, mask):
        found = super().forward(values, mask)
        return found._replace(pooled=found.pooled + (0 * found.pooled).std(0)) if self.training else found


DEFECTS = [
    (BatchNormed, "train_mode", "in train mode, beside other rows.*a BatchNorm"),
    (RollsInTraining, "train_mode", "in train mode, beside other rows"),
    (SpreadOfRows, "train_mode", "a batch of one row is not finite"),
    (Counts, "train_mode", "beside other rows|it remembers of forwards"),
    (IgnoresTheMask, "padding", "padding changes the features"),
    (OfTheBatch, "rows", "beside other rows"),
    (Random, "repeats", "draws at random"),
    (Unsaved, "saves", "loaded again"),
    (OtherWidth, "shapes", "is `dim` its width"),
    (NeverFrozen, "freezes", "training mode|requires a gradient"),
    (Unused, "freezes", "has no part in the features"),
    (Forgetful, "repeats", "another generator"),
    (OfUnitLength, "missing", "a division by its length"),
]


@pytest.fixture
def register(monkeypatch):
    def add(cls):
        monkeypatch.setitem(TOWERS._classes, "mine", cls)
        cls.__doc__ = Layer.__doc__

    return add


@pytest.mark.parametrize("cls", [Layer, LayerNormed, SavedCount])
def test_one_without_defect_passes(register, cls):
    register(cls)
    check("tower", "mine")


def test_an_option_without_default_is_asked_for_by_name(register):
    register(NeedsAnOption)
    with pytest.raises(MmfuseError, match="needs the option out_dim, which has no default"):
        check("tower", "mine")
    check("tower", "mine", out_dim=5)


@pytest.mark.filterwarnings("ignore:std")  # of one row
@pytest.mark.parametrize(("cls", "title", "said"), DEFECTS, ids=lambda value: getattr(value, "__name__", None))
def test_a_planted_defect_is_caught(register, cls, title, said):
    register(cls)
    with pytest.raises(ConformanceError, match=said):
        CHECKS[title]("mine")
