"""Which evaluation is kept: by the monitored value, and by the loss where that never moves."""

import json
from dataclasses import asdict

import pytest

from mmfuse.training.best import Best
from mmfuse.training.loop import TrainerState


def kept(values, losses, patience=None):
    """The step (from 1) that is kept, of evaluations; with patience, of those before training stops."""
    best = Best()
    for step, (value, loss) in enumerate(zip(values, losses, strict=True), 1):
        best.take(step, value, loss)
        best = Best(**json.loads(json.dumps(asdict(best))))  # as a run that is killed after every evaluation
        if patience is not None and best.waited >= patience:
            break
    best.settle()
    return best.best_step


@pytest.mark.parametrize(
    ("values", "losses", "step"),
    [
        ([0.0, 0.0, 0.0, 0.0], [4, 3, 1, 2], 3),  # it never moves: the lowest loss
        ([1.0, 1.0, 1.0], [2, 2, 2], 1),
        ([0.0, 3e-16, 2e-17, 0.0], [4, 3, 1, 2], 3),  # a BLEU of nothing
        ([0.5], [4], 1),
        ([0.5, 0.5, 0.5, 0.4], [4, 3, 2, 1], 1),  # it moves, so the first of the best, as ever
        ([0.5, 0.5, 0.6, 0.6], [1, 2, 3, 1], 3),
        ([0.0, 0.2, 0.2, 0.1], [4, 3, 2, 1], 2),
        ([0.5, 0.4, 0.5], [3, 2, 1], 1),
    ],
)
def test_which_evaluation_is_kept(values, losses, step):
    assert kept(values, losses) == step


def test_patience_counts_by_what_decides():
    falling = [6, 5, 4, 3, 2, 1]
    assert kept([0.0] * 6, falling, patience=2) == 6
    assert kept([0.0] * 6, falling[::-1], patience=2) == 1
    moved = Best()
    for step, value in enumerate([0.5, 0.5, 0.5, 0.4], 1):
        moved.take(step, value, -step)
    assert moved.waited == moved.since_best == 3  # as if the loss had never been asked


def test_both_weights_are_there_until_the_value_moves():
    best = Best()
    assert best.take(1, 0.5, 4.0) == (True, True)
    assert best.take(2, 0.5, 3.0) == (False, True)
    assert (best.best_file, best.loss_file) == ("best_00000001.safetensors", "best_00000002.safetensors")
    assert best.take(3, 0.5, 3.5) == (False, False)
    assert best.by_loss
    assert best.take(4, 0.4, 1.0) == (False, False)
    assert (best.best_file, best.loss_file, best.by_loss) == ("best_00000001.safetensors", None, False)


def test_of_a_checkpoint_of_before_the_metric_decides():
    """It does not say whether the value has moved; it is gone on with as it was begun."""
    state = {"best": 0.5, "best_step": 1, "best_file": "best_00000001.safetensors", "since_best": 3}
    old = TrainerState(**{"moved": state["best"] is not None} | state)
    assert old.take(5, 0.5, 0.0) == (False, False)
    assert (old.best_step, old.waited) == (1, 4)
