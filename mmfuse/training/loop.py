"""The one training loop: the same code for a CPU, a GPU, many GPUs and many machines."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

from mmfuse.config import Config
from mmfuse.data.batches.loader import PLAIN, Feed
from mmfuse.data.batches.pairs import PairDataset
from mmfuse.data.batches.stream import Stream
from mmfuse.encoders.adapters import merge_adapter
from mmfuse.encoders.image import ImageEncoder
from mmfuse.evaluation.chosen import chosen_metrics
from mmfuse.evaluation.evaluate import score_rows
from mmfuse.memory import give_back_if_scarce, peak_memory
from mmfuse.model import FusionModel
from mmfuse.predict import score_batches
from mmfuse.seeds import seed_step, step_seed
from mmfuse.training.batch_norm import is_synchronised, synchronise
from mmfuse.training.best import Best
from mmfuse.training.checkpoint import Checkpoints, load_optimizer, optimizer_state
from mmfuse.training.claim import check_shared, tell_kept
from mmfuse.training.data_parallel import choose_data_parallel
from mmfuse.training.identity import frozen_identity, rows_identity
from mmfuse.training.learner import Learner, current_names
from mmfuse.training.methods import build_method
from mmfuse.training.metrics_log import MetricsLog
from mmfuse.training.monitor import (
    MONITORED,
    flat_scores,
    lower_is_better,
    monitored,
    monitored_name,
    validation_loss,
)
from mmfuse.training.optimization import count_targets, learning_rate_factor, parameter_groups
from mmfuse.training.optimizers import build_optimizer
from mmfuse.training.orders import build_order
from mmfuse.training.passes import Passes
from mmfuse.training.progress import Progress
from mmfuse.training.sharded import (
    collect,
    fill_in,
    load_weights,
    prepare_sharding,
    resting,
    share_buffers,
    whole,
    whole_model,
)
from mmfuse.training.taken import Taken
from mmfuse.training.trained import ever_trained, freeze_towers, towers
from mmfuse.training.zero import (
    begin_moments,
    is_zero,
    load_zero,
    prepare_zero,
    reduced_once,
    zero_state,
    zero_step,
)
from mmfuse.types import Batch, MmfuseError, Step, Stopped

LEAST_SCALE = 2.0**-14
"""Of fp16's loss: below it, what is not finite is no overflow that another scale would mend."""
METHOD = "method."
"""Begins the names of the method's tensors in a checkpoint."""


@dataclass
class TrainerState(Best):
    """All that a resumed run must know beside weights and optimiser; the rest follows from the config and the step.

    What is the best evaluation is told by `Best`.

    Attributes:
        step: Optimiser steps done.
        epoch: The epoch being trained, from 0.
        step_in_epoch: Steps of it that are done.
        finished: Whether training has ended.
        identity: Of what never changes in a run (frozen weights, vocabulary): must be the same on resume.
        rows: `rows_identity`, or `Stream.identity` where rows are streamed: must be the same on resume.
        processes: How many train: must be as many on resume, as a step's rows are theirs together.
        scaler: Of fp16.
        method: What of the method's state is no tensor.
    """

    step: int = 0
    epoch: int = 0
    step_in_epoch: int = 0
    finished: bool = False
    identity: str = ""
    rows: str = ""
    processes: int = 1
    scaler: dict[str, Any] = field(default_factory=dict)
    method: dict[str, Any] = field(default_factory=dict)


