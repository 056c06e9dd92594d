"""Task heads: one file each, found by name, and the protocol they keep."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from torch import Tensor, nn

from mmfuse.registry import Registry
from mmfuse.types import Features

HEADS = Registry("head")


@runtime_checkable
class Head(Protocol):
    """What a head offers; it is an `nn.Module` whose constructor starts with `in_dim, labels`.

    Label heads are linear on `pooled`: depth belongs to the fusion, or `late` with a deep head would not be additive.

    A captioning head (`mmfuse.heads.captioning`) differs: `forward` needs the target too, and what it says of a row is
    one record that `predict` gives and `decide` reads, without probabilities.

    Attributes:
        kind: How evaluation scores it: "classification", "multilabel" or "captioning".
        reads: What it reads of the fused features, `{"pooled"}` or `{"pooled", "tokens"}`.
        monitor: The metric that early stopping watches by default; larger is better.
        labels: Names in the order of the logits.
        temperature: Logits are divided by it before they become probabilities.
        thresholds: Per label, for decisions; None where the head decides otherwise.
    """

    kind: str
    reads: frozenset[str]
    monitor: str
    labels: list[str]
    temperature: float
    thresholds: list[float] | None

    def forward(self, features: Features) -> Tensor:
        """Logits `(B, L)`."""
        ...

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Sum of the losses over labelled targets, a scalar; a missing target adds nothing."""
        ...

    def count(self, target: Tensor) -> Tensor:
        """Number (or weight) of labelled targets, a scalar: what the loss is divided by."""
        ...

    def weigh(self, targets: np.ndarray) -> None:
        """Balance the loss by how often each label occurs in the training targets."""
        ...

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """`(B, L)` in [0, 1]."""
        ...

    def decide(self, probabilities: np.ndarray) -> dict[str, Any]:
        """One row's `(L,)` probabilities as what a predictions file says."""
        ...


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


def build_head(kind: str, in_dim: int, labels: Sequence[str], options: dict[str, Any] | None = None) -> nn.Module:
    """The registered head `kind` for `labels`.

    Raises:
        MmfuseError: No such head, or an option that its constructor does not take.
    """
    options = options or {}
    HEADS.check_options(kind, options, ("self", "in_dim", "labels"))
    return HEADS.get(kind)(in_dim, list(labels), **options)


def decide_rows(head: Any, said: np.ndarray) -> Iterator[dict[str, Any]]:
    """What a predictions file says of each row of a head's output: logits `(B, L)`, or captions' records `(B,)`."""
    return map(head.decide, said if head.kind == "captioning" else head.probabilities(said))


def confidences(head: Any, probabilities: np.ndarray) -> np.ndarray:
    """How sure a label head is of each decision.

    Of a class, its probability. Of a label, how far its probability is on the way from the threshold `t` to certainty:
    `1/2 + (p - t) / (2 (1 - t))` of a yes, `1/2 + (t - p) / (2 t)` of a no; at `t` = 1/2 the larger of p and 1 - p.

    Args:
        head: Of classification or multilabel.
        probabilities: `(B, L)` in [0, 1].

    Returns:
        `(B, 1)` of a class, `(B, L)` of labels, in [0, 1].
    """
    if head.kind == "classification":
        return probabilities.max(axis=-1, keepdims=True)
    threshold = np.broadcast_to(np.asarray(head.thresholds), probabilities.shape)
    room = np.where(probabilities >= threshold, 1 - threshold, threshold)
    way = np.divide(abs(probabilities - threshold), room, out=np.ones_like(probabilities), where=room > 0)
    return 0.5 + 0.5 * way


for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
