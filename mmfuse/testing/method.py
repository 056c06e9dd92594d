"""The checks of methods, on a small model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mmfuse.config import Config
from mmfuse.testing.learning import gap, small_batch, small_model, small_step
from mmfuse.testing.suite import Candidate, Suite, require, require_docstring, require_named_options
from mmfuse.training.learner import Learner
from mmfuse.training.methods import METHODS, Method
from mmfuse.training.methods.plain import Plain
from mmfuse.training.passes import Passes
from mmfuse.types import Batch, Step

SUITE = Suite(METHODS)
EQUAL = 1e-4
"""A relative difference below it is rounding (of a perturbation, too), and one above it is an effect."""


class _Case:
    """A method with a learner, on which it makes steps."""

    def __init__(self, candidate: Candidate, dropout: float = 0.0):
        self.learner = Learner(small_model(dropout), Config(name="conformance")).train()
        self.method = self.build(candidate)

    def build(self, candidate: Candidate) -> Method:
        """Another one of the same options for the same model."""
        method: Method = candidate.cls(**candidate.options)
        method.check(self.learner.model, Config(name="conformance"))
        return method

    def step(self, batches: Sequence[Batch], number: int = 3, method: Method | None = None) -> dict[str, Tensor]:
        """The gradients of a step, by the parameters' names."""
        method = self.method if method is None else method
        step = small_step(self.learner.model)._replace(number=number, seed=7 + number)
        self.learner.zero_grad()
        for batch in batches:
            self.losses(method, batch, step)
        if method.edits_gradients:
            method.gradients(self.learner, step)
        return {name: p.grad.clone() for name, p in self.learner.named_parameters() if p.grad is not None}

    def losses(self, method: Method, batch: Batch, step: Step) -> list[Tensor]:
        """What it yields of a batch, each one's backward pass done."""
        passes, found = Passes(self.learner, self.learner, held=False), []
        for loss in method.losses(passes.learn, passes.look, batch, step):
            require(isinstance(loss, Tensor) and loss.shape == (), "`losses` yields what is no scalar tensor")
            require(loss.isfinite(), f"`losses` yields {float(loss.detach())}")
            require(loss.requires_grad, "`losses` yields a loss that depends on nothing that is trained")
            loss.backward()
            found.append(loss.detach())
        require(passes.parts is not None, "`losses` never calls `learn`, whose passes other processes wait for")
        return found