class Trainer:
    """Train a model on the training split, evaluate it on the validation split, keep the best.

    Args:
        model: On no device yet; it is moved.
        pairs: The table as this model reads it.
        config: The run's.
        accelerator: Decides about devices, processes and precision.
        run_dir: For `metrics.jsonl` and `checkpoints/`.
        num_workers: Processes that read images; 0 where everything comes from a cache.
        quiet: Show no progress.
        stream: The training rows, where they are not in `pairs` but read from shards.
    """

    def __init__(
        self,
        model: FusionModel,
        pairs: PairDataset,
        config: Config,
        accelerator: Accelerator,
        run_dir: Path,
        num_workers: int,
        quiet: bool = False,
        stream: Stream | None = None,
    ):
        self.quiet = quiet
        self.model, self.pairs, self.config = model, pairs, config
        self.accelerator, self.run_dir, self.num_workers = accelerator, run_dir, num_workers
        self.training = config.training
        self.stream = stream
        self.chosen = chosen_metrics(model, config.tasks, config.training.monitor)
        self.train_rows = pairs.table.indices("train") if stream is None else []
        self.validation_rows = [i for i, name in enumerate(pairs.table.splits) if name == "validation"]
        self.order = None if stream is not None else build_order(config, pairs, accelerator.num_processes)
        self.learner = Learner(model, config)
        self.method = build_method(config.training.method)
        self.method.check(model, config)
        freeze_towers(model, config)  # what is trained some day must be known to the optimiser and to DDP
        self.state = TrainerState(
            identity=frozen_identity(model, ever_trained(model, config)),
            rows=stream.identity if stream else rows_identity(pairs, self.order.identity if self.order else ""),
            processes=accelerator.num_processes,
        )
        if len(set(gather_object([self.state.rows]))) > 1:
            raise MmfuseError(
                f"{pairs.table.manifest.source}: the processes do not read the same rows; all machines must "
                "have the same data"
            )
        self.skeleton = prepare_sharding(self.learner) if accelerator.is_fsdp2 else None
        self.zero = is_zero(accelerator)
        if self.zero:
            prepare_zero(self.learner, config, accelerator)
        if isinstance(model.image_encoder, ImageEncoder) and is_synchronised(config, accelerator.num_processes):
            synchronise(model.image_encoder)
        self.optimizer = build_optimizer(config.training.optimizer, parameter_groups(self.learner, config))
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        lacks = pairs.table.lacks("train")
        complete = not any(lacks[modality] for modality in model.uses)
        choose_data_parallel(accelerator, self.learner, config, self.method, complete)
        self.wrapped, self.prepared = accelerator.prepare(self.learner, self.optimizer)
        if self.zero:
            begin_moments(self.wrapped, self.optimizer)
        if stream is None and len(self.train_rows) < accelerator.num_processes:
            raise MmfuseError(
                f"the training split has {len(self.train_rows)} rows for {accelerator.num_processes} processes"
            )
        self._plans: dict[int, Sequence[Sequence[Sequence[int]]]] = {}
        self.steps_per_epoch = math.ceil(len(self.plan(0)) / self.training.accumulation)
        self.total_steps = self.steps_per_epoch * self.training.epochs
        if self.training.max_steps is not None:
            self.total_steps = min(self.total_steps, self.training.max_steps)
        self.checkpoints = Checkpoints(run_dir / "checkpoints")
        self.log = MetricsLog(run_dir / "metrics.jsonl", accelerator)
        self._feed: Feed
        self.late = int(accelerator.device.type != "cpu")  # steps that are begun before the last one's numbers are read
        self.untold: deque[tuple[Taken, int, float, float]] = deque()
        self.told = 0.0

    def fit(self) -> TrainerState:
        """Train to the end, from the last checkpoint if there is one; the model then has the best weights.

        Raises:
            MmfuseError: The folder holds another run, or the loss is no number.
            Stopped: A KeyboardInterrupt, with the steps done and the checkpoint that is kept.
        """
        self._resume()
        try:
            self._train()
        except KeyboardInterrupt as stop:
            raise Stopped(tell_kept(self.run_dir, self.state.step)) from stop
        self.state.settle()
        self.model = self.whole_model()
        best = self.checkpoints.load_best(asdict(self.state))
        if best is not None:
            self.model.load_state_dict(best, strict=False)
        for tower in towers(self.model, self.config):
            merge_adapter(tower.module)
        return self.state

    def whole_model(self) -> FusionModel:
        """The model outside of its wrappers; of a sharded one, a copy that every process must ask for."""
        return self.model if self.skeleton is None else whole_model(self.skeleton, self.model)

    def _train(self) -> None:
        if self.state.finished:  # else rows are read ahead that nobody asks for
            return
        shown = self.accelerator.is_main_process and not self.quiet
        source = self.pairs if self.stream is None else self.stream
        feed = Feed(source, self.pairs, self._coming(), self.num_workers, self.accelerator.device)
        with feed as self._feed, Progress(self.total_steps, self.state.step, shown) as progress:
            while not self.state.finished:
                freeze_towers(self.model, self.config, self.state.epoch)
                self._train_epoch(progress)
                self._end_epoch(progress)

    def plan(self, epoch: int) -> Sequence[Sequence[Sequence[int]]]:
        """Micro-batches of the epoch, by their number and process: row numbers, or of a stream positions."""
        if self.order is None:
            return self.stream.plan  # type: ignore[union-attr]
        if epoch not in self._plans:  # the next one is asked for before this one is done
            self._plans = {number: plan for number, plan in self._plans.items() if number == epoch - 1}
            self._plans[epoch] = self.order.plan(epoch)
        return self._plans[epoch]

    def _coming(self) -> Iterator[tuple[int, Iterator[Sequence[int]]]]:
        """All micro-batches of this process up to the end of training, by epoch, and after each those of validation."""
        step, epoch, done = self.state.step, self.state.epoch, self.state.step_in_epoch
        rank = self.accelerator.process_index
        while step < self.total_steps:
            plan, numbers = self.plan(epoch), self._numbers(step, epoch, done)
            yield epoch, (plan[number][rank] for number in numbers)
            yield PLAIN, iter(self._evaluated())
            step, epoch, done = step + math.ceil(len(numbers) / self.training.accumulation), epoch + 1, 0

    def _numbers(self, step: int, epoch: int, done: int) -> range:
        """The micro-batches that are left of an epoch of which so many steps are done, after `step` in all."""
        accumulation = self.training.accumulation
        end = (done + self.total_steps - step) * accumulation
        return range(done * accumulation, min(end, len(self.plan(epoch))))

    def _evaluated(self) -> list[list[int]]:
        """The batches of an evaluation, of this process."""
        own = self.accelerator.process_index, self.accelerator.num_processes
        return self.pairs.batches(self.validation_rows, 2 * self.training.batch_size, *own, self.num_workers)

    def _train_epoch(self, progress: Progress) -> None:
        accumulation, plan = self.training.accumulation, self.plan(self.state.epoch)
        left = self._numbers(self.state.step, self.state.epoch, self.state.step_in_epoch)
        self.wrapped.train()
        loader = self._feed.take(self.state.epoch, len(left))
        for first in left[::accumulation]:
            start = time.perf_counter()
            numbers = range(first, min(first + accumulation, left.stop))
            batches = [next(loader) for _ in numbers]
            waited = time.perf_counter() - start
            taken = self.step(batches)
            self.state.step += 1
            self.state.step_in_epoch += 1
            samples = sum(len(rows) for number in numbers for rows in plan[number])
            self.untold.append((taken, samples, start, waited))
            self._tell(progress, but=self.late)
            every = self.training.checkpoint_every
            if every and self.state.step % every == 0 and numbers.stop < left.stop:
                self._tell(progress)
                self._checkpoint(best=False)
        self._tell(progress)

    def _tell(self, progress: Progress, but: int = 0) -> None:
        """Log the steps that were taken, all but the last ones, whose numbers a GPU may still be computing."""
        while len(self.untold) > but:
            taken, samples, start, waited = self.untold.popleft()
            found, start = taken.read(), max(start, self.told)
            if found.skipped and self.accelerator.scaler.get_scale() < LEAST_SCALE:  # type: ignore[union-attr]
                raise MmfuseError(
                    f"the gradient is not finite in fp16 at step {taken.step}, however it is scaled: lower "
                    "training.learning_rate, or set training.mixed_precision to bf16"
                )
            self.told = time.perf_counter()
            self.log.step(
                step=taken.step,
                epoch=self.state.epoch,
                loss=found.loss,
                **({"losses": found.losses} if len(found.losses) > 1 else {}),
                **({"grad_norm": None, "skipped": True} if found.skipped else {"grad_norm": found.norm}),
                learning_rate=found.rate,
                samples=samples,
                seconds=self.told - start,
                waited=waited,
            )
            progress.advance(found.loss, samples)

    def step(self, batches: list[Batch]) -> Taken:
        """One optimiser step; its numbers can be read at once, or later."""
        seed_step(self.config.seed, self.state.step, self.accelerator.process_index)
        rate = learning_rate_factor(self.state.step, self.total_steps, self.training.warmup, self.training.schedule)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * rate
        device = self.accelerator.device
        step = self._step_of(count_targets(self.model, batches))
        total = torch.zeros(1 + len(self.learner.parts), device=device)
        blank = fill_in(self.model, batches, self.accelerator) if self.skeleton is not None else [[]] * len(batches)
        with reduced_once(self.wrapped) if self.zero else nullcontext():
            for i, batch in enumerate(batches):
                total += self._learn(batch, step, self.zero or i == len(batches) - 1, blank[i])
        if self.method.edits_gradients:
            self.accelerator.unscale_gradients(self.prepared)
            self.method.gradients(self.learner, step)
        norm = zero_step(self.wrapped) if self.zero else self._clip()
        self.prepared.step()
        self.prepared.zero_grad(set_to_none=True)
        summed: Tensor = self.accelerator.reduce(total, "sum")  # type: ignore[assignment]
        numbers = torch.cat([summed, whole(norm).to(summed).reshape(1)])
        rate, scaled = self.optimizer.param_groups[0]["lr"], self.accelerator.scaler is not None
        return Taken(numbers, self.learner.parts, self.state.step + 1, rate, scaled)

    def _clip(self) -> Tensor:
        """The norm of the gradient before it is clipped; 0 where it is not, but in fp16, where it tells an overflow."""
        most, scaled = self.training.clip_norm, self.accelerator.scaler is not None
        if most is None and not scaled:
            return torch.zeros((), device=self.accelerator.device)
        most = math.inf if most is None else most
        if scaled and self.method.edits_gradients:  # already unscaled, and once only
            return nn.utils.clip_grad_norm_(self.wrapped.parameters(), most)
        return self.accelerator.clip_grad_norm_(self.wrapped.parameters(), most)  # type: ignore[return-value]

    def _step_of(self, counts: list[float]) -> Step:
        """The step that is next, with `count_targets` over all processes."""
        if self.accelerator.num_processes > 1:
            own = torch.tensor(counts, dtype=torch.float64, device=self.accelerator.device)
            counts = self.accelerator.reduce(own, "sum").tolist()  # type: ignore[union-attr]
        *targets, rows = counts
        number, epoch, seed = self.state.step, self.state.epoch, self.config.seed
        own = dict(zip(self.model.heads, targets, strict=True))
        return Step(number, self.total_steps, epoch, step_seed(seed, number), own, rows)

    def _learn(self, batch: Batch, step: Step, last: bool, blank: Sequence[nn.Module]) -> Tensor:
        """The backward passes of a micro-batch; `(1 + parts,)` its share of the loss, and of the first pass's parts."""
        backward: Any = self.wrapped.backward if self.zero else self.accelerator.backward
        passes = Passes(self.wrapped, self.learner, held=self.skeleton is not None)
        losses = self.method.losses(passes.learn, passes.look, batch, step)
        total = torch.zeros((), device=self.accelerator.device)
        for number in range(1, self.method.passes + 1):
            synchronised = self.zero or (last and number == self.method.passes)
            sync = nullcontext() if synchronised else self.accelerator.no_sync(self.wrapped)
            with sync, self.accelerator.autocast(), resting(blank):
                loss = next(losses)
                backward(loss * self.accelerator.num_processes)  # DDP takes the mean over processes; this is a sum
            total = total + loss.detach()
        for _ in losses:  # to its end, which may put back what it has changed
            raise RuntimeError(f"{type(self.method).__name__} yields more losses than its passes, {self.method.passes}")
        assert passes.parts is not None
        return torch.cat([total[None], passes.parts])

    def _end_epoch(self, progress: Progress) -> None:
        ended = self.state.step >= self.total_steps
        if self.state.step_in_epoch >= self.steps_per_epoch:
            self.state.epoch += 1
            self.state.step_in_epoch = 0
        kept = True
        give_back_if_scarce()
        if self.validation_rows:
            value, line = self._validate()
            best, kept = self.state.take(self.state.step, value, line["validation_loss"])
            line["peak_mib"] = round(peak_memory(self.accelerator.device) / 2**20, 1)
            self.log.validation({"step": self.state.step, "epoch": self.state.epoch, **line, "best": best})
            progress.validated(value, self.state.epoch, best)
            patience = self.training.patience
            ended = ended or (patience is not None and self.state.waited >= patience)
        else:
            self.state.take_last(self.state.step)
        self.state.finished = ended
        if ended:
            self.state.settle()
        self._checkpoint(kept)

    def _validate(self) -> tuple[float, dict[str, Any]]:
        """The monitored value (larger is better), and the line for `metrics.jsonl`."""
        rows, targets = self.validation_rows, self.pairs.table.targets
        if self.skeleton is None:  # the bare model: a wrapper would wait for processes that have no row
            share_buffers(self.learner)
        model = self.whole_model()
        batches = self._evaluated()
        logits = score_batches(model, rows, self._feed.take(PLAIN, len(batches)), len(batches))
        loss = validation_loss(self.model, self.learner.task_weights, logits, targets, rows, self.accelerator.device)
        scores = score_rows(self.model, self.pairs, rows, logits, resamples=0, chosen=self.chosen)
        values = flat_scores(scores)
        found = monitored(self.training.monitor, self.model, values)
        value = -loss if found is None else found
        if self.monitored_name() == MONITORED:
            values[MONITORED] = value
        return value, {"validation_loss": loss, "validation": values}

    def monitored_name(self) -> str:
        """What `metrics.jsonl` calls the value that training stops on."""
        return monitored_name(self.training.monitor, self.model)

    def tell_unmoved(self) -> str | None:
        """What is to be said where the monitored metric was the same in every evaluation."""
        value, name = self.state.best, self.monitored_name()
        if not self.state.by_loss or value is None:
            return None
        value = -value if name in lower_is_better(self.model) else value
        return (
            f"{name} was {value:.4g} in all {self.state.alike} evaluations, so the validation loss decided: step "
            f"{self.state.loss_step} is kept"
        )

    def _trained_weights(self) -> dict[str, Tensor]:
        trained = ever_trained(self.model, self.config)
        found = {name: tensor for name, tensor in self.model.state_dict().items() if name in trained}
        return collect((found | self.learner.own_state()).items())

    def _checkpoint(self, best: bool) -> None:
        self.log.flush()
        self.accelerator.wait_for_everyone()
        main = self.accelerator.is_main_process
        if self.zero:
            share_buffers(self.learner)
        optimizer = self._moments()
        if main or self.skeleton is not None:
            weights = self._trained_weights()
        if main:
            scaler = self.accelerator.scaler
            own = self.method.state_dict()
            weights |= {f"{METHOD}{name}": value for name, value in own.items() if isinstance(value, Tensor)}
            self.state.method = {name: value for name, value in own.items() if not isinstance(value, Tensor)}
            state = {**asdict(self.state), "scaler": scaler.state_dict() if scaler is not None else {}}
            self.checkpoints.save(self.state.step, state, weights, optimizer, best)
        self.accelerator.wait_for_everyone()

    def _moments(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What the optimiser keeps of each weight, of the main process; all processes ask."""
        if self.state.finished:  # nothing goes on from it
            return {}, {"state": {}, "groups": [{"lr": group["lr"]} for group in self.optimizer.param_groups]}
        if self.zero:
            return zero_state(self.optimizer, self.parameters)
        if self.accelerator.is_main_process or self.skeleton is not None:  # what is sharded, all give their part of
            return optimizer_state(self.optimizer)
        return {}, {}

    def _resume(self) -> None:
        loaded = self.checkpoints.load_last()
        check_shared(self.run_dir, loaded[0]["step"] if loaded else None)
        if loaded is None:
            self.log.cut(0)
            return
        state, weights, tensors = loaded
        plain = state.pop("optimizer")
        now = self.state.processes
        began = state.get("processes", now)
        if began != now and not state["finished"]:
            raise MmfuseError(
                f"{self.run_dir}: cannot resume: num_processes was {began}, is now {now}; start {began}, or --restart "
                "to throw the run away"
            )
        if state.get("rows") != self.state.rows:
            what = "shards" if self.stream else "rows (ids, order, splits, texts or targets)"
            raise MmfuseError(
                f"{self.run_dir}: cannot resume: the {what} are not those of its checkpoint; put them back, or "
                "--restart to throw the run away"
            )
        if state["identity"] != self.state.identity:
            raise MmfuseError(
                f"{self.run_dir}: cannot resume: the frozen encoder's weights or the vocabulary are not those that it "
                f"began with"
            )
        self.log.cut(state["step"])
        state.setdefault("moved", state["best"] is not None)  # a run that was begun before this was kept
        self.state = TrainerState(**state)
        weights = current_names(weights)
        load_weights(self.model, weights)
        load_weights(self.learner, {name: weights[name] for name in self.learner.own_state()})
        if self.state.finished:
            return
        own = {n.removeprefix(METHOD): tensor for n, tensor in weights.items() if n.startswith(METHOD)}
        self.method.load_state_dict({**self.state.method, **own})
        if self.zero:
            load_zero(self.wrapped, self.optimizer, self.parameters, tensors)
        else:
            load_optimizer(self.optimizer, tensors, plain)
        if self.accelerator.scaler is not None and self.state.scaler:
            self.accelerator.scaler.load_state_dict(self.state.scaler)
