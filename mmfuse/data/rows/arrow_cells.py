"""Columns of Arrow, out of parquet files, Arrow files and `datasets.Dataset`s, as cells (`mmfuse.cells`)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pandas as pd
import pyarrow as pa

from mmfuse import cells
from mmfuse.data.rows.frame_values import text_of


def cells_of(column: Any) -> list[cells.Cell]:
    """The cells of an Arrow array as it is: every scalar as text, lists, bytes and structs as they are."""
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return column.fill_null("").to_pylist()
    if pa.types.is_nested(column.type) or pa.types.is_null(column.type) or "binary" in str(column.type):
        return [cells.as_cell(value) for value in column.to_pylist()]
    return [cells.as_cell(value) for value in column.to_pandas(types_mapper=pd.ArrowDtype)]


def dataset_cells(column: Any, names: Sequence[str] | None) -> list[cells.Cell]:
    """The cells of a column of a `datasets.Dataset`: class numbers as their names, whole floats as integers are.

    Args:
        column: An Arrow array.
        names: Of its classes, or of those in its lists; -1 is none.
    """
    if names is not None:
        return [_named(value, names) for value in column.to_pylist()]
    if pa.types.is_floating(column.type):
        values = column.to_numpy(zero_copy_only=False)  # NaN where there is none
        return ["" if value != value else text_of(value) for value in values]
    return cells_of(column)


def _named(value: Any, names: Sequence[str]) -> Any:
    if isinstance(value, list):
        return [_named(item, names) for item in value if item is not None and item >= 0]
    return "" if value is None or value < 0 else names[value]


def class_names(schema: pa.Schema) -> dict[str, list[str]]:
    """By column, the names of its `ClassLabel`s, or of those in its lists, as `datasets` notes them in a schema."""
    said = (schema.metadata or {}).get(b"huggingface")
    features = json.loads(said).get("info", {}).get("features", {}) if said else {}
    return {name: names for name, feature in features.items() for names in _names(feature)}


def _names(feature: Any) -> Iterator[list[str]]:
    if isinstance(feature, list) and len(feature) == 1:  # as older versions note lists
        yield from _names(feature[0])
    elif isinstance(feature, dict) and feature.get("_type") == "ClassLabel":
        yield feature["names"]
    elif isinstance(feature, dict) and feature.get("_type") in ("List", "LargeList", "Sequence"):
        yield from _names(feature.get("feature"))


def wanted_of(names: list[str], columns: Iterable[str] | None) -> list[str]:
    """Which columns of a file are read: where one is not there, all, as it is told with the nearest that is."""
    wanted = set(names if columns is None else columns)
    return [name for name in names if name in wanted] if wanted <= set(names) else names
