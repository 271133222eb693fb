"""The embedding tables: one row space for all, one tensor, one lookup a batch.

Legend: B batch, F fields, L ids of a row, T tables, D width of a vector, R rows of all tables together. With fields of
one value and a table each, F = L = T.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from src.data.layout import PADDING, Layout
from src.network.operators import Operators
from src.network.stock import STOCK
from src.ranks.exchange import Exchange
from src.ranks.placement import Piece, Placement, place
from src.ranks.slots import pieces_of, slots_of

_CHUNK_ROWS = 1 << 16
Fill = Callable[[Piece, np.ndarray], None]  # writes a piece's values to the array [rows, D]


def whole_fields(table_rows: Sequence[int]) -> tuple[Piece, ...]:
    """The pieces of tables that are not split."""
    return place(table_rows, "none", 1).pieces[0]


def joint_rows(pieces: Sequence[Piece], width: int, fill: Fill, spare: int = 0) -> np.ndarray:
    """The pieces' values one below the other, [R, D] float32, with so many rows of zeros behind each."""
    values = np.zeros((sum(piece.rows + spare for piece in pieces), width), np.float32)
    for piece, view in zip(pieces, np.split(values, np.cumsum([piece.rows + spare for piece in pieces])[:-1])):
        fill(piece, view[: piece.rows])
    return values


