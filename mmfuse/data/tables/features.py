"""Features that stand in for texts or images: where a manifest says they are, and the items of rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mmfuse import cells
from mmfuse.config import key
from mmfuse.data.readers.features import FILES, as_bytes, numbers_of, read_keyed
from mmfuse.types import MmfuseError


@dataclass
class FeaturesSpec:
    """Numbers that were computed before, such as a large model's embedding: one vector or a list of them a row."""

    column: str | None = key(
        None, "column with a list of numbers, a list of such lists, or the path of a .npy, .npz or .safetensors file"
    )
    columns: list[str] | None = key(None, "columns with a number each: together they are the vector")
    file: str | None = key(None, "instead of columns: .npz or .safetensors file with an array for each id")
    array: str | None = key(None, "with paths of .npz or .safetensors in column: the name of the array in them")
    dim: int | None = key(
        None, "numbers of a vector; others are refused. Default: as the first training row has", low=1
    )
    missing: list[str] = key([], "contents that mean there are none (an empty one always does)")

    @property
    def named(self) -> list[str]:
        """The columns."""
        return [self.column] if self.column else list(self.columns or [])

    @property
    def width(self) -> int | None:
        """Numbers of a vector, where that is said."""
        return self.dim or (len(self.columns) if self.columns else None)


def check_features(spec: FeaturesSpec, slot: str, others: Sequence[Any], where: str) -> None:
    """Refuse what is not legal of where features are.

    Args:
        spec: What a manifest, or a model folder, says.
        slot: "text" or "image", in place of which they are read.
        others: What else is said of that, and means nothing beside features.
        where: What the error begins with.

    Raises:
        MmfuseError: The message names the key and the fix.
    """
    if sum(map(bool, (spec.column, spec.columns, spec.file))) != 1:
        raise MmfuseError(f"{where}: {slot}.features: give one of column, columns and file")
    if any(others):
        raise MmfuseError(f"{where}: {slot}: features are in place of it: leave its columns and how they are read out")
    if spec.array is not None and (slot == "text" or not spec.column):
        raise MmfuseError(f"{where}: {slot}.features.array goes with the paths of files, in image.features.column")
    if spec.columns and spec.dim not in (None, len(spec.columns)):
        raise MmfuseError(f"{where}: {slot}.features.dim: {len(spec.columns)} columns make as many numbers")


def feature_items(
    frame: pd.DataFrame, spec: FeaturesSpec, slot: str, id: str | None, where: str, first: int = 0
) -> list[bytes | str | None]:
    """By row its item: encoded numbers, the path of a file as it stands in the cell, or None where there is none.

    Args:
        frame: Rows as `read_rows` gives them.
        spec: Where they are.
        slot: "text" or "image", in place of which they are read; only of an image the path of a file is legal.
        id: The column of the ids, which name the arrays of `spec.file`.
        where: Named in errors.
        first: The number of the first row, from 0; named in errors.

    Raises:
        MmfuseError: A cell holds something else, or numbers that are no features.
    """
    if spec.file is not None:
        ids = [name.strip() for name in cells.texts(frame, str(id), where, "id", first)]
        found = read_keyed(spec.file, ids, spec.dim)
        return [as_bytes(found[name]) if name in found else None for name in ids]
    absent, items = {"", *spec.missing}, []
    for row, values in enumerate(zip(*(frame[name] for name in spec.named), strict=True), start=first + 1):
        try:
            items.append(_item(values, spec, slot, absent))
        except MmfuseError as error:
            raise MmfuseError(f"{where}: {slot}.features: {' or '.join(spec.named)}, row {row}: {error}") from error
    return items


def _item(values: Sequence[Any], spec: FeaturesSpec, slot: str, absent: set[str]) -> bytes | str | None:
    gone = [value == [] or (isinstance(value, str) and value.strip() in absent) for value in values]
    if any(gone):
        if not all(gone):
            lacking = ", ".join(name for name, is_gone in zip(spec.named, gone, strict=True) if is_gone)
            raise MmfuseError(f"no {lacking}: a row has all numbers or none")
        return None
    if spec.columns:
        numbers = [numbers_of(value, 1) for value in values]
        if any(found is None for found in numbers):
            raise MmfuseError("a text, where a number is expected")
        return as_bytes(np.concatenate(numbers, axis=1))  # type: ignore[arg-type]
    found = numbers_of(values[0], spec.dim)
    if found is not None:
        return as_bytes(found)
    if slot == "text" or not str(values[0]).strip().lower().endswith(FILES):
        also = "" if slot == "text" else f", or the path of a file ({', '.join(FILES)})"
        raise MmfuseError(f"a text, where a list of numbers is expected, such as [0.5, 1.25]{also}")
    return str(values[0]).strip()
