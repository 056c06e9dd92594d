"""Of the suite of fusions: zeros, constants and large numbers, and multiply-accumulates by operators."""

import pytest
import torch
import torch.nn.functional as F
from planted_fusions import Product, caught, passes, plant
from torch import nn

from mmfuse.fusion import linear_macs
from mmfuse.testing import fusion_checks


class UnitLength(Product):
    """The direction of the text, of which a zero vector has none."""

    def way(self, x):
        return F.normalize(x, dim=-1)

    def fuse(self, a, b, text, image):
        return self.out(self.text(self.way(text.pooled)) * b)

    def macs(self, text_tokens, image_tokens):
        return super().macs(text_tokens + 1, image_tokens)


class DividesByLength(UnitLength):
    def way(self, x):
        return x / x.norm(dim=-1, keepdim=True)


class DividesBySpread(UnitLength):
    def way(self, x):
        return (x - x.mean(-1, keepdim=True)) / x.std(-1, keepdim=True)


class RootOfSquares(UnitLength):
    """The value is right and its slope is not: infinite times 0."""

    def way(self, x):
        return x / (1 + x.square().sum(-1, keepdim=True).sqrt())


class LogOfSize(UnitLength):
    def way(self, x):
        return x.sign() * x.abs().log1p() + 0 * x.abs().log()


class SignedRoot(UnitLength):
    def way(self, x):
        return x.sign() * x.abs().sqrt()


class SmoothRoot(UnitLength):
    def way(self, x):
        return x / (x.abs() + 1e-6).sqrt()


class Exponential(UnitLength):
    def way(self, x):
        return x.exp()


class FifthPower(UnitLength):
    def way(self, x):
        return x**10


class Softmax(UnitLength):
    def way(self, x):
        return x.softmax(-1)


class OwnMacs(Product):
    """Three operands by einsum, and a weight for each pair of channels; `extra` are its multiply-accumulates."""

    def __init__(self, text_dim, image_dim, out_dim=8):
        super().__init__(text_dim, image_dim, out_dim)
        self.pairs = nn.Parameter(torch.randn(out_dim, out_dim, out_dim) / out_dim)

    def fuse(self, a, b, text, image):
        return self.out(torch.einsum("bi,bj,ijk->bk", a, b, self.pairs))

    def extra(self):
        return self.out_dim**3 + self.out_dim**2

    def macs(self, text_tokens, image_tokens):
        return super().macs(text_tokens, image_tokens) + self.extra()


class EinsumUncounted(OwnMacs):
    def extra(self):
        return 0


class ByBroadcast(OwnMacs):
    """A matrix product in other words."""

    def fuse(self, a, b, text, image):
        pairs = ((a * b)[:, :, None, None] * self.pairs).sum(1)
        return self.out(pairs.sum(1))

    def extra(self):
        return self.out_dim**3


class BroadcastUncounted(ByBroadcast):
    def extra(self):
        return 0


class DroppedBroadcastUncounted(BroadcastUncounted):
    def fuse(self, a, b, text, image):
        pairs = self.dropout((a * b)[:, :, None, None] * self.pairs)
        return self.out(pairs.reshape(len(a), self.out_dim, -1).sum(1).unflatten(1, (self.out_dim, -1)).mean(1))


class ExpandedUncounted(BroadcastUncounted):
    """The same without a broadcast that is seen in the shapes."""

    def fuse(self, a, b, text, image):
        shape = (len(a), *self.pairs.shape)
        left = (a * b)[:, :, None, None].expand(shape)
        return self.out((left * self.pairs.expand(shape)).sum((1, 2)))


class OuterProduct(OwnMacs):
    """A product of each with each that nothing sums, as a tensor fusion's: it may be counted or not."""

    def fuse(self, a, b, text, image):
        outer = (a[:, :, None] * b[:, None, :]).flatten(1)
        return self.out(outer @ self.pairs.flatten(0, 1))

    def extra(self):
        return self.out_dim**3


class Bilinear(OwnMacs):
    def __init__(self, text_dim, image_dim, out_dim=8):
        super().__init__(text_dim, image_dim, out_dim)
        del self.pairs
        self.pairs = nn.Bilinear(out_dim, out_dim, out_dim)

    def fuse(self, a, b, text, image):
        return self.out(self.pairs(a, b))

    def extra(self):
        return self.out_dim**3


