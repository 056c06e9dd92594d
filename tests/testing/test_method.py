"""The suite of methods passes on every registered one, and fails on every defect planted here."""

import pytest
import torch

from mmfuse.testing import SUITES, ConformanceError, check
from mmfuse.training.methods import METHODS, Method
from mmfuse.training.methods.fgm import FGM

DOC = """A method.

Reference: none.
Differs: nothing.
Prefer when: testing.
"""


class Noise(Method):
    """Gradient noise by the step's seed, with a running factor: a method without defect."""

    edits_gradients = True

    def __init__(self, scale=0.1):
        self.scale, self.steps = scale, 0

    def gradients(self, learner, step):
        generator = torch.Generator().manual_seed(step.seed)
        self.steps += 1
        for parameter in learner.parameters():
            draw = torch.randn(parameter.shape, generator=generator)
            if parameter.grad is not None:
                parameter.grad += self.scale * self.steps * draw

    def state_dict(self):
        return {"steps": self.steps}

    def load_state_dict(self, state):
        self.steps = state["steps"]


class Forgets(Noise):
    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


class KeepsAnObject(Noise):
    def state_dict(self):
        return {"steps": self}


class DrawsFromTorch(Noise):
    def gradients(self, learner, step):
        for parameter in learner.parameters():
            if parameter.grad is not None:
                parameter.grad += self.scale * torch.randn(parameter.shape)


class NotDeclared(Noise):
    edits_gradients = False


class Idle(Method):
    def losses(self, learn, look, batch, step):
        loss, _ = learn(batch, step)
        yield loss * 1.0


class TwoForOne(Method):
    def losses(self, learn, look, batch, step):
        for _ in range(2):
            yield learn(batch, step)[0]


class Pushes(FGM):
    def losses(self, learn, look, batch, step):
        yield learn(batch, step)[0]
        weight = next(iter(self.towers.values())).layer.weight
        with torch.no_grad():
            weight += 0.01
        yield learn(batch, step)[0]


class NormalisedByBatch(FGM):
    def _move(self, modality, zero, batch):
        gradient = zero.grad
        if modality == "text":
            gradient = gradient * batch["text_mask"].unsqueeze(-1)
        return gradient / gradient.norm()


class MovesPadding(FGM):
    def _move(self, modality, zero, batch):
        return torch.ones_like(zero) / zero.flatten(1).shape[1] ** 0.5


class DrawsAfterwards(FGM):
    def losses(self, learn, look, batch, step):
        yield from super().losses(learn, look, batch, step)
        torch.rand(3)


class Looks(Method):
    def losses(self, learn, look, batch, step):
        yield look(batch, step)[0]


DEFECTS = {
    Forgets: "fails resumes: resumed, it makes another step",
    KeepsAnObject: "fails resumes: `state_dict` has 'steps', which is neither",
    DrawsFromTorch: "fails repeatable",
    NotDeclared: "fails protocol: it has `gradients`",
    Idle: "fails effect",
    TwoForOne: "fails passes: `losses` yields 2",
    Pushes: "fails restored: it leaves 'model.text_encoder.layer.weight' changed",
    NormalisedByBatch: "fails rows: the first 1 rows",
    MovesPadding: "fails rows",
    DrawsAfterwards: "fails dropout: it changes torch's random state",
    Looks: "fails passes: `losses` never calls `learn`",
}


def plant(monkeypatch, cls):
    cls.__doc__ = DOC
    monkeypatch.setitem(METHODS._classes, "planted", cls)


@pytest.mark.parametrize("title", SUITES["method"].checks)
@pytest.mark.parametrize("name", METHODS.names())
def test_registered_method_conforms(name, title):
    SUITES["method"].checks[title](name)


@pytest.mark.parametrize("options", [{"on": ["text"]}, {"epsilon": {"text": 0.5, "image": 4.0}}], ids=str)
def test_variants_of_fgm_conform(options):
    check("method", "fgm", **options)


def test_a_method_without_defect_conforms(monkeypatch):
    plant(monkeypatch, Noise)
    check("method", "planted", scale=0.2)


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda cls: cls.__name__)
def test_a_planted_defect_is_caught(monkeypatch, defect):
    plant(monkeypatch, defect)
    with pytest.raises(ConformanceError, match=DEFECTS[defect]):
        check("method", "planted")
