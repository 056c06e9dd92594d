"""What a training run would take: steps, time, memory and disk, from a few measured steps; nothing is written."""

from __future__ import annotations

import copy
import dataclasses
import math
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from rich.console import Console

from mmfuse.config import Config
from mmfuse.data.batches.loader import move_batch
from mmfuse.data.batches.pairs import PairDataset
from mmfuse.data.batches.stream import Stream, workers_of
from mmfuse.data.shards.table import ShardedTable
from mmfuse.data.tables.splits import SPLITS
from mmfuse.memory import peak_memory
from mmfuse.model import FusionModel
from mmfuse.predict import default_workers, table_logits
from mmfuse.predict.estimate import tell_bytes, tell_seconds
from mmfuse.registry import load_plugin
from mmfuse.training.accelerator import open_accelerator
from mmfuse.training.inherit import inherit
from mmfuse.training.launch import heed_launch
from mmfuse.training.learner import Learner
from mmfuse.training.loop import Trainer
from mmfuse.training.optimization import parameter_groups
from mmfuse.training.optimizers import moments
from mmfuse.training.orders import build_order
from mmfuse.training.prepare import prepare, set_up
from mmfuse.training.trained import ever_trained, towers
from mmfuse.types import MmfuseError

TIMED_STEPS = 6
FEATURE_ROWS = 512
"""Rows whose frozen features are computed to see how long that takes."""
SCORED_ROWS = 128


@dataclass(frozen=True)
class TrainingEstimate:
    """What training would take, from the start; times are in seconds, sizes in bytes.

    Attributes:
        rows: By split.
        batch: Rows a step, over all processes.
        steps_per_epoch: Optimiser steps.
        steps: In all.
        parameters: Of the model.
        trained: Those that training changes.
        checkpoints: Last and best one together, at most.
        finished: What is left of them when training has ended.
        model: The model folder's weights.
        features: Of frozen towers, in the cache; 0 where none are kept.
        memory: Of this process at its peak.
        step: One optimiser step on ordinary batches.
        longest: One on the batches with the longest texts; None of streamed rows, of which these are not known.
        set_up: Rows read, model built, texts tokenised.
        computing: Of those features.
        validating: All evaluations of the validation split.
        testing: Of the test split.
    """

    rows: dict[str, int]
    batch: int
    steps_per_epoch: int
    steps: int
    parameters: int
    trained: int
    checkpoints: int
    finished: int
    model: int
    features: int
    memory: int
    step: float
    longest: float | None
    set_up: float
    computing: float
    validating: float
    testing: float

    @property
    def seconds(self) -> float:
        """In all."""
        return self.set_up + self.computing + self.steps * self.step + self.validating + self.testing

    def text(self) -> str:
        """All of it in lines."""
        longest = "" if self.longest is None else f"; {tell_seconds(self.longest)} with the longest texts"
        features = f", features of frozen encoders {tell_bytes(self.features)}" if self.features else ""
        computing = f"features {tell_seconds(self.computing)} (less if the cache has some), " if self.features else ""
        return "\n".join(
            [
                "rows:       " + ", ".join(f"{name} {self.rows[name]}" for name in SPLITS if self.rows.get(name)),
                f"steps:      {self.steps_per_epoch} an epoch of {self.batch} rows each, {self.steps} in all",
                f"parameters: {self.parameters:,}, {self.trained:,} of them trained",
                f"disk:       checkpoints {tell_bytes(self.checkpoints)}, and as much again while they are replaced, "
                f"{tell_bytes(self.finished)} at the end; model {tell_bytes(self.model)}{features}",
                f"memory:     {tell_bytes(self.memory)} at the peak of this process",
                f"a step:     {tell_seconds(self.step)}{longest}",
                f"time:       about {tell_seconds(self.seconds)}: set-up {tell_seconds(self.set_up)}, {computing}"
                f"steps {tell_seconds(self.steps * self.step)}, validation {tell_seconds(self.validating)}, test "
                f"{tell_seconds(self.testing)}",
                "not counted: loading Python, checkpoints, intervals and pictures; a run that ends early takes less",
                "nothing was written",
            ]
        )


