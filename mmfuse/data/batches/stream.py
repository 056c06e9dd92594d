"""Training from shards: an epoch's order as arithmetic over their index, and windows of it as small tables.

The train shards, in an order of (seed, epoch), are one sequence of rows. It is cut into lanes of equal length, which
are read side by side; within a lane, windows of rows are read, shuffled and grouped by length of text. So any
micro-batch can be found by its number: nothing is kept of what was read before, by a resumed run as by a new one.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from torch.utils.data import Dataset

from mmfuse.data.batches.pairs import PairDataset
from mmfuse.data.shards.table import ArrowImages, EncodedTable, ShardedTable, ShardRows, table_parts
from mmfuse.data.tables.table import Table
from mmfuse.types import Batch, MmfuseError

_SHARING = 4
"""Workers that share a lane at most."""


@dataclass(frozen=True)
class StreamPlan(Sequence):
    """Where an epoch's micro-batches lie in its sequence of rows; by step, that of each process.

    Micro-batch t is the (t // lanes)-th of lane t % lanes, and that of step s and process r is s * world + r. Each row
    is in one of them; all lanes have as many, so all processes end at the same step. A lane's last one takes what
    remains: 1 to batch_size + 1 rows. Lanes begin in different places of their windows, so that not all are read at
    once.

    Attributes:
        rows: Of the sequence, at least as many as lanes.
        lanes: A multiple of `world`.
        batch_size: Rows of a micro-batch.
        window: Micro-batches that are shuffled together.
        world: Processes.
    """

    rows: int
    lanes: int
    batch_size: int
    window: int
    world: int = 1

    @property
    def per_lane(self) -> int:
        """Micro-batches of a lane."""
        return -(-(self.rows // self.lanes) // self.batch_size)

    def __len__(self) -> int:
        return self.per_lane * (self.lanes // self.world)

    def __getitem__(self, step: Any) -> Any:
        """The micro-batch of each process in a step, as positions in the sequence."""
        if not 0 <= step < len(self):
            raise IndexError(step)
        numbers = range(step * self.world, (step + 1) * self.world)
        return [self.positions(t % self.lanes, t // self.lanes) for t in numbers]

    def positions(self, lane: int, number: int) -> range:
        """A lane's micro-batch."""
        first, end = lane * self.rows // self.lanes, (lane + 1) * self.rows // self.lanes
        start = first + number * self.batch_size
        return range(start, end if number == self.per_lane - 1 else start + self.batch_size)

    def locate(self, position: int) -> tuple[int, int]:
        """The lane of a row, and which of its micro-batches."""
        lane = ((position + 1) * self.lanes - 1) // self.rows
        number = (position - lane * self.rows // self.lanes) // self.batch_size
        return lane, min(number, self.per_lane - 1)

    def window_of(self, lane: int, number: int) -> range:
        """The micro-batches of a lane that are shuffled with this one."""
        ahead = lane * self.window // self.lanes
        first = (number + ahead) // self.window * self.window - ahead
        return range(max(0, first), min(first + self.window, self.per_lane))


@dataclass
class _Window:
    """Rows of a lane that are in memory, with those of each of its micro-batches, by their first position."""

    key: tuple[int, int]
    pairs: PairDataset
    rows: dict[int, list[int]]


class Stream(Dataset):
    """Positions in an epoch's sequence to a packed batch. A process keeps one window of each lane that it reads.

    Args:
        table: Its training rows are streamed.
        prepare: A window as the model reads it; it goes to worker processes.
        plan: Which rows are in which micro-batch.
        seed: Of the order.

    Attributes:
        epoch: The one being trained; `at` gives the stream of another one.
    """

    def __init__(self, table: ShardedTable, prepare: Callable[[Table], PairDataset], plan: StreamPlan, seed: int):
        self.manifest, self.labels, self.shards = table.manifest, table.labels, table.shards
        self.prepare, self.plan, self.seed = prepare, plan, seed
        self.epoch = 0
        self._windows: dict[int, _Window] = {}

    def at(self, epoch: int) -> Self:
        """The stream of an epoch, with no window read yet."""
        found = copy.copy(self)
        found.epoch = epoch
        return found

    @property
    def identity(self) -> str:
        """Of the rows and their order: a resumed run must find the same."""
        plan = [self.plan.rows, self.plan.lanes, self.plan.batch_size, self.plan.window]
        values = [self.shards.identity, sorted(self.shards.damaged), plan, self.seed]
        return hashlib.sha256(json.dumps(values).encode()).hexdigest()

    def __getitem__(self, positions: range) -> Batch:
        """The micro-batch at these positions of the epoch.

        Raises:
            MmfuseError: A shard or an image cannot be read; the message names it.
        """
        lane, number = self.plan.locate(positions.start)
        numbers = self.plan.window_of(lane, number)
        held = self._windows.get(lane)
        if held is None or held.key != (self.epoch, numbers.start):
            self._windows.pop(lane, None)  # two need not be held
            held = self._windows[lane] = self._read(lane, numbers)
        return held.pairs[held.rows[positions.start]]

    def _read(self, lane: int, numbers: range) -> _Window:
        """A window: its rows in an order of (seed, epoch, lane, window), those with texts of like length together."""
        parts = [self.plan.positions(lane, number) for number in numbers]
        found = self._sequence().read(parts[0].start, parts[-1].stop, self._columns())
        size = found.num_rows
        images = ArrowImages(found["images"])
        described = table_parts(self.manifest, self.labels, found)
        table = EncodedTable(**described, splits=["train"] * size, encoded=images)  # type: ignore[arg-type]
        pairs = self.prepare(table).at(self.epoch)
        rng = np.random.default_rng([self.seed, self.epoch, lane, numbers.start])
        order = rng.permutation(size)
        order = order[np.argsort(-(-pairs.lengths()[order] // 8), kind="stable")]
        turns, taken, rows = rng.permutation(len(parts)), 0, {}
        for turn in turns:
            positions = parts[turn]
            rows[positions.start] = order[taken : taken + len(positions)].tolist()
            taken += len(positions)
        return _Window((self.epoch, numbers.start), pairs, rows)

    def _sequence(self) -> ShardRows:
        """The epoch's sequence: the train shards in an order of (seed, epoch)."""
        shards = self.shards.of("train")
        order = np.random.default_rng([self.seed, self.epoch]).permutation(len(shards))
        return ShardRows(self.shards, [shards[i] for i in order])

    def _columns(self) -> list[str]:
        subgroups = [f"subgroup.{name}" for name in self.manifest.subgroups]
        return ["id", "group", "images", "text", *subgroups, *(f"target.{task}" for task in self.labels)]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_windows": {}}


def plan_stream(rows: int, lanes: int, shuffle_buffer: int, batch_size: int, world: int) -> StreamPlan:
    """The plan of a stream.

    Args:
        rows: Training rows.
        lanes: As wanted; rounded up to a multiple of `world`.
        shuffle_buffer: Rows of a window; rounded up to whole micro-batches.
        batch_size: Rows of a micro-batch.
        world: Processes.

    Raises:
        MmfuseError: There are fewer rows than lanes.
    """
    lanes = -(-lanes // world) * world
    if rows < lanes:
        raise MmfuseError(
            f"the training split has {rows} rows for {lanes} lanes and {world} processes: lower data.lanes"
        )
    return StreamPlan(rows, lanes, batch_size, -(-shuffle_buffer // batch_size), world)


def workers_of(plan: StreamPlan, wanted: int) -> int:
    """The workers of a process, at most `wanted`: as many to each of its lanes, or as many lanes to each.

    Where a lane has several, at most four, each reads its windows, and prepares its turns of them: bytes are read more
    than once, but images are decoded once. Who prepares a batch changes nothing of it.
    """
    own = plan.lanes // plan.world
    if wanted >= 2 * own:
        return own * min(_SHARING, wanted // own)
    return max((n for n in range(1, min(wanted, own) + 1) if own % n == 0), default=0)
