"""`mmfuse.fit`: from rows to a trained model, with what is not said guessed and told."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmfuse.api.folders import run_folder
from mmfuse.api.model import Model
from mmfuse.api.overrides import nest
from mmfuse.api.quiet import quiet_libraries
from mmfuse.api.told import tell
from mmfuse.config import Config, config_from_dict
from mmfuse.data.given import MANIFEST, Columns, Described, Named, described
from mmfuse.training.run import train_in_folder
from mmfuse.types import MmfuseError

ARGUMENTS = ("data", "target", "image", "text", "group", "id", "valid", "test", "preset", "out", "restart")


def fit(
    data: Any,
    target: str | None = None,
    image: Columns = None,
    text: Columns = None,
    group: str | None = None,
    id: str | None = None,
    valid: Any = None,
    test: Any = None,
    preset: str = "balanced",
    out: str | os.PathLike[str] | None = None,
    restart: bool = False,
    **overrides: Any,
) -> Model:
    """Train a model on rows; what is not said of them is guessed, and told.

    The run's folder gets the manifest and the config that the command line would have read, and the rows where they are
    in memory: `mmfuse train RUN/config.yaml` does the same again. So does this call: a run that was interrupted is gone
    on with, one that is finished is returned.

    Args:
        data: A pandas DataFrame, a `datasets.Dataset`, the path of a csv, tsv, xlsx, jsonl or parquet file, a folder of
            pairs or of a subfolder a label, or `hf:NAME@split`. Relative paths of images in a frame begin at the
            current directory.
        target: The column to be predicted; its kind is told by its values. Needed but where `data` says it itself.
        image: The column of the images, or a manifest's mapping such as `{"column": "film", "root": "films"}`; default:
            the column whose values are images.
        text: The column that the text encoder reads, several, or a manifest's mapping; default: one column of prose,
            never one that tells the target.
        group: The column that is never in two splits, such as a patient's.
        id: The column that names a row.
        valid: Validation rows of their own, as `data` with the same columns; default: a tenth of `data`.
        test: Test rows of their own; default: a fifth of `data`. Where `data` has a column of splits, it holds.
        preset: What is trained, and for how long: "quick" or "balanced" (docs/python.md).
        out: The run's folder; default: runs/TARGET.
        restart: Throw away the run that is in the folder.
        **overrides: Keys of the config over the preset's: nested dicts, or dotted names as in
            `**{"training.epochs": 3}`.

    Returns:
        The model, of the run's folder.

    Raises:
        MmfuseError: The rows, a column or a key are not legal, or the folder holds a run of other rows, in one line.

    Example:
        model = mmfuse.fit(frame, target="finding")
        model.predict(others)
        model.report()
    """
    values = nest(overrides, Config, ARGUMENTS, "fit")
    if "manifest" in values.get("data", {}):
        raise MmfuseError("fit: data.manifest: fit writes one; with your own, mmfuse.train(config) trains")
    named = Named(target, image, text, group, id)
    with quiet_libraries(), described(data, named, valid, test) as found:
        folder = run_folder(out or values.get("output_dir"), values.get("name") or found.guess.manifest["name"])
        config = config_from_dict({"preset": preset, **_whole(values, found, folder)}, where="fit")
        tell([*found.said(), *_told_fusion(found, values), f"run: {os.path.relpath(folder)}"])
        run = train_in_folder(config, restart=restart, own=found.own(folder))
    return Model(run.dir)


def _whole(values: Mapping[str, Any], found: Described, folder: Path) -> dict[str, Any]:
    """The overrides with what follows from the rows."""
    own = {"name": values.get("name") or folder.name, "output_dir": str(folder)}
    data = {**values.get("data", {}), "manifest": str(folder / MANIFEST)}
    return {**_fusion(found, values), **values, **own, "data": data}


def _fusion(found: Described, values: Mapping[str, Any]) -> dict[str, Any]:
    """The strategy where the rows have one modality alone, and none is asked for."""
    lacking = [slot for slot in ("text", "image") if slot not in found.guess.manifest]
    if "fusion" in values or not lacking:
        return {}
    return {"fusion": {"name": "image_only" if lacking[0] == "text" else "text_only"}}


def _told_fusion(found: Described, values: Mapping[str, Any]) -> list[str]:
    chosen = _fusion(found, values)
    return [f"fusion: {chosen['fusion']['name']}, as there is no other modality"] if chosen else []
