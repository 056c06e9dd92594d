"""8-bit integers for weights and activations, their ranges taken from training rows."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import numpy as np

from mmfuse.data.batches.pairs import PairDataset
from mmfuse.deploy.dense import DenseModel, dense_batches
from mmfuse.deploy.openvino import MODEL_FILE, core, openvino_needed, save
from mmfuse.pulse import now
from mmfuse.types import MmfuseError

ROWS = 300
"""Training rows that ranges are taken from: nncf's own number; more did not change them much."""


def calibration_rows(pairs: PairDataset) -> list[int]:
    """At most `ROWS` rows of the training split, the same ones each time.

    Raises:
        MmfuseError: The split has none.
    """
    rows = pairs.table.indices("train")
    if not rows:
        raise MmfuseError(f"--calibrate: {pairs.table.manifest.source}: there are no training rows")
    return sorted(np.random.default_rng(0).permutation(rows)[:ROWS].tolist())


def quantize(dense: DenseModel, source: Path, pairs: PairDataset, rows: list[int], folder: Path) -> None:
    """Write a form of integers by nncf's post-training quantisation; norms and softmax stay in float.

    Args:
        dense: Of the model.
        source: Folder of the float32 form.
        pairs: The table's rows, as the model reads them.
        rows: Those that ranges are taken from, one at a time, so that no padding enters them.
        folder: Where to.

    Raises:
        MmfuseError: nncf is not installed, or an image cannot be read.
    """
    with openvino_needed("--precision int8"), _quietly():
        import nncf

        first = core()  # before nncf has its own

    def read(row: int) -> list[np.ndarray]:
        now("calibrating")
        [(_, arrays)] = dense_batches(dense.inputs, pairs.plain()[[row]], dense.pad_token_id)
        return [arrays[each.name] for each in dense.inputs]

    with _quietly():
        made = nncf.quantize(
            first.read_model(source / MODEL_FILE),
            nncf.Dataset(rows, read),
            subset_size=len(rows),
            preset=nncf.QuantizationPreset.MIXED,
            model_type=nncf.ModelType.TRANSFORMER,
        )
    save(made, folder)


@contextmanager
def _quietly() -> Iterator[None]:
    """Silence nncf, which tells its plans and draws bars on standard output, and torch, which looks for a compiler."""
    loggers = [logging.getLogger(name) for name in ("nncf", "torch.utils.cpp_extension")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
