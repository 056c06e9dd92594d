"""The conformance suite of adapters passes on ours, and fails on every defect planted here."""

import pytest
import torch
from torch import nn

from mmfuse.encoders.adapters import ADAPTERS, Adapter
from mmfuse.testing import SUITES, ConformanceError, check
from mmfuse.types import MmfuseError

CHECKS = SUITES["adapter"].checks


@pytest.mark.parametrize("name", ADAPTERS.names())
def test_registered_adapter_conforms(name):
    check("adapter", name)


class Scaled(nn.Module):
    def __init__(self, linear):
        super().__init__()
        self.linear = linear
        self.scale = nn.Parameter(torch.ones(linear.out_features))

    def forward(self, x):
        return self.linear(x) * self.scale


class Scale(Adapter):
    """A factor for each output of a linear layer: an adapter without defect, from which those below differ by one.

    Reference: none.
    Differs: nothing.
    Prefer when: testing.
    """

    layer = Scaled

    def linears(self, tower):
        return [(name, module) for name, module in tower.named_modules() if type(module) is nn.Linear]

    def put(self, tower, name, module):
        parent, _, last = name.rpartition(".")
        setattr(tower.get_submodule(parent), last, module)

    def apply(self, tower):
        if not self.linears(tower):
            raise MmfuseError("nothing to scale")
        for name, linear in self.linears(tower):
            self.put(tower, name, self.layer(linear))

    def merge(self, tower):
        for name, module in [(n, m) for n, m in tower.named_modules() if isinstance(m, Scaled)]:
            with torch.no_grad():
                module.linear.weight *= module.scale[:, None]
                if module.linear.bias is not None:
                    module.linear.bias *= module.scale
            self.put(tower, name, module.linear)


class BiasForgotten(Scale):
    def merge(self, tower):
        for name, module in [(n, m) for n, m in tower.named_modules() if isinstance(m, Scaled)]:
            with torch.no_grad():
                module.linear.weight *= module.scale[:, None]
            self.put(tower, name, module.linear)


class NotMerged(Scale):
    def merge(self, tower):
        """Nothing."""


class StartsElsewhere(Scale):
    def apply(self, tower):
        super().apply(tower)
        for _, module in tower.named_modules():
            if isinstance(module, Scaled):
                nn.init.constant_(module.scale, 1.1)


class TrainsAll(Scale):
    def apply(self, tower):
        super().apply(tower)
        tower.requires_grad_(True)


class KeepsABuffer(Scale):
    def apply(self, tower):
        super().apply(tower)
        tower.register_buffer("steps", torch.zeros(1))


class Releases(Scale):
    """Its module lets the layer below learn, whenever it is asked for training mode."""

    def apply(self, tower):
        super().apply(tower)
        train = tower.train

        def released(mode=True):
            tower.requires_grad_(mode and not tower.frozen)
            return train(mode)

        tower.train = released


class TakesAnything(Scale):
    def apply(self, tower):
        for name, linear in self.linears(tower):
            self.put(tower, name, Scaled(linear))
        if not self.linears(tower):
            tower.nothing = nn.Parameter(torch.zeros(2))


class Unconnected(Scale):
    def apply(self, tower):
        if not self.linears(tower):
            raise MmfuseError("nothing")
        tower.nothing = nn.Parameter(torch.zeros(2))

    def merge(self, tower):
        del tower.nothing


class AnyOption(Scale):
    def __init__(self, **options):
        self.options = options


class Rolling(Scaled):
    def forward(self, x):
        out = super().forward(x)
        return out + 0.1 * out.roll(1, 0) if self.training else out


class RollsInTraining(Scale):
    layer = Rolling


class Counting(Scaled):
    steps = 0

    def forward(self, x):
        self.steps += self.training
        return super().forward(x) * (1 + 0.1 * self.steps)


class Counts(Scale):
    layer = Counting


DEFECTS = [
    (RollsInTraining, "rows", "in train mode a row's features depend on its batch mates"),
    (Counts, "rows", "depend on its batch mates|no checkpoint would hold"),
    (BiasForgotten, "merges", "merged, its features differ"),
    (NotMerged, "merges", "is none of a plain tower's"),
    (StartsElsewhere, "start", "begins .* off"),
    (TrainsAll, "trains", "numbers of a tower of"),
    (KeepsABuffer, "trains", "adds the buffer steps"),
    (Releases, "trains", "released|moved, which is not"),
    (TakesAnything, "refuses", "a tower without weights is adapted"),
    (Unconnected, "trains", "none of its parameters gets a gradient"),
    (AnyOption, "protocol", "swallows typos"),
]


@pytest.fixture
def register(monkeypatch):
    def add(cls):
        monkeypatch.setitem(ADAPTERS._classes, "mine", cls)
        cls.__doc__ = Scale.__doc__

    return add


def test_the_one_without_defect_passes(register):
    register(Scale)
    check("adapter", "mine")


@pytest.mark.parametrize(("cls", "title", "said"), DEFECTS, ids=lambda value: getattr(value, "__name__", None))
def test_a_planted_defect_is_caught(register, cls, title, said):
    register(cls)
    with pytest.raises(ConformanceError, match=said):
        CHECKS[title]("mine")
