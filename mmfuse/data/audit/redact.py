"""A copy of a dataset's rows in which personal identifiers are replaced by their kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from mmfuse import cells
from mmfuse.config import read_yaml
from mmfuse.data.audit.identifiers import Finder, redact
from mmfuse.data.rows.read import read_rows
from mmfuse.data.tables.manifest import Manifest
from mmfuse.tasks import kind_of
from mmfuse.types import MmfuseError


def redact_rows(
    manifest: Manifest, out: Path, find: Finder, progress: Callable[[int, int], None] | None = None
) -> tuple[Path, dict[str, int]]:
    """Write `rows.parquet` and `manifest.yaml` into a new folder; the input is left as it is.

    Replaced is what `find` finds in the text columns and in the columns of captioning tasks. Other columns, ids and the
    images are copied or named as they are: what is personal in those stays.

    Args:
        manifest: As `load_manifest` gave it.
        out: A folder that is empty or not there.
        find: What finds identifiers.
        progress: Called with (rows done, rows).

    Returns:
        The new manifest's path, and how many identifiers of each kind were replaced.

    Raises:
        MmfuseError: `out` holds something, or the rows cannot be read.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise MmfuseError(f"--redact {out}: name a new or empty folder; nothing is overwritten")
    if manifest.text is not None and manifest.text.files is not None:
        raise MmfuseError(
            "--redact: text.files: texts in files are not redacted; put them into a column (text.columns)"
        )
    frame = read_rows(manifest.rows, manifest.source, csv=manifest.csv)
    columns = _text_columns(manifest)
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise MmfuseError(f"{manifest.source}: the rows have no column {missing[0]!r}")
    counts: Counter[str] = Counter()

    def clean(cell: Any) -> Any:
        if isinstance(cell, list):
            return [clean(part) for part in cell]
        return clean_text(cell) if isinstance(cell, str) else cell

    def clean_text(text: str) -> str:
        found = find(text)
        counts.update(one.kind for one in found)
        return redact(text, found)

    values = {str(name): list(frame[name]) for name in frame.columns}
    for row in range(len(frame)):
        for name in columns:
            values[name][row] = clean(values[name][row])
        if progress:
            progress(row + 1, len(frame))
    out.mkdir(parents=True, exist_ok=True)
    table = pa.table({name: cells.to_arrow(column, f"{manifest.source}: {name}") for name, column in values.items()})
    pq.write_table(table, out / "rows.parquet")
    path = out / "manifest.yaml"
    path.write_text(
        yaml.safe_dump(beside_rows(manifest, "rows.parquet"), sort_keys=False, allow_unicode=True), encoding="utf-8"
    )
    return path, dict(counts)


def _text_columns(manifest: Manifest) -> list[str]:
    columns = list(manifest.text.columns) if manifest.text else []
    for task in manifest.tasks.values():
        if kind_of(task).is_text:
            columns += [task.column] if task.column else task.columns or []
    return list(dict.fromkeys(columns))


def beside_rows(manifest: Manifest, rows: str) -> dict[str, Any]:
    """The manifest's own words for other rows, with the images, and the table of groups, where they are."""
    values = read_yaml(manifest.source)
    values["rows"] = rows
    if rows.endswith(".parquet"):
        values.pop("csv", None)
    if manifest.image is not None:
        values["image"]["root"] = _whole(manifest.image.root)
    if manifest.text is not None and manifest.text.files is not None:
        values["text"]["root"] = _whole(manifest.text.root)
    for name, spec in (("text", manifest.text), ("image", manifest.image)):
        if spec is not None and spec.features is not None and spec.features.file is not None:
            values[name]["features"]["file"] = _whole(spec.features.file)
    if manifest.group_file is not None:
        values["group"]["file"] = _whole(manifest.group_file)
    return values


def _whole(location: str) -> str:
    return location if "://" in location else str(Path(location).resolve())
