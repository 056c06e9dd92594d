from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmfuse.fusion import FUSIONS, linear_macs
from mmfuse.fusion.projection import Projection
from mmfuse.types import Features


@FUSIONS.register("tensor")
class TensorFusion(nn.Module):
    """All products of a text channel and an image channel, and the channels themselves (TFN).

    `z = vec([1; A t] ⊗ [1; B v])`, `pooled = W_1 φ(W_0 z)` with GELU. The appended 1 keeps both modalities alone.

    Reference: Zadeh et al. 2017, arXiv 1707.07250.
    Differs: inputs are layer-normalised and projected to `tensor_dim` linearly; one hidden layer behind.
    Prefer when: any pair of features may matter, and there are data enough for `(tensor_dim + 1)²` products.

    Args:
        text_dim: Width of the text features.
        image_dim: Width of the image features.
        out_dim: Width of the result.
        tensor_dim: Width of each side of the outer product.
        dropout: Probability, on the products and behind the hidden layer.
    """

    uses = ("text", "image")
    reads = frozenset({"pooled"})
    interaction = "multiplicative"
    size = "out_dim"

    def __init__(
        self, text_dim: int, image_dim: int, out_dim: int = 256, *, tensor_dim: int = 32, dropout: float = 0.1
    ):
        super().__init__()
        self.out_dim, self.tensor_dim = out_dim, tensor_dim
        self.text = Projection(text_dim, tensor_dim)
        self.image = Projection(image_dim, tensor_dim)
        self.dropout = nn.Dropout(dropout)
        self.first = nn.Linear((tensor_dim + 1) ** 2, out_dim)
        self.hidden = nn.Linear(out_dim, out_dim)

    def forward(self, text: Features, image: Features) -> Features:
        """Tokens are `W_0 z` of each token with a zero vector in the other's place: `(B, T + P, out_dim)`."""
        a, b = self._with_one(self.text(text.pooled)), self._with_one(self.image(image.pooled))
        z = (a.unsqueeze(-1) * b.unsqueeze(-2)).flatten(-2)
        pooled = self.hidden(self.dropout(F.gelu(self.first(self.dropout(z)))))
        weight = self.first.weight.unflatten(-1, (self.tensor_dim + 1, self.tensor_dim + 1))
        t = F.linear(self._with_one(self.text(text.tokens)), weight[:, :, 0], self.first.bias)
        v = F.linear(self._with_one(self.image(image.tokens)), weight[:, 0, :], self.first.bias)
        mask = torch.cat([text.mask, image.mask], dim=1)
        return Features(torch.cat([t, v], dim=1), mask, pooled, text.present | image.present)

    @staticmethod
    def _with_one(x: Tensor) -> Tensor:
        return F.pad(x, (1, 0), value=1.0)

    def macs(self, text_tokens: int, image_tokens: int) -> int:
        """Multiply-accumulates for one example: pooled, and the tokens' maps."""
        tokens = text_tokens * linear_macs(self.text) + image_tokens * linear_macs(self.image)
        return linear_macs(self) + tokens + (text_tokens + image_tokens) * (self.tensor_dim + 1) * self.out_dim
