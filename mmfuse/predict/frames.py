"""Rows that are in memory, a DataFrame or a `datasets.Dataset`, as samples: read as a file of the same rows is."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mmfuse.data.given.held import column_names, select_columns
from mmfuse.data.rows.frames import write_frame
from mmfuse.data.tables.inputs import TableInputs
from mmfuse.predict.tables import TableOptions, plan_reading, row_samples
from mmfuse.types import Sample

_ROW = "mmfuse row"
"""The column that names a row by its place."""


def frame_samples(data: Any, trained: TableInputs | None, root: str) -> Iterator[Sample]:
    """The rows in their order; `id` is a row's place, from 0, and what is wrong with a row is its `problem`.

    Args:
        data: A pandas DataFrame or a `datasets.Dataset`.
        trained: What the model folder says of its inputs; None of a model that keeps nothing.
        root: What relative paths in it are relative to.

    Raises:
        MmfuseError: A column is not there that the model reads, or the rows hold what cannot be kept.
    """
    if not len(data):
        return
    options = TableOptions(id_column=_ROW, image_root=root if _reads_images(trained) else None)
    reading = plan_reading(f"{root}/rows.parquet", options, trained)
    names = column_names(data)
    reading.check_columns([*names, _ROW], "data")
    needed = [name for name in reading.columns() if name in names]
    with tempfile.TemporaryDirectory(prefix="mmfuse-") as folder:
        file = number_rows(write_frame(select_columns(data, needed), Path(folder) / "rows.parquet"))
        yield from row_samples([str(file)], reading)


def _reads_images(trained: TableInputs | None) -> bool:
    return trained is None or trained.recipe.image is not None


def number_rows(file: Path, column: str = _ROW) -> Path:
    """The same parquet file with a column of the rows' places, from 0, as text.

    Args:
        file: It is replaced.
        column: The new column's name; it is not there yet.
    """
    scratch, first = file.with_suffix(".numbered"), 0
    with pq.ParquetFile(file) as rows:
        schema = rows.schema_arrow.append(pa.field(column, pa.string()))
        with pq.ParquetWriter(scratch, schema) as writer:
            for batch in rows.iter_batches(1024):
                places = pa.array([str(i) for i in range(first, first + len(batch))], pa.string())
                writer.write_batch(pa.record_batch([*batch.columns, places], schema=schema))
                first += len(batch)
    return scratch.replace(file)