def _differ(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """The largest gap of two steps' gradients, relative to the largest gradient; infinite where one is missing."""
    if a.keys() != b.keys():
        return float("inf")
    return gap(torch.cat([g.flatten() for g in a.values()]), torch.cat([g.flatten() for g in b.values()]))


@SUITE.check
def _protocol(candidate: Candidate) -> None:
    """Base class, attributes and docstring."""
    cls = candidate.cls
    require(issubclass(cls, Method), "it is not a mmfuse.training.methods.Method")
    require_named_options(cls)
    require_docstring(cls)
    passes, edits = cls.passes, cls.edits_gradients
    require(type(passes) is int and passes > 0, f"`passes` is {passes!r}: it must be a positive int")
    require(type(edits) is bool, f"`edits_gradients` is {edits!r}: it must be true or false")
    require(
        edits or cls.gradients is Method.gradients, "it has `gradients`, which nobody calls without `edits_gradients`"
    )


@SUITE.check
def _passes(candidate: Candidate) -> None:
    """As many losses as it says; other processes count on it."""
    case = _Case(candidate)
    for rows in ([0, 1, 2, 3, 4, 5], [1], [2]):
        batch = small_batch(rows)
        found = len(case.losses(case.method, batch, small_step(case.learner.model)))
        require(
            found == case.method.passes,
            f"`losses` yields {found} of rows {rows}, but `passes` is {candidate.cls.passes}",
        )


@SUITE.check
def _effect(candidate: Candidate) -> None:
    """A step with it is another one than without."""
    if candidate.cls is Plain:
        return
    case = _Case(candidate)
    plain = case.step([small_batch()], method=Plain())
    require(_differ(plain, case.step([small_batch()])) > EQUAL, "its gradients are those of `plain`: has it no effect?")


@SUITE.check
def _restored(candidate: Candidate) -> None:
    """Weights, buffers and modes are after a batch what they were before."""
    case = _Case(candidate)

    def state() -> dict[str, Any]:
        tensors = [*case.learner.named_parameters(), *case.learner.named_buffers()]
        found: dict[str, Any] = {name: tensor.detach().clone() for name, tensor in tensors}
        found |= {f"{name} (trained)": parameter.requires_grad for name, parameter in case.learner.named_parameters()}
        return found | {f"{name} (mode)": module.training for name, module in case.learner.named_modules()}

    before = state()
    case.step([small_batch()])
    after = state()
    require(before.keys() == after.keys(), "it leaves parameters or modules behind")
    for name, value in before.items():
        same = torch.equal(value, after[name]) if isinstance(value, Tensor) else value == after[name]
        require(same, f"it leaves {name!r} changed: put it back behind the last `yield`")


@SUITE.check
def _dropout(candidate: Candidate) -> None:
    """The same dropout in all passes, and no draw from torch's random state between them."""
    case = _Case(candidate, dropout=0.5)
    step = small_step(case.learner.model)
    torch.manual_seed(5)
    case.losses(Plain(), small_batch(), step)
    after = torch.get_rng_state()
    torch.manual_seed(5)
    case.losses(case.method, small_batch(), step)
    require(
        torch.equal(after, torch.get_rng_state()),
        "it changes torch's random state, by which the next batch drops out: draw from a torch.Generator seeded by "
        "`step.seed`",
    )


@SUITE.check
def _repeatable(candidate: Candidate) -> None:
    """What it draws depends on the step alone."""
    first, again = _Case(candidate), _Case(candidate)
    torch.manual_seed(3)
    gradients = first.step([small_batch()])
    torch.manual_seed(4)
    require(_differ(gradients, again.step([small_batch()])) <= EQUAL, "the same step gives other gradients again")


@SUITE.check
def _rows(candidate: Candidate) -> None:
    """A row is treated the same whatever rows are beside it, and in which order: so for any number of processes."""
    whole = _Case(candidate).step([small_batch()])
    for cut in (1, 4):
        parts = _Case(candidate).step([small_batch(range(cut)), small_batch(range(cut, 6))])
        require(
            _differ(whole, parts) <= EQUAL,
            f"the first {cut} rows and the others in two batches give other gradients than in one: is something drawn, "
            "or normalised, over a batch instead of a row?",
        )
    shuffled = _Case(candidate).step([small_batch([3, 5, 0, 2, 1, 4])])
    require(_differ(whole, shuffled) <= EQUAL, "another order of rows gives other gradients")
    padded = _Case(candidate).step([small_batch(padding=3)])
    require(_differ(whole, padded) <= EQUAL, "padded tokens change the gradients: are they masked?")


@SUITE.check
def _resumes(candidate: Candidate) -> None:
    """With its state in a checkpoint, one that is built anew goes on as the first would."""
    case = _Case(candidate)
    for number in range(3):
        case.step([small_batch()], number)
    state = case.method.state_dict()
    kept = {}
    for name, value in state.items():
        require(isinstance(name, str), f"`state_dict` has {name!r} as a name")
        try:
            kept[name] = value.clone() if isinstance(value, Tensor) else json.loads(json.dumps(value))
        except (TypeError, ValueError) as error:
            require(False, f"`state_dict` has {name!r}, which is neither a tensor nor JSON: {error}")
    expected = case.step([small_batch()], 3)
    again = case.build(candidate)
    again.load_state_dict(kept)
    found = case.step([small_batch()], 3, again)
    require(_differ(expected, found) <= EQUAL, "resumed, it makes another step: is something not in `state_dict`?")
