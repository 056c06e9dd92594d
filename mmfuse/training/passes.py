"""The passes of one micro-batch: however many a method makes, all of them drop out the same."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmfuse.training.learner import Held, Told
from mmfuse.types import Batch, Step


class Passes:
    """Forward passes of a micro-batch that begin with the random state of the first one.

    Args:
        wrapped: The learner as Accelerate has wrapped it.
        learner: The bare one.
        held: Whether the wrapper must not look into batches.

    Attributes:
        parts: `Told.parts` of the first pass of `learn`; None before it.
    """

    def __init__(self, wrapped: nn.Module, learner: nn.Module, held: bool):
        self.wrapped, self.learner, self.held = wrapped, learner, held
        self.parts: Tensor | None = None
        self._state: list[Tensor] | None = None

    def learn(self, batch: Batch, step: Step) -> tuple[Tensor, Told]:
        """A pass for training."""
        loss, told = self._run(self.wrapped, batch, step)
        if self.parts is None:
            self.parts = told.parts
        return loss, told

    def look(self, batch: Batch, step: Step) -> tuple[Tensor, Told]:
        """A pass that no other process knows of."""
        return self._run(self.learner, batch, step)

    def _run(self, module: nn.Module, batch: Batch, step: Step) -> tuple[Tensor, Told]:
        own: list[Any] = [torch]
        device = batch["row_ids"].device
        if device.type != "cpu":
            own.append(torch.get_device_module(device))
        if self._state is None:
            self._state = [source.get_rng_state() for source in own]
        else:
            for source, state in zip(own, self._state, strict=True):
                source.set_rng_state(state)
        return module(Held(batch) if self.held else batch, step)
