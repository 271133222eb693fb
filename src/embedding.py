"""The embedding tables: one row space for all fields, one tensor, one lookup a batch.

Legend: B batch, F fields, D width of a vector, R rows of all tables together.
"""

from collections.abc import Sequence

import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from src.cpu_kernels import Kernels

_CHUNK_ROWS = 1 << 20


def initial_rows(table_rows: Sequence[int], emb_dim: int, seed: int) -> np.ndarray:
    """The tables' initial values, [R, D] float32: uniform within +-sqrt(1/n) for a field of n rows.

    So does the paper's code. Every field has its own random stream, so that its values do not depend on how the
    fields are spread over devices.
    """
    values = np.empty((sum(table_rows), emb_dim), np.float32)
    start = 0
    for field, rows in enumerate(table_rows):
        rng = np.random.default_rng([seed, 1 + field])
        bound = np.float32(np.sqrt(1.0 / rows))
        # In chunks, so that nothing of the table's size exists beside the table itself.
        for low in range(start, start + rows, _CHUNK_ROWS):
            chunk = values[low : min(low + _CHUNK_ROWS, start + rows)]
            rng.random(out=chunk, dtype=np.float32)
            chunk *= 2 * bound
            chunk -= bound
        start += rows
    return values


class EmbeddingTables(nn.Cell):
    """The tables of all fields, one below the other in one parameter.

    Args:
        table_rows: rows of each field's table, the row for unseen values included.
        values: [R, D] float32, from `initial_rows` or a checkpoint; the cell takes the memory over.
        kernels: the compiled operators, if they are to be used.

    Inputs: ids [B, F] int32, each field's own. Outputs: vectors [B, F, D] float32.

    Raises:
        ValueError: more rows in all than an int32 can number.
    """

    def __init__(self, table_rows: Sequence[int], values: np.ndarray, kernels: Kernels | None = None):
        super().__init__()
        if sum(table_rows) > np.iinfo(np.int32).max:
            raise ValueError(f"{sum(table_rows)} rows in all tables; at most 2**31 - 1 can be numbered")
        if len(values) != sum(table_rows):
            raise ValueError(f"values have {len(values)} rows, the tables {sum(table_rows)}")
        self.table_rows = tuple(int(rows) for rows in table_rows)
        # Parameter takes over the tensor's memory only where nothing else refers to the tensor, so it gets no
        # keyword argument either, which would: 2.2 GB at full size that would otherwise exist twice.
        self.table = Parameter(Tensor.from_numpy(values))
        starts = np.concatenate(([0], np.cumsum(self.table_rows)[:-1])).astype(np.int32)
        self.starts = Tensor(starts)
        self.gather = ops.Gather()
        self.kernels = kernels
        self.fused_lookup = kernels.lookup() if kernels else None

    def lookup(self, ids):
        """Rows in the joint table, [B, F] int32, of the fields' own ids [B, F], and the vectors there, [B, F, D]."""
        if self.fused_lookup is not None:
            return self.fused_lookup(self.table, ids, self.starts)
        rows = ids + self.starts
        return rows, self.gather(self.table, rows, 0)

    def construct(self, ids):
        return self.lookup(ids)[1]

    def field_values(self) -> list[np.ndarray]:
        """Each field's table as it is now, [rows, D]; on CPU these are views of the parameter's memory."""
        return np.split(self.table.asnumpy(), np.cumsum(self.table_rows)[:-1])
