from __future__ import annotations

import torch
from torch import nn

from mmfuse.fusion import FUSIONS, linear_macs
from mmfuse.fusion.attention import AttentionLayer, check_sizes, sequence
from mmfuse.fusion.projection import Projection
from mmfuse.types import Features


@FUSIONS.register("perceiver")
class PerceiverFusion(nn.Module):
    """A few learned queries read text tokens and image patches together (latent queries).

    Per layer `Z = Z + MHA(Z, [Z; T; V])` and the feed-forward; `pooled = W mean Z`. With two layers, what a query has
    read can direct what it reads next.

    Reference: Perceiver, Jaegle et al. 2021, arXiv 2103.03206; keys that include the queries as in Flamingo's
        resampler, Alayrac et al. 2022, arXiv 2204.14198.
    Differs: no self-attention between latents other than through those keys; both modalities in one sequence.
    Prefer when: sequences are long and the result must be short (a caption decoder reads `num_latents` tokens).

    Args:
        text_dim: Width of the text features.
        image_dim: Width of the image features.
        out_dim: Width of the result.
        num_latents: Learned queries, and tokens of the result.
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
        num_latents: int = 16,
        num_layers: int = 2,
        num_heads: int = 4,
        dropout: float = 0.1,
    ):
        super().__init__()
        check_sizes("perceiver", out_dim, num_heads, num_layers)
        self.out_dim = out_dim
        self.text = Projection(text_dim, out_dim)
        self.image = Projection(image_dim, out_dim)
        self.latents = nn.Parameter(torch.randn(num_latents, out_dim))
        self.layers = nn.ModuleList(AttentionLayer(out_dim, num_heads, dropout) for _ in range(num_layers))
        self.norm = nn.LayerNorm(out_dim)
        self.pool = nn.Linear(out_dim, out_dim)

    def forward(self, text: Features, image: Features) -> Features:
        """Tokens are the latents, `(B, num_latents, out_dim)`."""
        t, t_mask = sequence(self.text, text)
        v, v_mask = sequence(self.image, image)
        z = self.latents.expand(t.shape[0], -1, -1)
        z_mask = torch.ones_like(t_mask[:, :1]).expand(-1, z.shape[1])
        mask = torch.cat([z_mask, t_mask, v_mask], dim=1)
        for layer in self.layers:
            z = layer(z, torch.cat([z, t, v], dim=1), mask)
        z = self.norm(z)
        return Features(z, z_mask, self.pool(z.mean(1)), text.present | image.present)

    def macs(self, text_tokens: int, image_tokens: int) -> int:
        """Multiply-accumulates for one example."""
        t, v, z = text_tokens + 1, image_tokens + 1, len(self.latents)
        attention = sum(layer.macs(z, z + t + v) for layer in self.layers)  # type: ignore[operator]
        return t * linear_macs(self.text) + v * linear_macs(self.image) + attention + linear_macs(self.pool)
