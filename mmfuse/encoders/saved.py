"""Towers of a model folder of mmfuse, built without a second copy of their weights; `mmfuse-model:FOLDER` as a name."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

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


def build_on(build: Callable[[], nn.Module], weights: dict[str, Tensor] | None) -> nn.Module:
    """What `build` gives, on these weights themselves: nothing is drawn at random, and nothing copied.

    Tensors that safetensors gives are the file, mapped into memory: processes that load it share one copy.

    Args:
        build: Makes a model with random weights.
        weights: By "model.NAME", all tensors of its state; None: it keeps the random ones.

    Raises:
        MmfuseError: They are not the model's.
    """
    if weights is None:
        return build()
    with _without_parameters():
        model = build()
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
def _without_parameters() -> Iterator[None]:
    """Modules that this thread builds get parameters of a shape only; buffers are real."""
    builder = threading.get_ident()

    def empty(module: nn.Module, name: str, parameter: nn.Parameter | None) -> nn.Parameter | None:
        if parameter is None or parameter.is_meta or threading.get_ident() != builder:
            return parameter
        return nn.Parameter(parameter.detach().to("meta"), requires_grad=parameter.requires_grad)

    hook = register_module_parameter_registration_hook(empty)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def damaged_tower(name: str, tower: str) -> Iterator[None]:
    """Say in one line that a tower cannot be built of what `read_tower` gave, or does not take its weights."""
    try:
        yield
    except Exception as error:  # whatever timm, transformers or torch say of values that are not theirs
        reason = str(error).strip().partition("\n")[0][:160]
        raise MmfuseError(f"{tower}.name: {name}: the model's config.json or weights are damaged ({reason})") from error
