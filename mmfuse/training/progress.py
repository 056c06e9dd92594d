"""What a user sees while a model trains: loss, metric, rate and time left."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from mmfuse.bars import can_draw
from mmfuse.pulse import now, said

QUIET_SECONDS = 30.0


class Progress:
    """A bar on a terminal or in a notebook; elsewhere a line every half minute and at every evaluation.

    Args:
        total: Optimiser steps of the run.
        done: Those done already.
        enabled: False on all but the main process.
    """

    def __init__(self, total: int, done: int, enabled: bool):
        self.console = Console(stderr=True, quiet=not enabled, soft_wrap=True)
        self.total, self.done, self.first = total, done, done
        self.loss = self.metric = float("nan")
        self.started = self.printed = time.monotonic()
        self.samples = 0
        self.bar: Bar | None = None
        if enabled and can_draw(self.console):
            self.bar = Bar(
                TextColumn("training"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn(
                    "loss {task.fields[loss]:.4f}  metric {task.fields[metric]:.4f}  {task.fields[rate]:.0f} samples/s"
                ),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=self.console,
            )
            self.task = self.bar.add_task("", total=total, completed=done, loss=self.loss, metric=self.metric, rate=0.0)

    def __enter__(self) -> Progress:
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        if self.bar:
            self.bar.stop()

    @property
    def rate(self) -> float:
        """Samples per second since the start."""
        return self.samples / max(time.monotonic() - self.started, 1e-6)

    def advance(self, loss: float, samples: int) -> None:
        """One more step."""
        self.done += 1
        self.samples += samples
        self.loss = loss
        now("training, steps", self.done, self.total)
        if self.bar:
            self.bar.update(self.task, advance=1, loss=self.loss, rate=self.rate)
        elif time.monotonic() - self.printed > QUIET_SECONDS:
            self.line()

    def validated(self, metric: float, epoch: int, best: bool) -> None:
        """An evaluation's monitored value."""
        self.metric = metric
        if self.bar:
            self.bar.update(self.task, metric=metric)
        self.line(f"epoch {epoch}: metric {metric:.4f}{' (best)' if best else ''}, ")

    def line(self, start: str = "") -> None:
        """Print where we are, as one line."""
        self.printed = time.monotonic()
        said()
        steps = max(1, self.done - self.first)
        left = (self.printed - self.started) * (self.total - self.done) / steps
        self.console.print(
            f"{start}step {self.done}/{self.total}, loss {self.loss:.4f}, {self.rate:.1f} samples/s, at most "
            f"{left:.0f} s left",
            highlight=False,
        )
