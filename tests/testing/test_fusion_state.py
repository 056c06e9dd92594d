"""Of the suite of fusions: what a strategy remembers and no checkpoint keeps, what it draws, and what it holds."""

import random

import numpy as np
import pytest
import torch
from planted_fusions import Product, TokenMean, caught, passes


class SavedCount(Product):
    """A temperature that falls with the steps, counted in a buffer."""

    persistent = True

    def __init__(self, text_dim, image_dim, out_dim=8):
        super().__init__(text_dim, image_dim, out_dim)
        self.register_buffer("steps", torch.zeros(()), persistent=self.persistent)

    def fuse(self, a, b, text, image):
        if self.training:
            self.steps += 1
        return self.out(a * b / (1 + 0.1 * self.steps))


class UnsavedCount(SavedCount):
    persistent = False


class PlainCount(Product):
    steps = 0

    def fuse(self, a, b, text, image):
        self.steps += self.training
        return self.out(a * b / (1 + 0.1 * self.steps))


class OpensLater(Product):
    """A schedule of which nothing is seen in the first 500 steps."""

    steps = 0

    def fuse(self, a, b, text, image):
        self.steps += 1
        return self.out(a * b + (a if self.steps > 500 else 0))


class Counts(Product):
    """It counts its forwards for nobody but who asks."""

    steps = 0

    def fuse(self, a, b, text, image):
        self.steps += 1
        return self.out(a * b)


class SavedMean(Product):
    """What training has seen so far is taken off: it is in a buffer, and from the batches before."""

    persistent = True

    def __init__(self, text_dim, image_dim, out_dim=8):
        super().__init__(text_dim, image_dim, out_dim)
        self.register_buffer("mean", torch.zeros(out_dim), persistent=self.persistent)

    def fuse(self, a, b, text, image):
        fused = self.out((a - self.mean) * b)
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * a.detach().mean(0)
        return fused


class UnsavedMean(SavedMean):
    persistent = False


class LastBatch(Product):
    """It adds what it saw before."""

    last = 0.0

    def fuse(self, a, b, text, image):
        seen, self.last = self.last, a.detach().mean(0)
        return self.out(a * b + seen)


class LooksBack(Product):
    """It keeps what it gave last, to be looked at."""

    last = None

    def fuse(self, a, b, text, image):
        out = self.out(a * b)
        self.last = out.detach()
        return out


_SEEN = []


class InAGlobalPlace(Product):
    def fuse(self, a, b, text, image):
        _SEEN.append(a * b)
        return self.out(a * b)


class KeepsOutputs(LooksBack):
    def fuse(self, a, b, text, image):
        self.last = [*(self.last or []), self.out(a * b)]
        return self.last[-1]


class LogsNumbers(Product):
    def __init__(self, text_dim, image_dim, out_dim=8):
        super().__init__(text_dim, image_dim, out_dim)
        self.log = []

    def fuse(self, a, b, text, image):
        self.log.append(len(a))
        return self.out(a * b)


class PlacesByShape(TokenMean):
    """What depends on the shape alone is kept by shape."""

    def __init__(self, text_dim, image_dim, out_dim=8):
        super().__init__(text_dim, image_dim, out_dim)
        self.kept = {}

    def token(self, tokens, mask):
        if torch.compiler.is_exporting():  # where a length is a symbol, and no key
            return self.text(tokens) * self.places(tokens)
        key = (tokens.shape[1], tokens.dtype)
        if key not in self.kept:
            self.kept[key] = self.places(tokens)
        return self.text(tokens) * self.kept[key]

    def places(self, tokens):
        return 1 + torch.arange(tokens.shape[1]).to(tokens.dtype)[:, None] / 100


class MasksByShape(PlacesByShape):
    def token(self, tokens, mask):
        if mask.shape not in self.kept:
            self.kept[mask.shape] = mask.to(tokens.dtype).sum(1)[:, None, None]
        return self.text(tokens) * self.kept[mask.shape]


