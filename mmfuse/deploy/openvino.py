"""OpenVINO: a model that ONNX describes, compiled for this processor, in place of torch's forward pass."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmfuse.deploy.dense import Arrays, DenseModel, run_dense
from mmfuse.deploy.folder import network_files
from mmfuse.extras import extra
from mmfuse.precision import PRECISIONS
from mmfuse.types import Batch, MmfuseError, first_line

MODEL_FILE = "openvino.xml"
"""What the graph is called; its weights lie in openvino.bin."""


@contextmanager
def openvino_needed(wanted: str) -> Iterator[None]:
    """Stand around imports of openvino and nncf, which without this report each import and call to Google Analytics.

    They report by the package openvino_telemetry, and are silent where it is not installed.

    Args:
        wanted: What cannot be had without them, as the error begins.

    Raises:
        MmfuseError: They are not installed.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # as if it were not installed
    with extra("openvino", wanted):
        yield


@cache
def core() -> Any:
    """OpenVINO's `Core`, one in a process, and as long as that lives.

    Each has a plugin for CPUs that gives signals a stack of its own, and when it goes puts back the one before. Of two
    that do not go in the reverse order of their coming, one puts back a stack that is gone, and the next signal, such
    as Ctrl-C, ends the process with a segmentation fault (seen with OpenVINO 2026.4).
    """
    import openvino as ov

    return ov.Core()


def convert(onnx_file: Path, folder: Path) -> None:
    """Write OpenVINO's own files of an ONNX file, with float32 weights.

    Raises:
        MmfuseError: OpenVINO cannot read it.
    """
    with openvino_needed("export --to openvino"):
        reader = core()
    try:
        model = reader.read_model(onnx_file)
    except RuntimeError as error:
        raise MmfuseError(f"export: OpenVINO cannot read the model ({first_line(error)[:200]})") from error
    save(model, folder)


def save(model: Any, folder: Path) -> None:
    """Write a model of OpenVINO's; by itself it would halve the weights."""
    import openvino as ov

    try:
        ov.save_model(model, folder / MODEL_FILE, compress_to_fp16=False)
    except RuntimeError as error:
        raise MmfuseError(f"export: {folder.parent}: cannot be written ({first_line(error)[:200]})") from error


class OpenVinoEngine:
    """A forward pass by OpenVINO on this processor: a packed batch to logits by task.

    The same batch gives the same bytes at the same precision and number of threads.

    Args:
        dense: Of the model, for its inputs and tasks.
        folder: Has the model's files.
        precision: "fp32", "bf16", or "int8" where the files are of such a model.
        threads: That compute; default: as torch's.

    Attributes:
        precision: As given.
        name: What a run of predictions is told apart by.

    Raises:
        MmfuseError: OpenVINO is not installed, the files are damaged or missing, or the processor has no such numbers.
    """

    def __init__(self, dense: DenseModel, folder: Path, precision: str, threads: int | None = None):
        check_precision(precision)
        self.inputs, self.tasks, self.pad_token_id = dense.inputs, dense.tasks, dense.pad_token_id
        self.precision = precision
        rest = "bf16" if precision == "bf16" or (precision == "int8" and can_bf16()) else "f32"
        self.name = f"openvino {precision} {rest}"
        if precision == "int8":  # of the same weights there may be several, by the rows that gave the ranges
            self.name += f" {sorted(network_files(folder).items())}"
        settings = {
            "INFERENCE_PRECISION_HINT": rest,  # of what is not of integers
            "INFERENCE_NUM_THREADS": threads or torch.get_num_threads(),
            "NUM_STREAMS": 1,  # one batch at a time; more would share the threads
            "ENABLE_CPU_PINNING": False,  # two processes would be bound to the same cores
        }
        try:
            self._model = core().compile_model(core().read_model(folder / MODEL_FILE), "CPU", settings)
        except RuntimeError as error:
            raise MmfuseError(f"{folder / MODEL_FILE}: cannot be loaded ({first_line(error)[:200]})") from error

    def __call__(self, batch: Batch) -> dict[str, np.ndarray]:
        """By task logits `(B, L)` float32, of a packed batch on the CPU."""
        names = [each.name for each in self.inputs]

        def run(arrays: Arrays) -> list[np.ndarray]:
            said = self._model([arrays[name] for name in names], share_inputs=True)
            return [said[place] for place in range(len(self.tasks))]

        return run_dense(self, batch, run)


def check_precision(precision: str) -> None:
    """Refuse a precision that does not exist, or that OpenVINO here, or this processor, cannot do.

    Raises:
        MmfuseError: It is one of these.
    """
    with openvino_needed("--engine openvino"):
        import openvino  # noqa: F401
    legal = PRECISIONS["openvino"]
    if precision not in legal:
        raise MmfuseError(f"--precision {precision!r} is not legal with openvino; legal: {', '.join(legal)}")
    if precision == "bf16" and not can_bf16():
        raise MmfuseError("--precision bf16: this processor has no instructions for it; legal here: fp32, int8")


def can_bf16() -> bool:
    """Whether this processor has instructions for bfloat16, as OpenVINO sees it."""
    with openvino_needed("--engine openvino"):
        return "BF16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
