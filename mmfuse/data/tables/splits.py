"""Which row is for what: groups whole, stable under new rows, or stratified."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np

from mmfuse.seeds import unit_hash
from mmfuse.types import MmfuseError

SPLITS = ("train", "validation", "test")


def split_by_hash(groups: Sequence[str], shares: dict[str, float], seed: int) -> list[str]:
    """A part for each row by hash of its group: adding rows never moves an old one.

    Args:
        groups: The rows' groups; rows of one group get one part.
        shares: Part -> its share, summing to 1.
        seed: Another one gives another split.
    """
    names, edges = list(shares), np.cumsum(list(shares.values()))
    part = {
        g: names[min(int(np.searchsorted(edges, unit_hash(seed, g), side="right")), len(names) - 1)]
        for g in set(groups)
    }
    return [part[g] for g in groups]


def split_stratified(groups: Sequence[str], labels: np.ndarray, shares: dict[str, float], seed: int) -> list[str]:
    """A part for each row, groups whole, with each label's rows spread over the parts as the shares say.

    Greedy: the largest group first (ties by hash), each into the part where the labels it brings are missed most, as in
    scikit-learn's StratifiedGroupKFold, here for parts of any size.

    Args:
        groups: The rows' groups; rows of one group get one part.
        labels: `(rows, labels)` 0/1: which labels each row counts for; a row may count for none.
        shares: Part -> its share, summing to 1.
        seed: Another one gives another split.
    """
    names = list(shares)
    unique, member = np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)
    counted = np.concatenate([labels, np.ones((len(labels), 1))], axis=1)  # the last one: the rows themselves
    of_group = np.zeros((len(unique), counted.shape[1]))
    np.add.at(of_group, member, counted)
    wanted = np.outer(list(shares.values()), of_group.sum(0))
    scale = 1 / np.maximum(of_group.sum(0), 1)
    have = np.zeros_like(wanted)
    order = sorted(range(len(unique)), key=lambda g: (-of_group[g, -1], unit_hash(seed, unique[g])))
    part = np.zeros(len(unique), dtype=int)
    for g in order:
        gain = ((wanted - have) * of_group[g] * scale / np.maximum(wanted * scale, 1e-9)).sum(1)
        part[g] = int(np.argmax(gain))
        have[part[g]] += of_group[g]
    return [names[part[g]] for g in member]


def parse_times(cells: Sequence[str], names: Sequence[str], where: str) -> list[float] | list[datetime]:
    """Times that can be compared: all of them numbers, or all of them dates of ISO 8601.

    Args:
        cells: Such as "2024-01-31", "2024-01-31T08:30:00Z", "2024-01", "2024", or any numbers.
        names: Of the rows; named in errors, where the cells are not.
        where: Named in errors.

    Raises:
        MmfuseError: A row says nothing, or nothing that is legal, or only some dates have a time zone.
    """
    cells = [cell.strip() for cell in cells]
    empty = next((name for cell, name in zip(cells, names, strict=True) if not cell), None)
    if empty is not None:
        raise MmfuseError(f"{where}: row {empty!r} has no time: fill it in, or leave the row out")
    numbers = list(map(_number, cells))
    if all(number is not None for number in numbers):
        return [number for number in numbers if number is not None]
    dates = []
    for cell, name in zip(cells, names, strict=True):
        date = _date(cell)
        if date is None:
            raise MmfuseError(
                f"{where}: row {name!r} has no date as ISO 8601 writes it, such as 2024-01-31 (or every row a number)"
            )
        dates.append(date)
    zones = [date.tzinfo is not None for date in dates]
    if len(set(zones)) > 1:
        bare = names[zones.index(False)]
        raise MmfuseError(f"{where}: row {bare!r} has no time zone, but others have one: give it to all or to none")
    return dates


def _number(cell: str) -> float | None:
    try:
        number = float(cell)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


_YEAR, _MONTH = re.compile(r"\d{4}"), re.compile(r"\d{4}-\d{2}")


def _date(cell: str) -> datetime | None:
    whole = f"{cell}-01-01" if _YEAR.fullmatch(cell) else f"{cell}-01" if _MONTH.fullmatch(cell) else cell
    try:
        date = datetime.fromisoformat(whole)
        return date if date.tzinfo is None else date.astimezone(UTC)
    except (ValueError, OverflowError):  # in UTC, the first day of the year 1 may be before all time
        return None


def split_by_time(
    groups: Sequence[str], times: Sequence[float] | Sequence[datetime], shares: dict[str, float], where: str
) -> list[str]:
    """A part for each row, groups whole, the earliest to train on and the latest to test on.

    A group is where its latest row is, so nothing that is trained on comes after anything that is tested; its earlier
    rows go with it. Groups that end at one time are in one part, and a part ends where its share is met best.

    Args:
        groups: The rows' groups.
        times: The rows' times.
        shares: Part -> its share of the rows, summing to 1; a part of share 0 gets none.
        where: Named in errors.

    Raises:
        MmfuseError: There are fewer times at which groups end than parts.
    """
    latest: dict[str, float | datetime] = {}
    for group, time in zip(groups, times, strict=True):
        latest[group] = max(latest.get(group, time), time)  # type: ignore[type-var]
    ends, place = np.unique(np.array([latest[group] for group in groups], dtype=object), return_inverse=True)
    parts = [part for part in SPLITS if shares.get(part, 0) > 0]
    if len(ends) < len(parts):
        raise MmfuseError(f"{where}: {len(ends)} time(s) at which a group ends cannot be cut into {len(parts)} splits")
    before = np.concatenate([[0], np.bincount(place).cumsum()])
    of_time, first = np.full(len(ends), parts[-1], dtype=object), 0
    for number, part in enumerate(parts[:-1]):
        wanted = sum(shares[name] for name in parts[: number + 1]) * len(groups)
        legal = range(first + 1, len(ends) - (len(parts) - number - 1) + 1)  # each part behind it gets a time too
        end = min(legal, key=lambda at: (abs(before[at] - wanted), at))
        of_time[first:end], first = part, end
    return of_time[place].tolist()
