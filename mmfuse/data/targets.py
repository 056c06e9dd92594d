"""A task's column or columns as label names and encoded targets."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pandas as pd

from mmfuse.data.manifest import TaskSpec
from mmfuse.data.rows import need_columns
from mmfuse.data.sections import select_sections
from mmfuse.registry import nearest
from mmfuse.types import MISSING_CLASS, MmfuseError


def encode_targets(
    frame: pd.DataFrame, task: str, spec: TaskSpec, where: str, labels: list[str] | None
) -> tuple[list[str], np.ndarray]:
    """The label names and encoded targets of one task; `labels` are a model's, if it is to be one's with them."""
    path = f"{where}: tasks.{task}"
    columns = [spec.column] if spec.column else list(spec.columns or [])
    need_columns(frame, columns, f"tasks.{task}", where)
    if spec.type == "captioning":
        return [], _encode_captions(frame, columns, spec, path)
    if spec.type == "classification":
        return _encode_classes(list(frame[columns[0]]), spec, path, labels)
    if spec.columns:
        return _encode_label_columns(frame, spec, path, labels)
    return _encode_label_lists(list(frame[columns[0]]), spec, path, labels)


def _value_map(spec: TaskSpec) -> dict[str, str] | None:
    """Raw value -> label, or None where every value is its own label."""
    return {v: v for v in spec.values} if isinstance(spec.values, list) else spec.values


def _rare(counts: Counter[str], spec: TaskSpec, labels: list[str] | None) -> set[str]:
    """The labels that `min_count` leaves out; never one of a model's `labels`."""
    return {name for name, n in counts.items() if n < spec.min_count} - set(labels or ())


def _fit_labels(found: set[str], rare: set[str], spec: TaskSpec, path: str, labels: list[str] | None) -> list[str]:
    """The label names: the model's if given (then nothing else may occur), else in the manifest's or sorted order."""
    if labels is not None:
        strange = sorted(found - set(labels))
        if strange:
            raise MmfuseError(f"{path}: label {strange[0]!r} is not one of the model's; {nearest(strange[0], labels)}")
        return labels
    table = _value_map(spec)
    names = [name for name in (dict.fromkeys(table.values()) if table else sorted(found)) if name not in rare]
    if len(names) < (2 if spec.type == "classification" else 1):
        raise MmfuseError(f"{path}: only {names} is left as label; a task needs more (see values, min_count)")
    return names


def _encode_classes(
    column: list[str], spec: TaskSpec, path: str, labels: list[str] | None
) -> tuple[list[str], np.ndarray]:
    table, absent = _value_map(spec), {"", *spec.missing}
    values: list[str | None] = []
    for row, raw in enumerate(column):
        raw = raw.strip()
        if raw in absent:
            values.append(None)
        elif table is None:
            values.append(raw)
        elif raw in table:
            values.append(table[raw])
        elif spec.other == "missing":
            values.append(None)
        else:
            raise MmfuseError(
                f"{path}: row {row + 1}: {raw!r} is not in values; {nearest(raw, table)} (or other: missing)"
            )
    counts = Counter(v for v in values if v is not None)
    if table is not None and spec.min_count > 1:  # by default, a declared class may have no row
        counts.update(dict.fromkeys(table.values(), 0))
    rare = _rare(counts, spec, labels)
    values = [None if v in rare else v for v in values]
    names = _fit_labels({v for v in values if v is not None}, rare, spec, path, labels)
    code = {name: i for i, name in enumerate(names)}
    return names, np.array([MISSING_CLASS if v is None else code[v] for v in values], dtype=np.int64)


