from __future__ import annotations

import torch
from torch import nn

from mmfuse.fusion import FUSIONS
from mmfuse.fusion.unimodal import ImageOnly, TextOnly
from mmfuse.types import Features


@FUSIONS.register("mixture_of_experts")
class MixtureOfExpertsFusion(nn.Module):
    """An expert a modality, and a gate that sees both and says whom to believe.

    `g = softmax(G [A t; B v])`, `pooled = g_t f(t) + g_v h(v)`, where `f` and `h` are those of `late`.

    Reference: Jacobs et al. 1991, doi 10.1162/neco.1991.3.1.79; as the baseline of Arevalo et al. 2017, arXiv
        1702.01992.
    Differs: inputs are layer-normalised; experts of GELU layers; the gate sees their first projections.
    Prefer when: one modality is often wrong, and the input tells when. What both must say together it cannot learn
        but through the gate.

    Args:
        text_dim: Width of the text features.
        image_dim: Width of the image features.
        out_dim: Width of the result.
        hidden_layers: Of each expert; 0 or more.
        dropout: Probability, before each hidden layer's linear map.
    """

    uses = ("text", "image")
    reads = frozenset({"pooled"})
    interaction = "multiplicative"
    size = "out_dim"

    def __init__(
        self, text_dim: int, image_dim: int, out_dim: int = 256, *, hidden_layers: int = 1, dropout: float = 0.1
    ):
        super().__init__()
        self.out_dim = out_dim
        self.text = TextOnly(text_dim, image_dim, out_dim, hidden_layers=hidden_layers, dropout=dropout)
        self.image = ImageOnly(text_dim, image_dim, out_dim, hidden_layers=hidden_layers, dropout=dropout)
        self.gate = nn.Linear(2 * out_dim, 2)

    def forward(self, text: Features, image: Features) -> Features:
        """Tokens are the experts' tokens, text first: `(B, T + P, out_dim)`."""
        t, v = self.text.branch(text), self.image.branch(image)
        pair = torch.cat([self.text.project(text.pooled), self.image.project(image.pooled)], dim=-1)
        to_text, to_image = self.gate(pair).softmax(-1).chunk(2, dim=-1)
        tokens, mask = torch.cat([t.tokens, v.tokens], dim=1), torch.cat([t.mask, v.mask], dim=1)
        return Features(tokens, mask, to_text * t.pooled + to_image * v.pooled, t.present | v.present)

    def macs(self, text_tokens: int, image_tokens: int) -> int:
        """Multiply-accumulates for one example: the experts, their first projections once more, and the gate."""
        experts = self.text.macs(text_tokens + 1, image_tokens) + self.image.macs(text_tokens, image_tokens + 1)
        return experts + self.gate.in_features * 2
