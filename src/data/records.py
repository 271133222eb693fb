"""How rows are packed into a MindRecord record: one value of type bytes, three blocks one behind the other.

    dense   [R, N] float32
    ids     [R, F] int32
    labels  [R]    uint8

A row takes 4 N + 4 F + 1 bytes, 157 with Criteo's columns, and R follows from the length. Packing some hundred rows
makes writing and reading several times faster than a record a row.
"""

import numpy as np

COLUMN = "rows"
SCHEMA = {COLUMN: {"type": "bytes"}}


def row_bytes(dense_dim: int, slot_dim: int) -> int:
    """Bytes of a row."""
    return 4 * dense_dim + 4 * slot_dim + 1


def pack(dense: np.ndarray, ids: np.ndarray, labels: np.ndarray) -> bytes:
    """A record of rows: dense [R, N] float32, ids [R, F] int32, labels [R] uint8."""
    return dense.astype("<f4").tobytes() + ids.astype("<i4").tobytes() + labels.astype(np.uint8).tobytes()


def unpack(record: np.ndarray, dense_dim: int, slot_dim: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Dense [R, N] float32, ids [R, F] int32 and labels [R] uint8 of a record, as views of its bytes."""
    data = np.ascontiguousarray(record).view(np.uint8).reshape(-1)
    rows, rest = divmod(len(data), row_bytes(dense_dim, slot_dim))
    if rest:
        raise ValueError(f"a record of {len(data)} bytes does not hold whole rows of {row_bytes(dense_dim, slot_dim)}")
    ids_start, labels_start = 4 * dense_dim * rows, 4 * (dense_dim + slot_dim) * rows
    return (
        data[:ids_start].view("<f4").reshape(rows, dense_dim),
        data[ids_start:labels_start].view("<i4").reshape(rows, slot_dim),
        data[labels_start:],
    )
