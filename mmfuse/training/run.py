"""A training run from its config to its model folder."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from rich.console import Console

from mmfuse.config import Config, load_config
from mmfuse.data.batches.pairs import PairDataset
from mmfuse.data.batches.stream import workers_of
from mmfuse.data.given import MANIFEST, OwnData, in_place_of_rows
from mmfuse.data.tables.gaps import scored_split
from mmfuse.evaluation.analyses import Analysis, Scored, choose_analyses, run_analyses
from mmfuse.evaluation.chosen import add_operating_points, choose_operating_points
from mmfuse.evaluation.evaluate import score_rows, write_report
from mmfuse.evaluation.plots import plot_learning_curve
from mmfuse.model import FusionModel
from mmfuse.predict import count_cut_texts, default_workers, table_logits
from mmfuse.pulse import now
from mmfuse.registry import load_plugin
from mmfuse.training.accelerator import open_accelerator
from mmfuse.training.calibrate import calibrate
from mmfuse.training.card import model_card
from mmfuse.training.checkpoint import room_in
from mmfuse.training.claim import as_begun, claimed, has_begun
from mmfuse.training.inherit import inherit
from mmfuse.training.launch import heed_launch
from mmfuse.training.loop import Trainer
from mmfuse.training.monitor import lower_is_better
from mmfuse.training.origin import describe
from mmfuse.training.page import leave_page
from mmfuse.training.prepare import set_up
from mmfuse.training.sharded import tell_sharding
from mmfuse.training.zero import tell_zero


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        dir: The run's folder.
        model_dir: The model folder in it.
        report: What `evaluate` says of the test split (of the validation split where no test row has a target).
        steps: Optimiser steps that were done.
        best_step: The step whose weights were kept.
    """

    dir: Path
    model_dir: Path
    report: dict[str, Any]
    steps: int
    best_step: int


def train(config: Config | str | Path | dict[str, Any], *, restart: bool = False, data: Any = None) -> Run:
    """Train a model, or go on with a run that was interrupted.

    Args:
        config: A config, the path of one, or its values.
        restart: Throw away what is in the run's folder.
        data: Rows in place of those that the manifest names, in the same columns: a pandas DataFrame, a
            `datasets.Dataset`, or the path of a file of rows. They and the manifest are kept in the run's folder, whose
            `config.yaml` then names both.

    Returns:
        The run, with the test scores. Its folder holds the resolved config, the manifest, the splits, versions,
        `metrics.jsonl`, the learning curve, the test report and the model folder.

    Raises:
        MmfuseError: The config, the manifest or the data are not legal, or the folder holds another run.
    """
    config = config if isinstance(config, Config) else load_config(config)
    if data is None:
        return train_in_folder(config, restart=restart)
    with in_place_of_rows(config.data.manifest, config.data.root, data) as own:
        return train_in_folder(reading_own(config), restart=restart, own=own)


def reading_own(config: Config) -> Config:
    """The same run, with the manifest in its own folder; both are named so that they are found from anywhere."""
    folder = config.run_dir.absolute()
    data = dataclasses.replace(config.data, manifest=str(folder / MANIFEST), root=None)
    return dataclasses.replace(config, output_dir=str(folder), data=data)


