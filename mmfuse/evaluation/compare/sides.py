"""The two sides of a comparison: models that are run, and files of predictions that are read."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from mmfuse.data.rows.spreadsheet import restored
from mmfuse.metrics.scored import Scored
from mmfuse.model import FusionModel
from mmfuse.tasks import TASKS, TaskKind, build_task
from mmfuse.types import MmfuseError

SUFFIXES = (".jsonl", ".csv", ".parquet")


@dataclass(frozen=True)
class Predictions:
    """A file of predictions.

    Attributes:
        path: Of the file.
        rows: By id, as the file has them: of JSON with `tasks`, else flat.
    """

    path: Path
    rows: dict[str, dict[str, Any]]

    def tasks(self, among: Sequence[str] | None = None) -> list[str]:
        """The tasks that the file tells of; of a flat file they are found among those that are known."""
        first = next(iter(self.rows.values()))
        if "tasks" in first:
            return list(first["tasks"])
        return [task for task in among or () if any(name.startswith(f"{task}.") for name in first)]

    def told(self, task: str, kind: TaskKind, ids: Sequence[str]) -> list[dict[str, Any]]:
        """What `kind.decide` gave of some rows.

        Raises:
            MmfuseError: A row does not tell of the task, or not what its kind says.
        """
        rows = [self.rows[id] for id in ids]
        if any("tasks" in row and task not in row["tasks"] for row in rows):
            raise MmfuseError(f"{self.path}: a row says nothing of task {task!r}")
        with self.reads(task):
            found = [row["tasks"][task] if "tasks" in row else kind.unflat(task, row) for row in rows]
            kind.reread(found, kind.unshown([None] * len(found)))
        return found

    @contextmanager
    def reads(self, task: str) -> Iterator[None]:
        """Whatever cannot be read of a task within is an error of the file.

        Raises:
            MmfuseError: It names the file.
        """
        try:
            yield
        except (KeyError, TypeError, AttributeError, ValueError) as error:  # MmfuseError is a ValueError
            why = f"a row lacks {error}" if isinstance(error, KeyError) else error
            raise MmfuseError(f"{self.path}: predictions of {task}: {why}") from error


Side = FusionModel | Predictions


@dataclass(frozen=True)
class Said:
    """What one side says of the rows of a task.

    Attributes:
        kind: What the task's target is, with this side's thresholds.
        told: By row what a file of predictions has.
        predicted: By row of `predictions`, where a model was run.
    """

    kind: TaskKind
    told: list[dict[str, Any]]
    predicted: np.ndarray | None = None

    def scored(self, rows: np.ndarray, target: np.ndarray) -> Scored:
        """As a metric sees it: some rows, with the targets `(len(rows), ...)` of these."""
        if self.predicted is not None:
            return self.kind.scored(self.predicted[rows], target)
        return self.kind.reread([self.told[row] for row in rows], target)

    def take(self, rows: Sequence[int]) -> Said:
        """The same of some rows."""
        predicted = None if self.predicted is None else self.predicted[list(rows)]
        return Said(self.kind, [self.told[row] for row in rows], predicted)


def open_side(source: str | Path | FusionModel) -> Side:
    """A loaded model, a model folder or Hub id, or a file of predictions.

    Raises:
        MmfuseError: It cannot be read.
    """
    if isinstance(source, FusionModel):
        return source
    path = Path(source)
    if path.is_file() and path.suffix not in SUFFIXES:
        raise MmfuseError(f"{path}: a model folder, or predictions ({', '.join(SUFFIXES)}), is expected")
    return read_predictions(path) if path.suffix in SUFFIXES else FusionModel.from_pretrained(source)


def side_name(source: str | Path | FusionModel) -> str:
    """What a side is called in a report."""
    return "a loaded model" if isinstance(source, FusionModel) else str(source)


def read_predictions(path: Path) -> Predictions:
    """What `predict` or `evaluate` has written.

    Raises:
        MmfuseError: It cannot be read, or is no file of predictions.
    """
    rows: dict[str, dict[str, Any]] = {}
    try:
        for row in _rows(path):
            if not isinstance(row, dict) or "id" not in row:
                there = f", but {', '.join(map(str, row))[:60]!r}" if isinstance(row, dict) else ""
                raise MmfuseError(f"{path}: not a file of predictions: a row has no id{there}")
            if "tasks" in row and not (isinstance(row["tasks"], dict) and _all_told(row["tasks"])):
                raise MmfuseError(f"{path}: not a file of predictions: tasks of row {row['id']!r:.60} are no mappings")
            if str(row["id"]) in rows:
                raise MmfuseError(f"{path}: the id {row['id']!r} is there twice")
            rows[str(row["id"])] = row
    except (OSError, ValueError, csv.Error) as error:
        if isinstance(error, MmfuseError):
            raise
        raise MmfuseError(f"{path}: cannot be read as predictions: {error}") from error
    if not rows:
        raise MmfuseError(f"{path}: there is no prediction in it")
    return Predictions(path, rows)


def _all_told(tasks: dict[str, Any]) -> bool:
    return all(isinstance(told, dict) for told in tasks.values())


def _rows(path: Path) -> Sequence[Any]:
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8-sig") as handle:
            lines = list(csv.DictReader(handle, strict=True))
        if any(None in line or None in line.values() for line in lines):
            raise MmfuseError(f"{path}: damaged: a row has more or fewer cells than there are columns")
        return [{restored(k): restored(v) for k, v in line.items()} for line in lines]
    with path.open(encoding="utf-8", errors="surrogateescape") as handle:
        return [json.loads(line) for line in handle]


def kind_told(told: Mapping[str, Any], where: str) -> tuple[str, TaskKind]:
    """Which kind of task says this of a row, by the fields of its decisions; the labels are in their order there.

    Raises:
        MmfuseError: No registered kind does, or several do.
    """
    fitting = {name: set(TASKS.get(name).fields) for name in TASKS.names()}  # pyright: ignore[reportAttributeAccessIssue]
    fitting = {name: fields for name, fields in fitting.items() if fields <= told.keys()}
    most = max(map(len, fitting.values()), default=0)
    names = [name for name, fields in fitting.items() if len(fields) == most]
    if len(names) != 1:
        what = f"of {' or '.join(names)}" if names else "of no known kind"
        raise MmfuseError(f"{where} are {what}: name the manifest too")
    return names[0], build_task(names[0], list(told.get("probabilities") or ()))
