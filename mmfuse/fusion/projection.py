"""The way into a strategy: every one starts from inputs on the same scale."""

from __future__ import annotations

from torch import nn


class Projection(nn.Sequential):
    """LayerNorm, then a linear map to the width the strategy works in.

    BERT's pooled vector and a CNN's average pool differ in scale many times over; normalised first, what differs
    between strategies is the fusion. It sees one modality only, so additive strategies stay additive. Weights are drawn
    so that the variance stays 1 (LeCun et al. 1998, "Efficient BackProp"; PyTorch's own draw leaves a third of it):
    smaller vectors keep what follows near linear, where a sum modulo 8 is found late or never.

    Args:
        in_dim: Width of the encoder's features.
        out_dim: Width it gives.
    """

    def __init__(self, in_dim: int, out_dim: int):
        linear = nn.Linear(in_dim, out_dim)
        nn.init.normal_(linear.weight, std=in_dim**-0.5)
        nn.init.zeros_(linear.bias)
        super().__init__(nn.LayerNorm(in_dim), linear)