def train_in_folder(config: Config, *, restart: bool = False, own: OwnData | None = None) -> Run:
    """As `train`, of a config that reads what is first put into the run's folder.

    Args:
        config: It names the manifest that `own` is.
        restart: Throw away what is in the run's folder.
        own: The manifest and its rows; None where they lie where the config says.

    Raises:
        MmfuseError: As `train`, or the folder holds a run of other data.
    """
    for plugin in config.plugins:
        load_plugin(plugin)
    analyses = choose_analyses(config.evaluation.analyses)
    config = inherit(config)
    if has_begun(config.run_dir) and not restart:
        config = as_begun(config, config.run_dir)
    config, asked = heed_launch(config), config
    run_dir = config.run_dir
    began = time.perf_counter()
    with (
        open_accelerator(config) as accelerator,
        room_in(run_dir),
        claimed(run_dir, config, restart, accelerator, own) as begin,
    ):
        console = Console(stderr=True, quiet=not accelerator.is_main_process, highlight=False, soft_wrap=True)
        if config != asked:
            precision = config.training.mixed_precision
            console.print(f"training.mixed_precision: {precision}, as ACCELERATE_MIXED_PRECISION says")
        workers = default_workers() if config.data.num_workers is None else config.data.num_workers
        table, model, pairs, stream = set_up(config, accelerator, workers, console, run_dir)
        for analysis in analyses.values():
            analysis.check(table)
        if accelerator.is_main_process:
            describe(run_dir, config, table)
        workers = workers_of(stream.plan, workers) if stream else workers if pairs.live_images else 0
        trainer = Trainer(model, pairs, config, accelerator, run_dir, workers, stream=stream)
        if accelerator.is_fsdp2:
            console.print(tell_sharding(trainer.learner))
        if trainer.zero:
            console.print(tell_zero(accelerator))
        accelerator.init_trackers(config.name)
        begin()
        set_up_seconds = round(time.perf_counter() - began, 2)
        state = trainer.fit()
        unmoved = trainer.tell_unmoved()
        if unmoved:
            console.print(unmoved)
        for tracker in accelerator.trackers:  # end_training() would also leave the process group, still needed here
            tracker.finish()
        trained = time.perf_counter()
        report = _finish(trainer.model, pairs, trainer, run_dir, config, accelerator, analyses)
        if accelerator.is_main_process:
            times = {"set_up_seconds": set_up_seconds, "scoring_seconds": round(time.perf_counter() - trained, 2)}
            leave_page(trainer.model, pairs, run_dir, config, report, times, trainer.num_workers, console)
        accelerator.wait_for_everyone()
        return Run(run_dir, run_dir / "model", report, state.step, state.best_step)


def _finish(
    model: FusionModel,
    pairs: PairDataset,
    trainer: Trainer,
    run_dir: Path,
    config: Config,
    accelerator: Accelerator,
    analyses: dict[str, Analysis],
) -> dict[str, Any]:
    """Calibrate on validation, score the test split, write the model folder."""
    options: Any = {"batch_size": 2 * config.training.batch_size, "num_workers": trainer.num_workers}
    model.eval()
    if trainer.validation_rows:
        said = table_logits(model, pairs, trainer.validation_rows, **options)
        calibrate(model, pairs, trainer.validation_rows, said)
        choose_operating_points(model, config.tasks, pairs, trainer.validation_rows, said)
    split = scored_split(pairs.table)
    rows = pairs.table.indices(split)
    logits = table_logits(model, pairs, rows, **options)
    score = partial(score_rows, chosen=trainer.chosen)
    scores = score(model, pairs, rows, logits)
    add_operating_points(scores, model, pairs, rows, logits)
    missing = {"text": int((~pairs.table.has_text()[rows]).sum()), "image": int((~pairs.table.has_image()[rows]).sum())}
    report: dict[str, Any] = {"split": split, "rows": len(rows), "missing": missing, "tasks": scores}
    report["cut_texts"] = count_cut_texts(model, pairs, rows)
    if model.scored_in is not None:
        report["precision"] = f"precision {model.scored_in}"
    run_analyses(analyses, Scored(model, pairs, rows, logits, scores, score), report)
    now("writing report and model")
    if accelerator.is_main_process:
        write_report(run_dir / split, report, model, pairs, rows, logits)
        model.metrics = report
        model.card = model_card(model, pairs.table, config, report)
        scratch = run_dir / "model.tmp"
        shutil.rmtree(scratch, ignore_errors=True)
        model.save_pretrained(scratch)
        shutil.rmtree(run_dir / "model", ignore_errors=True)
        scratch.rename(run_dir / "model")
        lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        monitored = "validation_loss" if trainer.state.by_loss else trainer.monitored_name()
        less = monitored in lower_is_better(model)
        plot_learning_curve(lines, run_dir / "learning_curve.png", monitored, less=less)
    accelerator.wait_for_everyone()
    return report
