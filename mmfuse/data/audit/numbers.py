"""What is wrong with targets that are numbers, and whether the texts say them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from mmfuse.data.audit.findings import Finding, finding
from mmfuse.data.audit.rows import Rows
from mmfuse.data.tables.splits import SPLITS
from mmfuse.data.tables.table import Table

_SHARE, _RATIO, _ROWS = 0.02, 5.0, 5
"""Texts state the target where so large a share of the rows, and so many, hold their own, and so much more often than
they hold other rows' targets."""
_MOST = 0.2
_SHUFFLES = 3
_SKEW = 2.0


def check_numbers(table: Table, rows: Rows) -> list[Finding]:
    """What is wrong with the targets of tasks that are numbers, and which rows' texts hold their own."""
    found: list[Finding] = []
    split = np.array(rows.splits)
    for task in table.labels:
        kind, target = table.kind(task), table.targets[task]
        if not pa.types.is_floating(kind.arrow):  # a number a row
            continue
        known = kind.labelled(target)
        found += _check_spread(task, target, known, split, getattr(kind, "log", False))
        found += _check_stated(task, kind, rows, target, known)
    return found


def _check_spread(task: str, target: np.ndarray, known: np.ndarray, split: np.ndarray, log: bool) -> list[Finding]:
    found = []
    for name in SPLITS:
        of_split, values = split == name, target[known & (split == name)]
        if of_split.any() and len(np.unique(values)) < 2:
            what = "no row has a value" if not len(values) else "all values are equal"
            fix = "name another column, or change the splits: nothing can be learned or scored there"
            severity = "error" if name == "train" else "warning"
            found.append(Finding("numbers.constant", severity, f"task {task}: in {name} {what}", fix))
    values = target[known & (split == "train")].astype(np.float64)
    if not log and len(values) > 2 and values.min() > 0 and _skew(values) > max(_SKEW, 2 * abs(_skew(np.log(values)))):
        large, share = np.sort(values)[-max(1, len(values) // 100) :], (values - values.mean()) ** 2
        told = share[values >= large[0]].sum() / share.sum()
        message = f"task {task}: a long tail: the largest 1 % of the training values make {told:.0%} of their variance"
        fix = f"tasks.{task}.transform: log, where errors are factors: else squared errors and R2 are those of few rows"
        found.append(Finding("numbers.long_tail", "info", message, fix))
    return found


def _skew(values: np.ndarray) -> float:
    away = values - values.mean()
    spread = values.std()
    return float((away**3).mean() / spread**3) if spread else 0.0


def _check_stated(task: str, kind: Any, rows: Rows, target: np.ndarray, known: np.ndarray) -> list[Finding]:
    """Rows whose own number stands in their text, where that is no chance: other rows' numbers stand there less."""
    chosen = [row for row, text in enumerate(rows.texts) if text and known[row]]
    stated = [row for row in chosen if kind.stated(rows.texts[row] or "", target[row])]
    share = len(stated) / max(1, len(chosen))
    if len(stated) < _ROWS or share < _SHARE:
        return []
    chance = np.mean([_by_chance(kind, rows.texts, target, chosen, seed) for seed in range(_SHUFFLES)])
    if share < _RATIO * chance:
        return []
    message = (
        f"task {task}: the number to predict stands in the text of {len(stated)} row(s), {share:.0%} of those with a "
        f"text; another row's number in {chance:.1%}"
    )
    fix = "take the number out of the text: the model would read the answer, and has none where it is used"
    severity = "error" if share >= _MOST else "warning"
    return [finding("numbers.stated_in_text", severity, message, fix, rows.names(stated))]


def _by_chance(kind: Any, texts: Sequence[str | None], target: np.ndarray, chosen: Sequence[int], seed: int) -> float:
    """The share of rows whose text holds the different target of a row drawn for it."""
    others = np.random.default_rng((seed, len(chosen))).permutation(chosen)
    pairs = [(row, other) for row, other in zip(chosen, others, strict=True) if target[row] != target[other]]
    return sum(kind.stated(texts[row] or "", target[other]) for row, other in pairs) / max(1, len(pairs))
