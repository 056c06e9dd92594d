"""Towers of a model folder of mmfuse, built without a second copy of their weights; `mmfuse-model:FOLDER` as a name."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from mmfuse.effect import SAVED_TOWER
from mmfuse.encoders.bounds import no_larger_than
from mmfuse.types import MmfuseError
from mmfuse.untrusted import check_files, check_readable


def write_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write a safetensors file that others may read as they may any new file; the library's own are 0600.

    Args:
        tensors: Contiguous ones that share no memory.
        path: Of a new file, or one that is written over.
    """
    path.unlink(missing_ok=True)
    path.touch()
    mode = path.stat().st_mode
    save_file(tensors, path, metadata={"format": "pt"})
    path.chmod(mode)


def read_tower(name: str, tower: str) -> tuple[Path, dict[str, Any], dict[str, Tensor]]:
    """The folder, the spec and the weights of a model folder's tower.

    Args:
        name: `mmfuse-model:FOLDER`.
        tower: "text_encoder" or "image_encoder".

    Raises:
        MmfuseError: It is no model folder, is damaged, or has no such tower.
    """
    folder = Path(name.removeprefix(SAVED_TOWER))
    try:
        check_files(folder)
        for file in ("config.json", "model.safetensors"):
            if not os.path.isfile(folder / file):  # a FIFO would block
                raise OSError(f"{file} is not a file")
            check_readable(folder / file)
        spec = json.loads((folder / "config.json").read_text(encoding="utf-8"))[tower]
        weights = load_file(folder / "model.safetensors")
    except (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
        reason = str(error).partition("\n")[0]
        raise MmfuseError(f"{tower}.name: {folder} is not a complete model folder of mmfuse ({reason})") from error
    if spec is None:
        raise MmfuseError(f"{tower}.name: the model in {folder} has no {tower.replace('_', ' ')}")
    own = {key.removeprefix(f"{tower}."): value for key, value in weights.items() if key.startswith(f"{tower}.")}
    return folder, spec, own


def stand_on(model: nn.Module, weights: dict[str, Tensor]) -> nn.Module:
    """A tower's model on these tensors themselves, in place of its own.

    Tensors that safetensors gives are the file, mapped into memory: nothing is copied, and processes that load the same
    file share it. What changes them changes a copy, never the file.

    Args:
        model: With parameters of any values, or of none (`without_parameters`).
        weights: By "model.NAME", all tensors of its state.

    Raises:
        MmfuseError: They are not the model's.
    """
    own, wanted = {name.removeprefix("model."): tensor for name, tensor in weights.items()}, model.state_dict()
    check_fit(wanted, own)
    model.load_state_dict({name: tensor.to(wanted[name].dtype) for name, tensor in own.items()}, assign=True)
    return model


def check_fit(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Refuse tensors that are not those of a state.

    Raises:
        MmfuseError: One is missing, unknown, or of another shape or kind.
    """
    wrong = sorted(set(wanted) ^ set(found)) or [n for n in wanted if _kind(wanted[n]) != _kind(found[n])]
    if wrong:
        raise MmfuseError(
            f"does not fit config.json: {wrong[0]} ({len(wrong)} tensor(s) missing, unknown or of another shape)"
        )


def _kind(tensor: Tensor) -> tuple[Any, bool]:
    return tensor.shape, tensor.is_floating_point()


@contextmanager
def without_parameters() -> Iterator[None]:
    """Modules that this thread builds get parameters of a shape only, so that nothing is drawn; buffers are real.

    All of transformers' models can be built so, which is how it loads them; of timm's, Swin for one cannot.
    """
    builder = threading.get_ident()

    def empty(module: nn.Module, name: str, parameter: nn.Parameter | None) -> nn.Parameter | None:
        if parameter is None or parameter.is_meta or threading.get_ident() != builder:
            return parameter
        return nn.Parameter(parameter.detach().to("meta"), requires_grad=parameter.requires_grad)

    hook = register_module_parameter_registration_hook(empty)  # type: ignore[arg-type] - it may give another one
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def damaged_tower(name: str, tower: str) -> Iterator[None]:
    """Say in one line that a tower cannot be built of what `read_tower` gave, or does not take its weights."""
    try:
        with no_larger_than(Path(name.removeprefix(SAVED_TOWER)) / "model.safetensors"):
            yield
    except Exception as error:  # whatever timm, transformers or torch say of values that are not theirs
        reason = str(error).strip().partition("\n")[0][:160]
        raise MmfuseError(f"{tower}.name: {name}: the model's config.json or weights are damaged ({reason})") from error
