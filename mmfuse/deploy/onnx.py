"""The one way out of torch: torch.export, then ONNX, which all other formats are made of."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmfuse.deploy.dense import DenseModel, run_dense
from mmfuse.encoders.text import TextEncoder
from mmfuse.extras import extra
from mmfuse.types import Batch, MmfuseError, first_line

_LENGTHS = {"B": 3, "T": 7, "V": 2, "S": 2}
"""Lengths that it is traced with: torch makes constants of 0 and 1."""
_OPSET = 20


def write_onnx(dense: DenseModel, path: Path) -> None:
    """Export a model, its batch, text length and number of images free.

    Args:
        dense: Of the model.
        path: `model.onnx` of a folder that is there; of more than 2 GB, weights lie beside it.

    Raises:
        MmfuseError: torch or ONNX cannot express it, or it works for one size of batch alone.
    """
    with extra("onnx", "export"):
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    try:
        with torch.no_grad(), _quietly():
            given, shapes = _example(dense)
            program = torch.export.export(dense, given, dynamic_shapes=(shapes,), strict=False)
            names: dict[str, Any] = {"input_names": [each.name for each in dense.inputs], "output_names": dense.tasks}
            torch.onnx.export(program, (), path, dynamo=True, verbose=False, opset_version=_OPSET, **names)
    except Exception as error:  # both raise whatever they meet in a tower, a fusion or a head
        raise MmfuseError(f"export: {dense.model.fusion_config['name']!r}: {_reason(error)}") from error


class OnnxEngine:
    """A forward pass by ONNX Runtime on this processor: a packed batch to logits by task.

    Args:
        dense: Of the model, for its inputs and tasks.
        folder: Has `model.onnx`.
    """

    def __init__(self, dense: DenseModel, folder: Path):
        with extra("onnx", "export --to onnx"):
            import onnxruntime
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
        self.inputs, self.tasks, self.pad_token_id = dense.inputs, dense.tasks, dense.pad_token_id
        self._session: Any = onnxruntime.InferenceSession(
            folder / "model.onnx", options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, batch: Batch) -> dict[str, np.ndarray]:
        """By task logits `(B, L)` float32, of a packed batch on the CPU."""
        return run_dense(self, batch, lambda arrays: self._session.run(None, arrays))


def _example(dense: DenseModel) -> tuple[tuple[torch.Tensor, ...], tuple[dict[int, Any], ...]]:
    """Inputs in which nothing is missing, and of each its free axes by number.

    These are dimensions with names, of which torch refuses to make a constant.
    """
    text = dense.model.text_encoder
    longest = text.max_length if isinstance(text, TextEncoder) else None
    lengths = {**_LENGTHS, "T": min(_LENGTHS["T"], longest or _LENGTHS["T"])}
    dims = {axis: torch.export.Dim(axis, max=longest if axis == "T" else None) for axis in lengths}
    given, free = [], []
    for each in dense.inputs:
        shape = [lengths[axis] if isinstance(axis, str) else axis for axis in each.axes]
        given.append(torch.from_numpy(np.ones(shape, dtype=each.dtype)))
        free.append({i: dims[axis] for i, axis in enumerate(each.axes) if isinstance(axis, str)})
    return tuple(given), tuple(free)


def _reason(error: Exception) -> str:
    text = str(error)
    if "specialized it to be a constant" in text:
        axis = text.partition("Constraints violated (")[2][:1]
        return (
            f"works for one length of {axis or 'an axis'} alone, as it is read as a Python number somewhere: take "
            "x.shape[i] in place of len(x), and no int(tensor)"
        )
    return f"cannot be expressed ({type(error).__name__}: {first_line(error)[:200]})"


@contextmanager
def _quietly() -> Iterator[None]:
    """Torch and its libraries speak of their own plans while they export."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
