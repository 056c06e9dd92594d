"""Of the suite of fusions: what learns from the weights that it starts with, and what learns in train mode only."""

import pytest
import torch
import torch.nn.functional as F
from planted_fusions import Product, caught, masked_mean, passes
from torch import nn


class OneFactorAtZero(Product):
    """A second product that begins at 0 and opens: the other factor does not."""

    starts = (0.0, 1.0)

    def __init__(self, text_dim, image_dim, out_dim=8):
        super().__init__(text_dim, image_dim, out_dim)
        self.left, self.right = (nn.Parameter(torch.full((out_dim,), start)) for start in self.starts)

    def fuse(self, a, b, text, image):
        return self.out(a * b + self.left * self.right)


class BothFactorsAtZero(OneFactorAtZero):
    starts = (0.0, 0.0)


class Gate(Product):
    """What they say together, behind a sigmoid that is half open."""

    start = 0.0

    def __init__(self, text_dim, image_dim, out_dim=8):
        super().__init__(text_dim, image_dim, out_dim)
        self.gate = nn.Parameter(torch.full((), self.start))

    def fuse(self, a, b, text, image):
        return self.out(a + b + torch.sigmoid(self.gate) * a * b)


class ShutGate(Gate):
    start = -20.0


class PartOfTheWhole(Product):
    """The product beside the sum, a fifth of it."""

    share = 0.2

    def fuse(self, a, b, text, image):
        return self.out(a + b + self.share * a * b)


class TinyPart(PartOfTheWhole):
    share = 1e-4


class Softplus(Product):
    """A factor that stays above 0."""

    def __init__(self, text_dim, image_dim, out_dim=8):
        super().__init__(text_dim, image_dim, out_dim)
        self.scale = nn.Parameter(torch.zeros(out_dim))

    def fuse(self, a, b, text, image):
        return self.out(a * b * self.above(self.scale))

    above = staticmethod(F.softplus)


class RootAtZero(Softplus):
    above = staticmethod(lambda x: 1 + x.square().sum().sqrt())


class ProductsOfWeights(Product):
    """It says that it interacts, and no weights but its last ones are drawn: nothing of the text gets in."""

    def __init__(self, text_dim, image_dim, out_dim=8):
        super().__init__(text_dim, image_dim, out_dim)
        self.near = nn.Linear(text_dim, out_dim)
        nn.init.constant_(self.near.weight, 0.0)
        nn.init.constant_(self.near.bias, -30.0)

    def fuse(self, a, b, text, image):
        return self.out(a + b + a * b * torch.sigmoid(self.near(text.pooled)))


class DropsByItself(Product):
    """A dropout that is no module, in train mode alone."""

    def fuse(self, a, b, text, image):
        return self.out(F.dropout(a * b, 0.3, self.training))


class DetachedInTraining(Product):
    def fuse(self, a, b, text, image):
        return self.out(a * (b.detach() if self.training else b))


class PartlyDetachedInTraining(Product):
    def fuse(self, a, b, text, image):
        return self.out(a * b + (a.detach() if self.training else a))


class WeightsDetachedInTraining(Product):
    def fuse(self, a, b, text, image):
        weight = self.out.weight.detach() if self.training else self.out.weight
        return self.out(a * b) + F.linear(a * b, weight)


class IgnoresTheImageInTraining(Product):
    def fuse(self, a, b, text, image):
        return self.out(a + a * (a if self.training else b))


class AddsInTraining(Product):
    def fuse(self, a, b, text, image):
        return self.out(a + b if self.training else a * b)


class MultipliesInTraining(Product):
    interaction = "additive"

    def fuse(self, a, b, text, image):
        return self.out(a * b if self.training else a + b)


class TokensInTraining(Product):
    def fuse(self, a, b, text, image):
        return self.out(a * b + (masked_mean(self.text(text.tokens), text.mask) if self.training else a))


PLANTED = [
    (
        BothFactorsAtZero,
        "initialisation",
        "'fusion.left' gets no|'left' gets no gradient.*another one that starts at 0",
    ),
    (ShutGate, "initialisation", r"does not learn a two-bit XOR in 200 steps \(loss 0.69; .*gate shut"),
    (TinyPart, "initialisation", "does not learn a two-bit XOR.*far smaller than the rest"),
    (ProductsOfWeights, "initialisation", "does not learn a two-bit XOR"),
    (RootAtZero, "initialisation", "the gradient of 'scale' is not finite"),
    (DetachedInTraining, "modalities", "image is in `uses`, but gets no gradient from `pooled` in train mode"),
    (PartlyDetachedInTraining, "gradient", "by the inputs is not the derivative of the output in train mode"),
    (WeightsDetachedInTraining, "gradient", "by the parameters is not the derivative of the output in train mode"),
    (IgnoresTheImageInTraining, "modalities", "image is in `uses`, but does not move `pooled` in train mode"),
    (AddsInTraining, "interaction", "text plus a function of the image in train mode"),
    (MultipliesInTraining, "interaction", "interact in `pooled` in train mode"),
    (TokensInTraining, "reads", "`reads` has no tokens, but they move `pooled` in train mode"),
]


@pytest.mark.parametrize(("cls", "check", "says"), PLANTED, ids=lambda value: getattr(value, "__name__", None))
def test_planted_defect_is_caught(monkeypatch, cls, check, says):
    caught(monkeypatch, cls, check, says)


@pytest.mark.parametrize("cls", [OneFactorAtZero, Gate, PartOfTheWhole, Softplus, DropsByItself])
def test_sound_neighbour_passes(monkeypatch, cls):
    passes(monkeypatch, cls)
