"""Mixed dimension embeddings (Ginart et al. 2019, arXiv 1909.11810): the more rows a table has, the narrower they are.

A table of n rows gets vectors of width d = D (n_min / n)^T, with n_min the rows of the smallest table and T the
temperature, rounded so that D / d is a power of two. D / d of its vectors share a row of the joint table, which stays
one matrix and is placed, looked up and updated as ever; a mask tells a sample's vector from its neighbours, and a
projection [d, D] of the table's own makes it as wide as the others. As in the paper, a table of full width has none.
The projections of all ids are one batched product of B F D^2 multiplications, for which narrow ones are repeated and
full width is the identity; weight decay does not touch them.

Legend: B batch, L ids of a row, T tables, D width of a vector, d that of a narrow one.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from src.network.embedding import Fill
from src.network.options import NetworkSpec
from src.network.primitives import PRIMITIVES, Primitives
from src.ranks.placement import Piece


@dataclass(frozen=True)
class Widths:
    """How wide each table's vectors are.

    Attributes:
        table_rows: rows of each table, [T].
        emb_dim: D.
        temperature: T; 0 for full width everywhere.
    """

    table_rows: tuple[int, ...]
    emb_dim: int
    temperature: float = 0.0

    @property
    def shares(self) -> tuple[int, ...]:
        """D / d of each table: how many of its vectors share a row."""
        smallest = min(self.table_rows)
        most = (self.emb_dim & -self.emb_dim).bit_length() - 1  # of the largest power of two that divides D
        wanted = (self.temperature * math.log2(rows / smallest) for rows in self.table_rows)
        return tuple(1 << min(most, round(power)) for power in wanted)

    @property
    def packed_rows(self) -> tuple[int, ...]:
        """Rows of the joint table that each table takes."""
        return tuple(-(-rows // share) for rows, share in zip(self.table_rows, self.shares))

    @property
    def projections(self) -> dict[int, list[int]]:
        """The tables of each width below D."""
        shares = self.shares
        narrow = sorted({share for share in shares if share > 1})
        return {self.emb_dim // n: [table for table, share in enumerate(shares) if share == n] for n in narrow}

    @property
    def projection_values(self) -> int:
        """Values of all projections."""
        return sum(len(tables) * width * self.emb_dim for width, tables in self.projections.items())

    def full_width(self, fill: Fill, projection: Callable[[int], np.ndarray]) -> Fill:
        """What fills pieces of tables of full width with the projected vectors.

        Args:
            fill: fills pieces of the packed tables.
            projection: of a width d below D, the matrices of its tables, [., d, D].
        """
        matrices = {
            table: matrix
            for width, tables in self.projections.items()
            for table, matrix in zip(tables, projection(width))
        }
        shares = self.shares

        def fill_full(piece: Piece, values: np.ndarray) -> None:
            share, matrix = shares[piece.table], matrices.get(piece.table)
            if matrix is None:
                fill(piece, values)
                return
            low, high = piece.low // share, -(-piece.high // share)
            packed = np.empty((high - low, self.emb_dim), np.float32)
            fill(Piece(piece.table, low, high), packed)
            narrow = packed.reshape(-1, self.emb_dim // share)[piece.low - low * share :][: piece.rows]
            np.matmul(narrow, matrix, out=values)

        return fill_full


class Projections(nn.Cell):
    """From packed rows to vectors of full width.

    Args:
        widths: of the tables; one is below D at least.
        rng: source of the initial values, uniform as by Glorot and Bengio 2010.
        tables: the table of each id, [L].
        primitives: of the device.

    Inputs: looked-up rows [B, L, D] with zeros for the neighbours. Outputs: vectors [B, L, D].
    """

    def __init__(
        self, widths: Widths, rng: np.random.Generator, tables: Sequence[int], primitives: Primitives = PRIMITIVES
    ):
        super().__init__()
        wide = widths.emb_dim
        shares = np.array(widths.shares, np.int32)[list(tables)]
        self.shares = Tensor(shares)
        self.place_of_value = Tensor((np.arange(wide, dtype=np.int32) // (wide // shares[:, None])).astype(np.int32))
        groups = widths.projections
        self.group_shares = tuple(wide // width for width in groups)
        matrices = []
        for width, of_width in groups.items():
            bound = math.sqrt(6 / (width + wide))
            values = rng.uniform(-bound, bound, (len(of_width), width, wide)).astype(np.float32)
            matrices.append(Parameter(Tensor(values), name=f"width_{width}"))
        self.matrices = ms.ParameterTuple(matrices)
        # The tables of full width share the identity, which stands first.
        self.identity = Tensor(np.eye(wide, dtype=np.float32)[None])
        self.of_ids, self.batch_matmul = _OfIds(widths, tables, primitives), ops.BatchMatMul()

    def address(self, ids):
        """Packed ids [B, L] of ids [B, L], and a mask [B, L, D]: 1 where a sample's vector stands in its row.

        Padding, which is -1, stays so.
        """
        packed = ids // self.shares
        place = (ids - packed * self.shares).unsqueeze(-1)
        return packed, ops.equal(place, self.place_of_value).to(ms.float32)

    def construct(self, rows):
        stacked: tuple = (self.identity,)
        for number in range(len(self.group_shares)):
            stacked = (*stacked, ops.tile(self.matrices[number], (1, self.group_shares[number], 1)))
        matrices = self.of_ids(ops.concat(stacked, 0))  # [L, D, D]
        return self.batch_matmul(rows.swapaxes(0, 1), matrices).swapaxes(0, 1)


class _OfIds(nn.Cell):
    """From the identity and the matrices of narrow tables, [., D, D], to those of all ids, [L, D, D].

    The gradient is written out: MindSpore's own is a sum by segments, though where each table has one id only a
    constant comes twice. Where tables have several, it is a product with 0 and 1.
    """

    def __init__(self, widths: Widths, tables: Sequence[int], primitives: Primitives):
        super().__init__()
        narrow = [table for of_width in widths.projections.values() for table in of_width]
        place_of_table = np.zeros(len(widths.table_rows), np.int32)
        place_of_table[narrow] = 1 + np.arange(len(narrow))
        places = place_of_table[list(tables)]
        self.places = Tensor(places)
        self.take, self.matmul, self.once = primitives.take(), ops.MatMul(), len(set(tables)) == len(tables)
        if self.once:
            self.id_of_place = Tensor(np.array([0, *(list(tables).index(table) for table in narrow)], np.int32))
        else:
            self.uses = Tensor((np.arange(1 + len(narrow))[:, None] == places).astype(np.float32))

    def construct(self, matrices):
        return self.take(matrices, self.places, 0)

    def bprop(self, matrices, out, dout):
        if self.once:
            return (self.take(dout, self.id_of_place, 0),)  # any id's for the identity
        return (self.matmul(self.uses, dout.reshape(dout.shape[0], -1)).reshape(matrices.shape),)


def projection_name(width: int) -> str:
    """Of the network's parameter that holds the projections of a width."""
    return f"projections.width_{width}"


def projections_of(
    widths: Widths, rng: np.random.Generator, tables: Sequence[int], primitives: Primitives = PRIMITIVES
) -> Projections | None:
    """The projections of tables, if any has vectors below full width; arguments as for `Projections`."""
    return Projections(widths, rng, tables, primitives) if widths.projections else None


def widths_of(table_rows: Sequence[int], network: NetworkSpec) -> Widths:
    """The widths of a network, whose mixed_dims is the temperature."""
    return Widths(tuple(int(rows) for rows in table_rows), network.emb_dim, network.mixed_dims)
