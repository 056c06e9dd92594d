"""The folder of an exported model: what a runtime needs that has no torch, and how it came about."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mmfuse.data.files.read import read_bytes
from mmfuse.deploy.dense import DenseModel
from mmfuse.types import MmfuseError

FORMAT = 2
"""Of what is exported: files of another one are made again."""
RECIPE = "export.json"
_BESIDE = ("config.json", "README.md", "metrics.json", "tokenizer")
"""Of the model folder: the config has preprocessing, labels, temperatures, thresholds and operating points."""
_MAX_RECIPE_BYTES = 2**24
_IDENTITY = ("text_encoder", "image_encoder", "fusion", "tasks", "plugins")
"""Keys of a model's config that its forward pass depends on; thresholds may change without it."""
_NETWORK = ("model.onnx*", "openvino.*")
"""Files of a network, for whatever runtime."""
_PACKAGES = ("mmfuse", "torch", "transformers", "timm", "onnx", "onnxscript", "onnxruntime", "openvino", "nncf")


def model_identity(folder: Path) -> str:
    """sha256 of a model folder's weights, and of what its config says of the forward pass."""
    digest = hashlib.sha256()
    with (folder / "model.safetensors").open("rb") as handle:
        while block := handle.read(1 << 22):
            digest.update(block)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    digest.update(json.dumps([config.get(key) for key in _IDENTITY], sort_keys=True).encode())
    return digest.hexdigest()


def write_recipe(
    folder: Path, dense: DenseModel, target: str, precision: str, identity: str, said: Mapping[str, Any]
) -> dict[str, Any]:
    """Write `export.json`, last of all.

    Args:
        folder: Of the exported model.
        dense: Of the model.
        target: "onnx" or "openvino".
        precision: "fp32", "bf16" or "int8".
        identity: Of the model folder.
        said: What else is to be known of it: how it was verified, and calibrated.
    """
    inputs = [{"name": each.name, "axes": list(each.axes), "dtype": each.dtype.name} for each in dense.inputs]
    recipe = {
        "format": FORMAT,
        "target": target,
        "precision": precision,
        "inputs": inputs,
        "pad_token_id": dense.pad_token_id,
        "outputs": dense.tasks,
        "files": network_files(folder),
        **said,
        "made_with": {name: found for name in _PACKAGES if (found := _version(name)) is not None},
        "model": identity,
    }
    (folder / RECIPE).write_text(json.dumps(recipe, indent=2) + "\n", encoding="utf-8")
    return recipe


def network_files(folder: Path) -> dict[str, str]:
    """By name, sha256 of the files of an exported network."""
    found = {}
    for path in sorted(path for pattern in _NETWORK for path in folder.glob(pattern)):
        with path.open("rb") as handle:
            found[path.name] = hashlib.file_digest(handle, "sha256").hexdigest()
    return found


def read_recipe(folder: Path, identity: str) -> dict[str, Any] | None:
    """What `write_recipe` wrote; None where nothing is there, or it is of another model or format.

    Raises:
        MmfuseError: It cannot be read, or the network's files are not those that were verified.
    """
    path = folder / RECIPE
    if not os.path.lexists(path):
        return None
    try:
        recipe = json.loads(read_bytes(path, _MAX_RECIPE_BYTES))
    except ValueError as error:  # MmfuseError is one
        raise MmfuseError(f"{path}: damaged ({error}); delete the folder, and export again") from error
    fits = isinstance(recipe, dict) and recipe.get("format") == FORMAT and recipe.get("model") == identity
    if not fits:
        return None
    files = network_files(folder)
    if recipe.get("files") != files:
        raise MmfuseError(f"{folder}: damaged: not the files that {RECIPE} names; delete the folder, and export again")
    return recipe


def copy_beside(source: Path, folder: Path) -> None:
    """Copy from a model folder what a runtime needs beside the network."""
    for name in _BESIDE:
        there = source / name
        if there.is_dir():
            shutil.copytree(there, folder / name)
        elif there.is_file():
            shutil.copyfile(there, folder / name)


@contextmanager
def written_whole(folder: Path) -> Iterator[Path]:
    """A folder to write into, which takes its name when all is done; what was there of that name is replaced.

    Raises:
        MmfuseError: It cannot be written.
    """
    scratch = folder.with_name(f"{folder.name}.building-{uuid.uuid4().hex[:8]}")
    try:
        scratch.mkdir(parents=True)
        yield scratch
        if folder.exists():
            old = folder.with_name(f"{folder.name}.old-{uuid.uuid4().hex[:8]}")
            folder.rename(old)  # who has it open keeps its files
            os.replace(scratch, folder)
            shutil.rmtree(old)
        else:
            os.replace(scratch, folder)
    except OSError as error:
        raise MmfuseError(f"{folder}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
