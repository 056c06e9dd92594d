"""The page that a run leaves behind when its model is safe."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from rich.console import Console

from mmfuse.config import Config
from mmfuse.data.batches.pairs import PairDataset
from mmfuse.evaluation.run_page import count_parameters, keep_measured, measure_run, monitored_of, write_page
from mmfuse.model import FusionModel
from mmfuse.pulse import now
from mmfuse.types import first_line, visible


def leave_page(
    model: FusionModel,
    pairs: PairDataset,
    run_dir: Path,
    config: Config,
    report: dict[str, Any],
    times: dict[str, float],
    num_workers: int,
    console: Console,
) -> None:
    """Measure what the page tells beside the scores, and write `report.html`; only the main process may ask.

    The model is in its folder by then, and whatever fails here costs the page alone: it is told in a line.

    Args:
        model: Trained, whole.
        pairs: The rows as it reads them.
        run_dir: The run's folder, with the model in it.
        config: The run's.
        report: Of the scored split.
        times: Seconds that are told.
        num_workers: Processes that read images.
        console: Told where the page cannot be written.
    """
    now("writing the run's page")
    try:
        options: Any = {"batch_size": 2 * config.training.batch_size, "num_workers": num_workers}
        found = measure_run(model, pairs, report["split"], passes=float(config.training.epochs), **options)
        of_model = {"monitored": monitored_of(dataclasses.asdict(config), model), "parameters": count_parameters(model)}
        keep_measured(run_dir, {**found, **times, **of_model, "splits": pairs.table.counts()})
        write_page(run_dir)
    except Exception as error:
        told = visible(first_line(error))
        console.print(f"report.html could not be written: {told}; the model is whole, and mmfuse report tries again")
