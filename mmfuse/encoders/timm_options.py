"""Which timm models, with which options, a model folder's image tower may be built of."""

from __future__ import annotations

import inspect
import re
import sys
from typing import Any

import timm
from timm.models._builder import build_model_with_cfg

from mmfuse.config import LARGEST_SIZE
from mmfuse.registry import nearest
from mmfuse.types import MmfuseError

_MOST = 100_000
"""Of any number: a damaged depth would build for hours before it takes memory."""
_WORD = re.compile(r"(?!\.)[A-Za-z0-9_.-]{0,64}")
_NEVER = frozenset(
    name
    for function in (timm.create_model, build_model_with_cfg)
    for name, parameter in inspect.signature(function).parameters.items()
    if parameter.kind is not parameter.VAR_KEYWORD
) | {"num_classes", "features_only", "feature_cls", "out_indices", "cfg", "device", "dtype", "self", "args", "kwargs"}
"""What timm's factory itself reads: files to load, other weights, caches, wrappers; and what is set here."""
_FOR_ALL = ("bn_eps", "bn_momentum", "bn_tf", "norm_eps")
"""Read by builders of several families, and no parameter of their classes."""


def is_loading(name: str) -> bool:
    """Whether an option tells timm how to begin a model, not what it is: it is not kept with a model."""
    return name in _NEVER or (name.startswith("pretrained") and not name.startswith("pretrained_window"))


def check_architecture(name: Any, options: Any, where: str) -> None:
    """Refuse a name that is no architecture of timm, and options that its classes do not take.

    Args:
        name: Of `timm.create_model`, without weights.
        options: Keyword arguments of it.
        where: What the error begins with.

    Raises:
        MmfuseError: The message names the option and says what is legal.
    """
    if not isinstance(name, str) or not _WORD.fullmatch(name) or not timm.is_model(name):
        raise MmfuseError(f"{where}.name {str(name)[:60]!r}: timm has no such architecture")
    if not isinstance(options, dict):
        raise MmfuseError(f"{where}.options {options!r:.60}: a mapping is expected")
    legal = _parameters(name.partition(".")[0])
    for key, value in options.items():
        if is_loading(key) or key.removeprefix("transformer_").removeprefix("conv_") not in legal:
            raise MmfuseError(f"{where}.options.{str(key)[:60]}: no option of {name}; {nearest(key, sorted(legal))}")
        if not _is_plain(value):
            raise MmfuseError(
                f"{where}.options.{key} {value!r:.40}: numbers of at most {_MOST} and plain words are expected"
            )
        if key.endswith("img_size") and max(_numbers(value), default=0) > LARGEST_SIZE:
            raise MmfuseError(f"{where}.options.{key} {value!r:.40}: at most {LARGEST_SIZE} is expected")


def _parameters(architecture: str) -> set[str]:
    """What the classes take that the module of an architecture knows: models, their bases and their settings."""
    module = sys.modules[timm.model_entrypoint(architecture).__module__]
    found: set[str] = set(_FOR_ALL)
    for item in vars(module).values():
        if inspect.isclass(item) and item.__module__.startswith("timm.models."):
            found.update(inspect.signature(item).parameters)
    return {name for name in found if not is_loading(name)}


def _numbers(value: Any) -> list[float]:
    return [v for v in (value if isinstance(value, (list, tuple)) else [value]) if isinstance(v, (int, float))]


def _is_plain(value: Any, depth: int = 4) -> bool:
    if isinstance(value, (bool, int, float)) or value is None:
        return value is None or abs(value) <= _MOST
    if isinstance(value, str):
        return bool(_WORD.fullmatch(value))
    if depth and isinstance(value, (list, tuple)):
        return all(_is_plain(item, depth - 1) for item in value)
    return bool(depth and isinstance(value, dict)) and all(
        isinstance(key, str) and not is_loading(key) and _is_plain(item, depth - 1) for key, item in value.items()
    )
