"""The same on a device and on the CPU: precisions, runs, and how far two results are apart."""

import copy
import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from torch import Tensor, nn

import mmfuse
from mmfuse.config import Config
from mmfuse.types import Features

FP32, TF32, BF16 = 1e-5, 2e-3, 2e-2
"""How far results may be from the CPU's in fp32, relative to the largest number."""
GRADIENTS = 5e-5
"""The same of gradients in fp32; in less, the maximum over tokens may be another one's, and the gradient with it."""
CPU = torch.device("cpu")


class Side:
    """A device that is compared with the CPU.

    Attributes:
        device: Where the one side runs; in a rehearsal the CPU.
        real: Whether that is a card.
    """

    def __init__(self, device: torch.device):
        self.device, self.real = device, device.type == "cuda"

    def card_only(self, what: str) -> None:
        """End a test that cannot measure the rest without a card, and say what it left out."""
        if not self.real:
            pytest.skip(f"rehearsed on the CPU, but for {what}")

    def own(self, module: nn.Module) -> Any:
        """A copy of a module on the device."""
        return copy.deepcopy(module).to(self.device)

    @contextmanager
    def at(self, tolerance: float) -> Iterator[None]:
        """Compute as this tolerance allows: fp32 without TF32, with it, or autocast to bf16."""
        before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
        half = torch.autocast(self.device.type, torch.bfloat16) if tolerance == BF16 else nullcontext()
        _allow_tf32(*(("high", True) if tolerance == TF32 else ("highest", False)))
        try:
            with half:
                yield
        finally:
            _allow_tf32(*before)


def _allow_tf32(products: str, convolutions: bool) -> None:
    torch.set_float32_matmul_precision(products)
    torch.backends.cudnn.allow_tf32 = convolutions


def moved(value: Any, device: torch.device) -> Any:
    """Tensors, `Features`, and lists, tuples and dicts of them, on a device."""
    if isinstance(value, Tensor):
        return value.detach().to(device)
    if isinstance(value, Features):
        return Features(*(moved(part, device) for part in value))
    if isinstance(value, dict):
        return {name: moved(part, device) for name, part in value.items()}
    return type(value)(moved(part, device) for part in value) if isinstance(value, list | tuple) else value


def apart(found: Any, wanted: Any) -> float:
    """The largest difference over the largest number wanted."""
    found, wanted = (torch.as_tensor(x).detach().cpu().double() for x in (found, wanted))
    assert found.shape == wanted.shape
    assert found.isfinite().all()
    return float((found - wanted).abs().max() / wanted.abs().max().clamp_min(1e-12)) if wanted.numel() else 0.0


def gradients_apart(found: nn.Module, wanted: nn.Module) -> float:
    """The same of all gradients of a module, by the largest of them."""
    theirs = dict(wanted.named_parameters())
    pairs = [(p.grad, theirs[name].grad) for name, p in found.named_parameters()]
    assert all((a is None) == (b is None) for a, b in pairs)
    both = [(a.detach().cpu().double(), b.double()) for a, b in pairs if a is not None and b is not None]
    largest = max(float(b.abs().max()) for _, b in both)
    return max(float((a - b).abs().max()) for a, b in both) / largest


def compare(side: Side, module: nn.Module, call: Callable[[Any, Any], Tensor], given: Any, tolerances=(FP32,)) -> None:
    """A module's outputs in these precisions on the device, and its gradients in fp32, against the CPU's.

    Args:
        side: The device.
        module: On the CPU.
        call: Gives one tensor of the module and what it is given.
        given: Tensors and lists of them, on the CPU.
        tolerances: In which precisions.
    """
    reference = copy.deepcopy(module)
    with side.at(FP32):
        wanted = call(reference, given)
        pull = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(5))
        (wanted * pull).sum().backward()
    for tolerance in tolerances:
        own, there = side.own(module), moved(given, side.device)
        with side.at(tolerance):
            found = call(own, there)
        assert found.device.type == side.device.type
        (found.float() * pull.to(side.device)).sum().backward()
        assert apart(found.float(), wanted) <= tolerance
        assert gradients_apart(own, reference) <= (GRADIENTS if tolerance == FP32 else torch.inf)


@contextmanager
def processes_on(device: torch.device) -> Iterator[None]:
    """Runs of this process are on this device; Accelerate otherwise keeps the first one that it has found."""
    AcceleratorState._reset_state(reset_partial_state=True)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("ACCELERATE_USE_CPU", "true" if device.type == "cpu" else "false")
        try:
            yield
        finally:
            AcceleratorState._reset_state(reset_partial_state=True)


def train_on(device: torch.device, config: Config) -> Path:
    """Train, or go on; the run's folder."""
    with processes_on(device):
        return mmfuse.train(config).dir


def losses(run: Path) -> list[float]:
    """Of each step, in their order."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, len(steps) + 1))
    return [line["loss"] for line in steps]


class Waits:
    """What the program waits for the card for, as PyTorch tells it; it does not see the waits of its collectives.

    Attributes:
        found: Of each time between `begin` and `begin` or `end`, the lines that waited.
    """

    def __init__(self):
        self.found: list[list[str]] = []
        self._told: Any = None
        self._catching: Any = None

    def begin(self) -> None:
        """From here on."""
        self.end()
        self._catching = warnings.catch_warnings(record=True)
        self._told = self._catching.__enter__()
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")

    def end(self) -> None:
        """To here."""
        if self._catching is not None:
            torch.cuda.set_sync_debug_mode("default")
            self._catching.__exit__(None, None, None)
            self._catching = None
            self.found.append([f"{w.filename}:{w.lineno}" for w in self._told if "synchroniz" in str(w.message)])
