"""Objectives: terms of the loss beside the tasks' own, one file each, found by name, and the protocol they keep."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from mmfuse.model import FusionModel
from mmfuse.registry import Registry
from mmfuse.types import Batch, MmfuseError, Outputs, Step

OBJECTIVES = Registry("objective", reserved=("model",))

READ = frozenset({"text", "image", "fused"})
"""What an objective may read of a forward pass."""


@runtime_checkable
class Objective(Protocol):
    """What an objective offers; it is an `nn.Module` whose constructor starts with `model`.

    The rest of the constructor's signature is its config schema. `mmfuse check NAME --kind objectives` tests all of
    this. The constructor may ask the `FusionModel` for its widths, tasks and labels, and must not keep it: its
    parameters are not the objective's. Parameters have at least one dimension (FSDP2 shards no single number); they are
    trained with the model, kept in checkpoints, and no part of the model folder.

    A step's term is a sum over its rows, or over its labelled targets, divided by their number in the whole step
    (`step.rows`, `step.targets`): so it is the same however the step is cut into processes and accumulated batches.
    What is drawn depends on `step.seed` and the rows alone.

    Attributes:
        reads: Of "text", "image" and "fused", what it must be given; the others are None.

    Instead of a term, it may change how the tasks' own losses count: `weigh(losses: dict[str, Tensor], batch, step) ->
    dict[str, Tensor]`, by task, each already divided by its number of targets. Its `forward` is then not called.
    """

    reads: frozenset[str]

    def forward(self, said: Outputs, batch: Batch, step: Step) -> Tensor:
        """This batch's share of the step's term, a scalar."""
        ...


class Chosen(nn.ModuleDict):
    """By name an objective, in the order of the config; a name may be one of torch's methods."""

    def __setitem__(self, name: str, module: nn.Module) -> None:
        self._modules[name] = module


def share(batch: Batch, step: Step) -> float:
    """The share of the step's rows that are in this batch."""
    return len(batch["row_ids"]) / step.rows


def choose(given: Sequence[Any], task_weights: str, auxiliary: bool) -> dict[str, dict[str, Any]]:
    """By name the options of all objectives of a run, their `weight` among them.

    Args:
        given: What stands in `training.objectives`.
        task_weights: What stands in `training.task_weights`; "uncertainty" is the objective of this name.
        auxiliary: Whether the fusion has a loss of its own, which always counts.

    Raises:
        MmfuseError: One is no objective, has no such option, or stands there twice.
    """
    chosen: dict[str, dict[str, Any]] = {}
    for i, value in enumerate(given):
        where = f"training.objectives[{i}]"
        weight = value.get("weight", 1.0) if isinstance(value, dict) else 1.0
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < float("inf"):
            raise MmfuseError(f"{where}: weight: {weight!r}: a number of at least 0 is expected")
        plain = {k: v for k, v in value.items() if k != "weight"} if isinstance(value, dict) else value
        name, options = OBJECTIVES.chosen(plain, where)
        if name in chosen:
            raise MmfuseError(f"{where}: {name!r} stands there twice")
        if hasattr(OBJECTIVES.get(name), "weigh") and weight != 1:
            raise MmfuseError(f"{where}: {name!r} has no term of its own that a weight could change: remove it")
        chosen[name] = {**options, "weight": float(weight)}
    first = ["uncertainty"] if task_weights == "uncertainty" else []
    first += ["auxiliary"] if auxiliary else []
    return {name: {"weight": 1.0} for name in first if name not in chosen} | chosen


def build_objectives(model: FusionModel, chosen: dict[str, dict[str, Any]]) -> tuple[Chosen, dict[str, float]]:
    """The objectives that `choose` found, and the weight of each.

    Raises:
        MmfuseError: An option is not legal, or one cannot be had with this model.
    """
    built = Chosen()
    for name, options in chosen.items():
        own = {key: value for key, value in options.items() if key != "weight"}
        objective: Any = OBJECTIVES.build(name, "training.objectives", model, **own)
        reads = getattr(objective, "reads", None)
        if not (isinstance(reads, frozenset) and reads <= READ):
            raise MmfuseError(f"objective {name!r}: reads is {reads!r:.100}: a frozenset of {', '.join(sorted(READ))}")
        built[name] = objective
    return built, {name: options["weight"] for name, options in chosen.items()}


for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
