"""What a run's folder says of the data of its model, and other rows read as those were."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from mmfuse.config import read_yaml
from mmfuse.data.given import MANIFEST, ROWS, anchored, column_names, is_in_memory, location
from mmfuse.data.rows.frames import write_frame
from mmfuse.data.rows.read import RowFiles
from mmfuse.data.tables.manifest import Manifest, load_manifest, manifest_at, resolve_root
from mmfuse.model import FusionModel
from mmfuse.predict.frames import number_rows
from mmfuse.predict.studies import TABLES
from mmfuse.registry import nearest
from mmfuse.types import MmfuseError

_ROW = "mmfuse row"
_OF_OTHER_ROWS = ("csv", "splits", "notes")
"""What a manifest says of its own rows alone."""


def run_of(model: str | Path) -> Path | None:
    """The folder of the run that a model folder lies in; None where it lies in none.

    Args:
        model: The model folder, or the run's; of a Hub id it is none.
    """
    folder = Path(model)
    for place in (folder, folder.parent):
        if (place / "environment.json").is_file() and (place / MANIFEST).is_file():
            return place
    return None


def manifest_of_run(run: Path) -> dict[str, Any]:
    """The manifest that a run was trained on as plain values, with all its paths absolute.

    Its text is the run's own copy, and paths are relative to where it was read. Where the run lies with its manifest,
    as `mmfuse.fit` leaves it, it may have been moved.

    Raises:
        MmfuseError: The run's files are damaged.
    """
    config = read_yaml(run / "config.yaml")
    data = config.get("data") or {}
    origin = Path(os.path.abspath(str(data.get("manifest"))))
    own = str(origin.parent) == os.path.abspath(config.get("output_dir") or f"runs/{config.get('name')}")
    values = resolve_root(read_yaml(run / MANIFEST), data.get("root"), str(run / MANIFEST))
    return anchored(values, manifest_at((run.absolute() if own else origin.parent) / MANIFEST, values))


@contextmanager
def opened_manifest(given: Any, model: FusionModel, where: Any) -> Iterator[Manifest]:
    """What rows a model is scored on, as a manifest; as long as it is open, rows in memory lie in a temporary folder.

    Args:
        given: A manifest, read or where it is, or rows (`manifest_over`).
        model: Whose tasks are scored.
        where: The folder that it was read of, or anything else.

    Raises:
        MmfuseError: The manifest or the rows are not legal.
    """
    if isinstance(given, Manifest):
        yield given
    elif not is_in_memory(given, "manifest") and Path(given).suffix.lower() not in TABLES:
        yield load_manifest(given)
    else:
        with manifest_over(model, run_of(where) if isinstance(where, (str, Path)) else None, given) as manifest:
            yield manifest


@contextmanager
def manifest_over(model: FusionModel, run: Path | None, data: Any, root: str | None = None) -> Iterator[Manifest]:
    """The manifest by which other rows are scored: all of them are test rows.

    Which column is what, the run's manifest says; of a model without its run, what the model folder says of the inputs,
    and a task's target is the column of its name.

    Args:
        model: Whose tasks are scored.
        run: The folder of its run; None where it is not known.
        data: A pandas DataFrame, a `datasets.Dataset`, or the path of a file of rows.
        root: What relative paths of images in a frame are relative to; default: as in the run, else the current folder.

    Raises:
        MmfuseError: A column is not there, or the rows hold what cannot be kept.
    """
    in_memory = is_in_memory(data)
    values = _as_the_model_says(model) if run is None else manifest_of_run(run)
    with TemporaryDirectory(prefix="mmfuse-") as folder:
        rows = str(write_frame(data, Path(folder) / ROWS)) if in_memory else location(data)
        columns = column_names(data) if in_memory else RowFiles(rows, str(data)).columns
        kept = {key: value for key, value in values.items() if key not in _OF_OTHER_ROWS}
        kept |= {"rows": rows, "splits": {"ratios": {"test": 1.0}}}
        kept["tasks"] = {
            task: _task(task, kept["tasks"], columns, str(data) if not in_memory else "data") for task in model.heads
        }
        kept["subgroups"] = [name for name in kept.get("subgroups", []) if name in columns]
        if isinstance(kept.get("group"), dict) or kept.get("group") not in (*columns, None):
            kept.pop("group")
        if kept["id"] not in columns and in_memory:
            kept["id"] = _ROW
            number_rows(Path(rows), _ROW)
        if kept.get("image"):
            kept["image"] = {**kept["image"], "root": root or _root(kept["image"], data, in_memory)}
        path = Path(folder) / MANIFEST
        path.write_text(yaml.safe_dump(kept, sort_keys=False), encoding="utf-8")
        manifest = load_manifest(path)
        manifest.source = "data" if in_memory else str(data)
        yield manifest


def _root(image: dict[str, Any], data: Any, in_memory: bool) -> str:
    if not in_memory:
        return os.path.dirname(location(data))
    return image.get("root") or os.getcwd()


def _as_the_model_says(model: FusionModel) -> dict[str, Any]:
    """A manifest's plain values of a model folder without its run."""
    if model.inputs is None:
        raise MmfuseError("the model does not say which columns it reads: give a manifest")
    slots = {
        name: asdict(spec) for name in ("text", "image") if (spec := getattr(model.inputs.recipe, name)) is not None
    }
    slots.get("image", {}).pop("root", None)
    tasks = {
        task: {"type": given["type"], "column": task, **given.get("options", {})}
        for task, given in model.task_config.items()
    }
    return {"name": "data", "id": model.inputs.id, **slots, "tasks": tasks}


def _task(task: str, tasks: dict[str, Any], columns: list[str], where: str) -> dict[str, Any]:
    """What the manifest says of a task, if its columns are there."""
    if task not in tasks:
        raise MmfuseError(f"{where}: the run's manifest has no task {task!r}; {nearest(task, tasks)}")
    named = tasks[task].get("columns") or [tasks[task].get("column")]
    for name in named:
        if name not in columns:
            raise MmfuseError(f"{where}: tasks.{task}: the rows have no column {name!r}; {nearest(str(name), columns)}")
    return tasks[task]
