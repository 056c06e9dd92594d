"""Strategies to plant defects in, and what plants them."""

import pytest
import torch
from torch import nn

from mmfuse.fusion import FUSIONS, linear_macs
from mmfuse.testing import ConformanceError, check_fusion, fusion_checks
from mmfuse.types import Features


def masked_mean(tokens, mask):
    return (tokens * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


class Product(nn.Module):
    """The product of two projections: a strategy without defect, from which those below differ by one.

    Reference: none.
    Differs: nothing.
    Prefer when: testing.
    """

    uses = ("text", "image")
    reads = frozenset({"pooled"})
    interaction = "multiplicative"
    size = "out_dim"

    def __init__(self, text_dim, image_dim, out_dim=8, *, dropout=0.1):
        super().__init__()
        self.out_dim = out_dim
        self.text, self.image = nn.Linear(text_dim, out_dim), nn.Linear(image_dim, out_dim)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(out_dim, out_dim)

    def fuse(self, a, b, text, image):
        """What a defect overrides: `pooled`, from the projected pooled vectors and all there is."""
        return self.out(self.dropout(a * b))

    def forward(self, text, image):
        pooled = self.fuse(self.text(text.pooled), self.image(image.pooled), text, image)
        tokens = torch.cat([self.text(text.tokens), self.image(image.tokens)], dim=1)
        return Features(tokens, torch.cat([text.mask, image.mask], dim=1), pooled, text.present | image.present)

    def macs(self, text_tokens, image_tokens):
        return linear_macs(self) + text_tokens * linear_macs(self.text) + image_tokens * linear_macs(self.image)


def plant(monkeypatch, cls):
    cls.__doc__ = cls.__doc__ or Product.__doc__
    monkeypatch.setitem(FUSIONS._classes, "planted", cls)


class TokenMean(Product):
    """The same with what the text's tokens add: the mean of what `token` makes of them, which a defect overrides."""

    __doc__ = Product.__doc__
    reads = frozenset({"pooled", "tokens"})

    def token(self, tokens, mask):
        return self.text(tokens)

    def fuse(self, a, b, text, image):
        return self.out(self.dropout(a * b) + masked_mean(self.token(text.tokens, text.mask), text.mask))

    def macs(self, text_tokens, image_tokens):
        return super().macs(2 * text_tokens, image_tokens)


def caught(monkeypatch, cls, check, says):
    """Fail unless a check refuses a strategy for the right reason, in one line."""
    plant(monkeypatch, cls)
    with pytest.raises(ConformanceError, match=says) as error:
        fusion_checks()[check]("planted")
    assert str(error.value).startswith(f"fusion 'planted' fails {check}: ")
    assert "\n" not in str(error.value)


def passes(monkeypatch, cls):
    """Fail unless a strategy passes every check."""
    cls.__doc__ = Product.__doc__
    plant(monkeypatch, cls)
    check_fusion("planted")
