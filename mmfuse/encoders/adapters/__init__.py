"""Adapters: parameter-efficient tuning of a tower; one file each, found by name, and the protocol they keep."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any, ClassVar, NamedTuple

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmfuse.registry import Registry
from mmfuse.types import MmfuseError

ADAPTERS = Registry("adapter")


class Adapter:
    """The base of adapters; the constructor's signature is the config schema. `mmfuse check NAME` tests all of this.

    Attributes:
        starts_equal: Whether a tower gives the same features before the first step as without the adapter.
    """

    starts_equal: ClassVar[bool] = True

    def apply(self, tower: nn.Module) -> None:
        """Put in what is trained.

        All of the tower's parameters are frozen when this is called; those that have a gradient when it returns are the
        adapter's, and nothing else of the tower is ever trained. It adds no buffers.

        Raises:
            MmfuseError: There is nothing in this tower that it can adapt.
        """
        raise NotImplementedError

    def merge(self, tower: nn.Module) -> None:
        """Fold it into the tower's own weights: modules and names are then those before `apply`."""
        raise NotImplementedError


class _Adapted(NamedTuple):
    """What a tower was adapted by, and the names of all that is trained of it."""

    adapter: Any
    trained: frozenset[str]


def adapt(tower: nn.Module, chosen: Any, where: str) -> None:
    """Adapt a tower: from now on nothing else of it is trained, whenever it is released.

    Args:
        tower: A text, image or feature tower.
        chosen: A name, or `{name: ..., options}`.
        where: The key it stands at; errors begin with it.

    Raises:
        MmfuseError: There is no such adapter, or it cannot adapt this tower.
    """
    name, options = ADAPTERS.chosen(chosen, where)
    norms = any(isinstance(module, _BatchNorm) for module in tower.modules())
    if norms and getattr(tower, "batch_norm", None) != "frozen":
        raise MmfuseError(f"{where}: batch statistics are in no adapter: set image_encoder.batch_norm: frozen")
    frozen: Any = tower.frozen
    tower.requires_grad_(False)
    adapter = ADAPTERS.build(name, where, **options)
    try:
        adapter.apply(tower)
    except MmfuseError as error:
        raise MmfuseError(f"{where}: {error}") from error
    trained = frozenset(name for name, parameter in tower.named_parameters() if parameter.requires_grad)
    if not trained:
        raise MmfuseError(f"{where}: adapter {name!r} finds nothing in this tower to train")
    tower.__dict__["_adapted"] = _Adapted(adapter, trained)  # no submodule: its names would be saved
    tower.freeze(frozen)  # type: ignore[operator]


def adapted_names(tower: nn.Module) -> frozenset[str] | None:
    """Of an adapted tower the names of all that is ever trained; None of another."""
    found = tower.__dict__.get("_adapted")
    return found and found.trained


def keep_to_adapter(tower: nn.Module) -> None:
    """Freeze all but the adapter's parameters again, as a tower is released; of one without an adapter, nothing.

    What the adapter trains may be of a batch norm, whose statistics alone stay as they are.
    """
    names = adapted_names(tower)
    for name, parameter in tower.named_parameters() if names is not None else ():
        parameter.requires_grad_(name in names and not tower.frozen)  # type: ignore[operator]


def merge_adapter(tower: nn.Module) -> None:
    """Fold a tower's adapter, if it has one, into its weights: the tower is then a plain one."""
    found = tower.__dict__.pop("_adapted", None)
    if found is not None:
        found.adapter.merge(tower)
        tower.freeze(tower.frozen)  # type: ignore[operator]


for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
