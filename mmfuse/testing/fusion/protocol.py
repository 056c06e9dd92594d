"""What a strategy declares, and whether its output is legal."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn

from mmfuse.fusion import RESERVED
from mmfuse.testing.fusion.subject import IMAGE_DIM, ROWS, TEXT_DIM, Fused, example
from mmfuse.testing.suite import Candidate, require, require_docstring, require_named_options
from mmfuse.types import MODALITIES, Features


def protocol(candidate: Candidate) -> None:
    """Constructor, attributes, docstring, and the output's shapes and dtypes."""
    cls = candidate.cls
    require(issubclass(cls, nn.Module), "it is not an nn.Module")
    parameters = inspect.signature(cls).parameters
    require(list(parameters)[:2] == ["text_dim", "image_dim"], "its constructor starts not with `text_dim, image_dim`")
    require_named_options(cls)
    uses, reads = getattr(cls, "uses", None), getattr(cls, "reads", None)
    legal = (("text",), ("image",), MODALITIES)
    require(uses in legal, f"class attribute `uses` is {uses!r}: legal are {legal}")
    legal = (frozenset({"pooled"}), frozenset({"pooled", "tokens"}))
    require(reads in legal and isinstance(reads, frozenset), f"class attribute `reads` is {reads!r}: legal are {legal}")
    require_docstring(cls)
    fusion = cls(TEXT_DIM, IMAGE_DIM, **candidate.options)
    interaction, size, out_dim = (getattr(fusion, key, None) for key in ("interaction", "size", "out_dim"))
    legal = ("additive", "multiplicative", "token")
    require(interaction in legal, f"`interaction` is {interaction!r}: legal are {legal}")
    legal = (None, *(key for key in parameters if key not in RESERVED))
    require(hasattr(fusion, "size") and size in legal, f"`size` is {size!r}: legal are its options and None: {legal}")
    require(isinstance(out_dim, int) and out_dim > 0, f"`out_dim` is {out_dim!r}: it must be a positive int")
    space, legal = getattr(fusion, "additive_in", "logits"), ("logits", "probabilities")
    require(space in legal, f"`additive_in` is {space!r}: legal are {legal}")
    require(space == "logits" or hasattr(fusion, "combine"), "`additive_in` is probabilities, but it has no `combine`")
    _output_is_legal(fusion, out_dim)


def _output_is_legal(fusion: Any, out_dim: Any) -> None:
    """Shapes and dtypes of what `fusion` gives: `Features`, branches and auxiliary loss."""
    given = example(dtype=torch.float32)
    outputs = {"its output": fusion(**given)}
    for method, other in (("combine", "branches"), ("branches", "combine")):
        require(hasattr(fusion, other) or not hasattr(fusion, method), f"it has `{method}`, but no `{other}`")
    if hasattr(fusion, "branches"):
        outputs |= {f"branch {i}": branch for i, branch in enumerate(fusion.branches(**given))}
    for what, out in outputs.items():
        require(isinstance(out, Features), f"{what} is not a `Features`, but {type(out).__name__}")
        length = out.tokens.shape[1] if out.tokens.ndim == 3 else "S"
        for part, shape, dtype in (
            ("pooled", (ROWS, out_dim), torch.float32),
            ("tokens", (ROWS, length, out_dim), torch.float32),
            ("mask", (ROWS, length), torch.bool),
            ("present", (ROWS,), torch.bool),
        ):
            found = tuple(getattr(out, part).shape), getattr(out, part).dtype
            require(found == (shape, dtype), f"`{part}` of {what} is {found}, not {(shape, dtype)}")
        require(out.mask.any(1).all(), f"`mask` of {what} leaves rows without any real token")
    if hasattr(fusion, "combine"):
        require(Fused(fusion)(**given).pooled.shape == (ROWS, 3), "`combine` does not keep the shape of the logits")
    if hasattr(fusion, "auxiliary_loss"):
        require(fusion.auxiliary_loss().shape == (), "`auxiliary_loss()` is not a scalar")
