from __future__ import annotations

import torch
from torch import nn

from mmfuse.fusion import FUSIONS, linear_macs
from mmfuse.fusion.attention import AttentionLayer, check_sizes, masked_max, sequence
from mmfuse.fusion.projection import Projection
from mmfuse.types import Features


@FUSIONS.register("merged_attention")
class MergedAttentionFusion(nn.Module):
    """One sequence of text tokens and image patches, with self-attention over all of it (single stream).

    `X = [T; V]`, per layer `X = X + MHA(X, X)` and the feed-forward; `pooled = W [max T; max V]`. The pooled vectors of
    the encoders take part as a first token of their part.

    Reference: VisualBERT, Li et al. 2019, arXiv 1908.03557; UNITER, Chen et al. 2020, arXiv 1909.11740.
    Differs: on the encoders' tokens, not pre-trained; the projections' biases stand for type embeddings; pooled by the
        maximum as `cross_attention` is.
    Prefer when: as `cross_attention`; long image sequences crowd out the text.

    Args:
        text_dim: Width of the text features.
        image_dim: Width of the image features.
        out_dim: Width of the result.
        num_layers: 1 or more.
        num_heads: Divides `out_dim`.
        dropout: Probability, on the residual branches.

    Raises:
        MmfuseError: `num_heads` does not divide `out_dim`, or there is no layer.
    """

    uses = ("text", "image")
    reads = frozenset({"pooled", "tokens"})
    interaction = "token"
    size = "out_dim"

    def __init__(
        self,
        text_dim: int,
        image_dim: int,
        out_dim: int = 256,
        *,
        num_layers: int = 1,
        num_heads: int = 4,
        dropout: float = 0.1,
    ):
        super().__init__()
        check_sizes("merged_attention", out_dim, num_heads, num_layers)
        self.out_dim = out_dim
        self.text = Projection(text_dim, out_dim)
        self.image = Projection(image_dim, out_dim)
        self.layers = nn.ModuleList(AttentionLayer(out_dim, num_heads, dropout) for _ in range(num_layers))
        self.norm = nn.LayerNorm(out_dim)
        self.pool = nn.Linear(2 * out_dim, out_dim)

    def forward(self, text: Features, image: Features) -> Features:
        """Tokens are the updated sequence, `(B, T + P + 2, out_dim)`."""
        t, t_mask = sequence(self.text, text)
        v, v_mask = sequence(self.image, image)
        x, mask = torch.cat([t, v], dim=1), torch.cat([t_mask, v_mask], dim=1)
        for layer in self.layers:
            x = layer(x, x, mask)
        x = self.norm(x)
        t, v = x[:, : t.shape[1]], x[:, t.shape[1] :]
        pooled = self.pool(torch.cat([masked_max(t, t_mask), masked_max(v, v_mask)], dim=-1))
        return Features(x, mask, pooled, text.present | image.present)

    def macs(self, text_tokens: int, image_tokens: int) -> int:
        """Multiply-accumulates for one example."""
        t, v = text_tokens + 1, image_tokens + 1
        attention = sum(layer.macs(t + v, t + v) for layer in self.layers)  # type: ignore[operator]
        return t * linear_macs(self.text) + v * linear_macs(self.image) + attention + linear_macs(self.pool)
