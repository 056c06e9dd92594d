"""Which rows stand in which batch, in training and in inference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np


def epoch_batches(
    rows: Sequence[int], lengths: np.ndarray, batch_size: int, world: int, seed: int, epoch: int
) -> list[list[list[int]]]:
    """An epoch's batches: shuffled, texts of like length together, the same rows a step for any number of processes.

    Rows are shuffled, windows of 16 global batches are sorted by length in steps of 8 tokens, cut into global batches,
    and these are shuffled again. All of it depends on `seed` and `epoch` alone.

    Args:
        rows: Row numbers of the training split.
        lengths: `(all rows,)` tokens of each row.
        batch_size: Rows per process.
        world: Number of processes; a global batch has `batch_size * world` rows.
        seed: The run's.
        epoch: From 0.

    Returns:
        For each global batch, the row numbers of each process. No process gets none: a last batch of fewer rows than
        processes is left out.
    """
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(np.asarray(rows))
    size = batch_size * world
    chunks: list[np.ndarray] = []
    for start in range(0, len(order), 16 * size):
        window = order[start : start + 16 * size]
        window = window[np.argsort(-(-lengths[window] // 8), kind="stable")]
        chunks += [window[i : i + size] for i in range(0, len(window), size)]
    chunks = [chunks[i] for i in rng.permutation(len(chunks)) if len(chunks[i]) >= world]
    return [[chunk[rank::world].tolist() for rank in range(world)] for chunk in chunks]


def ordered_batches(rows: Sequence[int], lengths: np.ndarray, batch_size: int) -> Iterator[list[int]]:
    """Batches for inference: texts of like length together, the longest first, each row once."""
    order = sorted(rows, key=lambda row: (-int(lengths[row]), row))
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]