def estimate_training(config: Config) -> TrainingEstimate:
    """Set a run up as `train` does, do a few of its steps and throw them away.

    Args:
        config: The run's. Its folder is neither read nor written: the estimate is of a run from the start.

    Raises:
        MmfuseError: As `train`, but for the folder.
    """
    for plugin in config.plugins:
        load_plugin(plugin)
    config = heed_launch(inherit(config))
    live = _without_cache(config)
    workers = default_workers() if config.data.num_workers is None else config.data.num_workers
    start = time.perf_counter()
    with open_accelerator(config) as accelerator, tempfile.TemporaryDirectory() as scratch:
        console = Console(stderr=True, quiet=not accelerator.is_main_process, highlight=False, soft_wrap=True)
        table, model, pairs, stream = set_up(live, accelerator, workers, console)
        set_up_seconds = time.perf_counter() - start
        rows = table.counts() if isinstance(table, ShardedTable) else dict(Counter(table.splits))
        sizes = _sizes(model, config)
        if stream is None:
            sample = _sample_table(model, pairs, config, accelerator, workers, Path(scratch))
            workers = workers if sample.pairs.live_images else 0  # as training has it
        else:
            sample = _sample_stream(pairs, stream, config, accelerator.process_index)
            workers = workers_of(stream.plan, workers)
        timed = dataclasses.replace(config, training=dataclasses.replace(config.training, order="by_length"))
        trainer = Trainer(model, sample.pairs, timed, accelerator, Path(scratch), 0, quiet=True, stream=stream)
        loading, longest, step = _time_steps(trainer, sample.batches)
        scoring = _time_scoring(trainer, sample.pairs, sample.scored)
        memory, world = peak_memory(accelerator.device), accelerator.num_processes
    training = config.training
    steps_per_epoch = math.ceil(sample.micro_batches / training.accumulation)
    steps = min(steps_per_epoch * training.epochs, training.max_steps or sys.maxsize)
    reading, a_row = loading * training.accumulation, loading / training.batch_size / world
    scoring = _overlapped(max(0.0, scoring - a_row), a_row, workers)
    evaluations = math.ceil(steps / steps_per_epoch) + 1  # after each epoch, and to calibrate
    return TrainingEstimate(
        rows=rows,
        batch=training.batch_size * training.accumulation * world,
        steps_per_epoch=steps_per_epoch,
        steps=steps,
        memory=memory,
        features=sample.features,
        step=_overlapped(step, reading, workers),
        longest=None if stream is not None else _overlapped(longest, reading, workers),
        set_up=set_up_seconds,
        computing=sample.computing,
        validating=evaluations * rows.get("validation", 0) * scoring,
        testing=(rows.get("test") or rows.get("validation") or rows["train"]) * scoring,
        **sizes,
    )


@dataclass(frozen=True)
class _Sample:
    """What is measured.

    Attributes:
        pairs: Rows as the model reads them.
        batches: Micro-batches of this process, as the Trainer's source takes them; the first of them are the longest.
        scored: Rows of `pairs` to score.
        micro_batches: Of a process in an epoch.
        features: Bytes that the features of all rows would take.
        computing: Seconds to compute them.
    """

    pairs: PairDataset
    batches: list[Any]
    scored: list[int]
    micro_batches: int
    features: int = 0
    computing: float = 0.0


def _sample_table(
    model: FusionModel, pairs: PairDataset, config: Config, accelerator: Accelerator, workers: int, scratch: Path
) -> _Sample:
    """The longest micro-batches of the first epoch, and others spread over it, as a small table of their own."""
    table, lengths, training = pairs.table, pairs.lengths(), config.training
    world, rank = accelerator.num_processes, accelerator.process_index
    epoch = build_order(config, pairs, world).plan(0)
    if not epoch:
        raise MmfuseError(f"the training split has {len(table.indices('train'))} rows for {world} processes")
    by_length = sorted(range(len(epoch)), key=lambda i: -max(lengths[row] for row in epoch[i][0]))
    spread = np.linspace(0, len(epoch) - 1, TIMED_STEPS * training.accumulation).astype(int).tolist()
    longest = (by_length * training.accumulation)[: training.accumulation]
    wanted = [epoch[i] for i in (*longest, *longest, *spread)]
    scored = [i for i, name in enumerate(table.splits) if name == "validation"] or table.indices("train")
    scored = _spread(scored, SCORED_ROWS)
    chosen = {row for ranks in wanted for rows in ranks for row in rows} | set(scored)
    caches = config.cache.enabled and any(tower.config.first_trained is None for tower in towers(model, config))
    if caches:
        chosen |= set(_spread(range(len(table)), FEATURE_ROWS))
    rows, clock = sorted(chosen), _Clock()
    place = {row: i for i, row in enumerate(rows)}
    own = dataclasses.replace(
        table,
        rows=table.rows.select(rows),
        targets={task: target[rows] for task, target in table.targets.items()},
        splits=[table.splits[row] for row in rows],
    )
    kept = _without_cache(config)
    kept.cache.enabled, kept.cache.dir = caches, str(scratch)
    small = prepare(model, own, kept, workers, Console(quiet=True), clock)
    items = {"text": int(table.has_text().sum()), "image": int(pairs.first_image[-1])}
    written = sum(file.stat().st_size for file in scratch.rglob("*.npy"))
    return _Sample(
        pairs=small,
        batches=[[place[row] for row in ranks[rank]] for ranks in wanted],
        scored=[place[row] for row in scored],
        micro_batches=len(epoch),
        features=round(written * len(table) / len(rows)),
        computing=sum(items[modality] * each for modality, each in clock.seconds_an_item().items()),
    )


