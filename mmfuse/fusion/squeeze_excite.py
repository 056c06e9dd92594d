from __future__ import annotations

import torch
from torch import nn

from mmfuse.fusion import FUSIONS, linear_macs
from mmfuse.fusion.projection import Projection
from mmfuse.types import Features


@FUSIONS.register("squeeze_excite")
class SqueezeExciteFusion(nn.Module):
    """Let both modalities together gate the channels of each (MMTM).

    `s = ReLU(S [A t; B v])`, `pooled = W [A t ⊙ 2σ(E_t s); B v ⊙ 2σ(E_v s)]`.

    Reference: Vaezi Joze et al. 2020, arXiv 1911.08670.
    Differs: once, on the encoders' output, instead of between their stages; `2σ`, which starts near the identity, where
        public code has a plain σ that halves the activations.
    Prefer when: which channels to trust depends on the other modality, and both must survive.

    Args:
        text_dim: Width of the text features.
        image_dim: Width of the image features.
        out_dim: Width of the result.
        ratio: How many times narrower `s` is than twice both widths together.
        dropout: Probability, on the result.
    """

    uses = ("text", "image")
    reads = frozenset({"pooled"})
    interaction = "multiplicative"
    size = "out_dim"

    def __init__(self, text_dim: int, image_dim: int, out_dim: int = 256, *, ratio: int = 4, dropout: float = 0.1):
        super().__init__()
        self.out_dim = out_dim
        self.text = Projection(text_dim, out_dim)
        self.image = Projection(image_dim, out_dim)
        self.squeeze = nn.Linear(2 * out_dim, max(1, 4 * out_dim // ratio))
        self.excite = nn.Linear(self.squeeze.out_features, 2 * out_dim)
        self.first = nn.Linear(2 * out_dim, out_dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, text: Features, image: Features) -> Features:
        """Tokens are the projected tokens of both with their channels gated, text first: `(B, T + P, out_dim)`."""
        pair = torch.cat([self.text(text.pooled), self.image(image.pooled)], dim=-1)
        gates = 2 * torch.sigmoid(self.excite(torch.relu(self.squeeze(pair))))
        to_text, to_image = gates.unsqueeze(1).chunk(2, dim=-1)
        tokens = torch.cat([to_text * self.text(text.tokens), to_image * self.image(image.tokens)], dim=1)
        pooled = self.dropout(self.first(gates * pair))
        return Features(tokens, torch.cat([text.mask, image.mask], dim=1), pooled, text.present | image.present)

    def macs(self, text_tokens: int, image_tokens: int) -> int:
        """Multiply-accumulates for one example: pooled, and the tokens' projections."""
        return linear_macs(self) + text_tokens * linear_macs(self.text) + image_tokens * linear_macs(self.image)
