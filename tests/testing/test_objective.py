"""The suite of objectives passes on every registered one, and fails on every defect planted here."""

import pytest
import torch
from torch import nn

from mmfuse.testing import SUITES, ConformanceError, check
from mmfuse.training.objectives import OBJECTIVES
from mmfuse.training.objectives.uncertainty import Uncertainty


class Spread(nn.Module):
    """The mean square of what the fusion gives: an objective without defect, from which those below differ by one.

    Reference: none.
    Differs: nothing.
    Prefer when: testing.
    """

    reads = frozenset({"fused", "text"})

    def __init__(self, model, scale=1.0):
        super().__init__()
        self.scale = nn.Parameter(torch.full((1,), scale))

    def rows(self, said, batch, step):
        """`(B,)`: what a defect overrides."""
        return said.fused.pooled.square().mean(1)

    def forward(self, said, batch, step):
        return (self.scale * self.rows(said, batch, step)).sum() / step.rows


class MeanOfABatch(Spread):
    def forward(self, said, batch, step):
        return (self.scale * self.rows(said, batch, step)).mean()


class HiddenParameter(Spread):
    def __init__(self, model):
        super().__init__(model)
        self.factors = [torch.ones(1, requires_grad=True)]

    def rows(self, said, batch, step):
        return super().rows(said, batch, step) * self.factors[0]


class KeepsTheModel(Spread):
    def __init__(self, model):
        super().__init__(model)
        self.fusion = model.fusion


class SingleNumber(Spread):
    def __init__(self, model):
        super().__init__(model)
        self.scale = nn.Parameter(torch.ones(()))


class ReadsPadding(Spread):
    def rows(self, said, batch, step):
        return said.fused.pooled.mean(1) + torch.ones(len(batch["ids"])) * said.text.tokens.shape[1]


class DependsOnPlace(Spread):
    def rows(self, said, batch, step):
        return super().rows(said, batch, step) * torch.arange(len(batch["ids"]))


class DrawsFromTorch(Spread):
    def rows(self, said, batch, step):
        return super().rows(said, batch, step) * torch.rand(1)


class Remembers(Spread):
    calls = 0

    def rows(self, said, batch, step):
        self.calls += 1
        return super().rows(said, batch, step) * self.calls


class Detached(Spread):
    def __init__(self, model):
        nn.Module.__init__(self)
        self.scale = 1.0

    def rows(self, said, batch, step):
        return said.fused.pooled.detach().square().mean(1)


class UnusedParameter(Spread):
    def __init__(self, model):
        super().__init__(model)
        self.other = nn.Parameter(torch.ones(1))


class NotFinite(Spread):
    def rows(self, said, batch, step):
        return super().rows(said, batch, step) + batch["target.signs"].sum(1)


class OneARow(Spread):
    def forward(self, said, batch, step):
        return self.rows(said, batch, step)


class ReadsLabels(Spread):
    reads = frozenset({"labels"})


class TakesWeight(Spread):
    def __init__(self, model, weight=1.0):
        super().__init__(model)


class LosesATask(Uncertainty):
    __doc__ = Spread.__doc__

    def weigh(self, losses, batch, step):
        return dict(list(super().weigh(losses, batch, step).items())[:1])


class WeighsByBatches(Uncertainty):
    __doc__ = Spread.__doc__

    def weigh(self, losses, batch, step):
        return {task: loss + self.log_variances[task][0] for task, loss in losses.items()}


DEFECTS = {
    MeanOfABatch: "fails shares: the first 1 rows",
    HiddenParameter: "fails parameters: a tensor",
    KeepsTheModel: "fails parameters: parameter 'fusion.* is the model's",
    SingleNumber: "fails parameters: parameter 'scale' is a single number",
    ReadsPadding: "fails (shares|rows)",
    DependsOnPlace: "fails (shares|rows)",
    DrawsFromTorch: "fails (shares|rows|repeatable)",
    Remembers: "fails (shares|rows|repeatable)",
    Detached: "fails gradient: it depends on nothing",
    UnusedParameter: "fails gradient: no gradient reaches its parameter 'other'",
    NotFinite: "fails value: of .* it is nan",
    OneARow: "fails value: of all rows it is not a scalar",
    ReadsLabels: "fails protocol: class attribute `reads`",
    TakesWeight: "fails protocol: its option `weight`",
    LosesATask: "`weigh` gives losses of",
    WeighsByBatches: "fails shares",
}
ONLY = {
    "rows": (ReadsPadding, DependsOnPlace),
    "repeatable": (DrawsFromTorch, Remembers),
    "shares": (MeanOfABatch, WeighsByBatches),
}
"""What a check catches that stands behind others in the suite."""


def plant(monkeypatch, cls):
    cls.__doc__ = cls.__doc__ or Spread.__doc__
    monkeypatch.setitem(OBJECTIVES._classes, "planted", cls)


@pytest.mark.parametrize("title", SUITES["objective"].checks)
@pytest.mark.parametrize("name", OBJECTIVES.names())
def test_registered_objective_conforms(name, title):
    SUITES["objective"].checks[title](name)


def test_an_objective_without_defect_conforms(monkeypatch):
    plant(monkeypatch, Spread)
    check("objective", "planted", scale=2.0)


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda cls: cls.__name__)
def test_a_planted_defect_is_caught(monkeypatch, defect):
    plant(monkeypatch, defect)
    with pytest.raises(ConformanceError, match=DEFECTS[defect]):
        check("objective", "planted")


@pytest.mark.parametrize(("title", "defects"), ONLY.items())
def test_each_check_catches_its_own(monkeypatch, title, defects):
    for defect in defects:
        plant(monkeypatch, defect)
        with pytest.raises(ConformanceError, match=f"fails {title}"):
            SUITES["objective"].checks[title]("planted")
