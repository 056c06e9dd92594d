"""Checkpoints without pickle: state as JSON, tensors as safetensors, a folder that is there whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mmfuse.encoders.saved import write_tensors
from mmfuse.training.sharded import collect, laid_out_as
from mmfuse.types import MmfuseError, first_line

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


class FullDiskError(MmfuseError):
    """A disk takes no more: nothing is wrong with what was to be written."""


@contextmanager
def room_in(folder: Path) -> Iterator[None]:
    """Say in one line that a run's folder takes no more, whichever library was writing.

    Raises:
        FullDiskError: Instead of OSError or SafetensorError, which has the system's error in its words alone.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        found = re.search(r"os error (\d+)", str(error)) if isinstance(error, SafetensorError) else None
        code = int(found.group(1)) if found else getattr(error, "errno", None)
        if code not in _FULL:
            raise
        raise FullDiskError(
            f"output_dir: {folder}: {os.strerror(code)}; what is done is kept: free some space, "
            "and the same command resumes"
        ) from error


WEIGHTS, MOMENTS = "weights.safetensors", "optimizer.safetensors"


class Checkpoints:
    """The checkpoints of a run: the last one, and the weights of the best one.

    Weights are there once: a checkpoint of the best ones names their file. That of a run that has finished, which
    nothing goes on from, has the best ones too, and no moments.

    Args:
        folder: `runs/NAME/checkpoints`.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def save(
        self,
        step: int,
        state: dict[str, Any],
        weights: dict[str, Tensor],
        optimizer: tuple[dict[str, Tensor], dict[str, Any]],
        best: bool,
    ) -> None:
        """Write `step_N`, atomically, and before it `best_N` where `best`; then remove what they replace.

        Args:
            step: The optimiser steps done.
            state: JSON; the weights that it names under `best_file` and `loss_file` are kept. Where it says
                `finished`, those of `best_file` are its weights, and there are no moments.
            weights: All tensors that training may change.
            optimizer: What `optimizer_state` gives of it.
            best: Whether these weights are among them.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if best:
            self._write_file(self.folder / best_name(step), weights)
        named = state.get("best_file") if state.get("finished") else best_name(step) if best else None
        target = self.folder / f"step_{step:08d}"
        scratch = target.with_suffix(".tmp")
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        tensors, plain = optimizer
        if named is None:
            write_tensors(_contiguous(weights), scratch / WEIGHTS)
        if not state.get("finished"):
            write_tensors(tensors, scratch / MOMENTS)
        values = {**state, "optimizer": plain, **({"weights": named} if named else {})}
        (scratch / "state.json").write_text(json.dumps(values, indent=1))
        for path in scratch.iterdir():
            _fsync(path)
        _fsync(scratch)
        shutil.rmtree(target, ignore_errors=True)
        scratch.rename(target)
        _fsync(self.folder)
        self._clean({target.name, named, state.get("best_file"), state.get("loss_file")})

    def last_step(self) -> int | None:
        """The step of the last checkpoint; None if there is none."""
        found = self._whole()
        return int(found[-1].name.removeprefix("step_")) if found else None

    def load_last(self) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Tensor]] | None:
        """State, weights and optimiser tensors of the last checkpoint; None if there is none.

        One of a run that has finished has no optimiser tensors, or was written by a version that kept them.

        Raises:
            MmfuseError: It is damaged, or may not be read.
        """
        found = self._whole()
        if not found:
            return None
        with _reading(found[-1]):
            state = json.loads((found[-1] / "state.json").read_text())
            named, moments = state.pop("weights", None), found[-1] / MOMENTS
            weights = load_file(self.folder / named if named else found[-1] / WEIGHTS)
            return state, weights, {} if state.get("finished") and not moments.exists() else load_file(moments)

    def load_best(self, state: dict[str, Any]) -> dict[str, Tensor] | None:
        """The weights of the best evaluation; None if there was none.

        Raises:
            MmfuseError: They are damaged, or may not be read.
        """
        name = state.get("best_file")
        if not name:
            return None
        with _reading(self.folder / name):
            return load_file(self.folder / name)

    def _whole(self) -> list[Path]:
        return sorted(p for p in self.folder.glob("step_*") if p.suffix != ".tmp" and (p / "state.json").is_file())

    def _write_file(self, path: Path, tensors: dict[str, Tensor]) -> None:
        scratch = path.with_suffix(".tmp")
        write_tensors(_contiguous(tensors), scratch)
        _fsync(scratch)
        scratch.rename(path)
        _fsync(self.folder)  # before a checkpoint that names it

    def _clean(self, keep: set[str | None]) -> None:
        for path in self.folder.iterdir():
            if path.name.startswith("step_") and path.name not in keep:
                shutil.rmtree(path, ignore_errors=True)
            elif path.name.startswith("best_") and path.name not in keep:
                path.unlink()


def best_name(step: int) -> str:
    """The file of the weights of an evaluation that was the best so far."""
    return f"best_{step:08d}.safetensors"


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], plain: dict[str, Any]) -> None:
    """Give an optimiser back the state that `Checkpoints.save` wrote.

    Moments get their parameter's memory layout back: the fused kernel walks both as they lie in memory.
    """
    current = optimizer.state_dict()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        index, field = name.split(".", 1)
        parameter = parameters[int(index)]
        if tensor.shape == parameter.shape:
            tensor = laid_out_as(tensor, parameter)
        state.setdefault(int(index), {})[field] = tensor
    for index, fields in plain["state"].items():
        state.setdefault(int(index), {}).update(fields)
    groups = [{**now, **then} for now, then in zip(current["param_groups"], plain["groups"], strict=True)]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimiser's tensors by "NUMBER.FIELD", and the rest of its state, on the main process.

    Of a sharded one, every process must ask. They are to be written before the next step: on a CPU they are no copies.
    """
    tensors: list[tuple[str, Tensor]] = []
    plain: dict[str, dict[str, Any]] = {}
    current = optimizer.state_dict()
    for index, fields in current["state"].items():
        for name, value in fields.items():
            if isinstance(value, Tensor):
                tensors.append((f"{index}.{name}", value))
            else:
                plain.setdefault(str(index), {})[name] = value
    groups = [{"lr": group["lr"]} for group in current["param_groups"]]
    return collect(tensors), {"state": plain, "groups": groups}


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise MmfuseError(f"{error.filename or path}: cannot be read: {error.strerror}") from error
    except (SafetensorError, OSError, ValueError) as error:
        raise MmfuseError(f"{path}: damaged ({first_line(error)}); --restart discards the run") from error


def _contiguous(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
