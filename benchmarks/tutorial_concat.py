"""The fusion of the hand-written baselines, so that `speed.py` compares two loops around the same model."""

import torch
from torch import nn

from mmfuse.fusion import FUSIONS, linear_macs
from mmfuse.types import Features


@FUSIONS.register("tutorial_concat")
class TutorialConcat(nn.Module):
    """`pooled = dropout(ReLU(W [t; v]))`, from the encoders' vectors as they are.

    Reference: the usual tutorial.
    Differs: nothing.
    Prefer when: measuring against a script written by hand; `concat` normalises its inputs.
    """

    uses = ("text", "image")
    reads = frozenset({"pooled"})
    interaction = "multiplicative"
    size = "out_dim"

    def __init__(self, text_dim: int, image_dim: int, out_dim: int = 256, *, dropout: float = 0.1):
        super().__init__()
        self.out_dim = out_dim
        self.layers = nn.Sequential(nn.Linear(text_dim + image_dim, out_dim), nn.ReLU(), nn.Dropout(dropout))

    def forward(self, text: Features, image: Features) -> Features:
        """The one token is `pooled`, `(B, 1, out_dim)`."""
        pooled, present = self.layers(torch.cat([text.pooled, image.pooled], dim=-1)), text.present | image.present
        return Features(pooled.unsqueeze(1), torch.ones_like(present).unsqueeze(1), pooled, present)

    def macs(self, text_tokens: int, image_tokens: int) -> int:
        """Multiply-accumulates for one example."""
        return linear_macs(self)
