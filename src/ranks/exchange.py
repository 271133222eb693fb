"""What travels between the ranks in a training step, by MindSpore's collective operations.

Legend: b samples of a rank, N ranks, B = b N samples in all, L ids of a sample, S slots of a rank (see
slots.py).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from mindspore import Tensor, nn, ops

from src.data.layout import Layout
from src.ranks.placement import Placement
from src.ranks.slots import SplitBySlots


class Exchange(nn.Cell):
    """Collective operations among the ranks of a run, inside a compiled graph.

    Ascend has AlltoAll, with which a rank sends another only what that one needs. GPU and CPU have AllGather alone: all
    get all, and take out what they need.

    Args:
        rank, ranks: the number of this process, from 0, and how many there are.
        all_to_all: whether the device has AlltoAll.
        take: (values, places, axis) to these places of the axis, by the name that the device has for it.

    Attributes:
        share: 1 / N, which makes the mean over all samples of the means over each rank's.
    """

    def __init__(self, rank: int, ranks: int, all_to_all: bool = False, take: Any = None):
        super().__init__()
        self.rank, self.ranks, self.share = rank, ranks, 1.0 / ranks
        self.all_gather, self.all_reduce = ops.AllGather(), ops.AllReduce()
        self.all_to_all = ops.AlltoAll(split_count=ranks, split_dim=0, concat_dim=0) if all_to_all else None
        self.take = take or ops.Gather()

    def set_slots(self, ids: Sequence[int]) -> None:
        """Tell the place of each slot's id in a sample, rank by rank; at least one slot for each place."""
        slots = len(ids) // self.ranks
        self.slots = slots
        self.ids_of_all = Tensor(np.array(ids, np.int32))
        self.own_ids = Tensor(np.array(ids[self.rank * slots : (self.rank + 1) * slots], np.int32))

    def split(self, placement: Placement, layout: Layout, lookup: Any) -> nn.Cell:
        """The lookup of tables that are split over the ranks; arguments as for `SplitBySlots`."""
        return SplitBySlots(placement, layout, self, lookup)

    def of_all(self, layout: Layout, table_rows: Sequence[int]) -> nn.Cell:
        """What tables that all ranks hold are updated with: a cell like `RowsOfAll`.

        Args:
            layout: of the ids.
            table_rows: of each table, with those of zeros behind it, in the order in which they are one parameter.
        """
        return RowsOfAll(self)

    def gather(self, values):
        """Values [b, ...] of all ranks, [B, ...]."""
        return self.all_gather(values)

    def mean(self, values):
        """The mean over the ranks of values of any one shape."""
        return self.all_reduce(values) * self.share

    def to_owners(self, values):
        """Values [b, L, ...] of the own samples to those of all samples for the own slots, [B, S, ...]."""
        if self.all_to_all is None:
            return self.take(self.all_gather(values), self.own_ids, 1)
        rest = values.shape[2:]
        by_rank = self.take(values, self.ids_of_all, 1).reshape((-1, self.ranks, self.slots, *rest))
        by_rank = by_rank.swapaxes(0, 1).reshape((-1, self.slots, *rest))
        return self.all_to_all(by_rank)

    def to_samples(self, vectors):
        """Vectors [B, S, D] of the own slots to those of all slots for the own samples, [b, N S, D]."""
        batch, width = vectors.shape[0], vectors.shape[2]
        own = batch // self.ranks
        if self.all_to_all is None:
            by_rank = self.all_gather(vectors).reshape((self.ranks, batch, self.slots, width))
            by_rank = by_rank[:, self.rank * own : (self.rank + 1) * own]
        else:
            by_rank = self.all_to_all(vectors).reshape((self.ranks, own, self.slots, width))
        return by_rank.swapaxes(0, 1).reshape((own, self.ranks * self.slots, width))


class RowsOfAll(nn.Cell):
    """The rows that all ranks have looked up, and the mean over all of the gradients there.

    Inputs: rows [b, L] int32, gradients [b, L, D]. Outputs: rows [B, L] int32, gradients [B, L, D].
    """

    def __init__(self, exchange: Exchange):
        super().__init__()
        self.exchange = exchange

    def construct(self, rows, gradients):
        rows = self.exchange.gather(ops.depend(rows, gradients))  # in one order on all ranks
        return rows, self.exchange.gather(ops.depend(gradients, rows)) * self.exchange.share
