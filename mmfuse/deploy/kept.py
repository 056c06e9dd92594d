"""The exported form of a model, made once and kept beside it, and a Predictor that runs it."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from filelock import FileLock

from mmfuse.deploy.dense import DenseModel
from mmfuse.deploy.folder import copy_beside, model_identity, read_recipe, write_recipe, written_whole
from mmfuse.deploy.onnx import write_onnx
from mmfuse.deploy.openvino import OpenVinoEngine, can_bf16, check_precision, convert
from mmfuse.deploy.verify import compare_on_random, judge
from mmfuse.encoders.cache import cache_root
from mmfuse.model_folder import find_folder
from mmfuse.predict import Predictor, load_to_predict
from mmfuse.pulse import now
from mmfuse.types import MmfuseError

FOLDER = "exported"
"""Of a model folder, or where that may not be written of the cache."""


def load_predictor(
    model: str | Path,
    engine: str = "openvino",
    precision: str = "fp32",
    tell: Callable[[str], None] = lambda line: None,
    keep: bool = True,
    **options: Any,
) -> Predictor:
    """A `Predictor` that runs a model by another runtime.

    Where there is no exported form of the model yet, it is made and kept beside the model, or, where that folder may
    not be written, in the cache; of int8 it must have been made by `export_model`, as that needs data.

    Args:
        model: A model folder or Hub id.
        engine: "openvino".
        precision: "fp32", "bf16" or "int8".
        tell: Is told a line when a form is made.
        keep: False keeps none that is made: nothing is written beside the model.
        **options: Of `Predictor`.

    Raises:
        MmfuseError: The extra is not installed, the model cannot be exported, or there is no such form of it.

    Example:
        predictor = load_predictor("runs/shop/model", precision="bf16")
    """
    if engine != "openvino":
        raise MmfuseError(f"engine: {engine!r} is not legal; legal: openvino")
    check_precision(precision)
    folder = find_folder(str(model), {})
    loaded = load_to_predict(folder)
    dense = DenseModel(loaded)
    with nullcontext() if keep else TemporaryDirectory() as scratch:
        form = find_form(folder, dense, precision, tell, None if scratch is None else Path(scratch))
        forward = OpenVinoEngine(dense, form, precision)
    return Predictor(loaded, device="cpu", forward=forward, **options)


def find_form(
    folder: Path, dense: DenseModel, precision: str, tell: Callable[[str], None], scratch: Path | None = None
) -> Path:
    """The folder of a model's form for OpenVINO, which is made where there is none.

    Args:
        folder: The model's.
        dense: Of the model.
        precision: fp32 and bf16 have one form.
        tell: Is told when it is made.
        scratch: Where it is made, if it is not to be kept.

    Raises:
        MmfuseError: There is none of int8, or it cannot be made.
    """
    identity = model_identity(folder)
    name = form_name("openvino", precision)
    places = [folder / FOLDER / name, _in_cache(identity) / name]
    for place in places:
        if read_recipe(place, identity) is not None:
            return place
    if precision == "int8":
        raise MmfuseError(
            f"--precision int8: {folder} has no such form of these weights: make it with mmfuse export {folder} --to "
            "openvino --precision int8 --calibrate MANIFEST"
        )
    if scratch is not None:
        tell("exporting the model for OpenVINO, and not keeping that")
        _make(folder, dense, scratch / name, identity)
        return scratch / name
    with form_place(folder, identity, name) as place:
        if read_recipe(place, identity) is None:  # else another process has made it
            tell(f"exporting the model for OpenVINO, once: {place}")
            _make(folder, dense, place, identity)
    return place


def form_name(target: str, precision: str) -> str:
    """Of the folder of a form: bf16 is fp32's, computed otherwise."""
    return f"{target}-{'int8' if precision == 'int8' else 'fp32'}"


@contextmanager
def form_place(folder: Path, identity: str, name: str) -> Iterator[Path]:
    """Where a form is kept, while no other process makes one.

    Raises:
        MmfuseError: It can be written neither beside the model nor in the cache.
    """
    own = folder / FOLDER if _may_write(folder) else _in_cache(identity)
    try:
        own.mkdir(parents=True, exist_ok=True)
        lock = FileLock(own / "lock")
        now("waiting for another process that exports the same model")
        lock.acquire()
    except OSError as error:
        raise MmfuseError(
            f"{own}: cannot be written ({error.strerror or error}); export the model where its folder can be written, "
            "or set MMFUSE_CACHE to a folder that can"
        ) from error
    try:
        now("exporting the model")
        for left in own.glob(f"{name}.*"):  # of a process that was killed: whoever wrote it had the lock
            shutil.rmtree(left)
        yield own / name
    finally:
        lock.release()


def _make(folder: Path, dense: DenseModel, place: Path, identity: str) -> None:
    with written_whole(place) as scratch:
        write_onnx(dense, scratch / "model.onnx")
        convert(scratch / "model.onnx", scratch)
        for left in scratch.glob("model.onnx*"):
            left.unlink()
        verified = verify_on_random(dense, scratch)
        copy_beside(folder, scratch)
        write_recipe(scratch, dense, "openvino", "fp32", identity, {"verified": verified})


def verify_on_random(dense: DenseModel, form: Path, but: str | None = None) -> dict[str, Any]:
    """What a recipe says of the form of fp32 and bf16, in each of both that this processor has.

    Args:
        dense: Of the model.
        form: The form's folder.
        but: One that is verified otherwise.

    Raises:
        MmfuseError: It differs from torch by more than is tolerated.
    """
    verified = {}
    for precision in ("fp32", "bf16") if can_bf16() else ("fp32",):
        if precision != but:
            found = compare_on_random(dense.model, OpenVinoEngine(dense, form, precision))
            judge(found, precision, None, on_rows=False)
            verified[precision] = {"on": "random inputs", "tasks": found}
    return verified


def _in_cache(identity: str) -> Path:
    return cache_root(None) / FOLDER / hashlib.sha256(identity.encode()).hexdigest()[:32]


def _may_write(folder: Path) -> bool:
    """A snapshot of the Hub's cache is the Hub's."""
    below = folder / FOLDER
    return folder.resolve().parent.name != "snapshots" and os.access(below if below.exists() else folder, os.W_OK)
