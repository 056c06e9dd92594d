"""A dataset of Hugging Face, `hf:NAME@split`: a folder that `save_to_disk` wrote, or a name on the Hub."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mmfuse.data.rows.frames import write_frame
from mmfuse.data.sniff.files import Opened, open_file
from mmfuse.types import MmfuseError, first_line

PREFIX = "hf:"
_SAVED = ("state.json", "dataset_dict.json")


def is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` wrote a folder."""
    return any((folder / name).is_file() for name in _SAVED)


def open_dataset(location: str) -> Opened:
    """The rows of a dataset, with its pictures as encoded files.

    Args:
        location: `hf:NAME@split`; without a split, the train split where there are several.

    Raises:
        MmfuseError: There is none, or it has no such split.
    """
    name, _, split = location.removeprefix(PREFIX).partition("@")
    dataset = _load(name, split)
    told: list[str] = []
    with TemporaryDirectory(prefix="mmfuse-") as scratch:
        opened = open_file(write_frame(dataset, Path(scratch) / "rows.parquet", told.append))
    opened.rows, opened.name, opened.made = location, os.path.basename(name.rstrip("/")), True
    opened.base = Path(name).resolve() if os.path.isdir(name) else Path.cwd()
    opened.said += [f"rows: {len(opened.frame)} rows of the dataset {name}", *(f"rows: {line}" for line in told)]
    return opened


def _load(name: str, split: str) -> Any:
    import datasets

    try:
        found: Any = datasets.load_from_disk(name) if os.path.isdir(name) else datasets.load_dataset(name)
    except Exception as error:  # every kind of dataset, and the Hub, has its own exceptions
        raise MmfuseError(f"hf:{name}: {first_line(error)}") from error
    if not hasattr(found, "keys"):
        if split:
            raise MmfuseError(f"hf:{name}@{split}: it has no splits; leave @{split} out")
        return found
    wanted = split or ("train" if "train" in found else "")
    if wanted not in found:
        raise MmfuseError(f"hf:{name}@{wanted}: no such split; legal: {', '.join(found)}")
    return found[wanted]
