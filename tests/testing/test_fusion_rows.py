"""Of the suite of fusions: rows that leak in train mode, a batch of one, and 1 to 600 tokens."""

import pytest
import torch
from planted_fusions import Product, TokenMean, caught, passes
from torch import nn


class Normed(Product):
    """A LayerNorm, which sees a row alone."""

    norm = nn.LayerNorm

    def __init__(self, text_dim, image_dim, out_dim=8):
        super().__init__(text_dim, image_dim, out_dim)
        self.normed = self.norm(out_dim)

    def fuse(self, a, b, text, image):
        return self.out(self.normed(a * b))


class BatchNormed(Normed):
    norm = nn.BatchNorm1d


class Noise(Product):
    """Noise in train mode, drawn for each row."""

    def trained(self, a):
        return a + 0.1 * torch.randn_like(a)

    def fuse(self, a, b, text, image):
        return self.out((self.trained(a) if self.training else a) * b)


class Rolls(Noise):
    def trained(self, a):
        return a + 0.1 * a.roll(1, 0)


class MixesByDraw(Noise):
    def trained(self, a):
        return 0.9 * a + 0.1 * a[torch.randperm(len(a))]


class CentresTheBatch(Noise):
    def trained(self, a):
        return a - a.mean(0)


class LeaksItsGradient(Noise):
    def trained(self, a):
        mean = a.mean(0)
        return a + (mean - mean.detach())


class DropsRows(Noise):
    """Half of a batch's rows keep their text: which do, is counted in the batch."""

    def trained(self, a):
        return a * (torch.arange(len(a)) < (len(a) + 1) // 2)[:, None]


class SqueezesInTraining(Noise):
    def trained(self, a):
        return torch.cat(a.squeeze().chunk(2, 1), 1)


class SpreadOfOne(Noise):
    """By chance it is right for two rows and more: a batch's spread of what is 0 anyway."""

    def trained(self, a):
        return a + (0.0 * a).std(0)


class PositionsByFormula(TokenMean):
    """Sines of the position: for as many tokens as there are."""

    def token(self, tokens, mask):
        return self.text(tokens) * torch.cos(torch.arange(tokens.shape[1]).to(tokens) / 100)[:, None]


class TableOf512(TokenMean):
    def __init__(self, text_dim, image_dim, out_dim=8):
        super().__init__(text_dim, image_dim, out_dim)
        self.positions = nn.Embedding(512, out_dim)

    def token(self, tokens, mask):
        return self.text(tokens) + self.positions(torch.arange(tokens.shape[1]))


class FirstTokenOnly(TokenMean):
    """A class token, as BERT's: the others are never read, at no length."""

    def fuse(self, a, b, text, image):
        return self.out(a * b + self.text(text.tokens[:, 0]))

    def macs(self, text_tokens, image_tokens):
        return Product.macs(self, text_tokens + 1, image_tokens)


class CutOffAt512(TokenMean):
    def fuse(self, a, b, text, image):
        cut = text._replace(tokens=text.tokens[:, :512], mask=text.mask[:, :512])
        return super().fuse(a, b, cut, image)


class GivesTheFirst128(Product):
    """It cuts off what a caption decoder would read."""

    def forward(self, text, image):
        return super().forward(text._replace(tokens=text.tokens[:, :128], mask=text.mask[:, :128]), image)


class Convolved(TokenMean):
    """Neighbours of three, with zeros beyond either end."""

    pad = 1

    def __init__(self, text_dim, image_dim, out_dim=8):
        super().__init__(text_dim, image_dim, out_dim)
        self.near = nn.Conv1d(out_dim, out_dim, 3, padding=self.pad)

    def token(self, tokens, mask):
        return self.near((self.text(tokens) * mask[..., None]).mT).mT

    def macs(self, text_tokens, image_tokens):
        return super().macs(text_tokens, image_tokens) + 3 * self.out_dim**2 * text_tokens


class ConvolvedWithoutEnds(Convolved):
    pad = 0

    def fuse(self, a, b, text, image):
        return self.out(a * b + self.token(text.tokens, text.mask).amax(1))


class StrongestToken(TokenMean):
    """The maximum over tokens: of many, few count in any channel."""

    def fuse(self, a, b, text, image):
        return self.out(a * b + self.text(text.tokens).masked_fill(~text.mask[..., None], -1e9).amax(1))


class UnderflowsWithLength(TokenMean):
    """The product of what is below 1 over the tokens: nothing of a few hundred."""

    def fuse(self, a, b, text, image):
        share = torch.sigmoid(self.text(text.tokens)).masked_fill(~text.mask[..., None], 1.0)
        return self.out(a * b / share.prod(1))


PLANTED = [
    (BatchNormed, "batch", "depends on its batch mates in train mode: does attention, a BatchNorm"),
    (Rolls, "batch", "batch mates in train mode"),
    (MixesByDraw, "batch", "batch mates in train mode"),
    (CentresTheBatch, "batch", "batch mates in train mode"),
    (DropsRows, "batch", "batch mates in train mode"),
    (LeaksItsGradient, "batch", "a row's gradient reaches its batch mates in train mode"),
    (SqueezesInTraining, "batch", r"1 row\(s\) in train mode: IndexError.*squeeze"),
    (SpreadOfOne, "batch", "`pooled` is not finite"),
    (TableOf512, "lengths", r"600 text token\(s\) with 1 patch.*IndexError.*a table of positions"),
    (CutOffAt512, "lengths", "the last of 4 text tokens moves `pooled`, the last 50 of 600 do not: is it cut off"),
    (GivesTheFirst128, "lengths", "the last of 4 text tokens moves `tokens`, the last 50 of 600 do not"),
    (ConvolvedWithoutEnds, "lengths", r"1 text token\(s\) with 1 patch.*RuntimeError.*a least number of tokens"),
    (UnderflowsWithLength, "lengths", r"600 text token\(s\) with 1 patch\(es\): `pooled` is not finite"),
]


@pytest.mark.filterwarnings("ignore:std")  # of one row
@pytest.mark.parametrize(("cls", "check", "says"), PLANTED, ids=lambda value: getattr(value, "__name__", None))
def test_planted_defect_is_caught(monkeypatch, cls, check, says):
    caught(monkeypatch, cls, check, says)


@pytest.mark.parametrize(
    "cls", [Normed, Noise, TokenMean, PositionsByFormula, FirstTokenOnly, StrongestToken, Convolved]
)
def test_sound_neighbour_passes(monkeypatch, cls):
    passes(monkeypatch, cls)
