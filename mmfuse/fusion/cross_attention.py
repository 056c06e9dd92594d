from __future__ import annotations

import torch
from torch import nn

from mmfuse.fusion import FUSIONS, linear_macs
from mmfuse.fusion.attention import AttentionLayer, check_sizes, masked_max, sequence
from mmfuse.fusion.projection import Projection
from mmfuse.types import Features, MmfuseError


@FUSIONS.register("cross_attention")
class CrossAttentionFusion(nn.Module):
    """Let text tokens attend to image patches and patches to text, layer by layer, then pool both.

    Per layer, from the same inputs: `T' = T + MHA(T, V)`, `V' = V + MHA(V, T)`, each with its feed-forward. The pooled
    vectors of the encoders take part as a first token of their sequence. `pooled = W [max T; max V]`. One way
    (`queries: text` or `queries: image`), the other sequence stays as it is and `pooled = W max` of the queries.

    Reference: the co-attention layer of ViLBERT, Lu et al. 2019, arXiv 1908.02265.
    Differs: no self-attention in between; pre-norm; pooled by the maximum over real tokens, channel by channel, instead
        of the product of the first ones: a mean dilutes what one word met in one place by the length of the text.
    Prefer when: words must meet places (which object, which side, new or old), and there are thousands of pairs.

    Args:
        text_dim: Width of the text features.
        image_dim: Width of the image features.
        out_dim: Width of the result.
        queries: "both", or the one modality whose tokens attend to the other's.
        num_layers: 1 or more.
        num_heads: Divides `out_dim`.
        dropout: Probability, on the residual branches.

    Raises:
        MmfuseError: `num_heads` does not divide `out_dim`, there is no layer, or `queries` is something else.
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
        queries: str = "both",
        num_layers: int = 1,
        num_heads: int = 4,
        dropout: float = 0.1,
    ):
        super().__init__()
        check_sizes("cross_attention", out_dim, num_heads, num_layers)
        if queries not in ("both", "text", "image"):
            raise MmfuseError(f"fusion.queries: {queries!r}; legal: both, text, image")
        self.out_dim = out_dim
        self.queries = ("text", "image") if queries == "both" else (queries,)
        self.text = Projection(text_dim, out_dim)
        self.image = Projection(image_dim, out_dim)

        def layers(modality: str) -> nn.ModuleList:
            number = num_layers if modality in self.queries else 0
            return nn.ModuleList(AttentionLayer(out_dim, num_heads, dropout) for _ in range(number))

        self.text_layers, self.image_layers = layers("text"), layers("image")
        self.norm = nn.LayerNorm(out_dim)
        self.pool = nn.Linear(len(self.queries) * out_dim, out_dim)

    def forward(self, text: Features, image: Features) -> Features:
        """Tokens are the updated tokens, text first, each modality's behind its pooled token: `(B, S, out_dim)`."""
        t, t_mask = sequence(self.text, text)
        v, v_mask = sequence(self.image, image)
        for i in range(max(len(self.text_layers), len(self.image_layers))):
            t, v = (
                self.text_layers[i](t, v, v_mask) if "text" in self.queries else t,
                self.image_layers[i](v, t, t_mask) if "image" in self.queries else v,
            )
        updated = {"text": (self.norm(t), t_mask), "image": (self.norm(v), v_mask)}
        chosen = [updated[modality] for modality in self.queries]
        pooled = self.pool(torch.cat([masked_max(tokens, mask) for tokens, mask in chosen], dim=-1))
        tokens, mask = (torch.cat(parts, dim=1) for parts in zip(*chosen, strict=True))
        return Features(tokens, mask, pooled, text.present | image.present)

    def macs(self, text_tokens: int, image_tokens: int) -> int:
        """Multiply-accumulates for one example."""
        t, v = text_tokens + 1, image_tokens + 1
        layers = [(layer, t, v) for layer in self.text_layers] + [(layer, v, t) for layer in self.image_layers]
        attention = sum(layer.macs(queries, keys) for layer, queries, keys in layers)  # type: ignore[operator]
        return t * linear_macs(self.text) + v * linear_macs(self.image) + attention + linear_macs(self.pool)
