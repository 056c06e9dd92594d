"""A step that was taken: its numbers are read when they have come, and a GPU is not waited for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mmfuse.types import MmfuseError


class Numbers(NamedTuple):
    """What is told of a step.

    Attributes:
        loss: Over all processes and accumulated batches.
        norm: Of the gradient, before it was clipped; 0 where it is not.
        rate: The first group's learning rate.
        losses: By part (`Learner.parts`), its share without weights.
        skipped: Whether fp16's scaled gradient was too large, so that the weights stayed and the scale was halved.
    """

    loss: float
    norm: float
    rate: float
    losses: dict[str, float]
    skipped: bool = False


class Taken:
    """The numbers of a step on their way from the device.

    From a CUDA device they are copied while it goes on, so `read` waits for this step, not for what was begun after it.

    Args:
        numbers: `(1 + parts + 1,)`: the loss, its parts and the gradient's norm.
        parts: Their names.
        step: Which one it was, from 1.
        rate: Its learning rate.
        scaled: Whether the gradient was computed at a scale, as in fp16.
    """

    def __init__(self, numbers: Tensor, parts: Sequence[str], step: int, rate: float, scaled: bool = False):
        self.parts, self.step, self.rate, self.scaled = list(parts), step, rate, scaled
        self._come: torch.cuda.Event | None = None
        if numbers.device.type == "cuda":
            numbers = numbers.to("cpu", non_blocking=True)  # to pinned memory
            self._come = torch.cuda.Event()
            self._come.record()
        self._numbers = numbers

    def read(self) -> Numbers:
        """The numbers.

        Raises:
            MmfuseError: The loss is not finite.
        """
        if self._come is not None:
            self._come.synchronize()
        loss, *losses, norm = self._numbers.tolist()
        named = dict(zip(self.parts, losses, strict=True))
        if not math.isfinite(loss):
            strange = [f"{part} is {value}" for part, value in named.items() if not math.isfinite(value)]
            which = f" ({', '.join(strange)})" if len(named) > 1 and strange else ""
            raise MmfuseError(
                f"the loss is {loss} at step {self.step}{which}: lower training.learning_rate, or leave "
                f"mixed_precision out"
            )
        return Numbers(loss, norm, self.rate, named, self.scaled and not math.isfinite(norm))
