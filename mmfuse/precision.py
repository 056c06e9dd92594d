"""fp32 or bf16, of each part of a model: what may be asked, what a machine has, and a model that computes so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from mmfuse.types import MmfuseError

if TYPE_CHECKING:  # the command line does without
    import torch

PRECISIONS = {
    "local": ("auto", "fp32", "bf16"),
    "ray": ("auto", "fp32", "bf16"),
    "openvino": ("fp32", "bf16", "int8"),
}
"""What may be asked of `mmfuse predict`, by engine."""
_KNOWN = ("fp32", "bf16")


@dataclass(frozen=True)
class Precision:
    """In what each part of a model computes, "fp32" or "bf16": autocast, so weights and sums stay float32.

    Attributes:
        text: The text tower.
        image: The image tower.
        rest: Fusion and heads. What enters them is float32, and so are logits.
    """

    text: str = "fp32"
    image: str = "fp32"
    rest: str = "fp32"

    @classmethod
    def read(cls, values: Any, where: str) -> Precision:
        """What `to_dict` gave; a file that holds it may be anyone's.

        Raises:
            MmfuseError: It is something else.
        """
        names = {item.name for item in fields(cls)}
        if not isinstance(values, dict) or set(values) != names or not all(v in _KNOWN for v in values.values()):
            raise MmfuseError(f"{where}: {values!r:.100}: fp32 or bf16 is expected of {', '.join(sorted(names))}")
        return cls(**values)

    def to_dict(self) -> dict[str, str]:
        """As JSON."""
        return asdict(self)

    def __str__(self) -> str:
        if self in (FP32, BF16):
            return self.text
        return f"text {self.text}, image {self.image}, fusion and heads {self.rest}"


FP32 = Precision()
BF16 = Precision("bf16", "bf16", "bf16")


def computing(precision: Precision | None, part: str, device: torch.device) -> AbstractContextManager[Any]:
    """In which a part ("text", "image" or "rest") is run; None leaves it to what surrounds it."""
    if precision is None:
        return nullcontext()
    import torch

    return torch.autocast(device.type, torch.bfloat16, enabled=getattr(precision, part) == "bf16")


@contextmanager
def at_precision(model: Any, precision: Precision) -> Iterator[None]:
    """Have a FusionModel compute in a precision for a while; fp32 leaves it to what surrounds it, and costs nothing.

    On a GPU that computes in bf16, what stays float32 may use TF32 (10 bits of mantissa) for products; in fp32, torch's
    own settings hold: TF32 for convolutions, not for products.
    """
    import torch

    before, products = model.precision, torch.get_float32_matmul_precision()
    model.precision = None if precision == FP32 else precision
    on_gpu = next(model.parameters()).device.type == "cuda" and precision != FP32
    try:
        if on_gpu:
            torch.set_float32_matmul_precision("high")
        yield
    finally:
        model.precision = before
        if on_gpu:
            torch.set_float32_matmul_precision(products)


def computes_bf16(device: torch.device) -> bool:
    """Whether a device has instructions for bf16: without them it is legal, and slower than fp32."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    if hasattr(torch.cpu, "get_capabilities"):
        said = torch.cpu.get_capabilities()
        return any(said.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
