"""Methods: how an optimiser step is made, one file each, found by name; a run has one."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor

from mmfuse.config import Config
from mmfuse.model import FusionModel
from mmfuse.registry import Registry
from mmfuse.training.learner import Learner, Told
from mmfuse.types import Batch, Step

METHODS = Registry("method")

Pass = Callable[[Batch, Step], tuple[Tensor, Told]]
"""A forward pass, as `Learner` gives it; all passes of a batch drop out the same."""


class Method:
    """How a step is made; a subclass changes what it must, and its constructor's signature is its config schema.

    `mmfuse check NAME --kind methods` tests all of this. What a method draws depends on `step.seed` and `batch["ids"]`
    alone, and what it computes of a row on no other row: else the result would depend on how many processes train.

    Attributes:
        passes: Losses that `losses` yields of a batch.
        edits_gradients: Whether `gradients` changes them.
    """

    passes: int = 1
    edits_gradients: bool = False

    def check(self, model: FusionModel, config: Config) -> None:
        """Refuse, before training, what it cannot do.

        Raises:
            MmfuseError: The message begins with `training.method`, names what it is, and what to do instead.
        """

    def losses(self, learn: Pass, look: Pass, batch: Batch, step: Step) -> Iterator[Tensor]:
        """The losses of a batch; each is yielded as soon as it is there, and its backward pass is done when it returns.

        Args:
            learn: The forward pass whose loss is yielded.
            look: The same past the wrappers of several processes: for `torch.autograd.grad`, not to be yielded.
            batch: Of this process. A tower adds `text_shift` (to its word embeddings) and `image_shift` (to its
                normalised pixels) where these are in it.
            step: The optimiser step that the batch is a part of.
        """
        loss, _ = learn(batch, step)
        yield loss

    def gradients(self, learner: Learner, step: Step) -> None:
        """Change the gradients of a step, summed over batches and processes, before they are clipped."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must know: tensors, and what JSON has; the same on all processes."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""


def build_method(value: Any) -> Method:
    """The method that a config chooses.

    Raises:
        MmfuseError: There is no such method, or it refuses an option.
    """
    name, options = METHODS.chosen(value, "training.method")
    return METHODS.build(name, "training.method", **options)


for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
