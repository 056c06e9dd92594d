"""Batches that are copied to a card while it computes, and steps whose scaled gradient overflows."""

import json
import math

import pytest
import torch
from side_by_side import train_on
from torch.utils.data import Dataset

from mmfuse.data.batches.loader import PLAIN, Feed

pytestmark = pytest.mark.gpu
SIZE = 1 << 20


class Numbers(Dataset):
    """Rows to batches of four megabytes that tell row and epoch."""

    def __init__(self, epoch=PLAIN):
        self.epoch = epoch

    def at(self, epoch):
        return Numbers(epoch)

    def plain(self):
        return self

    def __getitem__(self, rows):
        values = torch.arange(SIZE, dtype=torch.float32) + rows[0] + self.epoch
        return {"row_ids": torch.tensor(rows), "values": values}


@pytest.mark.parametrize("num_workers", [0, 2])
def test_what_is_copied_ahead_arrives_whole(device, num_workers):
    """While a card is busy with each batch, the next one is copied beside it, and memory is used again."""
    passes = [(epoch, [[row] for row in range(12)]) for epoch in (0, PLAIN, 1, PLAIN)]
    busy, found = torch.rand(2048 if device.type == "cuda" else 64, 64, device=device), []
    with Feed(Numbers(), Numbers(), passes, num_workers, device) as feed:
        for epoch, batches in passes:
            for batch in feed.take(epoch, len(batches)):
                for _ in range(20):
                    busy = torch.nn.functional.normalize(busy @ (busy.T @ busy))
                found.append(batch["values"] + 0 * busy[0, 0])
                assert batch["row_ids"].device.type == device.type
    expected = [row + epoch for epoch, batches in passes for (row,) in batches]
    for values, first in zip(found, expected, strict=True):
        assert torch.equal(values.cpu(), torch.arange(SIZE, dtype=torch.float32) + first)


def test_fp16_goes_on_where_a_scaled_gradient_overflows(side, tiny, device):
    """Accelerate begins at a scale of 65,536: the first steps may be skipped, and are told."""
    if not side.real:
        pytest.skip("fp16 is for GPUs")
    run = train_on(device, tiny("training.mixed_precision=fp16", "training.epochs=3"))
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    assert all(math.isfinite(line["loss"]) for line in steps)
    assert all(line.get("skipped") or 0 < line["grad_norm"] < 1e3 for line in steps)
    assert sum(bool(line.get("skipped")) for line in steps) < len(steps) / 2
