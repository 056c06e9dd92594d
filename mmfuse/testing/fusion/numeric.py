"""Half precision, gradients, and inputs far from what is usual."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor

from mmfuse.testing.fusion.subject import IMAGE_DIM, TEXT_DIM, build, example, in_both_modes, once, run
from mmfuse.testing.suite import Candidate, require
from mmfuse.types import MODALITIES, Features

_LARGE = 1e4
_TOKENS = 3


def bfloat16(candidate: Candidate) -> None:
    """In bfloat16 and under autocast, the output is near to float32's."""
    base = run(build(candidate, torch.float32), **example(dtype=torch.float32))
    half = run(build(candidate, torch.bfloat16), **example(dtype=torch.bfloat16))
    require(half.pooled.dtype == half.tokens.dtype == torch.bfloat16, "bfloat16 in does not give bfloat16 out")
    with torch.autocast("cpu", torch.bfloat16):
        auto = run(build(candidate, torch.float32), **example(dtype=torch.float32))
    for what, out in (("bfloat16", half), ("bfloat16 autocast", auto)):
        for part in ("pooled", "tokens"):
            exact = getattr(base, part)
            gap = float((getattr(out, part).float() - exact).norm() / exact.norm())
            require(gap < 0.05, f"`{part}` in {what} is {gap:.0%} away from float32: are large values cancelled?")


def gradient(candidate: Candidate) -> None:
    """The gradient by the inputs and by the parameters is the derivative (float64), in eval and in train mode."""
    given = example()
    parts = [(m, part) for m in candidate.cls.uses for part in ("tokens", "pooled")]
    for subject, mode in in_both_modes(candidate):

        def output(*inputs: Tensor, subject: Any = subject) -> tuple[Tensor, Tensor]:
            fed = dict(given)
            for (modality, part), tensor in zip(parts, inputs, strict=True):
                fed[modality] = fed[modality]._replace(**{part: tensor})
            with once(subject):
                out = subject(**fed)
            return out.pooled, out.tokens[out.mask]

        inputs = [getattr(given[m], part).clone().requires_grad_() for m, part in parts]
        right = torch.autograd.gradcheck(output, inputs, fast_mode=True, raise_exception=False)
        why = f"is not the derivative of the output in {mode} mode: is something detached?"
        require(right, f"the gradient by the inputs {why}")
        require(_parameters_are_followed(subject, output, inputs), f"the gradient by the parameters {why}")


def _parameters_are_followed(subject: Any, output: Any, inputs: list[Tensor], step: float = 1e-6) -> bool:
    """Whether the derivative in one random direction of all parameters is what their gradients say."""
    learned = [p for p in subject.parameters() if p.requires_grad]
    if not learned:
        return True
    weights = [torch.randn_like(part) for part in output(*inputs)]

    def loss() -> Tensor:
        return sum((part * weight).sum() for part, weight in zip(output(*inputs), weights, strict=True))  # type: ignore[return-value]

    generator = torch.Generator().manual_seed(1)
    way = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in learned]
    gradients = torch.autograd.grad(loss(), learned, allow_unused=True)
    said = sum(float((g * d).sum()) for g, d in zip(gradients, way, strict=True) if g is not None)
    values = []
    with torch.no_grad():
        for sign in (1, -2, 1):  # there, to the other side, and back
            for p, d in zip(learned, way, strict=True):
                p += sign * step * d
            values.append(loss().item())
    found = (values[0] - values[1]) / (2 * step)
    size = sum(float((g * d).abs().sum()) for g, d in zip(gradients, way, strict=True) if g is not None)
    return abs(found - said) <= 1e-3 * max(abs(found), abs(said), 1e-3 * size)


def extremes(candidate: Candidate) -> None:
    """Zeros, constants and large numbers give finite outputs and gradients, from the untouched weights too."""
    kinds = list(itertools.product(_FILLED, repeat=2))
    given = {
        m: _rows(dim, [pair[i] for pair in kinds])
        for i, (m, dim) in enumerate(zip(MODALITIES, (TEXT_DIM, IMAGE_DIM), strict=True))
    }
    for perturbed in (False, True):
        subject = build(candidate, torch.float32, dropout=False, perturbed=perturbed).train()
        inputs = [getattr(given[m], part).clone().requires_grad_() for m in MODALITIES for part in ("tokens", "pooled")]
        out = subject.fusion(
            *(given[m]._replace(tokens=inputs[2 * i], pooled=inputs[2 * i + 1]) for i, m in enumerate(MODALITIES))
        )
        branches = subject.fusion.branches(**given) if hasattr(subject.fusion, "branches") else []
        for part in ("pooled", "tokens"):
            for each in (out, *branches):
                _finite(
                    getattr(each, part),
                    kinds,
                    f"`{part}`",
                    "a division by a length, or an exp() or a power that overflows",
                )
        loss = out.pooled.sum() + out.tokens[out.mask].sum()
        if not loss.requires_grad:
            continue
        learned = [p for p in subject.fusion.parameters() if p.requires_grad]
        gradients = torch.autograd.grad(loss, [*inputs, *learned], allow_unused=True)
        why = "a root, a logarithm or a norm whose slope at 0 is infinite"
        for g in gradients[:4]:
            if g is not None:
                _finite(g, kinds, "the gradient", why)
        finite = all(g is None or bool(g.isfinite().all()) for g in gradients)
        require(finite, f"of zeros, constants and large numbers a parameter's gradient is not finite: is there {why}?")


_FILLED = {"usual": 1.0, "zero": 0.0, "constant": None, "large": _LARGE}
"""What the values of a row are: this many times a normal draw, or a single number in every place."""


def _rows(dim: int, kinds: list[str]) -> Features:
    """A row of each kind."""
    draws = torch.randn(len(kinds), _TOKENS + 1, dim, generator=torch.Generator().manual_seed(0))
    for row, kind in enumerate(kinds):
        factor = _FILLED[kind]
        draws[row] = 0.5 if factor is None else factor * draws[row]
    mask = torch.ones(len(kinds), _TOKENS, dtype=torch.bool)
    return Features(draws[:, 1:].clone(), mask, draws[:, 0].clone(), mask[:, 0])


def _finite(values: Tensor, kinds: list[tuple[str, ...]], what: str, why: str) -> None:
    """Each row's values are; the first that are not are told."""
    bad = ~values.flatten(1).isfinite().all(1)
    if bad.any():
        text, image = kinds[int(bad.nonzero()[0])]
        require(False, f"{what} is not finite where the text is {text} and the image is {image}: is there {why}?")
