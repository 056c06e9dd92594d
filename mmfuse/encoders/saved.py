"""Towers taken out of a model folder of mmfuse: `text_encoder.name: mmfuse-model:FOLDER`, and the same for images."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mmfuse.types import MmfuseError

PREFIX = "mmfuse-model:"


def read_tower(name: str, tower: str) -> tuple[Path, dict[str, Any], dict[str, Tensor]]:
    """The folder, the spec and the weights of a model folder's tower.

    Args:
        name: `mmfuse-model:FOLDER`.
        tower: "text_encoder" or "image_encoder".

    Raises:
        MmfuseError: It is no model folder, is damaged, or has no such tower.
    """
    folder = Path(name.removeprefix(PREFIX))
    try:
        for file in ("config.json", "model.safetensors"):
            if not os.path.isfile(folder / file):  # a FIFO would block
                raise OSError(f"{file} is no file")
        spec = json.loads((folder / "config.json").read_text(encoding="utf-8"))[tower]
        weights = load_file(folder / "model.safetensors")
    except (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
        reason = str(error).partition("\n")[0]
        raise MmfuseError(f"{tower}.name: {folder} is no whole model folder of mmfuse ({reason})") from error
    if spec is None:
        raise MmfuseError(f"{tower}.name: the model in {folder} has no {tower.replace('_', ' ')}")
    own = {key.removeprefix(f"{tower}."): value for key, value in weights.items() if key.startswith(f"{tower}.")}
    return folder, spec, own


@contextmanager
def damaged_tower(name: str, tower: str) -> Iterator[None]:
    """Say in one line that a tower cannot be built of what `read_tower` gave, or does not take its weights."""
    try:
        yield
    except Exception as error:  # whatever timm, transformers or torch say of values that are not theirs
        reason = str(error).strip().partition("\n")[0][:160]
        raise MmfuseError(f"{tower}.name: {name}: the model's config.json or weights are damaged ({reason})") from error