def _sample_stream(pairs: PairDataset, stream: Stream, config: Config, rank: int) -> _Sample:
    """The first micro-batches of a lane: of streamed rows, which are the longest is not known."""
    plan = stream.plan
    number = min((TIMED_STEPS + 2) * config.training.accumulation, plan.per_lane)
    batches = [plan.positions(rank, i) for i in range(number)]
    scored = _spread(range(len(pairs)), SCORED_ROWS)
    return _Sample(pairs, batches, scored, len(plan))


def _time_steps(trainer: Trainer, batches: Sequence[Any]) -> tuple[float, float, float]:
    """Seconds to read a micro-batch, of the longest step once all is warm, and of an ordinary one (mean).

    The first micro-batch of a stream is read with its window, of whose micro-batches each bears a share.
    """
    source = (trainer.pairs if trainer.stream is None else trainer.stream).at(0)
    trainer.wrapped.train()
    reading, steps = [], []
    for first in range(0, len(batches), trainer.training.accumulation):
        found = []
        for rows in batches[first : first + trainer.training.accumulation]:
            start = time.perf_counter()
            found.append(source[rows])
            reading.append(time.perf_counter() - start)
        start = time.perf_counter()
        trainer.step([move_batch(batch, trainer.accelerator.device) for batch in found]).read()
        steps.append(time.perf_counter() - start)
    usual = float(np.mean(reading[1:] or reading))
    if trainer.stream is not None:
        usual += max(0.0, reading[0] - usual) / len(
            trainer.stream.plan.window_of(*trainer.stream.plan.locate(batches[0].start))
        )
    return usual, (steps[1:] or steps)[0], float(np.mean(steps[2:] or steps))


def _time_scoring(trainer: Trainer, pairs: PairDataset, rows: list[int]) -> float:
    """Seconds to read and score a row, without worker processes."""
    batch, model = 2 * trainer.training.batch_size, trainer.whole_model()
    table_logits(model, pairs, rows[:batch], batch_size=batch)
    start = time.perf_counter()
    table_logits(model, pairs, rows, batch_size=batch)
    return (time.perf_counter() - start) / len(rows)


def _overlapped(computing: float, reading: float, workers: int) -> float:
    """Seconds where worker processes read ahead, or where there is none."""
    return max(computing, reading / workers) if workers else computing + reading


class _Clock:
    """Notes when features are reported as computed."""

    def __init__(self) -> None:
        self.seen: dict[str, list[tuple[int, float]]] = defaultdict(list)
        self.start = time.perf_counter()

    def __call__(self, modality: str, done: int, total: int) -> None:
        self.seen[modality].append((done, time.perf_counter()))

    def seconds_an_item(self) -> dict[str, float]:
        """By modality, between its first and its last report; of one report alone, since the start."""
        found = {}
        for modality, reports in self.seen.items():
            (first, begun), (last, ended) = reports[0], reports[-1]
            found[modality] = (ended - begun) / (last - first) if last > first else (ended - self.start) / last
        return found


def _sizes(model: FusionModel, config: Config) -> dict[str, int]:
    """Numbers of parameters, and bytes of what is written of them, with the optimizer's moments."""
    trained = ever_trained(model, config)
    optimised = [p for group in parameter_groups(Learner(model, config), config) for p in group["params"]]
    state = {name: tensor.numel() * tensor.element_size() for name, tensor in model.state_dict().items()}
    kept = sum(size for name, size in state.items() if name in trained)
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "trained": sum(p.numel() for p in optimised),
        "checkpoints": 2 * kept
        + moments(config.training.optimizer) * sum(p.numel() * p.element_size() for p in optimised),
        "finished": kept,
        "model": sum(state.values()),
    }


def _without_cache(config: Config) -> Config:
    """The same run, with all encoders live."""
    live = copy.deepcopy(config)
    live.cache.enabled = False
    return live


def _spread(rows: Sequence[int], number: int) -> list[int]:
    """At most so many of the rows, from the first to the last."""
    return [rows[i] for i in np.unique(np.linspace(0, len(rows) - 1, number).astype(int))]
