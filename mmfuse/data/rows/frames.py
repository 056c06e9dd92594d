"""Rows that are in memory, a pandas DataFrame or a `datasets.Dataset`, as a parquet file of the same meaning."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from mmfuse.data.files.stores import writing
from mmfuse.data.rows.arrow_cells import class_names, dataset_cells
from mmfuse.data.rows.frame_values import (
    Kind,
    checked,
    found_here,
    image_cell,
    is_absent,
    is_whole,
    kind_of,
    list_of,
    object_of,
    text_of,
)
from mmfuse.types import MmfuseError, first_line

_IMAGE = pa.struct([("bytes", pa.large_binary()), ("path", pa.string())])
_IMAGES = pa.list_(_IMAGE)
_ROWS, _ROWS_OF_IMAGES = 8192, 256
"""Of a row group; images are encoded a group at a time."""


_Told = dict[str, dict[str, None]]
"""By what is told, the columns of which it is."""


class _Column(NamedTuple):
    """A column to be written: its type, and its rows from one to another."""

    name: str
    type: pa.DataType
    take: Callable[[int, int], pa.Array]


def write_frame(data: Any, path: str | Path, tell: Callable[[str], None] | None = None) -> Path:
    """Write a DataFrame or Dataset as parquet that `read_rows` reads with the same meaning; equal frames, equal bytes.

    Scalars become the texts that `read_rows` would make of them, and NaN, NaT, NA and None are absent. What changes is
    told: whole numbers among floats lose their `.0` (`mmfuse.data.rows.frame_values.text_of`), relative paths of images
    and reports that lie below the working directory become absolute, and `ClassLabel` numbers become their names (-1 is
    absent). Pictures and uint8 arrays `(H, W)`, `(H, W, 1)` and `(H, W, 3)` become encoded files of the same pixels.

    An index with a name is a column, and so is one of texts without a name, `index`, as `reset_index` calls it; one of
    numbers without a name is only the rows' order.

    Args:
        data: A pandas DataFrame or a `datasets.Dataset`, of at least one row.
        path: The .parquet file; written whole or not at all, over one that is there.
        tell: Called with a line for each thing that is told.

    Returns:
        The path.

    Raises:
        MmfuseError: It is something else, a column has no name of its own, or a value cannot be kept; the message says
            in which column and row (from 1).
    """
    told: _Told = {"whole": {}, "paths": {}, "names": {}}
    if isinstance(data, pd.DataFrame):
        columns, rows = _of_frame(data, told), len(data)
    elif type(data).__module__.startswith("datasets.") and type(data).__name__ == "Dataset":
        columns, rows = _of_dataset(data, told), len(data)
    else:
        raise MmfuseError(f"a pandas DataFrame or a datasets.Dataset is expected, not {_described(data)}")
    if not rows or not columns:
        raise MmfuseError(f"a {type(data).__name__} of {rows} rows and {len(columns)} columns: nothing to learn from")
    step = _ROWS_OF_IMAGES if any(column.type in (_IMAGE, _IMAGES) for column in columns) else _ROWS
    schema = pa.schema([(column.name, column.type) for column in columns])
    with writing(str(path)) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for start in range(0, rows, step):
            arrays = [column.take(start, min(rows, start + step)) for column in columns]
            writer.write_table(pa.table(arrays, schema=schema), row_group_size=step)
    if tell is not None:
        for line in _lines(told):
            tell(line)
    return Path(path)


def _described(data: Any) -> str:
    kind = type(data).__name__
    if kind in ("DatasetDict", "IterableDatasetDict"):
        return f"a {kind}: give one of its splits, such as data[{next(iter(data), 'train')!r}]"
    return f"a {kind}{': Dataset.from_list(list(data)) makes one of it' if kind == 'IterableDataset' else ''}"


def _lines(told: _Told) -> Iterator[str]:
    says = {
        "whole": "floats that are whole numbers are written without .0, as integers are",
        "paths": "relative paths of files below the working directory are written as absolute ones",
        "names": "class numbers are written as their names",
    }
    for what, columns in told.items():
        if columns:
            yield f"column {', '.join(repr(name) for name in columns)}: {says[what]}"


def _of_frame(frame: pd.DataFrame, told: _Told) -> list[_Column]:
    frame = with_index(frame)
    _check_names(list(frame.columns))
    return [_held(str(name), _values(series), told) for name, series in frame.items()]


def with_index(frame: pd.DataFrame) -> pd.DataFrame:
    """The same rows, with the index as a column where `write_frame` makes one of it."""
    if isinstance(frame.index, pd.MultiIndex) or frame.index.name is not None or _names_rows(frame.index):
        return frame.reset_index(allow_duplicates=True)
    return frame


def _names_rows(index: pd.Index) -> bool:
    return not (pd.api.types.is_numeric_dtype(index) or pd.api.types.is_bool_dtype(index))


def _check_names(names: Sequence[Any]) -> None:
    for number, name in enumerate(names, 1):
        if not isinstance(name, str) or not name.strip():
            raise MmfuseError(
                f"column {number}: its name is {name!r:.80}, where a text is expected; give it one "
                '(data.columns = ["id", ...])'
            )
        checked(name)
    for name, n in Counter(names).items():
        if n > 1:
            raise MmfuseError(
                f"the column {name!r} is there {n} times (an index with a name is one): rename one of them"
            )


def _values(series: pd.Series) -> list[Any]:
    """Its values, floats in their own width; floats of categories are those of the categories."""
    if isinstance(series.dtype, pd.CategoricalDtype):
        named = _values(pd.Series(series.cat.categories))
        return [None if code < 0 else named[code] for code in series.cat.codes]
    if pd.api.types.is_float_dtype(series.dtype):
        width = {2: "float16", 4: "float32"}.get(getattr(series.dtype, "itemsize", 8), "float64")
        return list(series.to_numpy(dtype=width, na_value=np.nan))
    return list(series)


def _held(name: str, values: list[Any], told: _Told) -> _Column:
    """A column of Python objects."""
    found: dict[Kind, int] = {}
    for row, value in enumerate(values, 1):
        if not is_absent(value):
            kind = _at(name, row, kind_of, value)
            found.setdefault(kind, row)
    kinds = set(found)
    if kinds <= {"text"}:
        return _column(name, pa.string(), values, lambda value: _text(name, value, told))
    if kinds <= {"text", "image"}:
        return _column(name, _IMAGE, values, lambda value: _image(name, value, told))
    if "images" in kinds and kinds <= {"text", "image", "images", "list"}:
        return _column(name, _IMAGES, values, lambda value: _images(name, value, told))
    if len(kinds) > 1:
        (one, first), (other, second) = sorted(found.items(), key=lambda item: item[1])[:2]
        raise MmfuseError(
            f"column {name!r}, row {second}: {_WORDS[other]}, and in row {first} {_WORDS[one]}; one kind is expected"
        )
    whole = _nested(name, values, list_of if "list" in kinds else object_of, told)
    return _Column(name, whole.type, lambda start, stop: whole.slice(start, stop - start))


_WORDS: dict[Kind, str] = {
    "text": "a text or a number",
    "image": "an image",
    "list": "a list",
    "images": "a list of images",
    "object": "an object with fields",
}


def _column(name: str, type: pa.DataType, values: list[Any], keep: Callable[[Any], Any]) -> _Column:
    def take(start: int, stop: int) -> pa.Array:
        block = values[start:stop]
        kept = [None if is_absent(v) else _at(name, row, keep, v) for row, v in enumerate(block, start + 1)]
        return pa.array(kept, type)

    return _Column(name, type, take)


def _at(name: str, row: int, take: Callable[[Any], Any], value: Any) -> Any:
    try:
        return take(value)
    except MmfuseError as error:
        raise MmfuseError(f"column {name!r}, row {row}: {error}") from error


def _text(name: str, value: Any, told: _Told) -> str:
    text = text_of(value)
    placed = found_here(text) if isinstance(value, str) else text
    if is_whole(value):
        told["whole"][name] = None
    if placed != text or (isinstance(value, os.PathLike) and os.fsdecode(value) != text):
        told["paths"][name] = None
    return placed


def _image(name: str, value: Any, told: _Told) -> dict[str, Any]:
    found = image_cell(value)
    given = value.get("path") if isinstance(value, Mapping) else value
    if found.path is not None and found.path != given:
        told["paths"][name] = None
    return found._asdict()


def _images(name: str, value: Any, told: _Told) -> list[dict[str, Any]]:
    parts = value if kind_of(value) in ("images", "list") else [value]
    return [_image(name, part, told) for part in parts if not is_absent(part)]


def _nested(name: str, values: list[Any], keep: Callable[[Any], Any], told: _Told) -> pa.Array:
    """Lists or objects, of the type that holds all of them."""
    kept = [None if is_absent(value) else _at(name, row, keep, value) for row, value in enumerate(values, 1)]
    if any(_placed(before, after) for before, after in zip(values, kept, strict=True)):
        told["paths"][name] = None
    try:
        return pa.array(kept)
    except (pa.ArrowException, OverflowError, TypeError, ValueError) as error:
        row, why = _first_odd(kept, error)
        raise MmfuseError(f"column {name!r}, row {row}: what it holds is of several kinds: {why}") from error


def _placed(before: Any, after: Any) -> bool:
    """Whether a path among a list's texts has become absolute."""
    return isinstance(after, list) and any(
        isinstance(item, str) and os.path.isabs(item) and item not in before for item in after
    )


