"""Whether a strategy learns: all that it trains, from the weights that it starts with."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmfuse.testing.fusion.declared import mixed_difference
from mmfuse.testing.fusion.subject import (
    EQUAL,
    IMAGE_DIM,
    SINGLE_KEY,
    TEXT_DIM,
    Fused,
    build,
    example,
    whole_loss,
)
from mmfuse.testing.suite import Candidate, require
from mmfuse.types import Features

_XOR_STEPS = 200
_XOR_TRIES = ((0, 1e-3), (1, 5e-3), (2, 1e-3))
"""Seeds with learning rates; one that learns is enough."""
_XOR_LOSS = 0.5
"""An additive function cannot be below ln 2 = 0.69: by the loss' convexity its best logits are all 0."""


def parameters(candidate: Candidate) -> None:
    """All that is trained is in `parameters()`, and lives longer than one forward."""
    subject = build(candidate, torch.float32)
    known = {id(parameter) for parameter in subject.parameters()}
    for name, tensor in _hidden_tensors(subject.fusion):
        require(id(tensor) in known, f"parameter {name!r} is not in parameters(): is it kept in a plain list or dict?")
    first, second = (subject(**example(dtype=torch.float32)) for _ in range(2))
    before = {id(leaf) for leaf in _leaves(first)}
    for leaf in _leaves(second):
        what = f"a tensor {tuple(leaf.shape)} that needs a gradient"
        require(id(leaf) in known | before, f"{what} is made anew at every forward: make its layer in the constructor")
        require(id(leaf) in known, f"{what} is not in parameters(): make it an nn.Parameter of the module")


