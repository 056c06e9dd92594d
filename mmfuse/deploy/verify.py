"""What an exported model says against what torch says, on a manifest's rows or on random inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch

from mmfuse.data.batches.collate import Item, collate
from mmfuse.data.batches.loader import make_loader
from mmfuse.data.batches.pairs import PairDataset
from mmfuse.encoders.features import FeatureTower
from mmfuse.encoders.image import ImageEncoder
from mmfuse.encoders.text import TextEncoder
from mmfuse.evaluation.evaluate import score_rows
from mmfuse.model import FusionModel
from mmfuse.predict import Forward, default_workers
from mmfuse.pulse import counted
from mmfuse.types import Batch, MmfuseError

LARGEST_DIFFERENCE = {"fp32": 1e-4, "bf16": 0.1}
"""By precision, of a logit, as a share of the largest one; rounding of float32 gives 1e-6, of bfloat16 1e-2 or more."""
TOLERANCE = {"bf16": 0.02, "int8": 0.05}
"""By precision, the share of decisions that may change; real models showed up to .01 and .036 at equal accuracy."""
_BATCH = 16
_MOVED = 0.1
"""A number that is said changes where it moves by more than this share of the standard deviation over the rows."""
_SHAPES = ((1, 1, 1), (4, 2, 3), (3, 1, 1))
"""Rows, by how much the longest text is divided, and most images of a row, of the random batches."""


def compare_on_rows(
    model: FusionModel, forward: Forward, pairs: PairDataset, rows: list[int], progress: Callable[[int], None]
) -> dict[str, Any]:
    """Both on the same rows of a table, each of which is read once: by task the differences, and the scores of both.

    Args:
        model: In eval mode, on the CPU.
        forward: Of the exported model.
        pairs: The table, as the model reads it.
        rows: Row numbers.
        progress: Called with the number of rows done since the last call.
    """
    workers = default_workers()
    batches = pairs.batches(rows, _BATCH, num_workers=workers)
    loader = make_loader(pairs.plain(), batches, workers)
    sides = _both(model, forward, counted(loader, "comparing with torch, batches", len(batches)), progress)
    found = differences(model, *sides)
    order = [row for batch in batches for row in batch]
    scores = [score_rows(model, pairs, order, side, resamples=0) for side in sides]
    for task in scores[0]:
        values = [side[task]["metrics"] for side in scores]
        found[task]["scores"] = {name: [side[name]["value"] for side in values] for name in values[0]}
    return found


def compare_on_random(model: FusionModel, forward: Forward) -> dict[str, Any]:
    """Both on rows of noise: batches of 1 to 4 rows, texts of 1 token to the longest, missing ones, several images."""
    return differences(model, *_both(model, forward, random_batches(model)))


def _both(
    model: FusionModel,
    forward: Forward,
    batches: Iterable[Batch],
    progress: Callable[[int], None] = lambda rows: None,
) -> list[dict[str, np.ndarray]]:
    """By task the logits of torch, and those of the exported model."""
    found: list[dict[str, list[np.ndarray]]] = [{}, {}]
    for batch in batches:
        for side, run in zip(found, (forward_of(model), forward), strict=True):
            for task, values in run(batch).items():
                side.setdefault(task, []).append(values)
        progress(len(batch["row_ids"]))
    return [{task: np.concatenate(parts) for task, parts in side.items()} for side in found]


def forward_of(model: FusionModel) -> Forward:
    """Torch's forward pass of a model, on packed batches."""

    def forward(batch: Batch) -> dict[str, np.ndarray]:
        with torch.inference_mode():
            return {task: values.float().numpy() for task, values in model(batch).items()}

    return forward


