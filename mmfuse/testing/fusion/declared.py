"""Whether what a strategy declares is what it does, in eval mode and in train mode."""

from __future__ import annotations

import itertools

import torch
from torch import nn

from mmfuse.testing.fusion.subject import (
    EQUAL,
    IMAGE_DIM,
    SINGLE_KEY,
    TEXT_DIM,
    example,
    features_gap,
    gap,
    in_both_modes,
    run,
)
from mmfuse.testing.suite import Candidate, require
from mmfuse.types import MODALITIES, Features


def modalities(candidate: Candidate) -> None:
    """Each modality in `uses` moves `pooled` and gets a gradient from it."""
    one, other = example(seed=0), example(seed=1)
    for subject, mode in in_both_modes(candidate):
        base = run(subject, **one)
        for modality in candidate.cls.uses:
            moved = run(subject, **(one | {modality: other[modality]}))
            require(
                gap(base.pooled, moved.pooled) > EQUAL,
                f"{modality} is in `uses`, but does not move `pooled` in {mode} mode: is it ignored, or only the query "
                f"of {SINGLE_KEY}?",
            )
            inputs = [getattr(one[modality], part).clone().requires_grad_() for part in ("tokens", "pooled")]
            given = one[modality]._replace(tokens=inputs[0], pooled=inputs[1])
            pooled = subject(**(one | {modality: given})).pooled
            loss = (pooled * torch.randn_like(pooled)).sum()
            grads = torch.autograd.grad(loss, inputs, allow_unused=True) if loss.requires_grad else ()
            require(
                any(g is not None and float(g.abs().max()) > EQUAL for g in grads),
                f"{modality} is in `uses`, but gets no gradient from `pooled` in {mode} mode: is it detached, or "
                "rounded?",
            )


def unused_modality(candidate: Candidate) -> None:
    """A modality that is not in `uses` moves nothing, and may be None and of width 1, as in `FusionModel`."""
    one, other = example(seed=0), example(seed=1)
    for modality in set(MODALITIES) - set(candidate.cls.uses):
        for subject, mode in in_both_modes(candidate):
            base = run(subject, **one)
            for instead in (other[modality], None):
                moved = features_gap(base, run(subject, **(one | {modality: instead})))
                require(moved <= EQUAL, f"{modality} is not in `uses`, but moves the output in {mode} mode: declare it")
        widths = {"text": TEXT_DIM, "image": IMAGE_DIM} | {modality: 1}
        candidate.cls(widths["text"], widths["image"], **candidate.options)


def mixed_difference(
    subject: nn.Module, one: dict[str, Features], other: dict[str, Features], space: str | None = None
) -> float:
    """The largest `|f(t1,v1) - f(t1,v2) - f(t2,v1) + f(t2,v2)|`, relative to the largest `|f|`.

    `f` is `pooled`, or the probabilities of a decision-level strategy in `space`, by default the one it declares.
    """
    f = [run(subject, t["text"], v["image"]).pooled for t, v in itertools.product((one, other), repeat=2)]
    if (space or getattr(subject.fusion, "additive_in", "logits")) == "probabilities":
        f = [x.softmax(-1) for x in f]
    return float((f[0] - f[1] - f[2] + f[3]).abs().max() / max(float(x.abs().max()) for x in f))


def interaction(candidate: Candidate) -> None:
    """`pooled` is additive where, and only where, that is declared; in a "token" strategy, tokens interact too."""
    one, other = example(seed=0), example(seed=1)
    same_pooled = {m: other[m]._replace(pooled=one[m].pooled) for m in MODALITIES}
    for subject, mode in in_both_modes(candidate):
        declared, mixed = subject.fusion.interaction, mixed_difference(subject, one, other)
        if declared == "additive":
            require(
                mixed <= EQUAL,
                f"it declares 'additive', but text and image interact in `pooled` in {mode} mode (mixed difference "
                f"{mixed:.1e}): is there a LayerNorm or another non-linearity behind where they meet?",
            )
            continue
        require(
            mixed > EQUAL,
            f"it declares {declared!r}, but `pooled` is a function of the text plus a function of the image in {mode} "
            f"mode: is it 'additive', or {SINGLE_KEY}?",
        )
        require(
            declared != "token" or mixed_difference(subject, one, same_pooled) > EQUAL,
            "it declares 'token', but with pooled inputs fixed, the tokens of one modality do not change what those of "
            f"the other do in {mode} mode: do they meet only pooled vectors?",
        )


def reads(candidate: Candidate) -> None:
    """What `reads` leaves out may be left out: a feature cache does not keep it."""
    full, other = example(seed=0), example(seed=1)
    lean = {m: f._replace(tokens=f.pooled.unsqueeze(1), mask=f.present.unsqueeze(1)) for m, f in full.items()}
    for subject, mode in in_both_modes(candidate):
        base = run(subject, **full)
        if "tokens" in candidate.cls.reads:
            moved = run(subject, **{m: other[m]._replace(pooled=full[m].pooled) for m in MODALITIES})
            require(
                gap(base.pooled, moved.pooled) > EQUAL,
                f"`reads` has tokens, but they do not move `pooled` in {mode} mode: leave them out",
            )
            continue
        moved = run(subject, **lean)
        require(
            gap(base.pooled, moved.pooled) <= EQUAL,
            f"`reads` has no tokens, but they move `pooled` in {mode} mode: add them",
        )
