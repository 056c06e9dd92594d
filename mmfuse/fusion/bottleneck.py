from __future__ import annotations

import torch
from torch import nn

from mmfuse.fusion import FUSIONS, linear_macs
from mmfuse.fusion.attention import AttentionLayer, check_sizes, masked_max, sequence
from mmfuse.fusion.projection import Projection
from mmfuse.types import Features


@FUSIONS.register("bottleneck")
class BottleneckFusion(nn.Module):
    """Each modality attends to itself, and to the other only through a few shared tokens (MBT).

    Per layer and modality `[X_m'; Z_m] = SelfAttention_m([X_m; Z])`, then `Z' = mean of Z_m`. `pooled = W [max T; max
    V]`. What crosses in one layer is read in the next, so there are at least two.

    Reference: Nagrani et al. 2021, arXiv 2107.00135.
    Differs: on the encoders' tokens, not inside the encoders; pooled by the maximum as `cross_attention` is. A missing
        modality is its learned token, so the mean of `Z_m` needs no exception.
    Prefer when: sequences are thousands of tokens long; on short ones it costs as much as `merged_attention`.

    Args:
        text_dim: Width of the text features.
        image_dim: Width of the image features.
        out_dim: Width of the result.
        num_bottlenecks: Shared tokens.
        num_layers: 2 or more.
        num_heads: Divides `out_dim`.
        dropout: Probability, on the residual branches.

    Raises:
        MmfuseError: `num_heads` does not divide `out_dim`, or there are fewer than two layers.
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
        num_bottlenecks: int = 4,
        num_layers: int = 2,
        num_heads: int = 4,
        dropout: float = 0.1,
    ):
        super().__init__()
        check_sizes("bottleneck", out_dim, num_heads, num_layers, least=2)
        self.out_dim = out_dim
        self.text = Projection(text_dim, out_dim)
        self.image = Projection(image_dim, out_dim)
        self.bottlenecks = nn.Parameter(torch.randn(num_bottlenecks, out_dim))
        self.text_layers = nn.ModuleList(AttentionLayer(out_dim, num_heads, dropout) for _ in range(num_layers))
        self.image_layers = nn.ModuleList(AttentionLayer(out_dim, num_heads, dropout) for _ in range(num_layers))
        self.norm = nn.LayerNorm(out_dim)
        self.pool = nn.Linear(2 * out_dim, out_dim)

    def forward(self, text: Features, image: Features) -> Features:
        """Tokens are the updated tokens of both, each behind its pooled token: `(B, T + P + 2, out_dim)`."""
        t, t_mask = sequence(self.text, text)
        v, v_mask = sequence(self.image, image)
        z = self.bottlenecks.expand(t.shape[0], -1, -1)
        z_mask = torch.ones_like(t_mask[:, :1]).expand(-1, z.shape[1])
        t_keys, v_keys = torch.cat([t_mask, z_mask], dim=1), torch.cat([v_mask, z_mask], dim=1)
        for text_layer, image_layer in zip(self.text_layers, self.image_layers, strict=True):
            tz, vz = torch.cat([t, z], dim=1), torch.cat([v, z], dim=1)
            tz, vz = text_layer(tz, tz, t_keys), image_layer(vz, vz, v_keys)
            z = 0.5 * (tz[:, t.shape[1] :] + vz[:, v.shape[1] :])
            t, v = tz[:, : t.shape[1]], vz[:, : v.shape[1]]
        t, v = self.norm(t), self.norm(v)
        pooled = self.pool(torch.cat([masked_max(t, t_mask), masked_max(v, v_mask)], dim=-1))
        tokens, mask = torch.cat([t, v], dim=1), torch.cat([t_mask, v_mask], dim=1)
        return Features(tokens, mask, pooled, text.present | image.present)

    def macs(self, text_tokens: int, image_tokens: int) -> int:
        """Multiply-accumulates for one example."""
        t, v, z = text_tokens + 1, image_tokens + 1, len(self.bottlenecks)
        layers = [(layer, t + z) for layer in self.text_layers] + [(layer, v + z) for layer in self.image_layers]
        attention = sum(layer.macs(length, length) for layer, length in layers)  # type: ignore[operator]
        return t * linear_macs(self.text) + v * linear_macs(self.image) + attention + linear_macs(self.pool)