def differences(
    model: FusionModel, ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]
) -> dict[str, dict[str, Any]]:
    """By task its `rows`, torch's `largest_logit`, the `largest_difference` to it, the share of decisions `changed`.

    Raises:
        MmfuseError: The exported model gives no finite number.
    """
    found = {}
    for task, logits in ours.items():
        if not np.isfinite(theirs[task]).all():
            raise MmfuseError(f"export: task {task!r}: the exported model gives no finite number")
        found[task] = {
            "rows": len(logits),
            "largest_logit": float(np.abs(logits).max(initial=0.0)),
            "largest_difference": float(np.abs(logits - theirs[task]).max(initial=0.0)),
            "changed": _changed(model.heads[task], logits, theirs[task]),
        }
    return found


def _changed(head: Any, ours: np.ndarray, theirs: np.ndarray) -> float:
    if head.task.has_labels:
        decided = [head.task.said(head.task.predictions(logits)) for logits in (ours, theirs)]
        return float((decided[0] != decided[1]).mean())
    return float((np.abs(ours - theirs) > _MOVED * ours.std(axis=0)).mean())


def judge(found: dict[str, dict[str, Any]], precision: str, tolerance: float | None, on_rows: bool) -> None:
    """Refuse an exported model that says too often something else than torch.

    Args:
        found: What `differences` gave.
        precision: fp32 and bf16 are judged by the largest difference, bf16 and int8 by decisions, on rows that are
            somebody's: those on noise mean nothing.
        tolerance: The share of decisions that may change; default: of the precision.
        on_rows: Whether the rows are somebody's.

    Raises:
        MmfuseError: A task differs by more.
    """
    for task, of in found.items():
        most = LARGEST_DIFFERENCE.get(precision, float("inf")) * max(of["largest_logit"], 1e-3)
        if of["largest_difference"] > most and not (on_rows and precision == "bf16"):
            raise MmfuseError(
                f"export: task {task!r}: {precision} differs from torch by {of['largest_difference']:.2g} in a logit, "
                f"of {of['largest_logit']:.3g} at most; up to {most:.2g} is tolerated: nothing is written"
            )
        share = TOLERANCE.get(precision) if tolerance is None else tolerance
        if on_rows and share is not None and of["changed"] > share:
            raise MmfuseError(
                f"export: task {task!r}: {precision} changes {of['changed']:.1%} of the decisions on {of['rows']} "
                f"rows; up to {share:.1%} is tolerated (--tolerance): nothing is written"
            )


def random_batches(model: FusionModel) -> Iterator[Batch]:
    """Packed batches of noise, the same ones for the same model."""
    rng = np.random.default_rng(0)
    text = model.text_encoder
    pad = int(text.tokenizer.pad_token_id or 0) if isinstance(text, TextEncoder) else 0  # type: ignore[arg-type]
    for rows, part, views in _SHAPES:
        items = [_random_item(model, rng, row, part, views) for row in range(rows)]
        yield collate(items, pad)


def _random_item(model: FusionModel, rng: np.random.Generator, row: int, part: int, views: int) -> Item:
    """The first row of a batch lacks nothing, the second its text, the third its images."""
    item = Item(row, str(row))
    text, image = model.text_encoder, model.image_encoder
    if isinstance(text, TextEncoder):
        size, pad = len(text.tokenizer), text.tokenizer.pad_token_id
        length = max(1, text.max_length // part if row == 0 else int(rng.integers(1, text.max_length + 1)) // part)
        ids = rng.integers(1, size, length)
        item.input_ids = None if row == 1 else np.where(ids == pad, (ids + 1) % size, ids).tolist()
    elif isinstance(text, FeatureTower):
        item.values["text"] = None if row == 1 else rng.standard_normal((2, text.width)).astype(np.float32)
    if isinstance(image, ImageEncoder):
        many = 0 if row == 2 else 1 + row % views
        shape = (3, *image.preprocessing.size)
        item.pixels = [rng.integers(0, 256, shape, dtype=np.uint8) for _ in range(many)]
    elif isinstance(image, FeatureTower):
        item.values["image"] = None if row == 2 else rng.standard_normal((2, image.width)).astype(np.float32)
    return item
