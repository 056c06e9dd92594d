"""Optimizers by name: torch's own, and timm's Lion; the options of each are the arguments of its function here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from timm.optim.lion import Lion

from mmfuse.registry import Registry
from mmfuse.types import MmfuseError, first_line

OPTIMIZERS = Registry("optimizer", reserved=("groups",), functions=True)

Groups = list[dict[str, Any]]
"""Of parameters, as `mmfuse.training.optimization.parameter_groups` makes them, with rate and weight decay."""


@OPTIMIZERS.register("adamw")  # type: ignore[arg-type]  (a function with a signature, as a class has)
def adamw(
    groups: Groups, betas: Sequence[float] = (0.9, 0.999), eps: float = 1e-8, amsgrad: bool = False
) -> torch.optim.Optimizer:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, arXiv 1711.05101)."""
    return torch.optim.AdamW(groups, betas=_pair(betas), eps=eps, amsgrad=amsgrad, fused=True)


@OPTIMIZERS.register("adam")  # type: ignore[arg-type]
def adam(
    groups: Groups, betas: Sequence[float] = (0.9, 0.999), eps: float = 1e-8, amsgrad: bool = False
) -> torch.optim.Optimizer:
    """Adam, whose weight decay is an L2 penalty (Kingma and Ba 2015, arXiv 1412.6980)."""
    return torch.optim.Adam(groups, betas=_pair(betas), eps=eps, amsgrad=amsgrad, fused=True)


@OPTIMIZERS.register("sgd")  # type: ignore[arg-type]
def sgd(groups: Groups, momentum: float = 0.0, dampening: float = 0.0, nesterov: bool = False) -> torch.optim.Optimizer:
    """Gradient descent with momentum, whose weight decay is an L2 penalty (Sutskever et al. 2013)."""
    return torch.optim.SGD(groups, momentum=momentum, dampening=dampening, nesterov=nesterov)


@OPTIMIZERS.register("adafactor")  # type: ignore[arg-type]
def adafactor(
    groups: Groups, beta2_decay: float = -0.8, eps: Sequence[float | None] = (None, 1e-3), d: float = 1.0
) -> torch.optim.Optimizer:
    """Adam's second moments of a matrix by rows and columns, and no first ones (Shazeer and Stern 2018, 1804.04235)."""
    return torch.optim.Adafactor(groups, beta2_decay=beta2_decay, eps=_pair(eps), d=d)


@OPTIMIZERS.register("lion")  # type: ignore[arg-type]
def lion(groups: Groups, betas: Sequence[float] = (0.9, 0.99), caution: bool = False) -> torch.optim.Optimizer:
    """The sign of a momentum; its rate is 3 to 10 times lower than AdamW's (Chen et al. 2023, arXiv 2302.06675)."""
    return Lion(groups, betas=_pair(betas), caution=caution)


def build_optimizer(value: Any, groups: Groups) -> torch.optim.Optimizer:
    """The optimizer that `training.optimizer` chooses.

    Raises:
        MmfuseError: There is no such optimizer, or it refuses an option.
    """
    name, options = OPTIMIZERS.chosen(value, "training.optimizer")
    build: Any = OPTIMIZERS.get(name)
    try:
        return build(groups, **options)
    except (ValueError, TypeError) as error:
        raise MmfuseError(f"training.optimizer: {name}: {first_line(error)}") from error


def check_optimizer(value: Any, sharded: bool) -> None:
    """Refuse, before anything is trained, an optimizer that does not exist, or cannot be had of sharded weights.

    Raises:
        MmfuseError: It is one of these.
    """
    build_optimizer(value, [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 0.0}])
    name, _ = OPTIMIZERS.chosen(value, "training.optimizer")
    if sharded and name == "adafactor":  # its rows and columns are those of a whole matrix
        raise MmfuseError("training.optimizer: adafactor cannot be had with FSDP; adamw, adam, sgd or lion is expected")


def moments(value: Any) -> int:
    """Numbers that an optimizer keeps of each weight: what a checkpoint has beside it."""
    name, options = OPTIMIZERS.chosen(value, "training.optimizer")
    if name in ("adam", "adamw"):
        return 3 if options.get("amsgrad") else 2
    return int(name == "lion" or bool(options.get("momentum")))


def _pair(values: Sequence[Any]) -> tuple[Any, Any]:
    first, second = values
    return first, second
