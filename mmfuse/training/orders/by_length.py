"""Each row once an epoch."""

from __future__ import annotations

from mmfuse.data.batches.order import epoch_batches
from mmfuse.training.orders import ORDERS, Given


@ORDERS.register("by_length")
class ByLength:
    """Every training row once an epoch, shuffled, with texts of like length together.

    Reference: none; bucketing by length is common.
    Differs: batches are grouped within windows of 16, so that they stay random.
    Prefer when: nothing speaks for another one.

    Args:
        given: The rows.
    """

    identity = ""

    def __init__(self, given: Given):
        self.given = given

    def plan(self, epoch: int) -> list[list[list[int]]]:
        """The epoch's batches."""
        g = self.given
        return epoch_batches(g.rows, g.lengths, g.batch_size, g.world, g.seed, epoch)
