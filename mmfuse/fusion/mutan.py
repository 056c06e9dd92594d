from __future__ import annotations

import torch
from torch import nn

from mmfuse.fusion import FUSIONS, linear_macs
from mmfuse.fusion.projection import Projection
from mmfuse.types import Features


@FUSIONS.register("mutan")
class MutanFusion(nn.Module):
    """A Tucker decomposition of the bilinear map whose core has slices of rank `rank` (MUTAN).

    `a = A t`, `b = B v`, `pooled = Σ_{r < rank} (M_r a) ⊙ (N_r b)`.

    Reference: Ben-younes et al. 2017, arXiv 1705.06676.
    Differs: inputs are layer-normalised; the head is the output factor; no tanh on `a` and `b`, as in the authors'
        later code (arXiv 1902.00038).
    Prefer when: as `low_rank_bilinear`, with a rank for each output channel.

    Args:
        text_dim: Width of the text features.
        image_dim: Width of the image features.
        out_dim: Width of the result.
        hidden_dim: Width of `a` and `b`; default: `out_dim`, so that both grow with the size.
        rank: Of each slice of the core.
        dropout: Probability, on `a` and `b`.
    """

    uses = ("text", "image")
    reads = frozenset({"pooled"})
    interaction = "multiplicative"
    size = "out_dim"

    def __init__(
        self,
        text_dim: int,
        image_dim: int,
        out_dim: int = 256,
        *,
        hidden_dim: int | None = None,
        rank: int = 5,
        dropout: float = 0.1,
    ):
        super().__init__()
        self.out_dim, self.rank = out_dim, rank
        hidden_dim = out_dim if hidden_dim is None else hidden_dim
        self.text = nn.Sequential(
            Projection(text_dim, hidden_dim), nn.Dropout(dropout), nn.Linear(hidden_dim, rank * out_dim)
        )
        self.image = nn.Sequential(
            Projection(image_dim, hidden_dim), nn.Dropout(dropout), nn.Linear(hidden_dim, rank * out_dim)
        )

    def forward(self, text: Features, image: Features) -> Features:
        """Tokens are `Σ_r M_r a` and `Σ_r N_r b` of the tokens, text first: `(B, T + P, out_dim)`."""
        pooled = (self.text(text.pooled) * self.image(image.pooled)).unflatten(-1, (self.rank, -1)).sum(-2)
        parts = torch.cat([self.text(text.tokens), self.image(image.tokens)], dim=1)
        tokens = parts.unflatten(-1, (self.rank, -1)).sum(-2)
        return Features(tokens, torch.cat([text.mask, image.mask], dim=1), pooled, text.present | image.present)

    def macs(self, text_tokens: int, image_tokens: int) -> int:
        """Multiply-accumulates for one example: pooled, and the tokens' projections."""
        return linear_macs(self) + text_tokens * linear_macs(self.text) + image_tokens * linear_macs(self.image)
