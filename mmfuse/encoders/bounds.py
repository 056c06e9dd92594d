"""What building a model of somebody else's config may take: no more memory than its weights give reason for."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)
from torch.utils._python_dispatch import TorchDispatchMode

from mmfuse.types import MmfuseError
from mmfuse.untrusted import check_readable

_SLACK_TENSORS, _SLACK_NUMBERS = 10_000, 64 * 2**20
"""How many more a model may have while it is built than its weights file: such as a classifier that is taken out."""


@contextmanager
def weights_file(path: Path) -> Iterator[None]:
    """Say in one line why a safetensors file cannot be read."""
    check_readable(path)
    try:
        yield
    except FileNotFoundError as error:
        raise MmfuseError(f"{path.parent}: the model folder is incomplete: {path.name} is missing") from error
    except (
        SafetensorError,
        OSError,
        KeyError,
        ValueError,
        RuntimeError,
    ) as error:  # it knows types that torch does not
        raise MmfuseError(f"{path}: damaged: {str(error).partition(chr(10))[0][:160]}") from error


@contextmanager
def no_larger_than(path: Path) -> Iterator[None]:
    """Stop building a model that is far larger than its weights: a damaged config.json could take all memory.

    Args:
        path: Of the weights, a safetensors file.

    Raises:
        MmfuseError: Parameters and buffers are together four times as large as the weights, or a tensor on the way to
            them is.
    """
    with weights_file(path), safe_open(path, "pt") as file:
        shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118 - it is no mapping
    tensors, numbers = 4 * len(shapes) + _SLACK_TENSORS, 4 * sum(map(math.prod, shapes)) + _SLACK_NUMBERS
    builder, made, size = threading.get_ident(), 0, 0
    too_large = MmfuseError(f"{path.parent}: config.json describes a larger model than {path.name} holds")

    def count(module: nn.Module, name: str, tensor: Tensor | None) -> None:
        nonlocal made, size
        if tensor is None or threading.get_ident() != builder:
            return
        made, size = made + 1, size + tensor.numel()
        if made > tensors or size > numbers:
            raise too_large

    hooks = [register_module_parameter_registration_hook(count), register_module_buffer_registration_hook(count)]
    try:
        with _Sizes(numbers, too_large):
            yield
    finally:
        for hook in hooks:
            hook.remove()


class _Sizes(TorchDispatchMode):
    """Refuses what would make a large tensor out of small ones, or of nothing, before it is made.

    Position tables, masks and relative positions are made so, of a config's numbers alone, before any of them is
    registered; a parameter too.

    Args:
        most: Numbers that a tensor may have.
        error: What is raised.
    """

    def __init__(self, most: int, error: MmfuseError):
        super().__init__()
        self.most, self.error = most, error

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made, given = _size_made(func, args)
        if made > self.most and made > 2 * given:
            raise self.error
        return func(*args, **(kwargs or {}))


def _size_made(func: Any, args: Any) -> tuple[int, int]:
    """How many numbers an operation's result has, as far as its arguments tell, and the largest tensor it is given."""
    tensors = [arg for arg in args if isinstance(arg, Tensor)]
    name = func.overloadpacket.__name__
    if not tensors or name.startswith("new_"):
        if name == "arange":
            ends = [arg for arg in args if isinstance(arg, (int, float))]
            start, end, step = (0, *ends, 1) if len(ends) == 1 else (*ends, 1)[:3]
            return int(abs((end - start) / step)), 0
        sizes = next((arg for arg in args if isinstance(arg, (list, tuple))), ())
        return math.prod(n for n in sizes if isinstance(n, int)), 0
    given = max(tensor.untyped_storage().nbytes() // tensor.element_size() for tensor in tensors)
    if name in ("mm", "bmm"):
        return math.prod(tensors[0].shape) // max(1, tensors[0].shape[-1]) * tensors[1].shape[-1], given
    if name in ("clone", "_to_copy", "repeat"):
        times = math.prod(args[1]) if name == "repeat" else 1
        return tensors[0].numel() * times, given
    if torch.Tag.pointwise in func.tags:
        return math.prod(torch.broadcast_shapes(*(tensor.shape for tensor in tensors))), given
    return 0, given
