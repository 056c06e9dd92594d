from __future__ import annotations

import torch
from torch import nn

from mmfuse.fusion import FUSIONS, linear_macs
from mmfuse.fusion.projection import Projection
from mmfuse.types import Features


@FUSIONS.register("film")
class FilmFusion(nn.Module):
    """Let the text scale and shift the channels of the image (feature-wise linear modulation).

    `[γ; β] = A t`, `pooled = (1 + γ) ⊙ B v + β`.

    Reference: Perez et al. 2018, arXiv 1709.07871; `1 + γ` as there, so that it starts near the identity.
    Differs: on the encoder's output instead of inside its blocks; inputs are layer-normalised.
    Prefer when: the text asks and the image answers (a question, an indication, a query).

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
        self.text = Projection(text_dim, 2 * out_dim)
        self.image = Projection(image_dim, out_dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, text: Features, image: Features) -> Features:
        """Tokens are β of each text token, and the image tokens modulated by the text: `(B, T + P, out_dim)`."""
        scale, shift = self.text(text.pooled).chunk(2, dim=-1)
        pooled = (1 + scale) * self.image(image.pooled) + shift
        modulated = (1 + scale.unsqueeze(1)) * self.image(image.tokens) + shift.unsqueeze(1)
        tokens = torch.cat([self.text(text.tokens).chunk(2, dim=-1)[1], modulated], dim=1)
        mask = torch.cat([text.mask, image.mask], dim=1)
        return Features(tokens, mask, self.dropout(pooled), text.present | image.present)

    def macs(self, text_tokens: int, image_tokens: int) -> int:
        """Multiply-accumulates for one example: pooled, and the tokens' projections."""
        return linear_macs(self) + text_tokens * linear_macs(self.text) + image_tokens * linear_macs(self.image)
