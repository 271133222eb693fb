"""MindRecord files of rows: some hundred in a record, which is one value of type bytes, blocks behind each other.

    dense   [R, N] float32
    ids     [R, L] int32
    weights [R]    float32    where rows have weights
    labels  [R]    uint8

A row takes 4 N + 4 L + 1 bytes with its L ids, 157 with Criteo's columns, 4 more with a weight, and R follows from the
length. Packing them makes writing and reading several times faster than a record a row.
"""

import errno
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from src.base.events import happens
from src.base.files import flush

COLUMN = "rows"
NEEDS = "mindspore"  # whoever calls `write`
SCHEMA = {COLUMN: {"type": "bytes"}}
_PAGE_BYTES, _HEADER_BYTES = 4 << 20, 1 << 20
_LEAST_PAGE_BYTES, _LEAST_HEADER_BYTES = 32 << 10, 16 << 10  # the least that MindRecord takes


def row_bytes(dense_dim: int, slot_dim: int, weighted: bool = False) -> int:
    """Bytes of a row."""
    return 4 * (dense_dim + slot_dim + weighted) + 1


def pack(dense: np.ndarray, ids: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> bytes:
    """A record of rows: dense [R, N] float32, ids [R, L] int32, labels [R] uint8, weights [R] float32 if any."""
    blocks = [dense.astype("<f4"), ids.astype("<i4"), *([] if weights is None else [weights.astype("<f4")])]
    return b"".join(block.tobytes() for block in (*blocks, labels.astype(np.uint8)))


def unpack(record: np.ndarray, dense_dim: int, slot_dim: int, weighted: bool = False) -> tuple[np.ndarray, ...]:
    """Dense [R, N] float32, ids [R, L] int32, labels [R] uint8, and weights [R] float32 if there are any, of a record,
    as views of its bytes."""
    data, of_row = np.ascontiguousarray(record).view(np.uint8).reshape(-1), row_bytes(dense_dim, slot_dim, weighted)
    rows, rest = divmod(len(data), of_row)
    if rest:
        raise ValueError(f"a record of {len(data)} bytes does not hold whole rows of {of_row}")
    ids_start, ids_end = 4 * dense_dim * rows, 4 * (dense_dim + slot_dim) * rows
    labels_start = ids_end + 4 * weighted * rows
    dense, ids = data[:ids_start].view("<f4"), data[ids_start:ids_end].view("<i4")
    weights = (data[ids_end:labels_start].view("<f4"),) if weighted else ()
    return dense.reshape(rows, dense_dim), ids.reshape(rows, slot_dim), data[labels_start:], *weights


def prepare() -> None:
    """Import now what the first `write` would, so that forked processes share it."""
    import mindspore.mindrecord  # noqa: F401


def write(path: Path, packed: Sequence[bytes], file_bytes: int = _PAGE_BYTES, record_bytes: int = 0) -> None:
    """Write records to one MindRecord file and its index file, in place of whatever stood there, and to the disk.

    Args:
        path: the file.
        packed: the records.
        file_bytes: about what the largest of all files has that are read with this one, and no less than any record.
        record_bytes: of the largest record in any of them; 0 for that of this file. Both must be the same for all of
            them, for MindRecord wants files of one layout.

    Raises:
        OSError: the disk is full.
    """
    from mindspore.mindrecord import FileWriter  # late, so that who counts rows, or reads them, needs no MindSpore

    for leftover in path.parent.glob(path.name + "*"):  # a killed run's SQLite journal would spoil the new index
        leftover.unlink()
    try:
        writer = FileWriter(str(path), shard_num=1)
        header, page = _sizes(file_bytes, record_bytes or max(map(len, packed), default=0))
        writer.set_header_size(header)
        writer.set_page_size(page)
        writer.add_schema(SCHEMA, "packed rows of a click log")
        if packed:
            writer.write_raw_data([{COLUMN: record} for record in packed])
        happens("a file of records has no index yet")
        writer.commit()
    except RuntimeError:  # what MindSpore makes of any failure to write
        if shutil.disk_usage(path.parent).free < 2 * (sum(map(len, packed)) + _PAGE_BYTES):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from None
        raise
    for written in (path, path.with_name(path.name + ".db")):
        written.chmod(0o644)  # MindRecord leaves them to their owner alone
        flush(written)
    flush(path.parent)


def _sizes(file_bytes: int, record_bytes: int) -> tuple[int, int]:
    """Bytes of a file's header and of its pages.

    Files are made of whole pages, and records of parts of one: the default of 32 MiB pads a small file to 50 MB. Small
    files get a page that is not much larger than they are, for who reads a file makes the checksum of all of it.
    """
    if file_bytes <= _PAGE_BYTES // 4:
        return _LEAST_HEADER_BYTES, max(_LEAST_PAGE_BYTES, 1 << (file_bytes + file_bytes // 2).bit_length())
    return _HEADER_BYTES, _PAGE_BYTES * (1 + 2 * record_bytes // _PAGE_BYTES)
