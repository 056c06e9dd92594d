"""The checks of objectives, on a small model."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from mmfuse.testing.learning import gap, small_batch, small_model, small_step
from mmfuse.testing.suite import Candidate, Suite, require, require_docstring, require_named_options
from mmfuse.training.objectives import OBJECTIVES
from mmfuse.types import MISSING_CLASS, Batch, Step

SUITE = Suite(OBJECTIVES)
EQUAL = 1e-5
"""A relative difference below it is rounding, and one above it is an effect."""


class _Case:
    """An objective with the model that it is built for."""

    def __init__(self, candidate: Candidate):
        self.model = small_model()
        torch.manual_seed(2)
        self.objective: Any = candidate.cls(self.model, **candidate.options).train()
        with torch.no_grad():
            for parameter in self.objective.parameters():  # off any point at which nothing moves
                parameter += 0.1 * torch.randn_like(parameter)

    def term(self, batch: Batch, step: Step | None = None) -> Tensor:
        """What a batch adds; of one that weighs, the sum of the tasks' losses."""
        step = small_step(self.model) if step is None else step
        said = self.model.run(batch, keep=self.objective.reads)
        if not hasattr(self.objective, "weigh"):
            kept = {name: None for name in ("text", "image", "fused") if name not in self.objective.reads}
            return self.objective(said._replace(**kept), batch, step)
        heads: dict[str, Any] = dict(self.model.heads.items())
        losses = {
            task: head.loss(said.logits[task], batch[f"target.{task}"]) / max(step.targets[task], 1)
            for task, head in heads.items()
        }
        weighed = self.objective.weigh(losses, batch, step)
        require(list(weighed) == list(losses), f"`weigh` gives losses of {list(weighed)}, not of {list(losses)}")
        return torch.stack(list(weighed.values())).sum()


@SUITE.check
def _protocol(candidate: Candidate) -> None:
    """Constructor, attributes and docstring."""
    cls = candidate.cls
    require(issubclass(cls, nn.Module), "it is not an nn.Module")
    parameters = list(inspect.signature(cls).parameters)
    require(parameters[:1] == ["model"], "its constructor starts not with `model`")
    require("weight" not in parameters, "its option `weight` would hide the weight that a config gives it")
    require_named_options(cls)
    reads, legal = getattr(cls, "reads", None), {"text", "image", "fused"}
    require(
        isinstance(reads, frozenset) and reads <= legal, f"class attribute `reads` is {reads!r}: a frozenset of {legal}"
    )
    require_docstring(cls)


@SUITE.check
def _parameters(candidate: Candidate) -> None:
    """All that it trains is in `parameters()`, is its own, and can be sharded."""
    case = _Case(candidate)
    own = dict(case.objective.named_parameters())
    theirs = {id(parameter) for parameter in case.model.parameters()}
    for name, parameter in own.items():
        require(id(parameter) not in theirs, f"parameter {name!r} is the model's: keep no module of it")
        require(parameter.ndim > 0, f"parameter {name!r} is a single number, which FSDP2 cannot shard: make it (1,)")
    known = {id(parameter) for parameter in own.values()} | theirs
    for leaf in _leaves(case.term(small_batch())):
        require(id(leaf) in known, f"a tensor {tuple(leaf.shape)} that needs a gradient is not in parameters()")


def _leaves(out: Tensor) -> list[Tensor]:
    """The tensors at which the autograd graph of `out` ends."""
    found, seen, stack = [], set(), [out.grad_fn]
    while stack:
        node: Any = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.append(node.variable)
        stack += [below for below, _ in node.next_functions]
    return found


@SUITE.check
def _value(candidate: Candidate) -> None:
    """A finite scalar, also where a modality, an image or every target is missing."""
    case = _Case(candidate)
    batches = {"all rows": small_batch(), "a row without text": small_batch([1]), "one without image": small_batch([2])}
    unlabelled = small_batch()
    unlabelled["target.kind"] = torch.full_like(unlabelled["target.kind"], MISSING_CLASS)
    unlabelled["target.signs"] = torch.full_like(unlabelled["target.signs"], torch.nan)
    for what, batch in (batches | {"rows without targets": unlabelled}).items():
        step = small_step(case.model, batch)
        term = case.term(batch, step)
        require(isinstance(term, Tensor) and term.shape == (), f"of {what} it is not a scalar tensor")
        require(term.isfinite(), f"of {what} it is {float(term.detach())}")


@SUITE.check
def _gradient(candidate: Candidate) -> None:
    """It moves the model or its own parameters, and every one of those."""
    case = _Case(candidate)
    term = case.term(small_batch())
    require(term.requires_grad, "it depends on nothing that is trained: is something detached?")
    term.backward()
    for name, parameter in case.objective.named_parameters():
        require(parameter.grad is not None, f"no gradient reaches its parameter {name!r}")
    found = [p.grad for m in (case.model, case.objective) for p in m.parameters() if p.grad is not None]
    require(all(bool(grad.isfinite().all()) for grad in found), "a gradient is not finite")
    require(any(bool(grad.abs().max() > 0) for grad in found), "all its gradients are 0")


@SUITE.check
def _shares(candidate: Candidate) -> None:
    """What the parts of a step add is what the whole adds, so that processes and accumulation change nothing."""
    case = _Case(candidate)
    whole = case.term(small_batch())
    for cut in (1, 2, 4):
        parts = case.term(small_batch(range(cut))) + case.term(small_batch(range(cut, 6)))
        require(
            gap(whole, parts) <= EQUAL,
            f"the first {cut} rows of a step and the others add {float(parts.detach()):.6g}, all at once "
            f"{float(whole.detach()):.6g}: is it a sum over rows divided by `step.rows`, or by `step.targets`? (What "
            "compares rows of a batch with each other depends on how the step is cut.)",
        )


@SUITE.check
def _rows(candidate: Candidate) -> None:
    """Neither padding nor the order of rows matters."""
    case = _Case(candidate)
    base = case.term(small_batch())
    require(gap(base, case.term(small_batch(padding=3))) <= EQUAL, "padded tokens move it: is `mask` heeded?")
    require(
        gap(base, case.term(small_batch([3, 5, 0, 2, 1, 4]))) <= EQUAL,
        "another order of rows gives another value: does something depend on a row's place in its batch?",
    )


@SUITE.check
def _repeatable(candidate: Candidate) -> None:
    """It draws by `step.seed`, not by torch's random state, and remembers nothing that a checkpoint has not."""
    case = _Case(candidate)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = case.term(small_batch())
    require(
        torch.equal(before, torch.get_rng_state()),
        "it changes torch's random state, by which towers drop out: draw from a torch.Generator seeded by `step.seed`",
    )
    torch.manual_seed(4)
    require(gap(first, case.term(small_batch())) <= EQUAL, "the same batch and step give another value the second time")
