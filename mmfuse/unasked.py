"""Attention masks of transformers' models without asking the device whether anything is masked.

Where nothing is, attention takes a faster way without a mask. So transformers looks into each mask that it is given,
and on a GPU the program then waits until all is done that it was told before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any

import torch
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

_FULL: ContextVar[bool | None] = ContextVar("full", default=None)
"""Of this thread: None where transformers is to look."""


@contextmanager
def masks_unasked(device: torch.device, full: bool) -> Iterator[None]:
    """Let models make their masks without looking into them; on a CPU nothing waits, and they look as always.

    Args:
        device: Where the masks lie.
        full: Whether it is known of all of them that nothing is masked.
    """
    if device.type == "cpu":
        yield
        return
    for name in ("sdpa", "eager"):  # once a process; while the variable is None they are what they were
        if not hasattr(ALL_MASK_ATTENTION_FUNCTIONS[name], "unasked"):
            ALL_MASK_ATTENTION_FUNCTIONS[name] = _unasked(ALL_MASK_ATTENTION_FUNCTIONS[name])
    token = _FULL.set(full)
    try:
        yield
    finally:
        _FULL.reset(token)


def _unasked(make: Callable[..., Any]) -> Callable[..., Any]:
    """A mask function of transformers that heeds `_FULL`."""

    @wraps(make)
    def found(*given: Any, **named: Any) -> Any:
        full = _FULL.get()
        if full is None or named.get("attention_mask") is None:
            return make(*given, **named)
        if full:
            return make(*given, **named | {"attention_mask": None})
        return make(*given, **named | {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False})

    found.unasked = True  # type: ignore[attr-defined]
    return found