def initial_values(table_rows: Sequence[int], seed: int, epoch: int = 0) -> Fill:
    """What fills pieces with the tables' initial values: uniform within +-sqrt(1/n) for a table of n rows.

    So does the paper's code. Every table has its own random stream, so that its values do not depend on how the
    tables are spread over devices; and another one in each epoch, from 0, for tables that begin afresh.
    """

    def fill(piece: Piece, values: np.ndarray) -> None:
        rng = np.random.default_rng([seed, 1 + piece.table, *([epoch] if epoch else [])])
        bound = np.float32(np.sqrt(1.0 / table_rows[piece.table]))
        # The values of rows before the piece: a step of the stream gives two, and an odd one is drawn and forgotten.
        before = piece.low * values.shape[1]
        rng.bit_generator.advance(before // 2)  # type: ignore[attr-defined]
        rng.random(before % 2, dtype=np.float32)
        # In chunks, so that nothing of the table's size exists beside the table itself.
        for low in range(0, piece.rows, _CHUNK_ROWS):
            chunk = values[low : low + _CHUNK_ROWS]
            rng.random(out=chunk, dtype=np.float32)
            chunk *= 2 * bound
            chunk -= bound

    return fill


def initial_rows(table_rows: Sequence[int], emb_dim: int, seed: int) -> np.ndarray:
    """The initial values of tables that are not split, [R, D] float32."""
    return joint_rows(whole_fields(table_rows), emb_dim, initial_values(table_rows, seed))


class EmbeddingTables(nn.Cell):
    """The tables of all fields on one device, one below the other in one parameter.

    Where there are lists, a row of zeros behind each piece stands for padding. It stays so under every update rule and
    weight decay, for its gradients are 0.

    Args:
        table_rows: rows of each table, the row for unseen values included.
        values: [R, D] float32, from `initial_rows` or a checkpoint; the cell takes the memory over.
        operators: what computes with them, and the network around them.
        pieces: of the tables that are held here, all of them unless given.
        spare: rows of zeros behind each piece, at least `spare_rows`.
        layout: of the ids; unless given each table is of a field of one value.
        places: which of the pieces each id of a lookup is for, from 0; unless given they are whole tables.

    Attributes:
        replicated: whether all ranks of a run hold the same rows; else each has its own.

    Inputs: ids [B, L] int32, each table's own, or padding in lists. Outputs: vectors [B, L, D] float32.

    Raises:
        ValueError: more rows in all than an int32 can number.
    """

    replicated = True

    def __init__(
        self, table_rows: Sequence[int], values: np.ndarray, operators: Operators = STOCK,
        pieces: Sequence[Piece] = (), spare: int = 0, layout: Layout | None = None, places: Sequence[int] = (),
    ):  # fmt: skip
        super().__init__()
        self.layout = layout or Layout.plain(len(table_rows))
        places = places or self.layout.of_ids(self.layout.tables)
        self.table_rows = tuple(int(rows) for rows in table_rows)
        self.pieces, self.spare = tuple(pieces) or whole_fields(table_rows), spare
        sizes = [piece.rows + spare for piece in self.pieces]
        if sum(sizes) > np.iinfo(np.int32).max:
            raise ValueError(f"{sum(sizes)} rows in all tables; at most 2**31 - 1 can be numbered")
        if len(values) != sum(sizes):
            raise ValueError(f"values have {len(values)} rows, the tables {sum(sizes)}")
        # Parameter takes over the tensor's memory only where nothing else refers to the tensor, so it gets no
        # keyword argument either, which would: 2.2 GB at full size that would otherwise exist twice.
        self.table = Parameter(Tensor.from_numpy(values))
        self.starts = Tensor(np.cumsum([0, *sizes[:-1]]).astype(np.int32)[list(places)])
        self.operators, self.pads = operators, self.layout.has_lists
        if self.pads:
            rows_of_ids = self.layout.of_ids(self.layout.of_fields(self.table_rows))
            self.paddings = Tensor(np.array(rows_of_ids, np.int32))  # the place of each table's row of zeros
        self.joint_lookup = operators.lookup()

    def lookup(self, ids):
        """Rows in the joint table, [B, L] int32, of the tables' own ids [B, L], and the vectors there, [B, L, D]."""
        if self.pads:
            ids = ops.where(ids == PADDING, self.paddings, ids)
        return self.joint_lookup(self.table, ids, self.starts)

    def owned(self, rows, gradients):
        """Of looked-up rows and the gradients of their vectors, those that this device's table is updated with."""
        return rows, gradients

    def construct(self, ids):
        return self.lookup(ids)[1]

    def views(self, joint: np.ndarray) -> list[tuple[Piece, np.ndarray]]:
        """The pieces on this device, and each one's part of an array that has a row for each row of the table."""
        ends = np.cumsum([piece.rows + self.spare for piece in self.pieces])
        return [(piece, part[: piece.rows]) for piece, part in zip(self.pieces, np.split(joint, ends[:-1]))]

    def refill(self, joint: Parameter, fill: Fill) -> None:
        """Write the pieces' values anew to what has a row for each row of the table, in place and in chunks.

        And zeros to the spare rows, where a training that diverged may have left something else.
        """
        write, start = self.operators.primitives.write_rows(), 0

        def put(first: int, values: np.ndarray) -> None:
            rows = np.arange(first, first + len(values), dtype=np.int32)
            write(joint, Tensor.from_numpy(rows), Tensor.from_numpy(values))

        for piece in self.pieces:
            for low in range(piece.low, piece.high, _CHUNK_ROWS):
                part = Piece(piece.table, low, min(low + _CHUNK_ROWS, piece.high))
                values = np.empty((part.rows, joint.shape[1]), np.float32)
                fill(part, values)
                put(start + low - piece.low, values)
            start += piece.rows + self.spare
            if self.spare:
                put(start - self.spare, np.zeros((self.spare, joint.shape[1]), np.float32))


class ReplicatedTables(EmbeddingTables):
    """The tables of all fields on every device, which stay the same: each applies the gradients of all samples.

    What travels are rows and the gradients of their vectors, never a dense table.

    Args:
        table_rows, values, operators, layout: as for `EmbeddingTables`, with `spare_rows` behind each table.
        exchange: with the other ranks.
    """

    def __init__(
        self, table_rows: Sequence[int], values: np.ndarray, exchange: Any, operators: Operators = STOCK,
        layout: Layout | None = None,
    ):  # fmt: skip
        super().__init__(table_rows, values, operators, (), spare_rows(layout), layout)
        self.of_all = exchange.of_all(self.layout, [piece.rows + self.spare for piece in self.pieces])

    def owned(self, rows, gradients):
        return self.of_all(rows, gradients)


class SplitTables(EmbeddingTables):
    """The tables of all fields, split over the devices: each looks up its pieces' rows for the samples of all.

    How, is the exchange's: see `Exchange.split`.

    Args:
        placement: of the tables.
        values: [R, D] float32, from `joint_rows` with `pieces_of` this rank and a spare row each.
        exchange: with the other ranks.
        operators, layout: as for `EmbeddingTables`.

    Inputs: ids [b, L] int32 of the rank's own samples. Outputs: their vectors [b, L, D] float32.
    """

    replicated = False

    def __init__(
        self, placement: Placement, values: np.ndarray, exchange: Any, operators: Operators = STOCK,
        layout: Layout | None = None,
    ):  # fmt: skip
        layout = layout or Layout.plain(len(placement.table_rows))
        slots, pieces = slots_of(placement, exchange.rank, layout), pieces_of(placement, exchange.rank)
        super().__init__(
            placement.table_rows, values, operators, pieces, 1, layout, [slot.held for slot in slots]
        )  # fmt: skip
        self.split = exchange.split(placement, layout, self.joint_lookup)

    def lookup(self, ids):
        """What `owned` takes as rows; vectors of the own samples, [b, L, D]."""
        return self.split(self.table, ids)

    def owned(self, rows, gradients):
        return self.split.owned(rows, gradients)


def spare_rows(layout: Layout | None) -> int:
    """Rows of zeros behind each table that a layout needs, for padding, where tables are whole."""
    return int(layout is not None and layout.has_lists)


def whole_tables(
    table_rows: Sequence[int], emb_dim: int, fill: Fill, operators: Operators = STOCK, layout: Layout | None = None
) -> EmbeddingTables:
    """All tables on this device; arguments as for `EmbeddingTables` and `joint_rows`."""
    spare = spare_rows(layout)
    values = joint_rows(whole_fields(table_rows), emb_dim, fill, spare)
    return EmbeddingTables(table_rows, values, operators, (), spare, layout)


def make_tables(
    placement: Placement, rank: int, emb_dim: int, fill: Fill, operators: Operators = STOCK, all_to_all: bool = False,
    layout: Layout | None = None, exchange: Any = None,
) -> tuple[EmbeddingTables, Any]:  # fmt: skip
    """A rank's tables, and what they and the MLPs' gradients travel by, if there are several ranks.

    Args:
        placement: of the tables.
        rank: the number of this process.
        emb_dim: D.
        fill: writes the values of its pieces.
        operators: what computes with them.
        all_to_all: whether the device has this operation.
        layout: of the ids, as for `EmbeddingTables`; its uses of tables are those of the placement.
        exchange: what is used in place of MindSpore's collective operations, with the methods of an `Exchange`.
    """
    if placement.mode != "none":
        exchange = exchange or Exchange(rank, placement.ranks, all_to_all, operators.primitives.take())
    if placement.mode == "hybrid":
        values = joint_rows(pieces_of(placement, rank), emb_dim, fill, 1)
        return SplitTables(placement, values, exchange, operators, layout), exchange
    if placement.mode == "data":
        values = joint_rows(placement.pieces[rank], emb_dim, fill, spare_rows(layout))
        return ReplicatedTables(placement.table_rows, values, exchange, operators, layout), exchange
    return whole_tables(placement.table_rows, emb_dim, fill, operators, layout), None
