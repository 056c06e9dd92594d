from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmfuse.fusion import FUSIONS, linear_macs, masked_max
from mmfuse.fusion.projection import Projection
from mmfuse.types import Features, MmfuseError


class CrossAttentionLayer(nn.Module):
    """One modality's tokens attend to the other's: pre-norm attention and feed-forward, both residual.

    Args:
        dim: Width of both.
        num_heads: Divides `dim`.
        dropout: Probability, on both residual branches.
    """

    def __init__(self, dim: int, num_heads: int, dropout: float):
        super().__init__()
        self.num_heads = num_heads
        self.query_norm, self.key_norm, self.mlp_norm = nn.LayerNorm(dim), nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.query, self.key_value, self.out = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.dropout = nn.Dropout(dropout)

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def forward(self, queries: Tensor, keys: Tensor, key_mask: Tensor) -> Tensor:
        """Update `queries (B, S, D)` from `keys (B, K, D)` where `key_mask (B, K)` is True: `(B, S, D)`."""
        q = self._heads(self.query(self.query_norm(queries)))
        k, v = self.key_value(self.key_norm(keys)).chunk(2, dim=-1)
        attended = F.scaled_dot_product_attention(q, self._heads(k), self._heads(v), attn_mask=key_mask[:, None, None])
        x = queries + self.dropout(self.out(attended.transpose(1, 2).flatten(2)))
        return x + self.dropout(self.mlp(self.mlp_norm(x)))

    def macs(self, queries: int, keys: int) -> int:
        """Multiply-accumulates for one example: `2 Q D² + 2 K D² + 2 Q K D + 8 Q D²`."""
        per_query = linear_macs(self.query) + linear_macs(self.out) + linear_macs(self.mlp)
        dim = self.query.in_features
        return queries * per_query + keys * linear_macs(self.key_value) + 2 * queries * keys * dim


@FUSIONS.register("cross_attention")
class CrossAttentionFusion(nn.Module):
    """Let text tokens attend to image patches and patches to text, layer by layer, then pool both.

    Per layer, from the same inputs: `T' = T + MHA(T, V)`, `V' = V + MHA(V, T)`, each with its feed-forward. The pooled
    vectors of the encoders take part as a first token of their sequence. `pooled = W [max T; max V]`.

    Reference: the co-attention layer of ViLBERT, Lu et al. 2019, arXiv 1908.02265.
    Differs: no self-attention in between; pre-norm; pooled by the maximum over real tokens, channel by channel, instead
        of the product of the first ones: a mean dilutes what one word met in one place by the length of the text.
    Prefer when: words must meet places (which object, which side, new or old), and there are thousands of pairs.

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
        if out_dim % num_heads or num_layers < 1:
            raise MmfuseError(
                f"fusion.cross_attention: out_dim {out_dim} must be a multiple of num_heads {num_heads}, num_layers 1 "
                f"or more"
            )
        self.out_dim = out_dim
        self.text = Projection(text_dim, out_dim)
        self.image = Projection(image_dim, out_dim)
        self.text_layers = nn.ModuleList(CrossAttentionLayer(out_dim, num_heads, dropout) for _ in range(num_layers))
        self.image_layers = nn.ModuleList(CrossAttentionLayer(out_dim, num_heads, dropout) for _ in range(num_layers))
        self.norm = nn.LayerNorm(out_dim)
        self.pool = nn.Linear(2 * out_dim, out_dim)

    def forward(self, text: Features, image: Features) -> Features:
        """Tokens are the updated tokens of both, each behind its pooled token: `(B, T + P + 2, out_dim)`."""
        t, t_mask = self._sequence(self.text, text)
        v, v_mask = self._sequence(self.image, image)
        for text_layer, image_layer in zip(self.text_layers, self.image_layers, strict=True):
            t, v = text_layer(t, v, v_mask), image_layer(v, t, t_mask)
        t, v = self.norm(t), self.norm(v)
        pooled = self.pool(torch.cat([masked_max(t, t_mask), masked_max(v, v_mask)], dim=-1))
        tokens, mask = torch.cat([t, v], dim=1), torch.cat([t_mask, v_mask], dim=1)
        return Features(tokens, mask, pooled, text.present | image.present)

    @staticmethod
    def _sequence(project: nn.Module, x: Features) -> tuple[Tensor, Tensor]:
        tokens = project(torch.cat([x.pooled.unsqueeze(1), x.tokens], dim=1))
        return tokens, F.pad(x.mask, (1, 0), value=True)

    def macs(self, text_tokens: int, image_tokens: int) -> int:
        """Multiply-accumulates for one example."""
        t, v = text_tokens + 1, image_tokens + 1
        layers = [(layer, t, v) for layer in self.text_layers] + [(layer, v, t) for layer in self.image_layers]
        attention = sum(layer.macs(queries, keys) for layer, queries, keys in layers)  # type: ignore[operator]
        return t * linear_macs(self.text) + v * linear_macs(self.image) + attention + linear_macs(self.pool)
