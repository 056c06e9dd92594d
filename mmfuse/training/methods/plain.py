"""One pass a batch."""

from __future__ import annotations

from mmfuse.training.methods import METHODS, Method


@METHODS.register("plain")
class Plain(Method):
    """One forward and one backward pass a batch.

    Reference: Robbins and Monro 1951, A Stochastic Approximation Method.
    Differs: nothing.
    Prefer when: nothing speaks for another one.
    """
