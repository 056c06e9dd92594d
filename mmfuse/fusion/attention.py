"""What the token-level strategies share: one attention layer, and the sequence it reads."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmfuse.fusion import linear_macs
from mmfuse.types import Features, MmfuseError


class AttentionLayer(nn.Module):
    """Queries attend to keys: pre-norm attention and feed-forward, both residual.

    `x = q + MHA(LN q, LN k)`, then `x + FFN(LN x)` with a hidden width of `4 D`. Self-attention is `forward(x, x,
    mask)`; queries and keys have a norm each.

    Reference: Vaswani et al. 2017, arXiv 1706.03762; pre-norm as in Xiong et al. 2020, arXiv 2002.04745.

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

    def forward(self, queries: Tensor, keys: Tensor, key_mask: Tensor) -> Tensor:
        """Update `queries (B, S, D)` from `keys (B, K, D)` where `key_mask (B, K)` is True: `(B, S, D)`."""
        x = queries + self.attend(queries, keys, key_mask)
        return x + self.feed_forward(x)

    def attend(self, queries: Tensor, keys: Tensor, key_mask: Tensor) -> Tensor:
        """The attention's residual branch, `(B, S, D)`."""
        q = self._heads(self.query(self.query_norm(queries)))
        k, v = self.key_value(self.key_norm(keys)).chunk(2, dim=-1)
        attended = F.scaled_dot_product_attention(q, self._heads(k), self._heads(v), attn_mask=key_mask[:, None, None])
        return self.dropout(self.out(attended.transpose(1, 2).flatten(2)))

    def feed_forward(self, x: Tensor) -> Tensor:
        """The feed-forward's residual branch, `(B, S, D)`."""
        return self.dropout(self.mlp(self.mlp_norm(x)))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def macs(self, queries: int, keys: int) -> int:
        """Multiply-accumulates for one example: `2 Q D² + 2 K D² + 2 Q K D + 8 Q D²`."""
        per_query = linear_macs(self.query) + linear_macs(self.out) + linear_macs(self.mlp)
        dim = self.query.in_features
        return queries * per_query + keys * linear_macs(self.key_value) + 2 * queries * keys * dim


def sequence(project: nn.Module, features: Features) -> tuple[Tensor, Tensor]:
    """The projected tokens `(B, S + 1, D)` with the pooled vector as the first of them, and their mask."""
    tokens = project(torch.cat([features.pooled.unsqueeze(1), features.tokens], dim=1))
    return tokens, F.pad(features.mask, (1, 0), value=True)


def masked_max(tokens: Tensor, mask: Tensor) -> Tensor:
    """Channel by channel the largest of `tokens` `(B, S, D)` where `mask` `(B, S)` is True: `(B, D)`."""
    return tokens.masked_fill(~mask.unsqueeze(-1), torch.finfo(tokens.dtype).min).amax(1)


def check_sizes(name: str, out_dim: int, num_heads: int, num_layers: int, least: int = 1) -> None:
    """Refuse sizes an attention cannot have.

    Raises:
        MmfuseError: `num_heads` does not divide `out_dim`, or there are fewer than `least` layers.
    """
    if out_dim % num_heads or num_layers < least:
        raise MmfuseError(
            f"fusion.{name}: out_dim {out_dim} must be a multiple of num_heads {num_heads}, num_layers {least} or more"
        )
