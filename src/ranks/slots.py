"""Tables that are split over the ranks, looked up by MindSpore's collective operations.

A device has S slots, one for each of its pieces and each id that is of the piece's table, and empty ones up to the
largest number that any has. A row of zeros behind each piece stands for all ids that lie elsewhere, so that an id's
vector is the sum over the pieces of its table.

Legend: as in exchange.py; D width of a vector, R rows that a rank holds.
"""

from dataclasses import dataclass
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from src.data.layout import Layout
from src.ranks.placement import Piece, Placement


@dataclass(frozen=True)
class Slot:
    """What a rank looks up for each sample: a piece, its number among those the rank holds, and the place of an id."""

    piece: Piece
    held: int
    id: int


def pieces_of(placement: Placement, rank: int) -> tuple[Piece, ...]:
    """A rank's pieces, with empty ones of the first table up to the number of slots."""
    pieces = placement.pieces[rank]
    return (*pieces, *[Piece(0, 0, 0)] * (placement.slots - placement.used(rank)))


def slots_of(placement: Placement, rank: int, layout: Layout) -> tuple[Slot, ...]:
    """A rank's slots; those of empty pieces take the first id."""
    tables = layout.of_ids(layout.tables)
    return tuple(
        Slot(piece, held, id_)
        for held, piece in enumerate(pieces_of(placement, rank))
        for id_ in ([place for place, table in enumerate(tables) if table == piece.table] if piece.rows else [0])
    )


def starts_of(pieces: tuple[Piece, ...]) -> list[int]:
    """The first row of each of a rank's pieces, which have a row of zeros behind each."""
    return np.cumsum([0, *[piece.rows + 1 for piece in pieces[:-1]]]).tolist()


class SplitBySlots(nn.Cell):
    """The lookup of split tables, and whose rows their gradients change.

    Args:
        placement, layout: of the tables and their ids.
        exchange: with the other ranks.
        lookup: as of `Operators`.

    Inputs: table [R, D] float32, ids [b, L] int32 of the own samples.
    Outputs: rows of the own slots for the samples of all ranks, [B, S] int32; vectors of the own samples, [b, L, D].
    """

    def __init__(self, placement: Placement, layout: Layout, exchange: Any, lookup: Any):
        super().__init__()
        slots, pieces = slots_of(placement, exchange.rank, layout), pieces_of(placement, exchange.rank)
        self.joint_lookup, self.take, self.exchange = lookup, exchange.take, exchange
        all_slots = [slot for rank in range(placement.ranks) for slot in slots_of(placement, rank, layout)]
        exchange.set_slots([slot.id for slot in all_slots])
        starts = np.array(starts_of(pieces), np.int32)[[slot.held for slot in slots]]
        of_slots = [pieces[slot.held] for slot in slots]
        self.lows, self.highs = (
            Tensor(np.array([getattr(piece, name) for piece in of_slots], np.int32)) for name in ("low", "high")
        )
        sizes = np.array([piece.rows for piece in of_slots], np.int32)
        self.starts, self.sizes, self.spares = Tensor(starts), Tensor(sizes), Tensor(starts + sizes)
        # The same on every rank, for all compile one graph: collective operations must meet in one order.
        self.partial = layout.has_lists or any(
            slot.piece.rows < placement.table_rows[slot.piece.table] for slot in all_slots
        )
        # The slots of each id, [L] for its table's first piece, second piece and so on, and 1 where there is one.
        of_id = [
            [number for number, slot in enumerate(all_slots) if slot.id == id_ and slot.piece.rows]
            for id_ in range(layout.ids)
        ]
        most = max(len(numbers) for numbers in of_id)
        padded = np.array([numbers + [-1] * (most - len(numbers)) for numbers in of_id], np.int32)
        self.id_slots = [Tensor(np.maximum(column, 0)) for column in padded.T]
        self.there = [Tensor((column >= 0).astype(np.float32)[:, None]) for column in padded.T]

    def construct(self, table, ids):
        own = self.exchange.to_owners(ids)
        if self.partial:
            mine = ops.logical_and(own >= self.lows, own < self.highs)
            own = ops.where(mine, own - self.lows, self.sizes)
        rows, vectors = self.joint_lookup(table, own, self.starts)
        everyone = self.exchange.to_samples(vectors)  # [b, N S, D]
        of_ids = self.take(everyone, self.id_slots[0], 1)
        for index in range(1, len(self.id_slots)):
            of_ids = of_ids + self.take(everyone, self.id_slots[index], 1) * self.there[index]
        return rows, of_ids

    def owned(self, rows, gradients):
        """Rows of the own table and their gradients, of what the lookup gave and the gradients of its vectors."""
        gradients = self.exchange.to_owners(gradients) * self.exchange.share
        if self.partial:
            gradients = gradients * (rows != self.spares).to(ms.float32).unsqueeze(-1)
        return rows, gradients
