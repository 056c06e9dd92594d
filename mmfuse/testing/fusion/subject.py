"""What is under test, and what it is given: strategies as `FusionModel` runs them, on four rows of unequal lengths.

Comparisons are made in float64, from parameters perturbed by N(0, 0.02): a gate that opens at 0 is then open, and
rounding is far below any effect. What a perturbation would hide is looked at from the untouched initialisation.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmfuse.testing.suite import Candidate, require
from mmfuse.types import Features

TEXT_DIM, IMAGE_DIM = 16, 24
TEXT_LENGTHS, IMAGE_LENGTHS = (5, 3, 1, 4), (2, 7, 6, 1)
ROWS = len(TEXT_LENGTHS)
SINGLE_KEY = "an attention over a single key, whose softmax is always 1"
EQUAL = 1e-10
"""In float64, a relative difference below it is rounding, and one above it is an effect."""


class Fused(nn.Module):
    """A fusion as `FusionModel` runs it: for a decision-level one, `pooled` is the logits that `combine` gives.

    Args:
        fusion: The strategy.
        labels: Logits of the head, which does not learn.
    """

    def __init__(self, fusion: Any, labels: int = 3):
        super().__init__()
        self.fusion = fusion
        self.head = nn.Linear(fusion.out_dim, labels).requires_grad_(False)

    def forward(self, text: Features | None, image: Features | None) -> Features:
        """Fuse; `pooled` is what a head would be given, or what `combine` makes of its logits."""
        fused = self.fusion(text, image)
        if hasattr(self.fusion, "combine"):
            logits = [self.head(branch.pooled) for branch in self.fusion.branches(text, image)]
            fused = fused._replace(pooled=self.fusion.combine(logits))
        return fused


def build(
    candidate: Candidate,
    dtype: torch.dtype = torch.float64,
    *,
    seed: int = 0,
    dropout: bool = True,
    perturbed: bool = True,
) -> Any:
    """The strategy as `FusionModel` runs it, in eval mode; without `dropout`, train mode does not drop anything."""
    torch.manual_seed(seed)
    options = dict(candidate.options)
    if not dropout and "dropout" in inspect.signature(candidate.cls).parameters:
        options["dropout"] = 0.0
    subject = Fused(candidate.cls(TEXT_DIM, IMAGE_DIM, **options))
    with torch.no_grad():
        for parameter in subject.parameters() if perturbed else ():
            parameter += 0.02 * torch.randn_like(parameter)
    for module in () if dropout else subject.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        if isinstance(module, nn.MultiheadAttention):
            module.dropout = 0.0
    return subject.to(dtype).eval()


def in_both_modes(candidate: Candidate) -> Iterator[tuple[Any, str]]:
    """The strategy without dropout, in eval and in train mode, and which mode it is."""
    subject = build(candidate, dropout=False)
    for mode in ("eval", "train"):
        yield subject.train(mode == "train"), mode


def example(seed: int = 0, dtype: torch.dtype = torch.float64) -> dict[str, Features]:
    """Random `text` and `image` of four rows with unequal lengths; `pooled` is drawn apart from the tokens."""
    return random_rows(TEXT_LENGTHS, IMAGE_LENGTHS, seed, dtype)


def random_rows(
    text: Sequence[int], image: Sequence[int], seed: int = 0, dtype: torch.dtype = torch.float64
) -> dict[str, Features]:
    """Random `text` and `image` of rows with so many tokens."""
    generator = torch.Generator().manual_seed(seed)

    def draw(lengths: Sequence[int], dim: int) -> Features:
        tokens = torch.randn(len(lengths), max(lengths), dim, generator=generator).to(dtype)
        mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
        pooled = torch.randn(len(lengths), dim, generator=generator).to(dtype)
        return Features(tokens, mask, pooled, torch.ones(len(lengths), dtype=torch.bool))

    return {"text": draw(text, TEXT_DIM), "image": draw(image, IMAGE_DIM)}


def take(features: Features, rows: Sequence[int]) -> Features:
    """Some of the rows, in this order."""
    return Features(*(part[list(rows)] for part in features))


def run(subject: Any, text: Features | None, image: Features | None) -> Features:
    """The output without autograd, as in inference; it must be finite.

    In train mode it draws the same at each call, and what it writes into its buffers is taken back.
    """
    return run_by(0, subject, text, image)


@torch.no_grad()
def run_by(seed: int, subject: Any, text: Features | None, image: Features | None) -> Features:
    """The same, drawing by `seed`."""
    with once(subject, seed):
        out = subject(text, image)
    for part in ("pooled", "tokens"):
        finite = getattr(out, part).isfinite().all()
        require(finite, f"`{part}` is not finite: is there an attention whose keys are all masked, or an overflow?")
    return out


@contextmanager
def once(subject: nn.Module, seed: int = 0) -> Iterator[None]:
    """A forward that draws by `seed`, and whose buffers are put back, as train mode may write into them."""
    parts = [(module, *found) for module in subject.modules() for found in module.named_buffers(recurse=False)]
    kept = [(module, name, buffer.clone()) for module, name, buffer in parts] if subject.training else []
    torch.manual_seed(seed)
    yield
    for module, name, value in kept:
        module._buffers[name] = value


def gap(a: Tensor, b: Tensor) -> float:
    """The largest difference, relative to the largest value; infinite where the shapes disagree."""
    if a.shape != b.shape:
        return float("inf")
    scale = torch.maximum(a.abs().max(), b.abs().max()).clamp_min(1e-30)
    return float((a - b).abs().max() / scale)


def features_gap(a: Features, b: Features) -> float:
    """The largest `gap` of `pooled` and of real tokens; infinite where `present` or the tokens' number disagree."""
    if not torch.equal(a.mask.sum(1), b.mask.sum(1)) or not torch.equal(a.present, b.present):
        return float("inf")
    return max(gap(a.pooled, b.pooled), gap(a.tokens[a.mask], b.tokens[b.mask]))


def padded(features: Features, length: int) -> Features:
    """`features` with `length` more padded tokens, and garbage in all of them."""
    tokens, mask = F.pad(features.tokens, (0, 0, 0, length)), F.pad(features.mask, (0, length), value=False)
    tokens = torch.where(mask.unsqueeze(-1), tokens, 100.0 * torch.randn_like(tokens))
    return features._replace(tokens=tokens, mask=mask)


def whole_loss(subject: Any, given: dict[str, Features]) -> Tensor:
    """A loss on all that a strategy gives: random targets for `pooled` and real tokens, and its own loss."""
    out = subject(**given)
    loss = F.mse_loss(out.pooled, torch.randn_like(out.pooled))
    loss = loss + F.mse_loss(out.tokens[out.mask], torch.randn_like(out.tokens[out.mask]))
    return loss + subject.fusion.auxiliary_loss() if hasattr(subject.fusion, "auxiliary_loss") else loss
