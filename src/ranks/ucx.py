"""Messages between the ranks of a CPU run by UCX, in place of MindSpore's collective operations, which are slow there.

UCX sends through shared memory within a host, and between hosts by the fastest network it finds. Ranks tell each other
their addresses by MindSpore's own operations, so no other program starts them. Of a batch's ids each distinct row is
asked for, sent and changed once. What is sent and summed is compiled from kernels/ on first use.

Legend: b samples of a rank, N ranks, L ids of a sample, T tables, D width of a vector, R rows that a rank holds, P room
for rows.
"""

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from src.base.native import build
from src.data.layout import Layout
from src.model_utils.aot import FLAGS, operator
from src.ranks.options import WIRE_DTYPES, ucx_folder
from src.ranks.placement import Placement, most_distinct, place
from src.ranks.slots import pieces_of, starts_of

_SOURCE = Path(__file__).parent / "kernels" / "exchange.cc"
_ADDRESS_BYTES = 4096
_WITHOUT = "ranks send by MindSpore's collective operations, slower than UCX"


class Messages:
    """UCX as this rank uses it. The first steps are to be taken in this order, by all ranks.

    Args:
        library: the compiled library.
        rank, ranks: the number of this process, from 0, and how many there are.
    """

    def __init__(self, library: Path, rank: int, ranks: int):
        self.path, self.rank, self.ranks = library, rank, ranks
        self._library = ctypes.CDLL(str(library))
        self._library.RanksSent.restype = self._library.RanksAddress.restype = ctypes.c_int64

    @classmethod
    def of(cls, rank: int, ranks: int) -> "Messages | None":
        """Messages by the installed UCX; None, after a line that says why, where it can't be had."""
        if not (folder := ucx_folder()):
            return None
        libraries = folder / "lib"
        flags = (*FLAGS, f"-I{folder / 'include'}", f"-L{libraries}", "-lucp", "-lucs", f"-Wl,-rpath,{libraries}")
        library = build(_SOURCE, flags, "the messages between ranks", _WITHOUT)
        return cls(library, rank, ranks) if library else None

    def open(self, limit_s: float) -> np.ndarray:
        """Begin; this rank's address, int32, of zeros where UCX finds no way to send.

        Args:
            limit_s: how long a rank waits for others before it fails.
        """
        address = ctypes.create_string_buffer(_ADDRESS_BYTES)
        if not self._library.RanksOpen(self.rank, self.ranks, ctypes.c_double(limit_s)):
            self._library.RanksAddress(address, ctypes.c_int64(_ADDRESS_BYTES))
        return np.frombuffer(address.raw, np.int32)

    def connect(self, addresses: np.ndarray) -> bool:
        """Reach the others, by the addresses of all, [N, ...]; whether all can be reached."""
        return not self._library.RanksConnect(addresses.tobytes(), ctypes.c_int64(_ADDRESS_BYTES))

    @property
    def sent_bytes(self) -> int:
        """What this rank has sent so far, without headers."""
        return int(self._library.RanksSent())

    def exchange(self, wire_dtype: str) -> "DirectExchange":
        """What travels within a step, in values of this type."""
        return DirectExchange(self, wire_dtype)


class DirectExchange(nn.Cell):
    """What travels within a step, by UCX: the methods of `Exchange` that tables and the training step call.

    Args:
        messages: that connect the ranks.
        wire_dtype: of WIRE_DTYPES, in which vectors and gradients travel; sums are of float32.
    """

    def __init__(self, messages: Messages, wire_dtype: str):
        super().__init__()
        self.rank, self.ranks, self.share = messages.rank, messages.ranks, 1.0 / messages.ranks
        self.library = messages.path
        self.wire = Tensor([WIRE_DTYPES.index(wire_dtype)], ms.int32)
        self.factor = Tensor([self.share], ms.float32)
        self.mean_of_all = operator(self.library, "RanksMean", lambda values, *_: values, whole=[2])

    def mean(self, values):
        """The mean over the ranks of values [n], in which the last one travels as float32."""
        return self.mean_of_all(values, self.factor, self.wire)

    def split(self, placement: Placement, layout: Layout, lookup: Any) -> nn.Cell:
        """The lookup of tables that are split over the ranks; what a table is looked up by goes unused."""
        return _SplitTables(self, placement, layout)

    def of_all(self, layout: Layout, table_rows: Sequence[int]) -> nn.Cell:
        """What tables that all ranks hold are updated with; see `Exchange.of_all`."""
        return _RowsOfAll(self, layout, table_rows)