def _first_odd(kept: list[Any], error: Exception) -> tuple[int, str]:
    """The first row up to which the values have no type in common, and why."""
    low, high = 0, len(kept)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            pa.array(kept[:middle])
            low = middle
        except (pa.ArrowException, OverflowError, TypeError, ValueError) as found:
            high, error = middle, found
    return high, first_line(error)


def _of_dataset(data: Any, told: _Told) -> list[_Column]:
    if data.format["type"] == "custom":
        raise MmfuseError(
            "a Dataset with a transform, which no file holds: make it columns (data.map), or reset_format()"
        )
    _check_names(data.column_names)
    plain, names = data.with_format("arrow"), class_names(data.features.arrow_schema)
    told["names"] |= dict.fromkeys(names)
    return [_stored(name, field, plain, names.get(name), told) for name, field in _fields(data).items()]


def _fields(data: Any) -> dict[str, pa.DataType]:
    return {field.name: getattr(field.type, "storage_type", field.type) for field in data.features.arrow_schema}


def _stored(name: str, type: pa.DataType, data: Any, names: list[str] | None, told: _Told) -> _Column:
    """A column of a Dataset, whose type says what it holds."""
    image, listed = _holds_image(type), pa.types.is_list(type) or pa.types.is_large_list(type)
    if names is not None:
        kept = pa.list_(pa.string()) if listed else pa.string()
    elif image or (listed and _holds_image(type.value_type)):
        kept = _IMAGE if image else _IMAGES
    else:
        kept = type if pa.types.is_nested(type) else pa.string()

    def take(start: int, stop: int) -> pa.Array:
        chunks = data.select_columns([name])[start:stop].column(name).chunks
        if kept == type and pa.types.is_nested(type) and not (listed and pa.types.is_string(type.value_type)):
            return pa.chunked_array([getattr(chunk, "storage", chunk) for chunk in chunks], type).combine_chunks()
        cells = [cell for chunk in chunks for cell in _cells(chunk, names)]
        return pa.array([_kept(name, row, cell, kept, told) for row, cell in enumerate(cells, start + 1)], kept)

    return _Column(name, kept, take)


def _cells(column: Any, names: list[str] | None) -> list[Any]:
    """As `dataset_cells`, but floats as they are, of which it is told what becomes of them."""
    return (
        list(column.to_numpy(zero_copy_only=False))
        if pa.types.is_floating(column.type)
        else dataset_cells(column, names)
    )


def _holds_image(type: pa.DataType) -> bool:
    if pa.types.is_struct(type):
        return {field.name for field in type} <= {"bytes", "path"}
    return pa.types.is_binary(type) or pa.types.is_large_binary(type)


def _kept(name: str, row: int, cell: Any, type: pa.DataType, told: _Told) -> Any:
    if is_absent(cell) or (isinstance(cell, str) and cell == ""):
        return None
    if type == _IMAGE:
        return _at(name, row, lambda value: _image(name, value, told), cell)
    if type == _IMAGES:
        return _at(name, row, lambda value: _images(name, value, told), cell)
    if isinstance(cell, list):
        return [_text(name, item, told) for item in cell]
    return _at(name, row, lambda value: _text(name, value, told), cell)
