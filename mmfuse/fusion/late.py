from __future__ import annotations

import torch
from torch import nn

from mmfuse.fusion import FUSIONS
from mmfuse.fusion.unimodal import ImageOnly, TextOnly
from mmfuse.types import Features


@FUSIONS.register("late")
class LateFusion(nn.Module):
    """Decide by each modality alone and add the logits: no interaction, by construction.

    `pooled = f(t) + g(v)` with a branch per modality; a head is linear on `pooled`, so its logits are the sum of two
    unimodal models' logits (a product of experts). With learned weights `pooled = w_t f(t) + w_v g(v)`, `w =
    softmax(a)`: the logits are the weighted mean of the branches'. The mean of probabilities is `late_probability`.

    Reference: decision-level fusion by the sum rule, Kittler et al. 1998, doi 10.1109/34.667881.
    Differs: the branches are trained together, and share one bias.
    Prefer when: the modalities are independent given the label; as the baseline that a fusion with interactions must
    beat.

    Args:
        text_dim: Width of the text features.
        image_dim: Width of the image features.
        out_dim: Width of the result.
        hidden_layers: Of each branch; 0 or more.
        learned_weights: Weigh the branches. They are learned with the branches, so they tell nothing of importance.
        dropout: Probability, before each hidden layer's linear map.
    """

    uses = ("text", "image")
    reads = frozenset({"pooled"})
    interaction = "additive"
    size = "out_dim"

    def __init__(
        self,
        text_dim: int,
        image_dim: int,
        out_dim: int = 256,
        *,
        hidden_layers: int = 1,
        learned_weights: bool = False,
        dropout: float = 0.1,
    ):
        super().__init__()
        self.out_dim = out_dim
        self.text = TextOnly(text_dim, image_dim, out_dim, hidden_layers=hidden_layers, dropout=dropout)
        self.image = ImageOnly(text_dim, image_dim, out_dim, hidden_layers=hidden_layers, dropout=dropout)
        self.weights = nn.Parameter(torch.zeros(2)) if learned_weights else None

    def forward(self, text: Features, image: Features) -> Features:
        """Tokens are the branches' tokens, text first: `(B, T + P, out_dim)`."""
        t, v = self.text.branch(text), self.image.branch(image)
        tokens, mask = torch.cat([t.tokens, v.tokens], dim=1), torch.cat([t.mask, v.mask], dim=1)
        if self.weights is None:
            return Features(tokens, mask, t.pooled + v.pooled, t.present | v.present)
        to_text, to_image = self.weights.softmax(0)
        return Features(tokens, mask, to_text * t.pooled + to_image * v.pooled, t.present | v.present)

    def macs(self, text_tokens: int, image_tokens: int) -> int:
        """Multiply-accumulates for one example: the sum of the branches."""
        return self.text.macs(text_tokens, image_tokens) + self.image.macs(text_tokens, image_tokens)
