"""What a benchmark would cost: time from a few measured steps, disk from the sizes of what it writes."""

from __future__ import annotations

import math
import time
from pathlib import Path

import torch

from mmfuse.benchmarking.cells import Workshop
from mmfuse.benchmarking.config import BenchmarkConfig
from mmfuse.benchmarking.plan import COVARIATES, Plan, Row, Widths
from mmfuse.fusion import build_fusion
from mmfuse.types import Features

TIMED_STEPS = 3
OVERHEAD_SECONDS = 0.006
"""Of a step beside the fusion: a batch is gathered, heads and optimiser run, a line is logged. Measured on one core."""
DIAGNOSTIC_PASSES = 1 + 10 + 3 + 3
"""Over the diagnostic rows: plain, permuted, hidden for Shapley values and for missing curves."""


def describe_plan(config: BenchmarkConfig, workshop: Workshop, plan: Plan, widths: Widths) -> str:
    """Rows, cells, hours and disk, as text.

    No training is taken to end early. Encoders that are trained are not counted, and it says so.
    """
    table = workshop.table(workshop.folds[0])
    splits = {name: len(table.indices(name)) if name in table.splits else 0 for name in ("validation", "test")}
    steps = math.ceil(len(table.indices("train")) / config.training.batch_size) * config.training.epochs
    steps = min(steps, config.training.max_steps or steps)
    scored = splits["validation"] * (config.training.epochs + 1) + splits["test"]
    diagnosed = min(config.diagnostic_rows, splits["test"]) * DIAGNOSTIC_PASSES
    diagnosed += min(config.emap_rows, splits["test"]) ** 2 if config.diagnostic_rows else 0
    lines = [f"{'row':24} {'class':15} {'parameters':>12} {'MACs':>14} {'s a cell':>9}  size"]
    total = 0.0
    for row in plan.rows.values():
        if row.label == COVARIATES:
            lines.append(f"{row.label:24} {'covariates':15} {0:12,} {0:14,} {0:9.0f}  {', '.join(row.uses)}")
            continue
        step, forward = step_seconds(row, widths, config.training.batch_size)
        seconds = steps * (step + OVERHEAD_SECONDS) + scored * forward
        total += seconds * sum(cell.row == row.label for cell in plan.cells) + diagnosed * forward
        lines.append(
            f"{row.label:24} {row.interaction:15} {row.parameters:12,} {row.macs:14,} {seconds:9.0f}  {row.matched}"
        )
    rows = len(table)
    tokens = widths.text_tokens + widths.image_tokens
    width = (widths.text_tokens * widths.text_dim + widths.image_tokens * widths.image_dim) / max(tokens, 1)
    size = 2 if config.cache.dtype == "float16" else 4
    features = (
        rows * (tokens + 2) * width * size
        if any(r.interaction == "token" for r in plan.rows.values())
        else (rows * (widths.text_dim + widths.image_dim) * size)
    )
    logits = sum(len(names) for names in table.labels.values()) * len(table.indices("test")) * 4
    lines.append(
        f"\n{len(plan.rows)} rows, {len(plan.cells)} cells, {steps} steps each: about "
        f"{total / max(1, config.processes) / 3600:.1f} h with {config.processes} process(es)"
        + (", features and comparison" if workshop.frozen else ", the encoders and the comparison")
        + " not counted"
    )
    lines.append(
        f"disk: {features / 2**20:.0f} MiB of features in the cache, {logits * len(plan.cells) / 2**20:.0f} MiB of "
        f"results in {Path(config.run_dir)}"
    )
    return "\n".join(lines)


def step_seconds(row: Row, widths: Widths, batch_size: int) -> tuple[float, float]:
    """Seconds of a training step of the fusion alone, and of inference for one row, on random features."""
    options = {k: v for k, v in row.fusion.items() if k != "name"}
    fusion = build_fusion(row.fusion["name"], widths.text_dim, widths.image_dim, options)

    def features(tokens: int, dim: int) -> Features:
        there = torch.ones(batch_size, dtype=torch.bool)
        reads_tokens = "tokens" in fusion.reads  # type: ignore[operator]
        x = torch.randn(batch_size, tokens if reads_tokens else 1, dim)
        return Features(x, there[:, None].expand(-1, x.shape[1]), x[:, 0], there)

    text, image = features(widths.text_tokens, widths.text_dim), features(widths.image_tokens, widths.image_dim)
    training, inference = [], []
    for _ in range(TIMED_STEPS):
        start = time.perf_counter()
        fusion(text, image).pooled.square().sum().backward()
        training.append(time.perf_counter() - start)
        start = time.perf_counter()
        with torch.inference_mode():
            fusion(text, image)
        inference.append(time.perf_counter() - start)
    return min(training), min(inference) / batch_size
