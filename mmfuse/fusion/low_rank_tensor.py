from __future__ import annotations

import torch
from torch import Tensor, nn

from mmfuse.fusion import FUSIONS, linear_macs
from mmfuse.fusion.projection import Projection
from mmfuse.types import Features


@FUSIONS.register("low_rank_tensor")
class LowRankTensorFusion(nn.Module):
    """The tensor of all products in `rank` factors a modality, never made whole (LMF).

    `pooled = Σ_{r < rank} w_r (A_r [1; t] ⊙ B_r [1; v]) + b`. The 1 (the factors' biases) keeps both modalities alone.

    Reference: Liu et al. 2018, arXiv 1806.00064.
    Differs: inputs are layer-normalised.
    Prefer when: as `tensor`, at a fraction of its parameters; a good first multiplicative fusion.

    Args:
        text_dim: Width of the text features.
        image_dim: Width of the image features.
        out_dim: Width of the result.
        rank: Factors; each output channel is a bilinear form of this rank.
        dropout: Probability, on the result.
    """

    uses = ("text", "image")
    reads = frozenset({"pooled"})
    interaction = "multiplicative"
    size = "out_dim"

    def __init__(self, text_dim: int, image_dim: int, out_dim: int = 256, *, rank: int = 4, dropout: float = 0.1):
        super().__init__()
        self.out_dim, self.rank = out_dim, rank
        self.text = Projection(text_dim, rank * out_dim)
        self.image = Projection(image_dim, rank * out_dim)
        self.weights = nn.Parameter(torch.ones(rank))
        self.bias = nn.Parameter(torch.zeros(out_dim))
        self.dropout = nn.Dropout(dropout)

    def forward(self, text: Features, image: Features) -> Features:
        """Tokens are `Σ_r w_r A_r [1; t]` and `Σ_r w_r B_r [1; v]` of the tokens, text first: `(B, T + P, out_dim)`."""
        pooled = self._weigh(self.text(text.pooled) * self.image(image.pooled)) + self.bias
        tokens = self._weigh(torch.cat([self.text(text.tokens), self.image(image.tokens)], dim=1))
        mask = torch.cat([text.mask, image.mask], dim=1)
        return Features(tokens, mask, self.dropout(pooled), text.present | image.present)

    def _weigh(self, x: Tensor) -> Tensor:
        return (x.unflatten(-1, (self.rank, -1)) * self.weights.unsqueeze(-1)).sum(-2)

    def macs(self, text_tokens: int, image_tokens: int) -> int:
        """Multiply-accumulates for one example: pooled, and the tokens' projections."""
        return linear_macs(self) + text_tokens * linear_macs(self.text) + image_tokens * linear_macs(self.image)
