"""Which precision a tower is faster in on this CPU: both are tried on made-up inputs."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmfuse.encoders.image import ImageEncoder
from mmfuse.encoders.text import TextEncoder
from mmfuse.precision import BF16, FP32, Precision, computes_bf16, computing

ITEMS = {"text": 16, "image": 8}
"""Of a pass that is timed."""
TOKENS = 64
"""Of a text that is timed, where the tower reads so many."""
REPEATS = 3
GAIN = 1.1
"""So many times as fast bf16 must be to be chosen: it has 8 bits of mantissa, fp32 24."""


class Timing(NamedTuple):
    """Seconds of one pass of a tower, the shortest of `REPEATS`."""

    fp32: float
    bf16: float

    @property
    def gain(self) -> float:
        """How many times as fast bf16 is."""
        return self.fp32 / self.bf16


class Choice(NamedTuple):
    """A precision that was chosen, and a line that says why."""

    precision: Precision
    why: str


def choose_precision(text: Any, image: Any, device: torch.device) -> Choice:
    """What `auto` is on a device: on a GPU of sm_80 and later bf16, on a CPU what is faster, tower by tower.

    A tower with trainable weights is timed forwards and backwards where autograd is on. On a CPU fusion and heads stay
    in fp32: they are small, and the casts would cost more.

    Args:
        text: The text tower, or None.
        image: The image tower, or None.
        device: Where the towers are.
    """
    if not computes_bf16(device):
        return Choice(FP32, f"precision auto: fp32, as this {device.type} has no instructions for bf16")
    if device.type != "cpu":
        return Choice(BF16, "precision auto: bf16, which this GPU computes faster")
    chosen, said = {}, []
    for part, tower in (("text", text), ("image", image)):
        if not isinstance(tower, (TextEncoder, ImageEncoder)):
            continue
        timing = time_tower(tower)
        chosen[part] = "bf16" if timing.gain >= GAIN else "fp32"
        said.append(f"{part} {chosen[part]} (bf16 is {timing.gain:.2f} times as fast)")
    told = ", ".join(said) or "no tower is run"
    return Choice(Precision(**chosen), f"precision auto: {told}; fusion and heads fp32")


def time_tower(tower: TextEncoder | ImageEncoder) -> Timing:
    """One pass of a tower in both precisions, in turn; its weights, buffers, mode and torch's random state stay.

    With autograd on and weights that are trained, a pass is forwards and backwards in train mode.
    """
    device = next(tower.parameters()).device
    inputs = [each.to(device) for each in _inputs(tower)]
    trained = [p for p in tower.parameters() if p.requires_grad] if torch.is_grad_enabled() else []
    mode, buffers = tower.training, {name: buffer.clone() for name, buffer in tower.named_buffers()}
    part = "text" if isinstance(tower, TextEncoder) else "image"

    def seconds(precision: Precision) -> float:
        start = time.perf_counter()
        with computing(precision, part, device):
            pooled = tower(*inputs).pooled
        if trained:
            pooled.float().square().mean().backward()
        return time.perf_counter() - start

    taken: dict[str, list[float]] = {"fp32": [], "bf16": []}
    try:
        with torch.random.fork_rng(devices=[]):
            tower.train(bool(trained))
            for _ in range(1 + REPEATS):
                taken["fp32"].append(seconds(FP32))
                taken["bf16"].append(seconds(BF16))
    finally:
        tower.train(mode)
        for parameter in trained:
            parameter.grad = None
        with torch.no_grad():
            for name, buffer in tower.named_buffers():
                buffer.copy_(buffers[name])
    return Timing(*(min(found[1:]) for found in taken.values()))


def _inputs(tower: TextEncoder | ImageEncoder) -> tuple[Tensor, ...]:
    draw = torch.Generator().manual_seed(0)
    if isinstance(tower, ImageEncoder):
        shape = (ITEMS["image"], 3, *tower.preprocessing.size)
        return (torch.randint(0, 256, shape, dtype=torch.uint8, generator=draw),)
    words: Any = tower.model.get_input_embeddings()  # type: ignore[operator]
    shape = (ITEMS["text"], min(TOKENS, tower.max_length))
    return torch.randint(0, words.num_embeddings, shape, generator=draw), torch.ones(shape, dtype=torch.bool)
