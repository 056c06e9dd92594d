from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmfuse.fusion import FUSIONS, linear_macs
from mmfuse.fusion.projection import Projection
from mmfuse.types import Features

EPSILON = 1e-6


@FUSIONS.register("factorized_bilinear")
class FactorizedBilinearFusion(nn.Module):
    """Multiply wide projections and sum the products in groups (MFB).

    `z_i = Σ_{j < factor} (A t)_{ij} (B v)_{ij}`: each channel a bilinear form of rank `factor`. Then signed square root
    and L2 norm: `pooled = s / |s|` with `s = z / √(|z| + 1e-6)`.

    Reference: Yu et al. 2017, arXiv 1708.01471.
    Differs: inputs are layer-normalised; the root is smooth at 0, where the paper's gradient is infinite.
    Prefer when: as `low_rank_bilinear`; the norm steadies training, but forgets how sure the input was.

    Args:
        text_dim: Width of the text features.
        image_dim: Width of the image features.
        out_dim: Width of the result.
        factor: Products that are summed to a channel.
        dropout: Probability, on the products.
    """

    uses = ("text", "image")
    reads = frozenset({"pooled"})
    interaction = "multiplicative"
    size = "out_dim"

    def __init__(self, text_dim: int, image_dim: int, out_dim: int = 256, *, factor: int = 5, dropout: float = 0.1):
        super().__init__()
        self.out_dim, self.factor = out_dim, factor
        self.text = Projection(text_dim, out_dim * factor)
        self.image = Projection(image_dim, out_dim * factor)
        self.dropout = nn.Dropout(dropout)

    def forward(self, text: Features, image: Features) -> Features:
        """Tokens are the summed projections of both, text first: `(B, T + P, out_dim)`."""
        z = self._sum(self.dropout(self.text(text.pooled) * self.image(image.pooled)))
        pooled = F.normalize(z / (z.abs() + EPSILON).sqrt(), dim=-1)
        tokens = torch.cat([self._sum(self.text(text.tokens)), self._sum(self.image(image.tokens))], dim=1)
        return Features(tokens, torch.cat([text.mask, image.mask], dim=1), pooled, text.present | image.present)

    def _sum(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.out_dim, self.factor)).sum(-1)

    def macs(self, text_tokens: int, image_tokens: int) -> int:
        """Multiply-accumulates for one example: pooled, and the tokens' projections."""
        return linear_macs(self) + text_tokens * linear_macs(self.text) + image_tokens * linear_macs(self.image)
