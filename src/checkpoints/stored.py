"""A checkpoint's network whose tables stay in the files: of a batch no more is read than the rows that it looks up.

So one process scores with tables of any size, in memory that the MLPs and a batch take; files that are much looked up
in stay in the system's cache where there is room. The scores are those of `checkpoint.load`, to the bit.

Legend: B rows of a batch, L ids of a row, D width of a vector, d that of a narrow one, n rows to be looked up.
"""

from collections.abc import Callable
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from src.checkpoints import checkpoint
from src.data.layout import PADDING, Layout
from src.data.manifest import Coded, dense_dim_of, has_fields
from src.dlrm import DLRM
from src.network.embedding import whole_tables
from src.network.mixed_dims import Widths, widths_of
from src.network.operators import Operators
from src.network.options import NetworkSpec
from src.network.stock import STOCK


class StoredTables:
    """The tables of a checkpoint, in its files.

    Args:
        parts: the checkpoint.
        widths, layout: of the tables, and of the ids.
    """

    def __init__(self, parts: checkpoint.Parts, widths: Widths, layout: Layout):
        self._parts, self._widths, self._tables = parts, widths, layout.of_ids(layout.tables)
        self._shares = widths.shares
        count = range(len(widths.table_rows))
        self._pieces = [list(parts.pieces(checkpoint.TABLE, table, widths.emb_dim)) for table in count]
        self._matrices = {
            table: matrix
            for width, tables in widths.projections.items()
            for table, matrix in zip(tables, checkpoint.projections(parts, widths, width))
        }

    def packed(self, ids: np.ndarray) -> np.ndarray:
        """What `DLRM.look_up` gives for ids [B, L], with zeros for the neighbours in a packed row, [B, L, D]."""

        def widened(table: int, narrow: np.ndarray, places: np.ndarray) -> np.ndarray:
            rows = np.zeros((len(narrow), self._shares[table], narrow.shape[1]), np.float32)
            rows[np.arange(len(narrow)), places] = narrow
            return rows.reshape(len(narrow), self._widths.emb_dim)

        return self._each(ids, widened)

    def full_width(self, ids: np.ndarray) -> np.ndarray:
        """The vectors of ids [B, L], all of full width, and zeros for padding, [B, L, D]."""
        return self._each(
            ids, lambda table, narrow, _: narrow @ self._matrices[table] if table in self._matrices else narrow
        )

    def _each(self, ids: np.ndarray, wide: Callable[[int, np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
        """Of all ids but padding what becomes of their vectors: wide(table, vectors [n, d], places in rows [n])."""
        found = np.zeros((*ids.shape, self._widths.emb_dim), np.float32)
        for column, table in enumerate(self._tables):
            there = ids[:, column] != PADDING
            share, width = self._shares[table], self._widths.emb_dim
            packed, places = np.divmod(ids[there, column], share)
            rows = self._rows(table, packed).reshape(len(packed), share, width // share)
            found[there, column] = wide(table, rows[np.arange(len(packed)), places], places)
        return found

    def _rows(self, table: int, numbers: np.ndarray) -> np.ndarray:
        """Packed rows of a table, [n, D].

        Raises:
            InputError: the checkpoint has not all of them.
        """
        rows = np.empty((len(numbers), self._widths.emb_dim), np.float32)
        left = np.ones(len(numbers), bool)
        for file, entry, piece in self._pieces[table]:
            own = left & (piece.low <= numbers) & (numbers < piece.high)
            rows[own] = file.rows(entry, numbers[own] - piece.low)
            left &= ~own
        if left.any():
            raise self._parts.lacking(checkpoint.TABLE, table, self._widths.emb_dim)
        return rows


class _OfVectors(nn.Cell):
    """Logits [B, 1] of dense [B, N], vectors [B, L, D] and the ids [B, L] that they are of."""

    def __init__(self, model: DLRM):
        super().__init__(auto_prefix=False)
        self.model = model

    def construct(self, dense, vectors, ids):
        return self.model.score(dense, vectors, self.model.present(ids))


class StoredNetwork:
    """A network that scores as a `DLRM` does, of vectors that are looked up outside of its graph.

    Args:
        model: the network, with tables that stand in for its own.
        vectors: of ids [B, L], what the network takes as looked up, [B, L, D].

    Attributes:
        model: the network.
    """

    def __init__(self, model: DLRM, vectors: Callable[[np.ndarray], np.ndarray]):
        self.model, self._cell, self._vectors = model, _OfVectors(model), vectors

    def set_train(self, mode: bool) -> None:
        """As of a cell."""
        self._cell.set_train(mode)

    def __call__(self, dense: Tensor, ids: Tensor) -> Tensor:
        return self._cell(dense, Tensor(self._vectors(ids.asnumpy())), ids)


def open_stored(
    path: Path, coded: Coded, network: NetworkSpec, operators: Operators = STOCK, compute_dtype=ms.float32
) -> StoredNetwork:
    """The network of a checkpoint; arguments and errors as of `checkpoint.load`."""
    widths = widths_of(coded.layout.of_tables(coded.table_rows), network)
    parts = checkpoint.open_network(path, coded, widths)
    model = _without_tables(coded, network, operators, compute_dtype, widths)
    checkpoint.fill_mlps(model, parts)
    tables = StoredTables(parts, widths, coded.layout)
    parts.check_all_read()
    return StoredNetwork(model, tables.packed)


def open_changed(
    path: Path, coded: Coded, network: NetworkSpec, change: Callable[[np.ndarray], np.ndarray]
) -> StoredNetwork:
    """The network of a checkpoint, with its vectors of full width changed, [n, D], by MindSpore's operators.

    Arguments and errors as of `checkpoint.load`.
    """
    widths = widths_of(coded.layout.of_tables(coded.table_rows), network)
    parts = checkpoint.open_network(path, coded, widths)
    model = _without_tables(coded, network, STOCK, ms.float32, None)
    checkpoint.fill_mlps(model, parts)
    tables = StoredTables(parts, widths, coded.layout)

    def vectors(ids: np.ndarray) -> np.ndarray:
        found = tables.full_width(ids)
        return change(found.reshape(-1, network.emb_dim)).reshape(found.shape)

    return StoredNetwork(model, vectors)


def _without_tables(
    coded: Coded, network: NetworkSpec, operators: Operators, compute_dtype, widths: Widths | None
) -> DLRM:
    """A network with tables of one row."""
    tables = [1] * len(coded.layout.of_tables(coded.table_rows))
    stand_in = whole_tables(tables, network.emb_dim, lambda _, values: values.fill(0), operators, coded.layout)
    return DLRM(
        dense_dim_of(coded), stand_in, network, compute_dtype, widths=widths, has_fields=has_fields(coded)
    )  # fmt: skip
