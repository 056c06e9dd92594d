"""Classes or groups equally often."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np

from mmfuse.data.batches.order import epoch_batches
from mmfuse.registry import nearest
from mmfuse.training.orders import ORDERS, Given
from mmfuse.types import MISSING_CLASS, MmfuseError

GROUP = "group"
"""Means the manifest's `group`, such as a patient; a task of this name cannot be balanced by."""


@ORDERS.register("balanced")
class Balanced:
    """Every class, or every group, equally often: rare ones' rows are repeated, frequent ones' drawn from.

    An epoch has as many rows as without it. A class with fewer rows than its part has each of them equally often, one
    with more has others in each epoch. Rows without the class, or without a value, are left out.

    Reference: Japkowicz and Stephen 2002, The Class Imbalance Problem (random over- and undersampling).
    Differs: drawn without replacement as far as there are rows, and as many rows an epoch as before.
    Prefer when: a class or group is rare and must not be neglected. Probabilities are then those of balanced classes:
        temperatures and thresholds fitted on validation rows mend decisions, not every bias.

    Args:
        given: The rows.
        by: A classification task, "group", or a column of the manifest's `subgroups`; default: the only classification
            task.

    Raises:
        MmfuseError: There is none, or the training rows are all of one class or group.
    """

    def __init__(self, given: Given, by: str | None = None):
        self.given = given
        by = _only_task(given) if by is None else by
        found: dict[Any, list[int]] = {}
        for row, value in zip(given.rows, _values(given, by), strict=True):
            if value is not None:
                found.setdefault(value, []).append(row)
        if len(found) < 2:
            raise MmfuseError(f"training.order: balanced: by: the training rows have {len(found)} value of {by!r}")
        self.parts = [np.array(found[value]) for value in sorted(found)]
        rows = [part.tolist() for part in self.parts]
        self.identity = f"balanced {hashlib.sha256(json.dumps(rows).encode()).hexdigest()}"

    def plan(self, epoch: int) -> list[list[list[int]]]:
        """The epoch's batches, texts of like length together, as `by_length` makes them of the rows that are drawn."""
        g = self.given
        rng = np.random.default_rng([g.seed, epoch, 1])  # behind that of `epoch_batches`
        each, left = divmod(sum(map(len, self.parts)), len(self.parts))
        more = set(rng.permutation(len(self.parts))[:left].tolist())
        drawn: list[int] = []
        for i, part in enumerate(self.parts):
            copies, some = divmod(each + (i in more), len(part))
            drawn += [*part.tolist() * copies, *rng.permutation(part)[:some].tolist()]
        return epoch_batches(drawn, g.lengths, g.batch_size, g.world, g.seed, epoch)


def _only_task(given: Given) -> str:
    tasks = [name for name in given.table.targets if given.table.manifest.tasks[name].type == "classification"]
    if len(tasks) != 1:
        raise MmfuseError(
            f"training.order: balanced: by: one of {', '.join([*tasks, GROUP, *given.table.manifest.subgroups])} is "
            "expected"
        )
    return tasks[0]


def _values(given: Given, by: str) -> list[Any]:
    """By training row its class or group; None where it is missing."""
    table, where = given.table, "training.order: balanced: by:"
    tasks = {name: table.manifest.tasks[name].type for name in table.targets}
    if by == GROUP or by in table.manifest.subgroups:
        column = table.rows[by if by == GROUP else f"subgroup.{by}"][:]
        return [column[row] or None for row in given.rows]
    if by not in tasks:
        classes = [name for name, kind in tasks.items() if kind == "classification"]
        raise MmfuseError(f"{where} {nearest(by, [*classes, GROUP, *table.manifest.subgroups])}")
    if tasks[by] != "classification":
        raise MmfuseError(
            f"{where} task {by!r} is {tasks[by]}, whose rows are of no one class; choose a classification task, group "
            f"or a subgroup, or set tasks.{by}.class_weights: balanced"
        )
    return [None if value == MISSING_CLASS else int(value) for value in table.targets[by][list(given.rows)]]
