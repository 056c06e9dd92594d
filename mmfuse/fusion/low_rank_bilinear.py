from __future__ import annotations

import torch
from torch import nn

from mmfuse.fusion import FUSIONS, linear_macs
from mmfuse.fusion.projection import Projection
from mmfuse.types import Features


@FUSIONS.register("low_rank_bilinear")
class LowRankBilinearFusion(nn.Module):
    """Multiply the projected vectors channel by channel (MLB).

    `pooled = W (tanh(A t) ⊙ tanh(B v))`: a bilinear form of rank `rank`. It has no path for one modality alone; what
    one modality says must pass through a product.

    Reference: Kim et al. 2017, arXiv 1610.04325.
    Differs: inputs are layer-normalised.
    Prefer when: labels depend on pairs of features, and `tensor` is too large.

    Args:
        text_dim: Width of the text features.
        image_dim: Width of the image features.
        out_dim: Width of the result.
        rank: Of the bilinear form; too small a rank cannot say some interactions (8-fold modular addition: 11).
        dropout: Probability, on the product.
    """

    uses = ("text", "image")
    reads = frozenset({"pooled"})
    interaction = "multiplicative"
    size = "rank"

    def __init__(self, text_dim: int, image_dim: int, out_dim: int = 256, *, rank: int = 256, dropout: float = 0.1):
        super().__init__()
        self.out_dim = out_dim
        self.text = Projection(text_dim, rank)
        self.image = Projection(image_dim, rank)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(rank, out_dim)

    def forward(self, text: Features, image: Features) -> Features:
        """Tokens are `W tanh` of the projected tokens of both, text first: `(B, T + P, out_dim)`."""
        product = torch.tanh(self.text(text.pooled)) * torch.tanh(self.image(image.pooled))
        tokens = torch.cat([torch.tanh(self.text(text.tokens)), torch.tanh(self.image(image.tokens))], dim=1)
        mask = torch.cat([text.mask, image.mask], dim=1)
        return Features(self.out(tokens), mask, self.out(self.dropout(product)), text.present | image.present)

    def macs(self, text_tokens: int, image_tokens: int) -> int:
        """Multiply-accumulates for one example: pooled, and the tokens' maps."""
        tokens = text_tokens * linear_macs(self.text) + image_tokens * linear_macs(self.image)
        return linear_macs(self) + tokens + (text_tokens + image_tokens) * linear_macs(self.out)
