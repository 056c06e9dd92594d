"""Predictions of what one holds: as a DataFrame in which nothing is lost, and as vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from mmfuse.data.given import column, column_names, is_in_memory, location
from mmfuse.model import FusionModel
from mmfuse.predict import Predictor, TableStudies, open_studies
from mmfuse.predict.files import flat_row, table_columns
from mmfuse.predict.frames import frame_samples
from mmfuse.predict.tables import TableOptions, row_samples
from mmfuse.types import Failure, Prediction, Sample

ERROR = "error"
"""The column of the reasons."""


@dataclass(frozen=True)
class Rows:
    """What is to be predicted, in the order of what was given.

    Attributes:
        samples: One a row.
        total: How many.
        ids: What the rows are called in the output; None: as the samples are.
        index: Of a frame; None: none.
    """

    samples: Iterable[Sample]
    total: int
    ids: Any = None
    index: Any = None


def open_rows(data: Any, model: FusionModel, asked: str | None, root: str) -> Rows:
    """Rows that are held or named, as samples in their order.

    Args:
        data: A pandas DataFrame, a `datasets.Dataset`, or where studies are, as `mmfuse predict` takes it: a file of
            rows, a folder, a manifest, shards, `hf:NAME@split`.
        model: Which columns are what, it says.
        asked: What relative paths are relative to; None: of a file of rows its folder,
        root: and this of a frame.

    Raises:
        MmfuseError: Nothing is there, or a column is missing that the model reads.
    """
    if is_in_memory(data):
        names = column_names(data)
        index = data.index if isinstance(data, pd.DataFrame) else None
        own = model.inputs.id if model.inputs else "id"
        ids = column(data, own) if own in names else list(range(len(data)) if index is None else index)
        return Rows(frame_samples(data, model.inputs, asked or root), len(data), ids, index)
    studies = open_studies(location(data), options=TableOptions(image_root=asked), model=model)
    if isinstance(studies, TableStudies):  # which sorts its rows
        return Rows(row_samples(studies.files, studies.reading), len(studies))
    return Rows(studies.read(0, len(studies)), len(studies))


def predict_rows(predictor: Predictor, rows: Rows, progress: Callable[[int, int], None]) -> pd.DataFrame:
    """A row for each that was given: `id`, the tasks' columns, `present`, `notices`, and `error`: a reason or None.

    The columns are those of a table of predictions (docs/predict.md); what cannot be predicted has no values in them.
    """
    columns = table_columns(predictor)
    heads: dict[str, Any] = dict(predictor.model.heads.items())
    kinds = {task: head.task for task, head in heads.items()}
    found: list[dict[str, Any]] = []
    for results in predictor.chunks(rows.samples):
        found += [_row(result, kinds) for result in results]
        progress(len(found), rows.total)
    names = [name for name, _ in columns]
    frame = pd.DataFrame(found, columns=[*names, ERROR], index=rows.index, dtype=object)
    if rows.ids is not None:
        frame["id"] = rows.ids
    numbers = {name: "float64" for name, kind in columns if pa.types.is_floating(kind)}
    return frame.astype(numbers)


def _row(result: Prediction | Failure, kinds: dict[str, Any]) -> dict[str, Any]:
    if isinstance(result, Failure):
        return {"id": result.id, ERROR: result.reason}
    said = {"id": result.id, "tasks": result.tasks, "present": result.present, "notices": result.notices}
    return {**flat_row(said, kinds), ERROR: None}


def stack(
    vectors: Iterable[np.ndarray | Failure], dim: int, progress: Callable[[int], None]
) -> tuple[np.ndarray, list[Failure]]:
    """Vectors `(rows, dim)` float32, NaN where there is none, and why there is none."""
    found: list[np.ndarray] = []
    failed: list[Failure] = []
    for vector in vectors:
        if isinstance(vector, Failure):
            failed.append(vector)
            vector = np.full(dim, np.nan, dtype=np.float32)
        found.append(vector)
        progress(len(found))
    return np.stack(found).astype(np.float32) if found else np.zeros((0, dim), dtype=np.float32), failed
