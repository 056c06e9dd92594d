"""Rows that come in parts, with validation or test rows of their own, as one table with a column of splits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from mmfuse.config import parse
from mmfuse.data.given.held import is_in_memory, location
from mmfuse.data.rows.delimited import CsvSpec
from mmfuse.data.rows.frames import write_frame
from mmfuse.data.rows.read import read_rows
from mmfuse.data.sniff import Guess
from mmfuse.data.tables.build import read_table
from mmfuse.data.tables.manifest import load_manifest
from mmfuse.types import MmfuseError, first_line

SHARES = {"train": 0.7, "validation": 0.1, "test": 0.2}
"""Of the rows that are divided; without those that come by themselves, the others keep their proportion."""
_NAMES = ("split", "mmfuse split")


def join_parts(parts: dict[str, Any], look: Callable[[str | Path], Guess], scratch: Path) -> tuple[Path, str]:
    """All rows in one parquet file with a column that says their split.

    Args:
        parts: By `data`, `valid` and `test` the rows, of any kind; `data` is divided among the splits that have none of
            their own, by hash of the group, as a manifest divides them.
        look: What is guessed of a file of rows.
        scratch: A folder to write to.

    Returns:
        The file, and the column.

    Raises:
        MmfuseError: A part lacks a column that `data` has, or has another kind of cells in it.
    """
    files = {name: _write(name, part, look, scratch / f"{name}.parquet") for name, part in parts.items()}
    own = {"valid": "validation", "test": "test"}
    rest = [split for split in SHARES if split not in [own[name] for name in parts if name in own]]
    tables = {name: pq.read_table(file) for name, file in files.items()}
    columns = tables["data"].column_names
    column = next(name for name in _NAMES if name not in columns)
    joined = []
    for name, table in tables.items():
        for wanted in columns:
            if wanted not in table.column_names:
                raise MmfuseError(f"{name}: the rows have no column {wanted!r}, which those of data have")
        splits = _divide(files[name], look, rest) if name == "data" else [own[name]] * len(table)
        joined.append(table.select(columns).append_column(column, pa.array(splits, pa.string())))
    try:
        whole = pa.concat_tables(joined, promote_options="permissive")
    except pa.ArrowException as error:
        raise MmfuseError(
            f"{', '.join(files)}: a column is not of one kind in all of them: {first_line(error)}"
        ) from error
    pq.write_table(whole, scratch / "joined.parquet")
    return scratch / "joined.parquet", column


def _write(name: str, part: Any, look: Callable[[str | Path], Guess], file: Path) -> Path:
    """One part as parquet."""
    if is_in_memory(part, name):
        return write_frame(part, file)
    found = look(location(part))
    if found.made is not None:
        return write_frame(found.made, file)
    csv = parse(CsvSpec, [("csv", found.manifest.get("csv", {}))])
    return write_frame(read_rows(found.manifest["rows"], name, csv=csv), file)


def _divide(file: Path, look: Callable[[str | Path], Guess], splits: list[str]) -> list[str]:
    """By row its split, where these are to be filled."""
    if splits == ["train"]:
        return ["train"] * pq.read_metadata(file).num_rows
    found = look(file)
    rows = file if found.made is None else write_frame(found.made, file.with_suffix(".made.parquet"))
    total = sum(SHARES[split] for split in splits)
    ratios = {split: SHARES[split] / total for split in splits}
    divided = {name: value for name, value in found.manifest.get("splits", {}).items() if name == "stratify"}
    manifest = {**found.manifest, "rows": str(rows), "splits": {**divided, "ratios": ratios}}
    (file.parent / "data.yaml").write_text(yaml.safe_dump(manifest), encoding="utf-8")
    return read_table(load_manifest(file.parent / "data.yaml"), allow_leaks=True).splits
