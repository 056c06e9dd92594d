"""Orders: which training rows an epoch has, and in which batches, one file each, found by name; a run has one."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from mmfuse.config import Config
from mmfuse.data.batches.pairs import PairDataset
from mmfuse.data.shards.table import ShardedTable
from mmfuse.data.tables.table import Table
from mmfuse.registry import Registry
from mmfuse.types import MmfuseError

ORDERS = Registry("order", reserved=("given",))


class Given(NamedTuple):
    """What an order is made of.

    Attributes:
        table: All rows.
        rows: Numbers of the training split's.
        lengths: `(all rows,)` tokens of each row, so that texts of like length can be put together.
        batch_size: Rows of a process's batch.
        world: Processes; a global batch has `batch_size * world` rows.
        seed: The run's.
    """

    table: Table
    rows: Sequence[int]
    lengths: np.ndarray
    batch_size: int
    world: int
    seed: int


@runtime_checkable
class Order(Protocol):
    """What an order offers; its constructor starts with `given`, and the rest of its signature is its config schema.

    `mmfuse check NAME --kind orders` tests all of this.

    Attributes:
        identity: Of all that the plan depends on beside the rows' ids, splits, texts and targets: a resumed run must
            have the same. "" where there is no more.
    """

    identity: str

    def plan(self, epoch: int) -> Sequence[Sequence[Sequence[int]]]:
        """An epoch's batches: of each, the rows of each process, of which none has none.

        It depends on seed and epoch alone, each epoch has as many batches, and the rows of a global batch are the same
        for any number of processes that divides it.
        """
        ...


def build_order(config: Config, pairs: PairDataset, world: int) -> Order:
    """The order that a config chooses.

    Raises:
        MmfuseError: There is no such order, it refuses an option, or cannot be had of these rows.
    """
    table = pairs.table
    return _build(config, table, Given(table, table.indices("train"), pairs.lengths(), *_sizes(config, world)))


def check_order(config: Config, table: Table) -> None:
    """Refuse, before anything is computed, an order that these rows cannot have.

    Raises:
        MmfuseError: As `build_order`, or another order than today's of rows that are streamed.
    """
    name, _ = ORDERS.chosen(config.training.order, "training.order")
    if not isinstance(table, ShardedTable):
        _build(config, table, Given(table, table.indices("train"), np.zeros(len(table), int), *_sizes(config, 1)))
    elif name != "by_length":
        raise MmfuseError(
            f"training.order: {name}: rows that are streamed from shards come in the order of their lanes; by_length "
            "is expected, or name the table that the shards were made of"
        )


def _sizes(config: Config, world: int) -> tuple[int, int, int]:
    return config.training.batch_size, world, config.seed


def _build(config: Config, table: Table, given: Given) -> Order:
    name, options = ORDERS.chosen(config.training.order, "training.order")
    return ORDERS.build(name, "training.order", given, **options)


for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
