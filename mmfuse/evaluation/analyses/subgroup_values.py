"""A column's cells as subgroups: its values, or the quarters of a column of numbers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MISSING = "(missing)"
MOST_NUMBERS = 12
"""A column of more different numbers than this is cut into quarters."""
MOST_SUBGROUPS = 40
"""Subgroups with rows enough that one column may have."""


class Subgroups(NamedTuple):
    """Which subgroup each of N rows is in.

    Attributes:
        names: `(K,)`, in order; numbers by size, missing ones last.
        of_row: `(N,)` in 0 to K - 1.
        binned: Whether they are quarters of numbers.
    """

    names: list[str]
    of_row: NDArray[np.int64]
    binned: bool


def split_values(cells: Sequence[str]) -> Subgroups:
    """A column's cells as subgroups; an empty cell is `MISSING`.

    Where all values are numbers, and more than `MOST_NUMBERS` different ones, they are cut at the quartiles of these
    rows: another split is cut elsewhere.
    """
    values = [cell.strip() or MISSING for cell in cells]
    different = sorted({value for value in values if value != MISSING})
    numbers = [as_number(value) for value in different]
    binned = False
    if numbers and None not in numbers:
        by_value = {value: float(number or 0) for value, number in zip(different, numbers, strict=True)}
        if len(set(by_value.values())) > MOST_NUMBERS:
            values, different, binned = *_quarters(values, by_value), True
        else:
            different = sorted(different, key=lambda value: (by_value[value], value))
    names = [*different, *([MISSING] if MISSING in values else [])]
    place = {name: k for k, name in enumerate(names)}
    return Subgroups(names, np.array([place[value] for value in values], dtype=np.int64), binned)


def _quarters(values: Sequence[str], by_value: dict[str, float]) -> tuple[list[str], list[str]]:
    known = [by_value[value] for value in values if value != MISSING]
    cuts = list(dict.fromkeys(f"{cut:.10g}" for cut in np.quantile(known, (0.25, 0.5, 0.75)).tolist()))
    between = [f"{a} to below {b}" for a, b in itertools.pairwise(cuts)]
    names = [f"below {cuts[0]}", *between, f"{cuts[-1]} and more"]
    edges = [float(cut) for cut in cuts]  # as they are told
    found = [MISSING if v == MISSING else names[int(np.searchsorted(edges, by_value[v], side="right"))] for v in values]
    return found, [name for name in names if name in set(found)]


def as_number(value: str) -> float | None:
    """The finite number that a cell says; None where it says none."""
    try:
        number = float(value)
    except ValueError:
        return None
    return number if np.isfinite(number) else None
