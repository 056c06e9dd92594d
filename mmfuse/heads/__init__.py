"""Task heads: one file each, found by name, and the base they have."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from mmfuse.registry import Registry
from mmfuse.tasks import TASKS, TaskKind, build_task
from mmfuse.types import Features, MmfuseError

HEADS = Registry("head", reserved=("in_dim", "task"))


class Head(nn.Module):
    """What maps fused features to what is said of a task; what that means is its task's (`mmfuse.tasks`).

    It is registered in `HEADS` under the name of its task's kind, and its constructor is `(in_dim, task, options)`.
    Label heads are linear on `pooled`: depth belongs to the fusion, or `late` with a deep head would not be additive.

    Attributes:
        reads: What it reads of the fused features, `{"pooled"}` or `{"pooled", "tokens"}`.
        generates: Whether it says things by itself, step by step: then `forward` needs the target too, and what it says
            of a row is one record that its `predict` gives (`mmfuse.heads.captioning`).
        counts_here: Whether `count`, as the class that says this defines it, takes a target on the CPU also where the
            head is on a GPU, which then is not waited for.
        task: What its target is, and what its output means.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"pooled"})
    generates: ClassVar[bool] = False
    counts_here: ClassVar[bool] = True

    def __init__(self, task: TaskKind):
        super().__init__()
        self.task = task

    def forward(self, features: Features) -> Tensor:
        """Logits `(B, task.width)`."""
        raise NotImplementedError

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Sum of the losses over labelled targets, a scalar; a missing target adds nothing."""
        raise NotImplementedError

    def count(self, target: Tensor) -> Tensor:
        """Number (or weight) of labelled targets, a scalar: what the loss is divided by."""
        return (~target.isnan()).sum().float()

    def weigh(self, targets: np.ndarray) -> None:
        """Balance the loss by how often each label occurs in the training targets.

        Raises:
            MmfuseError: There are no labels.
        """
        raise MmfuseError("class_weights: balanced is for labels, and there are none")

    def said_loss(self, said: np.ndarray, target: np.ndarray, device: Any) -> tuple[float, float]:
        """`loss` and `count` of what was said of some rows.

        Args:
            said: By row, as inference gives it.
            target: By row, encoded.
            device: Where it is computed.
        """
        there = torch.from_numpy(target).to(device)
        return float(self.loss(torch.from_numpy(said).to(device), there)), float(self.count(there))

    def combine(self, logits: list[Tensor], combine: Callable[[list[Tensor]], Tensor]) -> Tensor:
        """A decision-level strategy's logits of those of its branches.

        Args:
            logits: By branch, `(B, task.width)`.
            combine: Of choices on the last axis makes one (`mmfuse.fusion`).

        Raises:
            MmfuseError: The task has no labels to choose from.
        """
        raise MmfuseError("a fusion that combines decisions needs labels, and a task has none; take another fusion")

    @property
    def labels(self) -> list[str]:
        """The task's label names."""
        return self.task.labels

    @property
    def monitor(self) -> str:
        """The metric that early stopping watches by default."""
        return self.task.monitor

    @property
    def temperature(self) -> float:
        """The task's; of a task with labels."""
        return self.task.temperature  # type: ignore[attr-defined]

    @temperature.setter
    def temperature(self, value: float) -> None:
        self.task.load_state({**self.task.state(), "temperature": value}, "temperature")

    @property
    def thresholds(self) -> list[float] | None:
        """The task's; of a task with labels."""
        return self.task.thresholds  # type: ignore[attr-defined]

    @thresholds.setter
    def thresholds(self, value: list[float]) -> None:
        self.task.load_state({**self.task.state(), "thresholds": value}, "thresholds")

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """What the task makes of logits."""
        return self.task.predictions(logits)

    def decide(self, predicted: Any) -> dict[str, Any]:
        """What a predictions file says of one row of these."""
        return self.task.decide(predicted)


class Heads(nn.ModuleDict):
    """By task its head; a task may be called `type` or `values`, which torch refuses, having methods of these names."""

    def __setitem__(self, task: str, head: nn.Module) -> None:
        self._modules[task] = head


class TaskParameters(nn.ParameterDict):
    """By task a parameter, whatever the task is called, as in `Heads`."""

    def __getitem__(self, task: str) -> Any:
        return self._parameters[task]

    def __setitem__(self, task: str, value: nn.Parameter) -> None:
        self._keys[task] = None
        self._parameters[task] = value


def build_head(
    kind: str,
    in_dim: int,
    labels: Sequence[str] = (),
    options: dict[str, Any] | None = None,
    task_options: dict[str, Any] | None = None,
) -> Head:
    """The registered head `kind`, with its task.

    Args:
        kind: The name of both.
        in_dim: Width of the fused features.
        labels: The label names in the order of the logits.
        options: Of the head's constructor.
        task_options: Of the task's.

    Raises:
        MmfuseError: There is no such head or no such task, or an option that its constructor does not take.
    """
    options = options or {}
    HEADS.check_options(kind, options)
    if kind not in TASKS.names():
        raise MmfuseError(
            f"the head {kind!r} has no task: register in mmfuse.tasks.TASKS, under the same name, what its target is"
        )
    head = HEADS.build(kind, "its head", in_dim, build_task(kind, labels, task_options), **options)
    if not isinstance(getattr(head, "task", None), TaskKind):
        raise MmfuseError(f"the head {kind!r} does not keep its task; call super().__init__(task) of mmfuse.heads.Head")
    return head


def decide_rows(head: Any, said: np.ndarray) -> Iterator[dict[str, Any]]:
    """What a predictions file says of each row of a head's output: logits `(B, L)`, or records `(B,)`."""
    return map(head.task.decide, head.task.predictions(said))


for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