class BilinearUncounted(Bilinear):
    def extra(self):
        return 0


class Recurrent(OwnMacs):
    """A GRU of two steps: the text, then the image."""

    layer = nn.GRU

    def __init__(self, text_dim, image_dim, out_dim=8):
        super().__init__(text_dim, image_dim, out_dim)
        del self.pairs
        self.steps: nn.Module = self.layer(out_dim, out_dim, batch_first=True)

    def fuse(self, a, b, text, image):
        return self.out(self.steps(torch.stack([a, b], dim=1))[0][:, 1])

    def extra(self):
        return 2 * 2 * (self.steps.get_parameter("weight_ih_l0").numel())


class LongMemory(Recurrent):
    layer = nn.LSTM


class RecurrentUncounted(Recurrent):
    def extra(self):
        return 0


class ConvolutionUncounted(Product):
    def __init__(self, text_dim, image_dim, out_dim=8):
        super().__init__(text_dim, image_dim, out_dim)
        self.near = nn.Conv1d(1, 16, 3, padding=1)

    def fuse(self, a, b, text, image):
        return self.out(self.near((a * b).unsqueeze(1)).amax(1))


class MatrixByVectorUncounted(Product):
    """A row at a time, as a vector."""

    def __init__(self, text_dim, image_dim, out_dim=8):
        super().__init__(text_dim, image_dim, out_dim)
        self.turn = nn.Parameter(torch.randn(out_dim, out_dim))

    def fuse(self, a, b, text, image):
        return self.out(torch.stack([self.turn @ row for row in a * b]))


class OfShortTexts(Product):
    def macs(self, text_tokens, image_tokens):
        return super().macs(min(text_tokens, 8), image_tokens)


class Squared(Product):
    """As if every token met every other."""

    def macs(self, text_tokens, image_tokens):
        return super().macs(text_tokens, image_tokens) + linear_macs(self.out) * text_tokens * image_tokens


PLANTED = [
    (DividesByLength, "extremes", "`pooled` is not finite where the text is zero.*division by a length"),
    (DividesBySpread, "extremes", "`pooled` is not finite where the text is (zero|constant)"),
    (RootOfSquares, "extremes", "the gradient is not finite where the text is zero.*root"),
    (LogOfSize, "extremes", "not finite where the text is zero"),
    (SignedRoot, "extremes", "the gradient is not finite where the text is zero"),
    (Exponential, "extremes", r"`pooled` is not finite where the text is large.*exp\(\)"),
    (FifthPower, "extremes", "`pooled` is not finite where the text is large.*a power"),
    (EinsumUncounted, "macs", "its matrix products take"),
    (BroadcastUncounted, "macs", "products that are summed after a broadcast"),
    (DroppedBroadcastUncounted, "macs", "products that are summed after a broadcast"),
    (ExpandedUncounted, "macs", "products that are summed after a broadcast"),
    (BilinearUncounted, "macs", "its matrix products take"),
    (RecurrentUncounted, "macs", "its matrix products take"),
    (ConvolutionUncounted, "macs", "its matrix products take"),
    (MatrixByVectorUncounted, "macs", "its matrix products take"),
    (OfShortTexts, "macs", r"macs\(40, 30\) is"),
    (Squared, "macs", "its matrix products take"),
]


@pytest.mark.parametrize(("cls", "check", "says"), PLANTED, ids=lambda value: getattr(value, "__name__", None))
def test_planted_defect_is_caught(monkeypatch, cls, check, says):
    caught(monkeypatch, cls, check, says)


@pytest.mark.parametrize("cls", [UnitLength, SmoothRoot, Softmax])
def test_sound_neighbour_passes(monkeypatch, cls):
    passes(monkeypatch, cls)


@pytest.mark.parametrize("cls", [OwnMacs, ByBroadcast, OuterProduct, Bilinear, Recurrent, LongMemory])
def test_sound_neighbour_is_counted_right(monkeypatch, cls):
    plant(monkeypatch, cls)
    fusion_checks()["macs"]("planted")
