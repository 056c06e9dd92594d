from __future__ import annotations

import torch
from torch import nn

from mmfuse.fusion import FUSIONS, linear_macs
from mmfuse.fusion.projection import Projection
from mmfuse.types import Features


@FUSIONS.register("gated")
class GatedFusion(nn.Module):
    """Mix pooled text and image vectors channel by channel with a learned gate (GMU).

    `h_t = tanh(A t)`, `h_v = tanh(B v)`, `z = σ(W [A t; B v])`, `pooled = z ⊙ h_v + (1 - z) ⊙ h_t`.

    Reference: Arevalo et al. 2017, arXiv 1702.01992; the gate sees the projected pair, as in the authors' code.
    Differs: inputs are layer-normalised; the projections and the gate have a bias.
    Prefer when: which modality to trust changes from example to example.

    Args:
        text_dim: Width of the text features.
        image_dim: Width of the image features.
        out_dim: Width of the result.
        dropout: Probability, on the result.
    """

    uses = ("text", "image")
    reads = frozenset({"pooled"})
    interaction = "multiplicative"
    size = "out_dim"

    def __init__(self, text_dim: int, image_dim: int, out_dim: int = 256, *, dropout: float = 0.1):
        super().__init__()
        self.out_dim = out_dim
        self.text = Projection(text_dim, out_dim)
        self.image = Projection(image_dim, out_dim)
        self.gate = nn.Linear(2 * out_dim, out_dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, text: Features, image: Features) -> Features:
        """Tokens are `tanh` of the projected tokens of both, text first: `(B, T + P, out_dim)`."""
        a, b = self.text(text.pooled), self.image(image.pooled)
        z = torch.sigmoid(self.gate(torch.cat([a, b], dim=-1)))
        pooled = z * torch.tanh(b) + (1 - z) * torch.tanh(a)
        tokens = torch.cat([torch.tanh(self.text(text.tokens)), torch.tanh(self.image(image.tokens))], dim=1)
        mask = torch.cat([text.mask, image.mask], dim=1)
        return Features(tokens, mask, self.dropout(pooled), text.present | image.present)

    def macs(self, text_tokens: int, image_tokens: int) -> int:
        """Multiply-accumulates for one example: pooled, and the tokens' projections."""
        return linear_macs(self) + text_tokens * linear_macs(self.text) + image_tokens * linear_macs(self.image)