def _hidden_tensors(fusion: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Tensors that need a gradient and hang on plain attributes, with their names."""
    for prefix, module in fusion.named_modules():
        for key in sorted(vars(module).keys() - vars(nn.Module()).keys()):
            yield from _tensors_in(vars(module)[key], f"{prefix}.{key}".lstrip("."))


def _tensors_in(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor) and value.requires_grad and value.is_leaf:
        yield name, value
    elif isinstance(value, nn.Module):
        yield from ((f"{name}.{key}", parameter) for key, parameter in value.named_parameters())
    elif isinstance(value, dict | list | tuple):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _tensors_in(item, f"{name}.{key}")


def _leaves(out: Features) -> list[Tensor]:
    """The tensors at which the autograd graph of `out` ends."""
    found, seen, stack = [], set(), [out.pooled.grad_fn, out.tokens.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None:
            found.append(leaf)
        stack.extend(following for following, _ in node.next_functions)
    return found


def training(candidate: Candidate) -> None:
    """Five steps of Adam on several batches, with a loss on `pooled` and `tokens`, change every parameter."""
    subject = build(candidate, dropout=False).train()
    before = {name: p.detach().clone() for name, p in subject.fusion.named_parameters()}
    largest = _five_steps(subject)
    floor = 1e-11 * max((float(g.max()) for g in largest.values()), default=0.0)
    linear = _linear_weights(subject.fusion)
    for name, p in subject.fusion.named_parameters():
        # An attention key's bias has no effect by mathematics (softmax ignores a shift): for vectors, noise will do.
        rows = largest[name].flatten(1).amax(1) > floor if p.ndim > 1 else largest[name] > 0.0
        dead = 1.0 - float(rows.double().mean())
        require(
            dead < 1.0 and not torch.equal(before[name], p),
            f"parameter {name!r} gets no gradient and does not change: is it never used, or part of {SINGLE_KEY}?",
        )
        require(
            dead < 0.25 or name not in linear,
            f"{dead:.0%} of the rows of {name!r} get no gradient: are they never used, or part of {SINGLE_KEY}?",
        )


def _five_steps(subject: Any) -> dict[str, Tensor]:
    """Train it; by parameter, the largest gradient of each element."""
    learned = dict(subject.fusion.named_parameters())
    largest = {name: torch.zeros_like(p) for name, p in learned.items()}
    if not learned:
        return {}
    optimizer = torch.optim.Adam(learned.values(), lr=1e-2, eps=1e-30)
    for step in range(5):
        optimizer.zero_grad()
        whole_loss(subject, example(seed=step, dtype=next(iter(learned.values())).dtype)).backward()
        for name, p in learned.items():
            require(p.grad is not None, f"parameter {name!r} gets no gradient: is it used in `pooled` or `tokens`?")
            largest[name] = torch.maximum(largest[name], p.grad.abs())
        optimizer.step()
    return largest


def _linear_weights(module: nn.Module) -> set[str]:
    """Names of matrices of which every row should learn, unlike an embedding's."""
    names = set()
    for prefix, part in module.named_modules():
        if isinstance(part, nn.Linear):
            names.add(f"{prefix}.weight")
        if isinstance(part, nn.MultiheadAttention):
            names.add(f"{prefix}.in_proj_weight")
    return names


def initialisation(candidate: Candidate) -> None:
    """From the weights it starts with, everything learns; one that interacts learns a two-bit XOR in 200 steps."""
    subject = build(candidate, dropout=False, perturbed=False).train()
    for name, gradient in _five_steps(subject).items():
        require(gradient.isfinite().all(), f"from its own initialisation, the gradient of {name!r} is not finite")
        require(
            float(gradient.max()) > 0.0,
            f"from its own initialisation, parameter {name!r} gets no gradient in five steps: is it multiplied by "
            "another one that starts at 0?",
        )
    if subject.fusion.interaction == "additive" or _adds_probabilities(candidate):
        return
    losses = []
    for seed, rate in _XOR_TRIES:
        losses.append(_xor_loss(candidate, seed, rate))
        if losses[-1] < _XOR_LOSS:
            return
    require(
        False,
        f"it declares {subject.fusion.interaction!r}, but from its own initialisation it does not learn a two-bit XOR "
        f"in {_XOR_STEPS} steps (loss {min(losses):.2f}; what is additive has {math.log(2):.2f} at best): is a gate "
        "shut that no gradient opens, or the part in which they meet far smaller than the rest?",
    )


def _adds_probabilities(candidate: Candidate) -> bool:
    """Whether a decision-level strategy is additive in probabilities: then it cannot learn what is not."""
    subject = build(candidate)
    if not hasattr(subject.fusion, "combine"):
        return False
    return mixed_difference(subject, example(seed=0), example(seed=1), "probabilities") <= EQUAL


def _xor_loss(candidate: Candidate, seed: int, rate: float) -> float:
    """The loss of XOR after 200 steps, or where it fell below what is asked."""
    subject = build(candidate, torch.float32, seed=seed, dropout=False, perturbed=False)
    subject = Fused(subject.fusion, labels=2).train()
    subject.head.requires_grad_()
    given, target, loss = _bits(seed), torch.tensor([0, 1, 1, 0]), math.inf
    optimizer = torch.optim.Adam([p for p in subject.parameters() if p.requires_grad], lr=rate)
    for _ in range(_XOR_STEPS):
        pooled = subject(**given).pooled
        logits = pooled if hasattr(subject.fusion, "combine") else subject.head(pooled)
        value = F.cross_entropy(logits, target)
        loss = value.item()
        if loss < _XOR_LOSS or not math.isfinite(loss):
            break
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    return loss


def _bits(seed: int) -> dict[str, Features]:
    """The four pairs of bits: each a random vector, in `pooled` and in every token, on top of what marks its place.

    Every other token has the opposite bit: an attention that no layer follows can then learn XOR by where it looks.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(bits: list[int], length: int, dim: int) -> Features:
        vectors, places = (torch.randn(n, dim, generator=generator) for n in (2, length))
        flipped = torch.tensor(bits)[:, None] ^ (torch.arange(length) % 2)
        whole = torch.ones(4, length, dtype=torch.bool)
        return Features(vectors[flipped] + places, whole, vectors[bits], whole[:, 0])

    return {"text": draw([0, 0, 1, 1], 4, TEXT_DIM), "image": draw([0, 1, 0, 1], 4, IMAGE_DIM)}
