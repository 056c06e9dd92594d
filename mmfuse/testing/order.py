"""The checks of orders, on a table of some fifty rows."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from mmfuse.testing.suite import Candidate, Suite, require, require_docstring, require_named_options
from mmfuse.training.orders import ORDERS, Given

SUITE = Suite(ORDERS)
Plan = Sequence[Sequence[Sequence[int]]]
ROWS, TRAINED, BATCH, EPOCHS = 70, range(3, 56), 8, 4
"""53 training rows: six batches of 8, and one of 5 to share."""


def _given(world: int, seed: int = 0) -> Given:
    """The rows as one of `world` processes has them, whose batches together are as large as one process's."""
    rng = np.random.default_rng(0)
    kind = rng.choice(3, ROWS, p=[0.8, 0.15, 0.05])
    kind[[3, 4, 5]] = [0, 1, 2]
    table: Any = SimpleNamespace(
        rows={"id": [f"row {i}" for i in range(ROWS)], "group": [f"patient {i // 3}" for i in range(ROWS)]}
        | {"text": [None] * ROWS, "subgroup.sex": ["f" if i % 4 else "m" for i in range(ROWS)]},
        labels={"kind": ["a", "b", "c"]},
        targets={"kind": kind},
        splits=["train" if i in TRAINED else "test" for i in range(ROWS)],
        manifest=SimpleNamespace(
            source="conformance", subgroups=["sex"], tasks={"kind": SimpleNamespace(type="classification")}
        ),
    )
    return Given(table, list(TRAINED), rng.integers(4, 60, ROWS), BATCH // world, world, seed)


def _plans(candidate: Candidate, world: int = 1, seed: int = 0, epochs: Sequence[int] = range(EPOCHS)) -> list[Plan]:
    order = candidate.cls(_given(world, seed), **candidate.options)
    return [order.plan(epoch) for epoch in epochs]


def _plain(plan: Plan) -> list[list[list[int]]]:
    return [[[int(row) for row in rows] for rows in batch] for batch in plan]


@SUITE.check
def _protocol(candidate: Candidate) -> None:
    """Constructor, attributes and docstring."""
    parameters = list(inspect.signature(candidate.cls).parameters)
    require(parameters[:1] == ["given"], "its constructor starts not with `given`")
    require_named_options(candidate.cls)
    require_docstring(candidate.cls)
    order = candidate.cls(_given(1), **candidate.options)
    require(isinstance(getattr(order, "identity", None), str), "it has no `identity`, a str")


@SUITE.check
def _rows(candidate: Candidate) -> None:
    """Rows of the training split alone, in batches that are no larger than they may be, and none is empty."""
    for world in (1, 2):
        for plan in _plans(candidate, world):
            require(len(plan) > 0, "an epoch has no batch")
            for batch in plan:
                require(len(batch) == world, f"a batch has rows of {len(batch)} processes, where there are {world}")
                for rows in batch:
                    require(len(rows) > 0, f"a process of {world} has no row in a batch, and would wait for the others")
                    require(
                        len(rows) <= BATCH // world, f"a process has {len(rows)} rows, and at most {BATCH // world}"
                    )
                    out = [row for row in rows if row not in TRAINED]
                    require(not out, f"row {out and out[0]} is not of the training split")


@SUITE.check
def _deterministic(candidate: Candidate) -> None:
    """An epoch's plan depends on the seed and its number, not on what was planned before, or on a global generator."""
    state = np.random.get_state()  # what a careless order draws from
    try:
        np.random.seed(1)
        first = list(map(_plain, _plans(candidate)))
        np.random.seed(2)
        alone = [_plain(_plans(candidate, epochs=[epoch])[0]) for epoch in range(EPOCHS)]
    finally:
        np.random.set_state(state)
    require(first == alone, "an epoch alone is another one than behind the others: a resumed run would differ")
    other = list(map(_plain, _plans(candidate, seed=1)))
    require(first != other, "another seed gives the same plan")


@SUITE.check
def _epochs(candidate: Candidate) -> None:
    """Epochs differ, and have as many batches."""
    plans = list(map(_plain, _plans(candidate)))
    require(all(plan != plans[0] for plan in plans[1:]), "two epochs have the same plan")
    counts = [len(plan) for plan in plans]
    require(len(set(counts)) == 1, f"epochs have {counts} batches: the learning rate's course needs as many in each")


@SUITE.check
def _processes(candidate: Candidate) -> None:
    """The rows of a global batch are the same for one process and for two."""
    for one, two in zip(_plans(candidate), _plans(candidate, 2), strict=True):
        together = [[Counter(int(row) for rows in batch for row in rows) for batch in plan] for plan in (one, two)]
        require(len(one) == len(two), f"one process has {len(one)} batches, two have {len(two)}")
        require(together[0] == together[1], "two processes have other rows in a batch than one: is `world` drawn by?")


@SUITE.check
def _identity(candidate: Candidate) -> None:
    """`identity` is the same whenever it is asked for."""
    one, two = (candidate.cls(_given(1), **candidate.options).identity for _ in range(2))
    require(one == two, "`identity` differs between two orders of the same rows: no run could be resumed")