class ByContent(PlacesByShape):
    def token(self, tokens, mask):
        key = tokens.detach().numpy().tobytes()
        if key not in self.kept:
            self.kept[key] = tokens.detach() * 2
        return self.text(self.kept[key] / 2)


class PythonsDraw(Product):
    def fuse(self, a, b, text, image):
        return self.out(a * b * (0.5 if self.training and random.random() < 0.5 else 1.0))


class NumpysDraw(Product):
    def fuse(self, a, b, text, image):
        return self.out(a * b * (np.random.normal() if self.training else 1.0))


class NumpysWeights(Product):
    def __init__(self, text_dim, image_dim, out_dim=8):
        super().__init__(text_dim, image_dim, out_dim)
        self.out.weight.data = torch.from_numpy(np.random.normal(size=(out_dim, out_dim))).float()


class WritesIntoItsInput(Product):
    def fuse(self, a, b, text, image):
        if not text.pooled.requires_grad:
            text.pooled.clamp_(-1, 1)
        return self.out(a * b)


class ExtraState(Product):
    def get_extra_state(self):
        return {"steps": 1}

    def set_extra_state(self, state):
        """Nothing."""


class LossOfTheLast(Product):
    """A loss of its own of the forward before, as of a load to be balanced."""

    def fuse(self, a, b, text, image):
        self.spread = (a * b).square().mean()
        return self.out(a * b)

    def auxiliary_loss(self):
        return self.spread


class LossOfAll(LossOfTheLast):
    running = 0.0

    def fuse(self, a, b, text, image):
        out = super().fuse(a, b, text, image)
        self.running = 0.9 * self.running + 0.1 * float(self.spread.detach())
        return out

    def auxiliary_loss(self):
        return self.spread * self.running


PLANTED = [
    (PlainCount, "checkpoint", "differs from one with the same state_dict in eval mode: steps is neither"),
    (UnsavedCount, "checkpoint", "steps is neither a parameter nor a saved buffer, and matters"),
    (OpensLater, "checkpoint", "steps is counted by forwards.*matters later on"),
    (UnsavedMean, "checkpoint", "mean is neither a parameter nor a saved buffer"),
    (LastBatch, "checkpoint", "last is neither a parameter nor a saved buffer"),
    (MasksByShape, "checkpoint", "kept is neither a parameter nor a saved buffer"),
    (LossOfAll, "checkpoint", "running"),
    (KeepsOutputs, "memory", "20 forwards leave [0-9]+ tensors behind"),
    (InAGlobalPlace, "memory", "20 forwards leave [0-9]+ tensors behind"),
    (LogsNumbers, "memory", "log has 50 entries after 50 forwards"),
    (ByContent, "memory", "20 forwards leave [0-9]+ tensors behind.*without bound"),
    (PythonsDraw, "repeatable", "draws from Python's or numpy's"),
    (NumpysDraw, "repeatable", "draws from Python's or numpy's"),
    (NumpysWeights, "repeatable", "built twice from one seed it differs"),
    (WritesIntoItsInput, "repeatable", "changes its text input in place"),
    (ExtraState, "state_dict", "'fusion._extra_state' in its state_dict is no tensor"),
]


@pytest.fixture(autouse=True)
def as_it_was():
    """Tests that follow draw what they would have drawn."""
    kept = random.getstate(), np.random.get_state()
    yield
    random.setstate(kept[0])
    np.random.set_state(kept[1])


@pytest.mark.parametrize(("cls", "check", "says"), PLANTED, ids=lambda value: getattr(value, "__name__", None))
def test_planted_defect_is_caught(monkeypatch, cls, check, says):
    caught(monkeypatch, cls, check, says)


@pytest.mark.parametrize("cls", [SavedCount, SavedMean, Counts, LooksBack, PlacesByShape, LossOfTheLast])
def test_sound_neighbour_passes(monkeypatch, cls):
    passes(monkeypatch, cls)
