"""A model that goes on with other rows."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from mmfuse.api.folders import run_folder
from mmfuse.api.overrides import nest
from mmfuse.api.quiet import quiet_libraries
from mmfuse.api.told import tell
from mmfuse.config import Config, config_of_layers, read_yaml
from mmfuse.data.given import MANIFEST, column_names, in_place_of_rows, is_in_memory
from mmfuse.evaluation.of_run import manifest_of_run
from mmfuse.training.run import train_in_folder

_KEPT = ("seed", "plugins", "training", "evaluation", "cache")
_OF_A_TOWER = ("frozen", "unfreeze_epoch", "learning_rate", "adapter")
_OF_A_TASK = ("weight", "class_weights", "metrics", "operating_points")
"""Keys of the run that its model goes on with: how it is trained, not what it is."""


def go_on(model: str, run: Path, more: Any, out: str | os.PathLike[str] | None, overrides: Mapping[str, Any]) -> Path:
    """Train a model of a run on other rows, in a run of its own; gives its folder.

    Args:
        model: The model folder.
        run: Its run's, which says which column is what, and how it was trained.
        more: The rows.
        out: The new run's folder; default: runs/NAME-more.
        overrides: Keys of the config over those of the run.

    Raises:
        MmfuseError: The rows lack a column, or a key is not legal.
    """
    values = nest(overrides, Config, ("more", "out"), "fit")
    then, manifest = read_yaml(run / "config.yaml"), manifest_of_run(run)
    folder = run_folder(out or values.get("output_dir"), values.get("name") or f"{then['name']}-more")
    if is_in_memory(more, "more") and (manifest.get("splits") or {}).get("column") not in (None, *column_names(more)):
        del manifest["splits"]  # they were those of the rows of before
    base = {key: then[key] for key in _KEPT if key in then}
    for tower in ("text_encoder", "image_encoder"):
        base[tower] = {key: then[tower][key] for key in _OF_A_TOWER if then[tower].get(key)}
    tasks = {name: {key: own[key] for key in _OF_A_TASK} for name, own in (then.get("tasks") or {}).items()}
    base |= {"tasks": tasks}
    own = {"name": values.get("name") or folder.name, "output_dir": str(folder), "init_from": os.path.abspath(model)}
    data = {**then["data"], **values.get("data", {}), "manifest": str(folder / MANIFEST), "root": None}
    config = config_of_layers([(str(run / "config.yaml"), base), ("fit", {**values, **own, "data": data})])
    with TemporaryDirectory(prefix="mmfuse-") as scratch:
        path = Path(scratch) / MANIFEST
        path.write_text(yaml.safe_dump(manifest, sort_keys=False, allow_unicode=True), encoding="utf-8")
        with quiet_libraries(), in_place_of_rows(path, None, more) as given:
            tell([f"columns: as in {os.path.relpath(run)}", f"run: {os.path.relpath(folder)}"])
            return train_in_folder(config, own=given).dir
