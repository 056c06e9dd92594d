"""Decisions that two models make otherwise: which, how many, and in which direction."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmfuse.evaluation.compare.pairing import PairedTask, Pairing
from mmfuse.metrics.compared import Flips
from mmfuse.metrics.scored import Scored

Bools = NDArray[np.bool_]
RIGHT_TO_WRONG, WRONG_TO_RIGHT, WRONG_TO_WRONG = "right -> wrong", "wrong -> right", "wrong -> wrong"


class Decisions:
    """What two models decided of the same n rows, a decision a row, or one a row and label, `(n, D)` each.

    Args:
        a: Of one model; of a task with labels.
        b: Of the other.

    Attributes:
        known: Where the truth is known.
        a_right: Where it is, and a is right.
        b_right: The same of b.
        differ: Where it is, and they differ.
    """

    def __init__(self, a: Scored, b: Scored):
        truth, self.a, self.b = (each.reshape(len(a), -1) for each in (a.target, a.decided, b.decided))
        self.known = ~np.isnan(truth.astype(np.float64))
        self.a_right, self.b_right = self.known & (self.a == truth), self.known & (self.b == truth)
        self.differ = self.known & (self.a != self.b)

    def flips(self, rows: Any = slice(None), column: Any = slice(None)) -> Flips:
        """How many flip, of some rows and columns."""
        known, a, b, differ = (each[rows][:, column] for each in (self.known, self.a_right, self.b_right, self.differ))
        return {
            "decisions": int(known.sum()),
            "right_to_wrong": int((differ & a).sum()),
            "wrong_to_right": int((differ & b).sum()),
            "wrong_to_wrong": int((differ & ~a & ~b).sum()),
        }


def write_flips(path: Path, pairing: Pairing, scored: dict[str, tuple[Scored, Scored]]) -> None:
    """A line of JSON for each decision that flips, by task in the order of rows.

    Each has `task`, `id`, `group`, `flip`, the `label` where there is a decision a label, the `target`, and of `a` and
    of `b` what it said and the `probability` of that, of labels of the label.

    Args:
        path: Of the file.
        pairing: The rows.
        scored: By task with decisions, both sides.
    """
    with path.open("w", encoding="utf-8") as handle:
        for task, (a, b) in scored.items():
            for line in _lines(task, pairing.tasks[task], pairing.ids, pairing.groups, a, b):
                handle.write(json.dumps(line, ensure_ascii=False) + "\n")


def _lines(
    task: str, paired: PairedTask, ids: Sequence[str], groups: Sequence[str], a: Scored, b: Scored
) -> Iterator[dict[str, Any]]:
    decisions = Decisions(a, b)
    for place, column in np.argwhere(decisions.differ).tolist():
        row = int(a.rows[place])
        was, now = bool(decisions.a_right[place, column]), bool(decisions.b_right[place, column])
        line: dict[str, Any] = {"task": task, "id": ids[row], "group": groups[row]}
        line["flip"] = RIGHT_TO_WRONG if was else WRONG_TO_RIGHT if now else WRONG_TO_WRONG
        if a.exclusive:
            line["target"] = a.labels[int(a.target[place])]
            line |= {name: _class(side, place) for name, side in (("a", a), ("b", b))}
        else:
            line |= {"label": a.labels[column], "target": bool(a.target[place, column])}
            line |= {name: _label(side, place, column) for name, side in (("a", a), ("b", b))}
        yield line


def _class(side: Scored, place: int) -> dict[str, Any]:
    said = int(side.decided[place])
    return {"said": side.labels[said], "probability": _probability(side, place, said)}


def _label(side: Scored, place: int, column: int) -> dict[str, Any]:
    return {"said": bool(side.decided[place, column]), "probability": _probability(side, place, column)}


def _probability(side: Scored, place: int, column: int) -> float | None:
    return None if side.probabilities is None else round(float(side.probabilities[place, column]), 6)
