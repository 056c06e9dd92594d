"""Whether `macs` is right: the multiply-accumulates of a forward, counted where torch dispatches its operators."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from mmfuse.testing.fusion.subject import build, random_rows
from mmfuse.testing.suite import Candidate, require

aten: Any = torch.ops.aten

_PRODUCTS: dict[Any, Callable[..., float]] = {
    aten.mv: lambda a, b, **_: a.numel(),
    aten.addmv: lambda _c, a, b, **_: a.numel(),
    aten.dot: lambda a, b, **_: a.numel(),
    aten.addbmm: lambda _c, a, b, **_: a.numel() * b.shape[2],
    aten._trilinear: lambda *factors, **_: _of_three(*factors[:6]),
    aten.mkldnn_rnn_layer: lambda x, v, w, *_, **__: x.shape[0] * x.shape[1] * (v.numel() + w.numel()),
    aten._cdist_forward: lambda a, b, *_, **__: a.numel() * b.shape[-2],
}
"""Beside those that torch counts (mm, addmm, bmm, baddbmm, convolutions), what makes multiply-accumulates; `einsum`,
`linear`, attention and recurrent layers come apart into these. Multiplications without a sum (norms, gates, masks,
activations), tables and Fourier transforms are not counted."""
_SUMS = (aten.sum, aten.mean)


class _Products(TorchDispatchMode):
    """Counts multiply-accumulates.

    A product that is larger than both its factors, by broadcasting, counts if it is summed: it is a matrix product in
    other words. If it is not, or a dot product of two vectors, it may be counted or not.

    Attributes:
        plain: Of the operators whose multiply-accumulates follow from their shapes.
        summed: Of broadcast products that are summed.
        every: Of all broadcast products.
    """

    def __init__(self) -> None:
        super().__init__()
        self.plain = self.summed = self.every = 0.0
        self._products: dict[int, tuple[Tensor, list[float]]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        packet = func._overloadpacket
        if packet is aten.bmm and 1 in (args[0].shape[2], args[0].shape[1] * args[1].shape[2]):
            self._broadcast(out, args[0].numel() * args[1].shape[2])
        elif packet in _PRODUCTS:
            self.plain += _PRODUCTS[packet](*args, **kwargs)
        elif packet in flop_registry:
            self.plain += flop_registry[packet](*args, **kwargs, out_val=out) / 2
        elif packet is aten.mul and _is_outer(args[0], args[1], out):
            self._broadcast(out, out.numel())
        elif packet in _SUMS:
            for _, number in self._known(args):
                self.summed += number.pop() if number else 0.0
        else:  # what keeps the size of a product, as a view, a mask or a dropout does, is still that product
            for product, number in self._known(args):
                if isinstance(out, Tensor) and out.numel() == product.numel():
                    self._products[id(out)] = out, number
        return out

    def _broadcast(self, out: Tensor, number: float) -> None:
        self.every += number
        self._products[id(out)] = out, [number]

    def _known(self, args: Any) -> list[tuple[Tensor, list[float]]]:
        """Those of the arguments that are broadcast products."""
        return [self._products[id(value)] for value in tree_leaves(args) if id(value) in self._products]


def _of_three(a: Tensor, b: Tensor, c: Tensor, *new_axes: list[int]) -> int:
    """Multiply-accumulates of a sum over products of three, as `nn.Bilinear` has, each with axes put in."""
    shapes = []
    for factor, axes in zip((a, b, c), new_axes, strict=True):
        for axis in axes:
            factor = factor.unsqueeze(axis)
        shapes.append(factor.shape)
    return math.prod(torch.broadcast_shapes(*shapes))


def _is_outer(a: Any, b: Any, out: Tensor) -> bool:
    """Whether a product is larger than both factors, as they are without what only repeats them."""
    return all(isinstance(x, Tensor) and x.numel() > 1 and _distinct(x) < out.numel() for x in (a, b))


def _distinct(x: Tensor) -> int:
    return math.prod(size for size, stride in zip(x.shape, x.stride(), strict=True) if stride)


def macs(candidate: Candidate) -> None:
    """`macs` is what is counted at the operators, for any number of tokens."""
    fusion = build(candidate, torch.float32).fusion
    for lengths in ((5, 7), (2, 1), (40, 30)):
        said, (least, most) = fusion.macs(*lengths), _counted(fusion, lengths)
        require(type(said) is int and said > 0, f"macs() gives {said!r}, not a positive int")
        require(
            0.99 * least <= said <= 1.01 * most,
            f"macs{lengths} is {said:,}, but its matrix products take {least:,.0f} multiply-accumulates: are the "
            "projections of all tokens counted, and products that are summed after a broadcast?",
        )


def _counted(fusion: Any, lengths: tuple[int, int]) -> tuple[float, float]:
    """What one example takes at least, and at most.

    Two rows show which products are broadcast: with one, a weight is as large as its product with a row.
    """
    run = fusion.branches if hasattr(fusion, "branches") else fusion
    counters = []
    for rows in (1, 2):
        given = random_rows([lengths[0]] * rows, [lengths[1]] * rows, dtype=torch.float32)
        # The CPU's attention kernel does not come apart.
        with sdpa_kernel(SDPBackend.MATH), _Products() as counter:
            run(**given)
        counters.append(counter)
    one, two = counters
    return one.plain + two.summed / 2, one.plain + two.every / 2
