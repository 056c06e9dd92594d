"""The suite of orders passes on every registered one, and fails on every defect planted here."""

import itertools

import numpy as np
import pytest

from mmfuse.testing import SUITES, ConformanceError, check
from mmfuse.training.orders import ORDERS
from mmfuse.training.orders.by_length import ByLength

NUMBERS = itertools.count()
DOC = """An order.

Reference: none.
Differs: nothing.
Prefer when: testing.
"""


class FromAnywhere(ByLength):
    def plan(self, epoch):
        return [*super().plan(epoch)[1:], [[len(self.given.table.splits) - 1 - r] for r in range(self.given.world)]]


class EmptyShare(ByLength):
    def plan(self, epoch):
        return [[*batch[:-1], []] for batch in super().plan(epoch)]


class TooLarge(ByLength):
    def plan(self, epoch):
        return [[rows + rows for rows in batch] for batch in super().plan(epoch)]


class GlobalGenerator(ByLength):
    def plan(self, epoch):
        plan = super().plan(epoch)
        return [plan[i] for i in np.random.permutation(len(plan))]


class Remembers(ByLength):
    calls = 0

    def plan(self, epoch):
        self.calls += 1
        return super().plan(self.calls)


class SameEveryEpoch(ByLength):
    def plan(self, epoch):
        return super().plan(0)


class Grows(ByLength):
    def plan(self, epoch):
        return super().plan(epoch)[: 4 + epoch % 2]


class DrawsByWorld(ByLength):
    def plan(self, epoch):
        return super().plan(epoch * self.given.world)


class NoSeed(ByLength):
    def __init__(self, given):
        super().__init__(given._replace(seed=3))


class OtherIdentity(ByLength):
    @property
    def identity(self):
        return str(next(NUMBERS))


DEFECTS = {
    FromAnywhere: "fails rows: row 69 is not of the training split",
    EmptyShare: "fails rows: a process of 1 has no row",
    TooLarge: "fails rows: a process has 16 rows",
    GlobalGenerator: "fails deterministic: an epoch alone",
    Remembers: "fails deterministic: an epoch alone",
    SameEveryEpoch: "fails epochs: two epochs have the same plan",
    Grows: "fails epochs: epochs have",
    DrawsByWorld: "fails processes: two processes have other rows",
    NoSeed: "fails deterministic: another seed",
    OtherIdentity: "fails identity",
}


def plant(monkeypatch, cls):
    cls.__doc__ = DOC
    monkeypatch.setitem(ORDERS._classes, "planted", cls)


@pytest.mark.parametrize("title", SUITES["order"].checks)
@pytest.mark.parametrize("name", ORDERS.names())
def test_registered_order_conforms(name, title):
    SUITES["order"].checks[title](name)


@pytest.mark.parametrize("by", ["kind", "group", "sex"])
def test_whatever_is_balanced_conforms(by):
    check("order", "balanced", by=by)


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda cls: cls.__name__)
def test_a_planted_defect_is_caught(monkeypatch, defect):
    plant(monkeypatch, defect)
    with pytest.raises(ConformanceError, match=DEFECTS[defect]):
        check("order", "planted")
