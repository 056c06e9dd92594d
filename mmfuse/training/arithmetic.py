"""How a GPU computes in a run: TF32 for products, and the same bits each time. On a CPU nothing is changed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from mmfuse.config import TrainingConfig


@contextmanager
def arithmetic(training: TrainingConfig, device: torch.device) -> Iterator[None]:
    """Set what a run's config asks of a GPU, and put it back behind the run.

    With `mixed_precision: auto`, what stays float32 uses TF32 (10 bits of mantissa) for products, as torch does for
    convolutions anyway. With `deterministic`, operators are chosen that add in the same order each time; one that has
    none is torch's error.

    Args:
        training: Of the run.
        device: Of this process.
    """
    if device.type != "cuda":  # sums on a CPU have one order for a number of threads; the switch would change it
        yield
        return
    cudnn = torch.backends.cudnn
    products, switches = torch.get_float32_matmul_precision(), (cudnn.deterministic, cudnn.benchmark)
    forced, warn = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        if training.mixed_precision == "auto":
            torch.set_float32_matmul_precision("high")
        if training.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS is first used
            torch.use_deterministic_algorithms(True)
            cudnn.deterministic, cudnn.benchmark = True, False
        yield
    finally:
        torch.set_float32_matmul_precision(products)
        torch.use_deterministic_algorithms(forced, warn_only=warn)
        cudnn.deterministic, cudnn.benchmark = switches
