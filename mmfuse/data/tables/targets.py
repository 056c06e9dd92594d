"""A task's column or columns as label names and encoded targets.

In three steps, so that rows may come in blocks: what the rows say (`read_targets`), which labels that makes
(`count_labels`, added up over the blocks, and `choose_labels`), and the targets with these labels (`encode_read`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from mmfuse.data.readers.sections import select_sections
from mmfuse.data.rows import cells
from mmfuse.data.rows.cells import Cell
from mmfuse.data.tables.manifest import TaskSpec
from mmfuse.registry import nearest
from mmfuse.types import MISSING_CLASS, MmfuseError

_POSITIVE, _NEGATIVE, _UNCERTAIN = {"1", "1.0", "yes", "true"}, {"0", "0.0", "no", "false"}, {"-1", "-1.0"}


def encode_targets(
    frame: pd.DataFrame, task: str, spec: TaskSpec, where: str, labels: list[str] | None
) -> tuple[list[str], np.ndarray]:
    """The label names and encoded targets of one task; `labels` are a model's, if it is to be one's with them.

    Raises:
        MmfuseError: As `read_targets` and `choose_labels`.
    """
    found = read_targets(frame, task, spec, where)
    names = choose_labels(count_labels(found, spec), task, spec, where, labels)
    return names, encode_read(found, spec, names)


def read_targets(frame: pd.DataFrame, task: str, spec: TaskSpec, where: str, first: int = 0) -> Any:
    """What some rows say of a task, in labels that are not yet numbered.

    Args:
        frame: The rows.
        task: Named in errors.
        spec: Of the task.
        where: Named in errors.
        first: The number of the first row, from 0; named in errors.

    Returns:
        By row, its class or None; its labels or None; or the tuple of its references. Of label columns `(rows,
        columns)` float32 with NaN where missing.

    Raises:
        MmfuseError: A value is not legal.
    """
    path = f"{where}: tasks.{task}"
    columns = spec.named
    if spec.type == "captioning":
        return _read_captions(frame, columns, spec, path, first)
    if spec.type == "classification":
        return _read_classes(list(frame[columns[0]]), spec, path, first)
    if spec.columns:
        return _read_label_columns(frame, columns, spec, path, first)
    return _read_label_lists(list(frame[columns[0]]), spec, path, first)


def count_labels(found: Any, spec: TaskSpec) -> Counter[str]:
    """By label its positive rows, of what `read_targets` gave; of captions, how many rows have any."""
    if spec.type == "captioning":
        return Counter(captions=sum(map(bool, found)))
    if spec.type == "classification":
        return Counter(v for v in found if v is not None)
    if spec.columns:
        return Counter(dict(zip(spec.columns, (found == 1).sum(0).tolist(), strict=True)))
    return Counter(label for labels in found if labels for label in set(labels))


def choose_labels(
    counts: Counter[str], task: str, spec: TaskSpec, where: str, labels: list[str] | None = None
) -> list[str]:
    """The label names: the model's if given (then nothing else may occur), else in the manifest's or sorted order.

    Args:
        counts: Of all rows, as `count_labels` gives them.
        task: Named in errors.
        spec: Of the task; labels of fewer rows than its `min_count` are left out, but never one of a model's.
        where: Named in errors.
        labels: A model's.

    Raises:
        MmfuseError: Too few labels are left, one is not the model's, or no row has a caption.
    """
    path = f"{where}: tasks.{task}"
    if spec.type == "captioning":
        if not counts["captions"]:
            raise MmfuseError(f"{path}: no row has a caption")
        return []
    table = _value_map(spec)
    if table is not None and (spec.type == "multilabel" or spec.min_count > 1):
        counts = counts.copy()  # by default, a declared class may have no row
        counts.update(dict.fromkeys(table.values(), 0))
    rare = {name for name, n in counts.items() if n < spec.min_count} - set(labels or ())
    found = set(counts) - rare
    if labels is not None:
        strange = sorted(found - set(labels))
        if strange:
            raise MmfuseError(f"{path}: label {strange[0]!r} is not one of the model's; {nearest(strange[0], labels)}")
        return labels
    names = [name for name in (dict.fromkeys(table.values()) if table else sorted(found)) if name not in rare]
    if not any(counts.values()):
        raise MmfuseError(
            f"{path}: no row has a label: {', '.join(spec.named)[:200]} is empty or negative in every row"
        )
    if len(names) < (2 if spec.type == "classification" else 1):
        raise MmfuseError(f"{path}: only {names} is left as label; a task needs more (see values, min_count)")
    return names


def encode_read(found: Any, spec: TaskSpec, names: Sequence[str]) -> np.ndarray:
    """What `read_targets` gave, as `Table.targets` has it; a label that is none of `names` was left out as too rare."""
    if spec.type == "captioning":
        return found
    code = {name: i for i, name in enumerate(names)}
    if spec.type == "classification":
        return np.array([MISSING_CLASS if v is None else code.get(v, MISSING_CLASS) for v in found], dtype=np.int64)
    if spec.columns:
        column = {name: found[:, i] for i, name in enumerate(spec.columns)}
        empty = np.full(len(found), np.nan, dtype=np.float32)
        return np.stack([column.get(name, empty) for name in names], axis=1)
    targets = np.zeros((len(found), len(names)), dtype=np.float32)
    for i, labels in enumerate(found):
        if labels is None:
            targets[i] = np.nan
        else:
            targets[i, [code[label] for label in labels if label in code]] = 1
    return targets


def _value_map(spec: TaskSpec) -> dict[str, str] | None:
    """Raw value -> label, or None where every value is its own label."""
    return {v: v for v in spec.values} if isinstance(spec.values, list) else spec.values


def _read_classes(column: list[Cell], spec: TaskSpec, path: str, first: int) -> list[str | None]:
    table, absent = _value_map(spec), {"", *spec.missing}
    values: list[str | None] = []
    for row, cell in enumerate(column, start=first + 1):
        raw = cell.strip() if isinstance(cell, str) else None
        if raw in absent:
            values.append(None)
        elif table is not None and raw in table:  # also one that is written like a list, such as [0, 10]
            values.append(table[raw])
        elif raw is None or _labels(cell, path, row) is not None:
            way = "of several, type: multilabel; a class that is written so is named in values"
            raise MmfuseError(f"{path}: row {row}: a list, where one class is expected; {way}")
        elif table is None:
            values.append(raw)
        elif spec.other == "missing":
            values.append(None)
        else:
            raise MmfuseError(f"{path}: row {row}: {raw!r} is not in values; {nearest(raw, table)} (or other: missing)")
    return values


def _labels(cell: Cell, path: str, row: int) -> list[str] | None:
    try:
        return cells.labels(cell)
    except MmfuseError as error:
        raise MmfuseError(f"{path}: row {row}: {error}") from error


def _read_label_lists(column: list[Cell], spec: TaskSpec, path: str, first: int) -> list[list[str] | None]:
    table, absent, separator = _value_map(spec), set(spec.missing), (spec.separator or "").strip() or spec.separator
    rows: list[list[str] | None] = []
    for row, cell in enumerate(column, start=first + 1):
        found = _labels(cell, path, row)
        if found is None:
            raw = str(cell).strip()
            if raw and raw not in absent and not separator:
                raise MmfuseError(
                    f"{path}.separator is missing: row {row} is a text, not a list; name the separator of the labels, "
                    "such as ';'"
                )
            found = [part.strip() for part in raw.split(separator) if part.strip()] if raw else []
            known = raw not in absent
        else:
            known = True
        known = known and not (found and absent.issuperset(found))
        found = [part for part in found if part not in absent]
        if not known or (not found and spec.empty == "missing"):
            rows.append(None)
            continue
        strange = [part for part in found if table is not None and part not in table]
        if strange and spec.other == "error":
            raise MmfuseError(f"{path}: row {row}: {strange[0]!r} is not in values; {nearest(strange[0], table or [])}")
        rows.append([table[part] if table else part for part in found if part not in strange])
    return rows


def _read_captions(frame: pd.DataFrame, columns: list[str], spec: TaskSpec, path: str, first: int) -> np.ndarray:
    """By row its references: of a list, of a column with a separator, or of several columns."""
    absent = {"", *spec.missing}
    found = np.empty(len(frame), dtype=object)
    for row, values in enumerate(zip(*(frame[name] for name in columns), strict=True)):
        parts: list[str] = []
        for value in values:
            listed = _caption_list(value, path, first + row)
            parts += listed if listed is not None else value.split(spec.separator) if spec.separator else [value]
        if spec.section:
            parts = [select_sections(report, [spec.section]) for report in parts]
        found[row] = tuple(dict.fromkeys(" ".join(p.split()) for p in parts if p.strip() not in absent))
    return found


def _caption_list(value: Cell, path: str, row: int) -> list[str] | None:
    try:
        return cells.captions(value)
    except MmfuseError as error:
        raise MmfuseError(f"{path}: row {row + 1}: {error}") from error


def _read_label_columns(frame: pd.DataFrame, columns: list[str], spec: TaskSpec, path: str, first: int) -> np.ndarray:
    uncertain = {"mask": np.nan, "positive": 1.0, "negative": 0.0}[spec.uncertain]
    absent = {"", *spec.missing}
    values = np.full((len(frame), len(columns)), np.nan, dtype=np.float32)
    for column, name in enumerate(columns):
        for row, raw in enumerate(cells.texts(frame, name, path, "columns", first)):
            raw = raw.strip()
            if not raw and spec.empty == "negative":
                values[row, column] = 0.0
            elif raw in absent:
                continue
            elif raw.lower() in _POSITIVE or raw.lower() in _NEGATIVE:
                values[row, column] = raw.lower() in _POSITIVE
            elif raw in _UNCERTAIN:
                values[row, column] = uncertain
            else:
                raise MmfuseError(
                    f"{path}: column {name!r}, row {first + row + 1}: {raw!r}; legal: 1, 0, -1 (uncertain), empty"
                )
    return values


def one_hot(target: np.ndarray, num_labels: int) -> np.ndarray:
    """Encoded targets of either kind as `(rows, L)` 0/1 float64; a missing one is 0 everywhere."""
    if target.ndim == 2:
        return np.nan_to_num(target.astype(np.float64))
    return np.eye(num_labels + 1)[np.where(target == MISSING_CLASS, num_labels, target)][:, :num_labels]


def labelled(target: np.ndarray) -> np.ndarray:
    """`(rows,)` bool: which rows of a task's targets, as `Table.targets` has them, say anything."""
    if target.dtype == object:  # references
        return np.array([bool(captions) for captions in target], dtype=bool)
    return np.asarray(target != MISSING_CLASS if target.ndim == 1 else ~np.isnan(target).all(axis=1))


def has_both(target: np.ndarray) -> bool:
    """Whether a label has positive and negative rows among these targets, so that its AUROC is defined."""
    if target.ndim == 1:
        return len(np.unique(target[target != MISSING_CLASS])) > 1
    return bool(((target == 1).any(axis=0) & (target == 0).any(axis=0)).any())
