"""Other rows in place of those that a manifest names."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from mmfuse.config import read_yaml
from mmfuse.data.given.held import is_in_memory, location
from mmfuse.data.given.own import ROWS, OwnData
from mmfuse.data.rows.frames import write_frame
from mmfuse.data.tables.manifest import Manifest, load_manifest, resolve_root


@contextmanager
def in_place_of_rows(manifest: str | Path, root: str | None, data: Any) -> Iterator[OwnData]:
    """A manifest over other rows, to be put into a run's folder; while it is open, the rows lie in a temporary one.

    Args:
        manifest: What says which column is what; relative paths in the rows are relative to its `image.root`.
        root: What `${data_root}` stands for.
        data: A pandas DataFrame, a `datasets.Dataset`, or the path of a file of rows.

    Raises:
        MmfuseError: The manifest is not legal, or the rows hold what cannot be kept.
    """
    in_memory = is_in_memory(data)
    values = anchored(resolve_root(read_yaml(manifest), root, str(manifest)), load_manifest(manifest, root))
    with TemporaryDirectory(prefix="mmfuse-") as folder:
        rows = write_frame(data, Path(folder) / ROWS) if in_memory else None
        values["rows"] = ROWS if in_memory else location(data)
        if in_memory:
            values.pop("csv", None)
        yield OwnData(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), rows)


def anchored(values: dict[str, Any], manifest: Manifest) -> dict[str, Any]:
    """A manifest's plain values with all paths but that of the rows absolute, so that it may lie anywhere.

    Args:
        values: As they stand in the file.
        manifest: What `load_manifest` gave of it.
    """
    values = {**values, "rows": _absolute(manifest.rows)}
    for slot in ("image", "text"):
        spec, given = getattr(manifest, slot), values.get(slot)
        if spec is None or not isinstance(given, dict):
            continue
        given = values[slot] = dict(given)
        if slot == "image" or spec.files is not None:
            given["root"] = _absolute(spec.root)
        if spec.features is not None and spec.features.file is not None:
            given["features"] = {**given["features"], "file": _absolute(spec.features.file)}
    if manifest.group_file is not None:
        values["group"] = {"file": _absolute(manifest.group_file)}
    return values


def _absolute(path: str) -> str:
    return path if "://" in path or path.startswith("hf:") else os.path.abspath(path)
