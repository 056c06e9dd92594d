from __future__ import annotations

from torch import nn

from mmfuse.fusion import FUSIONS, linear_macs
from mmfuse.fusion.projection import Projection
from mmfuse.types import Features


class _Unimodal(nn.Module):
    """One modality: `pooled = W_n φ(... φ(W_0 x))` with `n = hidden_layers`."""

    reads = frozenset({"pooled"})
    interaction = "additive"
    size = "out_dim"

    def __init__(self, in_dim: int, out_dim: int, hidden_layers: int, dropout: float):
        super().__init__()
        self.out_dim = out_dim
        self.project = Projection(in_dim, out_dim)
        self.hidden = nn.Sequential(
            *(nn.Sequential(nn.GELU(), nn.Dropout(dropout), nn.Linear(out_dim, out_dim)) for _ in range(hidden_layers))
        )

    def branch(self, features: Features) -> Features:
        """The same modality in the strategy's width; tokens are projected."""
        return Features(
            self.project(features.tokens), features.mask, self.hidden(self.project(features.pooled)), features.present
        )


@FUSIONS.register("text_only")
class TextOnly(_Unimodal):
    """The text alone: the row without which no gain of a fusion can be believed.

    Reference: the mandatory baseline of every comparison, for example in Kiela et al. 2020, arXiv 2005.04790.
    Differs: nothing.
    Prefer when: the image adds nothing; it is then also cheaper.

    Args:
        text_dim: Width of the text features.
        image_dim: Not used.
        out_dim: Width of the result.
        hidden_layers: 0 or more.
        dropout: Probability, before each hidden layer's linear map.
    """

    uses = ("text",)

    def __init__(
        self, text_dim: int, image_dim: int, out_dim: int = 256, *, hidden_layers: int = 1, dropout: float = 0.1
    ):
        super().__init__(text_dim, out_dim, hidden_layers, dropout)

    def forward(self, text: Features, image: Features | None = None) -> Features:
        """Tokens are the projected text tokens `(B, T, out_dim)`."""
        return self.branch(text)

    def macs(self, text_tokens: int, image_tokens: int) -> int:
        """Multiply-accumulates for one example: pooled, and the tokens' projection."""
        return linear_macs(self) + text_tokens * linear_macs(self.project)


@FUSIONS.register("image_only")
class ImageOnly(_Unimodal):
    """The image alone: the row without which no gain of a fusion can be believed.

    Reference: the mandatory baseline of every comparison, for example in Kiela et al. 2020, arXiv 2005.04790.
    Differs: nothing.
    Prefer when: the text adds nothing, or is written after the fact that is to be predicted.

    Args:
        text_dim: Not used.
        image_dim: Width of the image features.
        out_dim: Width of the result.
        hidden_layers: 0 or more.
        dropout: Probability, before each hidden layer's linear map.
    """

    uses = ("image",)

    def __init__(
        self, text_dim: int, image_dim: int, out_dim: int = 256, *, hidden_layers: int = 1, dropout: float = 0.1
    ):
        super().__init__(image_dim, out_dim, hidden_layers, dropout)

    def forward(self, text: Features | None, image: Features) -> Features:
        """Tokens are the projected image tokens `(B, P, out_dim)`."""
        return self.branch(image)

    def macs(self, text_tokens: int, image_tokens: int) -> int:
        """Multiply-accumulates for one example: pooled, and the tokens' projection."""
        return linear_macs(self) + image_tokens * linear_macs(self.project)
