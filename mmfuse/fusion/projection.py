"""The way into a strategy: every one starts from inputs on the same scale."""

from __future__ import annotations

from torch import nn


class Projection(nn.Sequential):
    """LayerNorm, then a linear map to the width the strategy works in.

    BERT's pooled vector and a CNN's average pool differ in scale many times over; normalised first, what differs
    between strategies is the fusion. It sees one modality only, so additive strategies stay additive.

    Args:
        in_dim: Width of the encoder's features.
        out_dim: Width it gives.
    """

    def __init__(self, in_dim: int, out_dim: int):
        super().__init__(nn.LayerNorm(in_dim), nn.Linear(in_dim, out_dim))
