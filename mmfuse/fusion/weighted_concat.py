from __future__ import annotations

import torch
from torch import nn

from mmfuse.fusion import FUSIONS, linear_macs
from mmfuse.fusion.projection import Projection
from mmfuse.types import Features


@FUSIONS.register("weighted_concat")
class WeightedConcatFusion(nn.Module):
    """Concatenate the pooled vectors, each times one learned weight.

    `pooled = W [α_t A t; α_v B v]` with `α = softmax(a)`. A linear map of `[t; v]`, like `concat` with `hidden_layers:
    0`: the weights change how it is optimised, not what it can say, and are no measure of importance.

    Reference: folklore; no paper is known to us that introduces it.
    Differs: inputs are layer-normalised, so that α starts from equal scales.
    Prefer when: a linear fusion is wanted and one modality should be learned to be trusted less.

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
        self.weights = nn.Parameter(torch.zeros(2))
        self.first = nn.Linear(2 * out_dim, out_dim)

    def forward(self, text: Features, image: Features) -> Features:
        """Tokens are the projected tokens of both, weighted, text first: `(B, T + P, out_dim)`."""
        to_text, to_image = self.weights.softmax(0)
        pooled = self.first(torch.cat([to_text * self.text(text.pooled), to_image * self.image(image.pooled)], dim=-1))
        tokens = torch.cat([to_text * self.text(text.tokens), to_image * self.image(image.tokens)], dim=1)
        return Features(tokens, torch.cat([text.mask, image.mask], dim=1), pooled, text.present | image.present)

    def macs(self, text_tokens: int, image_tokens: int) -> int:
        """Multiply-accumulates for one example: pooled, and the tokens' projections."""
        return linear_macs(self) + text_tokens * linear_macs(self.text) + image_tokens * linear_macs(self.image)
