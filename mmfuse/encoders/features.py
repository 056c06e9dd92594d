"""Towers that read numbers of a table in place of a text or an image; `features` takes them as they are."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from mmfuse.encoders.adapters import keep_to_adapter
from mmfuse.types import Features, MmfuseError


class FeatureTower(nn.Module):
    """The base of towers over numbers: an item of a row is `(T, D)` float32, a vector being one token.

    A subclass has a constructor that starts with `width` (`D` of its items), whose other arguments are its options in
    a config; it sets `dim` and defines `forward(values, mask)`. It may define `fit`, to learn from the training rows
    before the first step what is no weight, such as a mean; that goes into buffers, which are saved.

    Attributes:
        dim: Width of the features that it gives.
        frozen: Whether it stays in eval mode and gets no gradient.
        options: What it was built with; set by mmfuse, with `name` and `width`.
    """

    reads: ClassVar[str] = "features"
    dim: int
    frozen: bool = False
    name: str = ""
    width: int = 0
    options: dict[str, Any] = {}  # noqa: RUF012  # replaced, never changed

    def forward(self, values: Tensor, mask: Tensor) -> Features:
        """Encode items.

        Args:
            values: `(N, T, D)` float32, 0 where masked.
            mask: `(N, T)` bool, True on real tokens, of which each item has one at least.

        Returns:
            `tokens` `(N, S, dim)`; `present` is True.
        """
        raise NotImplementedError

    def fit(self, items: Iterable[np.ndarray]) -> None:
        """Learn from the training rows' items, `(T, D)` each, what is no weight; nothing by default."""

    @property
    def fits(self) -> bool:
        """Whether it wants to see the training rows before the first step."""
        return type(self).fit is not FeatureTower.fit

    def freeze(self, frozen: bool) -> None:
        """Freeze or release the weights; frozen, it also stays in eval mode."""
        self.frozen = frozen
        self.requires_grad_(not frozen)
        keep_to_adapter(self)
        self.train(self.training)

    def train(self, mode: bool = True) -> FeatureTower:
        """Training mode, except where it is frozen."""
        return super().train(mode and not self.frozen)

    def checkpoint_gradients(self) -> None:
        """Nothing: what it computes is small."""

    def spec(self) -> dict[str, Any]:
        """What the same tower is built from again; JSON."""
        return {"tower": self.name, "width": self.width, "options": self.options}

    def inputs(self, batch: Any, modality: str) -> tuple[Tensor, ...] | None:
        """What `forward` takes of a packed batch; None where there is nothing."""
        values = batch.get(f"{modality}_values")
        return (values, batch[f"{modality}_values_mask"]) if values is not None and len(values) else None

    def blank(self, modality: str, device: torch.device) -> dict[str, Tensor]:
        """Entries of a batch that hold an item which means nothing."""
        mask = torch.ones(1, 1, dtype=torch.bool, device=device)
        return {f"{modality}_values": torch.zeros(1, 1, self.width, device=device), f"{modality}_values_mask": mask}


def pooled_features(tokens: Tensor, mask: Tensor) -> Features:
    """`Features` of tokens `(N, T, dim)` with the mean over the real ones as `pooled`."""
    weight = mask.unsqueeze(-1).to(tokens.dtype)
    pooled = (tokens * weight).sum(1) / weight.sum(1).clamp_min(1.0)
    return Features(tokens, mask, pooled, torch.ones_like(mask[:, 0]))


class PrecomputedFeatures(FeatureTower):
    """Features that were computed before, as they are: a large model's embedding, a 3-D scan's vector.

    It has no weights, so there is nothing to train, to freeze or to cache. A fusion normalises each vector by itself
    (`mmfuse.fusion.projection`): its mean and its length are lost, which is little of an embedding of hundreds of
    numbers and much of a few measurements.

    Args:
        width: Numbers of a vector.
        pooling: How several tokens become one vector: their "mean", or "first", such as a CLS token.

    Reference: frozen features under a trained classifier, as Donahue et al. 2014, "DeCAF", ICML (arXiv 1310.1531).
    Differs: the features come from a table or a file, and may be of anything.
    Prefer when: the encoder is too large to run here, or is none of transformers' or timm's; of a few measurements a
        tower that maps them to more numbers first.
    """

    def __init__(self, width: int, pooling: str = "mean"):
        super().__init__()
        if width < 3:
            raise MmfuseError(
                f"tower features: {width} number(s) a vector: a fusion normalises each vector by itself, which leaves "
                "nothing of so few; a tower that maps them to more is needed"
            )
        if pooling not in ("mean", "first"):
            raise MmfuseError(f"tower features: pooling: {pooling!r} is not legal; legal: mean, first")
        self.pooling = pooling
        self.dim = width

    def forward(self, values: Tensor, mask: Tensor) -> Features:
        """The numbers as tokens."""
        found = pooled_features(values, mask)
        return found if self.pooling == "mean" else found._replace(pooled=values[:, 0])


def check_class(name: str, cls: type) -> None:
    """Refuse a registered class that mmfuse could not build.

    Raises:
        MmfuseError: It is no `FeatureTower`, or its constructor does not start with `width`.
    """
    if not (inspect.isclass(cls) and issubclass(cls, FeatureTower)):
        raise MmfuseError(f"tower {name!r}: it reads no features: a class derived from FeatureTower is expected")
    if next(iter(inspect.signature(cls).parameters), None) != "width":
        raise MmfuseError(f"tower {name!r}: its constructor must start with `width`")
