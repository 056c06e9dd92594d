"""Fusion strategies: one file each, found by name, and the protocol they keep."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any, Literal, Protocol, runtime_checkable

from torch import nn

from mmfuse.registry import Registry
from mmfuse.types import Features

RESERVED = ("text_dim", "image_dim")
"""Constructor arguments that the model sets; all the others are the strategy's options in a config."""
FUSIONS = Registry("fusion", reserved=RESERVED)


@runtime_checkable
class Fusion(Protocol):
    """What a strategy offers; it is an `nn.Module` whose constructor starts with `text_dim, image_dim`.

    The rest of the constructor's signature is its config schema. `mmfuse check NAME` tests all of this.

    Attributes:
        uses: The modalities it reads, `("text",)`, `("image",)` or both: an encoder that is not used is not built.
        reads: What it reads of them, `{"pooled"}` or `{"pooled", "tokens"}`: what a feature cache must keep.
        interaction: "additive" (`pooled` is a function of the text plus a function of the image), "multiplicative", or
            "token" (tokens of one modality meet tokens of the other).
        size: The constructor argument that a size-matcher may vary, or None.
        out_dim: Width of the `Features` it gives.

    Optional: `auxiliary_loss() -> Tensor ()`, added to the training loss. And for a decision-level strategy that
    features cannot say, `branches(text, image) -> list[Features]` with `combine(branch_logits: list[Tensor]) ->
    Tensor`: each head is then applied to every branch, and `combine` makes one logit tensor of theirs. Softmax over
    the last axis gives probabilities: `(B, L)` of classes, or `(B, L, 2)` of yes and no, one pair a label. Such a
    strategy may be additive in them instead of in the logits: `additive_in = "probabilities"`.
    """

    uses: tuple[str, ...]
    reads: frozenset[str]
    interaction: Literal["additive", "multiplicative", "token"]
    size: str | None
    out_dim: int

    def forward(self, text: Features | None, image: Features | None) -> Features:
        """Fuse; a modality that is not in `uses` may be None."""
        ...

    def macs(self, text_tokens: int, image_tokens: int) -> int:
        """Multiply-accumulates for one example."""
        ...


def build_fusion(name: str, text_dim: int, image_dim: int, options: dict[str, Any] | None = None) -> nn.Module:
    """The registered strategy `name`, built for these widths.

    Raises:
        MmfuseError: No such strategy, or an option that its constructor does not take.
    """
    options = options or {}
    FUSIONS.check_options(name, options)
    return FUSIONS.get(name)(text_dim, image_dim, **options)


def linear_macs(module: nn.Module) -> int:
    """Multiply-accumulates of one pass through the linear layers of `module`."""
    return sum(m.in_features * m.out_features for m in module.modules() if isinstance(m, nn.Linear))


for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
