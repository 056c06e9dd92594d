from __future__ import annotations

import torch
from torch import nn

from mmfuse.fusion import FUSIONS, linear_macs
from mmfuse.fusion.projection import Projection
from mmfuse.types import Features


@FUSIONS.register("sum")
class SumFusion(nn.Module):
    """Add the projected pooled vectors.

    `pooled = A t + B v`: with a linear head, a low-rank linear map of `[t; v]`.

    Reference: the linear sum of the visual question answering literature, for example Ben-younes et al. 2019, arXiv
        1902.00038.
    Differs: inputs are layer-normalised. It is `late` with `hidden_layers: 0`, under the name the literature gives it.
    Prefer when: the modalities do not interact and data are few.

    Args:
        text_dim: Width of the text features.
        image_dim: Width of the image features.
        out_dim: Width of the result.
    """

    uses = ("text", "image")
    reads = frozenset({"pooled"})
    interaction = "additive"
    size = "out_dim"

    def __init__(self, text_dim: int, image_dim: int, out_dim: int = 256):
        super().__init__()
        self.out_dim = out_dim
        self.text = Projection(text_dim, out_dim)
        self.image = Projection(image_dim, out_dim)

    def forward(self, text: Features, image: Features) -> Features:
        """Tokens are the projected tokens of both, text first: `(B, T + P, out_dim)`."""
        tokens = torch.cat([self.text(text.tokens), self.image(image.tokens)], dim=1)
        mask = torch.cat([text.mask, image.mask], dim=1)
        return Features(tokens, mask, self.text(text.pooled) + self.image(image.pooled), text.present | image.present)

    def macs(self, text_tokens: int, image_tokens: int) -> int:
        """Multiply-accumulates for one example: pooled, and the tokens' projections."""
        return linear_macs(self) + text_tokens * linear_macs(self.text) + image_tokens * linear_macs(self.image)
