"""Which evaluation's weights are kept: the best by what is monitored, or by the loss where that says nothing."""

from __future__ import annotations

from dataclasses import dataclass

from mmfuse.training.checkpoint import best_name

NO_MOVE = 1e-9
"""What the value must change by to have moved: a BLEU of captions without any right word is not quite 0."""


@dataclass
class Best:
    """The best evaluation so far.

    While the monitored value is the same in every evaluation, such as 0 of captions that are all wrong yet, it decides
    nothing: the first evaluation would be kept, the worst one. Then the lowest validation loss decides. Both weights
    are kept until the value moves, because a run in which it moves keeps the first of equally good ones.

    Attributes:
        best: The best monitored value so far; None before the first evaluation.
        best_step: Where it was.
        since_best: Evaluations without a better one.
        best_file: Its weights.
        moved: Whether the value has not been the same in all evaluations.
        alike: Evaluations in which it was the same, until it moved.
        loss: The lowest validation loss, until it moved.
        loss_step: Where it was.
        since_loss: Evaluations without a lower one.
        loss_file: Its weights; None once the value has moved.
    """

    best: float | None = None
    best_step: int = 0
    since_best: int = 0
    best_file: str | None = None
    moved: bool = False
    alike: int = 0
    loss: float | None = None
    loss_step: int = 0
    since_loss: int = 0
    loss_file: str | None = None

    def take(self, step: int, value: float, loss: float) -> tuple[bool, bool]:
        """Whether an evaluation has the best value so far, and whether its weights are to be kept.

        Args:
            step: The optimiser steps done.
            value: The monitored one, of which more is better.
            loss: Of the validation rows.
        """
        self.moved = self.moved or (self.best is not None and not abs(value - self.best) <= NO_MOVE)
        self.alike += 0 if self.moved else 1
        better = self.best is None or value > self.best
        lower = not self.moved and (self.loss is None or loss < self.loss)
        self.since_best = 0 if better else self.since_best + 1
        self.since_loss = 0 if lower else self.since_loss + 1
        if better:
            self.best, self.best_step, self.best_file = value, step, best_name(step)
        if lower:
            self.loss, self.loss_step, self.loss_file = loss, step, best_name(step)
        if self.moved:
            self.loss_file = None
        return better, better or lower

    def take_last(self, step: int) -> None:
        """Keep the newest weights: there are no validation rows."""
        self.best_step, self.best_file = step, best_name(step)

    @property
    def waited(self) -> int:
        """Evaluations without a better one, by what decides."""
        return self.since_best if self.moved else self.since_loss

    @property
    def by_loss(self) -> bool:
        """Whether the loss decides, of more than one evaluation."""
        return self.loss_file is not None and self.alike > 1

    def settle(self) -> None:
        """Training has ended: the loss has decided where the value never moved."""
        if self.loss_file is not None:
            self.best_step, self.best_file = self.loss_step, self.loss_file