def pieces_of_all(placement: Placement) -> np.ndarray:
    """The pieces of all ranks in the order of their tables, [n, 5] int32: table, owner, low, high, and the owner's row.

    That is the one which the piece begins at, with a row of zeros behind each piece.
    """
    found = []
    for rank in range(placement.ranks):
        pieces = pieces_of(placement, rank)
        found += [
            (piece.table, rank, piece.low, piece.high, start)
            for piece, start in zip(pieces, starts_of(pieces))
            if piece.rows
        ]
    return np.array(sorted(found), np.int32)


class _SplitTables(nn.Cell):
    """The lookup of split tables, and whose rows their gradients change.

    Inputs: table [R, D] float32, ids [b, L] int32 of the own samples.
    Outputs: ids [b, L]; vectors of the own samples, [b, L, D].
    """

    def __init__(self, exchange: DirectExchange, placement: Placement, layout: Layout):
        super().__init__()
        self.exchange = exchange
        self.pieces = Tensor(pieces_of_all(placement))
        self.tables = Tensor(np.array(layout.of_ids(layout.tables), np.int32))
        own = placement.pieces[exchange.rank]

        def updates(gradients, *_):
            room = max(1, placement.ranks * most_distinct(own, placement, gradients[0]))
            return [room, 1], [room, 1, gradients[2]]

        def vectors(table, ids, *_):
            return [*ids, table[1]]

        self.look_up = operator(exchange.library, "RanksLookup", vectors, whole=(1, 2, 3, 4))
        self.give_back = operator(
            exchange.library, "RanksGradients", updates, (ms.int32, ms.float32), whole=[2]
        )  # fmt: skip

    def construct(self, table, ids):
        return ids, self.look_up(table, ids, self.tables, self.pieces, self.exchange.wire)

    def owned(self, ids, gradients):
        """Rows [P, 1] int32 of the own table, up to one of -1, and the gradients there, [P, 1, D]."""
        return self.give_back(gradients, self.exchange.factor, self.exchange.wire)


class _RowsOfAll(nn.Cell):
    """The rows that all ranks have looked up, and the mean over all of the gradients there.

    Inputs: rows [b, L] int32, gradients [b, L, D].
    Outputs: rows [P, 1] int32, up to one of -1, of each rank the distinct ones; gradients [P, 1, D].
    """

    def __init__(self, exchange: DirectExchange, layout: Layout, table_rows: Sequence[int]):
        super().__init__()
        self.exchange = exchange
        ends = np.cumsum(table_rows)
        self.pieces = Tensor(np.array([
            (table, 0, end - rows, end, end - rows) for table, (rows, end) in enumerate(zip(table_rows, ends))
        ], np.int32))  # fmt: skip
        self.tables = Tensor(np.array(layout.of_ids(layout.tables), np.int32))

        whole = place(table_rows, "data", exchange.ranks, layout.uses)

        def updates(rows, gradients, *_):
            room = exchange.ranks * most_distinct(whole.pieces[0], whole, rows[0])
            return [room, 1], [room, 1, gradients[2]]

        self.gather = operator(
            exchange.library, "RanksAllGradients", updates, (ms.int32, ms.float32), whole=(0, 2, 3, 5)
        )  # fmt: skip

    def construct(self, rows, gradients):
        return self.gather(rows, gradients, self.tables, self.pieces, self.exchange.factor, self.exchange.wire)