def _encode_label_lists(
    column: list[str], spec: TaskSpec, path: str, labels: list[str] | None
) -> tuple[list[str], np.ndarray]:
    table, absent, separator = _value_map(spec), set(spec.missing), (spec.separator or "").strip() or spec.separator
    rows: list[list[str] | None] = []
    for row, raw in enumerate(column):
        raw = raw.strip()
        if raw in absent or (not raw and spec.empty == "missing"):
            rows.append(None)
            continue
        found = [part.strip() for part in raw.split(separator) if part.strip()]
        strange = [part for part in found if table is not None and part not in table]
        if strange and spec.other == "error":
            raise MmfuseError(
                f"{path}: row {row + 1}: {strange[0]!r} is not in values; {nearest(strange[0], table or [])}"
            )
        rows.append([table[part] if table else part for part in found if part not in strange])
    counts = Counter(label for found in rows if found for label in set(found))
    counts.update(dict.fromkeys((table or {}).values(), 0))
    rare = _rare(counts, spec, labels)
    rows = [None if found is None else [f for f in found if f not in rare] for found in rows]
    names = _fit_labels({label for found in rows if found for label in found}, rare, spec, path, labels)
    code = {name: i for i, name in enumerate(names)}
    targets = np.zeros((len(rows), len(names)), dtype=np.float32)
    for i, found in enumerate(rows):
        if found is None:
            targets[i] = np.nan
        else:
            targets[i, [code[f] for f in found]] = 1
    return names, targets


def _encode_captions(frame: pd.DataFrame, columns: list[str], spec: TaskSpec, path: str) -> np.ndarray:
    """By row its references: of a list, of a column with a separator, or of several columns."""
    absent = {"", *spec.missing}
    found = np.empty(len(frame), dtype=object)
    for row, values in enumerate(zip(*(frame[name] for name in columns), strict=True)):
        parts: list[str] = []
        for value in values:
            if value.startswith("["):  # a list in jsonl or parquet
                parts += _caption_list(value, path, row)
            else:
                parts += value.split(spec.separator) if spec.separator else [value]
        if spec.section:
            parts = [select_sections(report, [spec.section]) for report in parts]
        found[row] = tuple(dict.fromkeys(" ".join(p.split()) for p in parts if p.strip() not in absent))
    if not any(found):
        raise MmfuseError(f"{path}: no row has a caption")
    return found


def _caption_list(value: str, path: str, row: int) -> list[str]:
    try:
        parts = json.loads(value)
    except ValueError:
        return [value]  # a text that begins with a bracket
    if not all(isinstance(part, str) for part in parts):
        raise MmfuseError(f"{path}: row {row + 1}: a list of captions is expected to hold strings only")
    return parts


_POSITIVE, _NEGATIVE, _UNCERTAIN = {"1", "1.0", "yes", "true"}, {"0", "0.0", "no", "false"}, {"-1", "-1.0"}


def _encode_label_columns(
    frame: pd.DataFrame, spec: TaskSpec, path: str, labels: list[str] | None
) -> tuple[list[str], np.ndarray]:
    uncertain = {"mask": np.nan, "positive": 1.0, "negative": 0.0}[spec.uncertain]
    absent = {"", *spec.missing}
    names, columns = [], []
    for name in spec.columns or []:
        values = np.full(len(frame), np.nan, dtype=np.float32)
        for row, raw in enumerate(frame[name]):
            raw = raw.strip()
            if not raw and spec.empty == "negative":
                values[row] = 0.0
            elif raw in absent:
                continue
            elif raw.lower() in _POSITIVE or raw.lower() in _NEGATIVE:
                values[row] = raw.lower() in _POSITIVE
            elif raw in _UNCERTAIN:
                values[row] = uncertain
            else:
                raise MmfuseError(
                    f"{path}: column {name!r}, row {row + 1}: {raw!r}; legal: 1, 0, -1 (uncertain), empty"
                )
        if name in (labels or ()) or np.nansum(values) >= spec.min_count:
            names.append(name)
            columns.append(values)
    found = _fit_labels(set(names), set(), spec, path, labels)
    order = [names.index(name) if name in names else None for name in found]
    empty = np.full(len(frame), np.nan, dtype=np.float32)
    return found, np.stack([empty if i is None else columns[i] for i in order], axis=1)


def one_hot(target: np.ndarray, num_labels: int) -> np.ndarray:
    """Encoded targets of either kind as `(rows, L)` 0/1 float64; a missing one is 0 everywhere."""
    if target.ndim == 2:
        return np.nan_to_num(target.astype(np.float64))
    return np.eye(num_labels + 1)[np.where(target == MISSING_CLASS, num_labels, target)][:, :num_labels]
