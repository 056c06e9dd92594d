from __future__ import annotations

import torch
from torch import nn

from mmfuse.fusion import FUSIONS, linear_macs
from mmfuse.fusion.projection import Projection
from mmfuse.types import Features


@FUSIONS.register("concat")
class ConcatFusion(nn.Module):
    """Concatenate the pooled vectors; `hidden_layers` layers of GELU and linear follow.

    `pooled = W_n φ(... φ(W_0 [A t; B v]))` with `n = hidden_layers`. With 0 it is a linear map of `[t; v]` and as
    additive as `late`; with 1 it is the usual "concat + MLP". They are two different strategies.

    Reference: the common baseline, for example ConcatBERT in Kiela et al. 2020, arXiv 2005.04790.
    Differs: each input is layer-normalised and projected to `out_dim` first.
    Prefer when: a first fusion is wanted; with `hidden_layers: 0` when the modalities do not interact or data are few.

    Args:
        text_dim: Width of the text features.
        image_dim: Width of the image features.
        out_dim: Width of the result.
        hidden_layers: 0 or more.
        dropout: Probability, before each hidden layer's linear map.
    """

    uses = ("text", "image")
    reads = frozenset({"pooled"})
    size = "out_dim"

    def __init__(
        self, text_dim: int, image_dim: int, out_dim: int = 256, *, hidden_layers: int = 1, dropout: float = 0.1
    ):
        super().__init__()
        self.out_dim = out_dim
        self.interaction = "multiplicative" if hidden_layers else "additive"
        self.text = Projection(text_dim, out_dim)
        self.image = Projection(image_dim, out_dim)
        self.first = nn.Linear(2 * out_dim, out_dim)
        self.hidden = nn.Sequential(
            *(nn.Sequential(nn.GELU(), nn.Dropout(dropout), nn.Linear(out_dim, out_dim)) for _ in range(hidden_layers))
        )

    def forward(self, text: Features, image: Features) -> Features:
        """Tokens are the projected tokens of both, text first: `(B, T + P, out_dim)`."""
        pooled = self.hidden(self.first(torch.cat([self.text(text.pooled), self.image(image.pooled)], dim=-1)))
        tokens = torch.cat([self.text(text.tokens), self.image(image.tokens)], dim=1)
        return Features(tokens, torch.cat([text.mask, image.mask], dim=1), pooled, text.present | image.present)

    def macs(self, text_tokens: int, image_tokens: int) -> int:
        """Multiply-accumulates for one example: pooled, and the tokens' projections."""
        return linear_macs(self) + text_tokens * linear_macs(self.text) + image_tokens * linear_macs(self.image)
