"""The numbers of a step are read at once, or while the next one is computed: what is told of it is the same."""

import json
import math

import pytest

import mmfuse
from mmfuse.training.loop import Trainer
from mmfuse.types import MmfuseError


@pytest.fixture
def late(monkeypatch):
    """Read numbers a step late from now on, as on a GPU."""
    train = Trainer._train

    def set_late(self):
        self.late = 1
        train(self)

    return lambda: monkeypatch.setattr(Trainer, "_train", set_late)


def told(run) -> list[dict]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [
        {name: value for name, value in line.items() if name not in ("seconds", "waited", "peak_mib")} for line in lines
    ]


def test_what_is_told_late_is_the_same(tiny, late):
    chosen = ["training.accumulation=3", "training.checkpoint_every=2"]
    wanted = mmfuse.train(tiny(*chosen, run="at_once"))
    late()
    found = mmfuse.train(tiny(*chosen, run="late"))
    assert told(found.dir) == told(wanted.dir)
    assert [line["step"] for line in told(found.dir)] == [1, 2, 3, 3, 4, 5, 6, 6]


@pytest.mark.parametrize("when", ["at once", "late"])
def test_a_loss_that_is_no_number_ends_the_run_before_it_is_kept(tiny, monkeypatch, late, when):
    step = Trainer.step

    def spoil(self, batches):
        if self.state.step == 3:
            next(self.model.heads.parameters()).data.fill_(math.nan)
        return step(self, batches)

    monkeypatch.setattr(Trainer, "step", spoil)
    if when == "late":
        late()
    config = tiny("training.checkpoint_every=1")
    with pytest.raises(MmfuseError, match=r"^the loss is nan at step 4: lower training\.learning_rate"):
        mmfuse.train(config)
    assert [path.name for path in (config.run_dir / "checkpoints").glob("step_*")] == ["step_00000003"]
    assert [line["step"] for line in told(config.run_dir)] == [1, 2, 3]
