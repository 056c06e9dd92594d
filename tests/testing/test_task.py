"""The conformance suite of task kinds passes on every registered one, and fails on every defect planted here."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmfuse.heads import HEADS, Head
from mmfuse.tasks import TASKS, TaskKind
from mmfuse.testing import SUITES, ConformanceError

SUITE = SUITES["task"]


@pytest.mark.parametrize("check", SUITE.checks)
@pytest.mark.parametrize("name", TASKS.names())
def test_a_registered_kind_conforms(name, check):
    SUITE.checks[check](name)


class Number(TaskKind):
    """A number, by its squared error: a kind without defect, from which those below differ by one.

    Reference: none.
    Differs: nothing.
    Prefer when: testing.
    """

    metrics = ("mse", "r2")
    lower_is_better = frozenset({"mse"})
    monitor = "mse"
    comparable = diagnosed = ("r2",)

    def __init__(self, labels=()):
        super().__init__(labels)
        self.shift = 0.0

    def predictions(self, said):
        return super().predictions(said) + self.shift

    def calibrate(self, said, target):
        self.shift = float(np.nanmean(target - said[:, 0]))

    def state(self):
        return {"shift": self.shift}

    def load_state(self, state, where):
        self.shift = state["shift"]

    def measure(self, predicted, target, times):
        mse = np.average((predicted - target) ** 2, weights=times)
        spread = np.average((target - np.average(target, weights=times)) ** 2, weights=times)
        return {"mse": mse, "r2": 1 - mse / spread if spread else np.nan}


class NumberHead(Head):
    def __init__(self, in_dim, task):
        super().__init__(task)
        self.linear = nn.Linear(in_dim, 1)

    def forward(self, features):
        return self.linear(features.pooled)

    def loss(self, logits, target):
        return torch.where(target.isnan(), 0.0, F.mse_loss(logits[:, 0], target.nan_to_num(), reduction="none")).sum()


def found(monkeypatch, kind, head=NumberHead):
    """Which checks a kind and its head fail."""
    monkeypatch.setitem(TASKS._classes, "planted", kind)
    monkeypatch.setitem(HEADS._classes, "planted", head)
    kind.__doc__ = Number.__doc__
    failed = {}
    for name, check in SUITE.checks.items():
        try:
            check("planted")
        except ConformanceError as error:
            failed[name] = str(error)
    return failed


def test_a_kind_without_defect_conforms(monkeypatch):
    assert found(monkeypatch, Number) == {}


class MissingIsZero(Number):
    def encode(self, found, spec):
        return np.nan_to_num(super().encode(found, spec))


class BatchNormal(Number):
    def predictions(self, said):
        return super().predictions(said) - said.mean()


class ForgetsItsState(Number):
    def state(self):
        return {}

    def load_state(self, state, where):
        pass


class EncodesByBlock(Number):
    def encode(self, found, spec):
        return super().encode(found, spec) - np.float32(np.nanmean(found))


class WrongDirection(Number):
    lower_is_better = frozenset()


class CountsWithoutTimes(Number):
    def measure(self, predicted, target, times):
        return super().measure(predicted, target, np.ones_like(times))


class LooksAtOrder(Number):
    def measure(self, predicted, target, times):
        return super().measure(predicted, target, times * np.arange(1, len(target) + 1))


class UndeclaredColumn(Number):
    def flat(self, task, decided):
        return {**super().flat(task, decided), f"{task}.more": 1.0}


class NotJson(Number):
    def decide(self, predicted):
        return {"value": np.float32(predicted)}


class Overflows(Number):
    def predictions(self, said):
        with np.errstate(over="ignore"):
            return np.exp(super().predictions(said))


class ToldInWhatIsSmall(Number):
    diagnosed = ("mse",)


class SeenOtherwise(Number):
    def scored(self, predicted, target):
        found = super().scored(predicted, target)
        return replace(found, decided=found.decided + 1)


class Swallows(Number):
    def __init__(self, labels=(), **options):
        super().__init__(labels)


class LossyShard(Number):
    def from_arrow(self, column):
        return np.round(column.to_numpy() / 2) * 2


@pytest.mark.parametrize(
    ("kind", "check", "said"),
    [
        (MissingIsZero, "missing", "the row without a target counts as labelled"),
        (BatchNormal, "predictions", "depends on other rows"),
        (ForgetsItsState, "state", "does `state` tell all that was set"),
        (EncodesByBlock, "blocks", "rows in two blocks have other targets"),
        (WrongDirection, "head", "does `lower_is_better` tell its direction"),
        (CountsWithoutTimes, "scores", "a replicate of r2"),
        (LooksAtOrder, "scores", "depends on the order of rows"),
        (UndeclaredColumn, "predictions", "its columns are"),
        (NotJson, "predictions", "not JSON serializable"),
        (SeenOtherwise, "metrics_see", "is `scored` or `said` of another rule"),
        (Overflows, "predictions", "a prediction is not finite"),
        (ToldInWhatIsSmall, "protocol", "of which less is better"),
        (Swallows, "protocol", "swallows typos"),
        (LossyShard, "missing", "a shard does not give back"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_defect_of_a_kind_is_caught(monkeypatch, kind, check, said):
    failed = found(monkeypatch, kind)
    assert said in failed[check]
    assert "planted" in failed[check]


class MeanLoss(NumberHead):
    def loss(self, logits, target):
        return super().loss(logits, target) / len(target)


class CountsMissing(NumberHead):
    def count(self, target):
        return torch.tensor(float(len(target)))


class MissingLoss(NumberHead):
    def loss(self, logits, target):
        return F.mse_loss(logits[:, 0], target.nan_to_num(), reduction="sum")


class NanGradient(NumberHead):
    def loss(self, logits, target):
        return torch.where(target.isnan(), 0.0, (logits[:, 0] - target) ** 2).sum()


class TwoNumbers(NumberHead):
    def forward(self, features):
        return super().forward(features).repeat(1, 2)


class BatchNormHead(NumberHead):
    def __init__(self, in_dim, task):
        super().__init__(in_dim, task)
        self.norm = nn.BatchNorm1d(in_dim)

    def forward(self, features):
        return self.linear(self.norm(features.pooled))


class LayerNormHead(BatchNormHead):
    def __init__(self, in_dim, task):
        super().__init__(in_dim, task)
        self.norm = nn.Sequential(nn.LayerNorm(in_dim), nn.Dropout(0.1))


class RollsInTraining(NumberHead):
    def forward(self, features):
        pooled = features.pooled
        return self.linear(pooled + 0.1 * pooled.roll(1, 0) if self.training else pooled)


class Remembers(NumberHead):
    calls = 0

    def forward(self, features):
        self.calls += self.training
        return super().forward(features) + self.calls


class Squeezes(NumberHead):
    def forward(self, features):
        return super().forward(features).squeeze(0)


def test_a_head_with_a_norm_of_each_row_conforms(monkeypatch):
    assert found(monkeypatch, Number, LayerNormHead) == {}


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (BatchNormHead, "in train mode what it says of a row depends on the other rows"),
        (RollsInTraining, "in train mode what it says of a row depends on the other rows"),
        (Remembers, "depends on the other rows|does it remember forwards"),
        (Squeezes, "fails on a single row"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_head_that_sees_more_than_a_row_is_caught(monkeypatch, head, said):
    assert re.search(said, found(monkeypatch, Number, head)["head_rows"])


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (MeanLoss, "the loss is no sum over rows"),
        (CountsMissing, "a missing target adds to the loss or its count"),
        (MissingLoss, "a missing target adds to the loss or its count"),
        (NanGradient, "is not finite"),
        (TwoNumbers, r"not (rows, width)"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_defect_of_a_head_is_caught(monkeypatch, head, said):
    assert said in found(monkeypatch, Number, head)["head"]
