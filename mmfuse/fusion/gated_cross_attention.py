from __future__ import annotations

import torch
from torch import Tensor, nn

from mmfuse.fusion import FUSIONS, linear_macs
from mmfuse.fusion.attention import AttentionLayer, check_sizes, masked_max, sequence
from mmfuse.fusion.projection import Projection
from mmfuse.types import Features


class GatedAttentionLayer(AttentionLayer):
    """An `AttentionLayer` whose residual branches are each behind a gate: `x + tanh(α) MHA`, `x + tanh(β) FFN`.

    Args:
        dim: Width of queries and keys.
        num_heads: Divides `dim`.
        dropout: Probability, on both residual branches.
    """

    def __init__(self, dim: int, num_heads: int, dropout: float):
        super().__init__(dim, num_heads, dropout)
        self.attention_gate, self.mlp_gate = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))

    def forward(self, queries: Tensor, keys: Tensor, key_mask: Tensor) -> Tensor:
        """Update `queries (B, S, D)` from `keys (B, K, D)` where `key_mask (B, K)` is True: `(B, S, D)`."""
        x = queries + torch.tanh(self.attention_gate) * self.attend(queries, keys, key_mask)
        return x + torch.tanh(self.mlp_gate) * self.feed_forward(x)


@FUSIONS.register("gated_cross_attention")
class GatedCrossAttentionFusion(nn.Module):
    """Text tokens attend to image patches behind gates that training opens from 0 (Flamingo).

    Per layer `T = T + tanh(α) MHA(T, V)`, `T = T + tanh(β) FFN(T)` with `α = β = 0` at first; `pooled = W max T`. It
    starts as a text-only model and lets the image in as far as that helps.

    Reference: Flamingo, Alayrac et al. 2022, arXiv 2204.14198.
    Differs: no language model's layers in between, and no resampler; pooled by the maximum as `cross_attention` is.
    Prefer when: a good text model must not be harmed; not when the image alone should decide.

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
        num_layers: int = 2,
        num_heads: int = 4,
        dropout: float = 0.1,
    ):
        super().__init__()
        check_sizes("gated_cross_attention", out_dim, num_heads, num_layers)
        self.out_dim = out_dim
        self.text = Projection(text_dim, out_dim)
        self.image = Projection(image_dim, out_dim)
        self.layers = nn.ModuleList(GatedAttentionLayer(out_dim, num_heads, dropout) for _ in range(num_layers))
        self.norm = nn.LayerNorm(out_dim)
        self.pool = nn.Linear(out_dim, out_dim)

    def forward(self, text: Features, image: Features) -> Features:
        """Tokens are the updated text tokens behind their pooled token, `(B, T + 1, out_dim)`."""
        t, t_mask = sequence(self.text, text)
        v, v_mask = sequence(self.image, image)
        for layer in self.layers:
            t = layer(t, v, v_mask)
        t = self.norm(t)
        return Features(t, t_mask, self.pool(masked_max(t, t_mask)), text.present | image.present)

    def macs(self, text_tokens: int, image_tokens: int) -> int:
        """Multiply-accumulates for one example."""
        t, v = text_tokens + 1, image_tokens + 1
        attention = sum(layer.macs(t, v) for layer in self.layers)  # type: ignore[operator]
        return t * linear_macs(self.text) + v * linear_macs(self.image) + attention + linear_macs(self.pool)
