"""The embedding tables in one flat file, which a program maps into its memory and looks rows up in.

Nothing is read that is not looked up, so that tables of any size are ready at once. Each page of the rows has a
checksum, which is compared when the page is first touched. ascend310_infer/src/table_file.cc reads the same.

Legend: B rows of a batch, F fields, L ids of a row, T tables, D width of a vector, R rows of all tables together.

    bytes       little-endian
    0           "DLRMTBL\\n", then uint32: version 1, type (0 fp32, 1 fp16, 2 int8), D, T
    24          uint64: R, H bytes of this header, a multiple of 4096
    40          uint32: CRC-32 of the checksums below, 0
    48          T x uint64: rows of each table
    H - 4       uint32: CRC-32 of all before it
    H           R rows, table by table, and zeros up to the next multiple of 4096:
                fp32, fp16: D values; int8: a float32 scale, and D values that it multiplies
    behind      uint32 for each 4096 bytes of the rows: their CRC-32
"""

import functools
import struct
import zlib
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from src.base.errors import InputError
from src.base.files import MappedFile, whole_file
from src.data.layout import PADDING, Layout
from src.export.options import TABLE_TYPES

if TYPE_CHECKING:  # it needs MindSpore, and reading a table file does not
    from src.network.embedding import Fill
    from src.ranks.placement import Piece

_MAGIC, _VERSION, _PAGE = b"DLRMTBL\n", 1, 4096
_FIXED = struct.Struct("<8s4I2Q2I")
CHUNK_ROWS = 1 << 16
MOST_ROWS = 2**31 - 1


def row_bytes(table_type: str, width: int) -> int:
    """Bytes of a row of D values."""
    return {"fp32": 4 * width, "fp16": 2 * width, "int8": 4 + width}[table_type]


def encode_rows(values: np.ndarray, table_type: str) -> np.ndarray:
    """Rows as the file holds them, uint8 [R, row_bytes], of values [R, D] float32.

    An int8 row's scale is a 127th of its largest magnitude.

    Raises:
        InputError: a value is not finite, or beyond the largest that fp16 can hold, 65504.
    """
    if not np.isfinite(values).all():
        raise InputError(
            "the tables hold nan or infinity, with which nothing can be scored: train again, with a lower lr"
        )
    if table_type == "int8":
        scales = np.abs(values).max(axis=1, keepdims=True).astype("<f4") / np.float32(127)
        codes = (
            np.rint(values / np.where(scales > 0, scales, 1)).clip(-127, 127).astype(np.int8)
        )  # a tiny scale is rough
        return np.concatenate((scales.view(np.uint8), codes.view(np.uint8)), axis=1)
    if table_type == "fp16":
        with np.errstate(over="ignore"):
            values = values.astype("<f2")
        if not np.isfinite(values).all():
            raise InputError("the tables hold values that fp16 can't: give --table_type=fp32 or int8")
    return np.ascontiguousarray(values, values.dtype.newbyteorder("<")).view(np.uint8)


def decode_rows(rows: np.ndarray, table_type: str) -> np.ndarray:
    """The values [R, D] float32 of rows as the file holds them, uint8 [R, row_bytes]."""
    rows = np.ascontiguousarray(rows)
    if table_type == "int8":
        return np.ascontiguousarray(rows[:, :4]).view("<f4") * rows[:, 4:].view(np.int8).astype(np.float32)
    return rows.view("<f4" if table_type == "fp32" else "<f2").astype(np.float32)


class TableWriter:
    """Rows to a table file, or nowhere, to learn what that file would be.

    Args:
        table_rows: rows of each table.
        width: D.
        table_type: of TABLE_TYPES.
        file: where they go; None for nowhere.

    Raises:
        InputError: more rows than an int32 can number.
    """

    def __init__(self, table_rows: Sequence[int], width: int, table_type: str, file: BinaryIO | None = None):
        if sum(table_rows) > MOST_ROWS:
            raise InputError(
                f"the tables have {sum(table_rows)} rows, of which a file holds at most {MOST_ROWS}: preprocess the "
                f"data with a higher --min_count"
            )
        self._table_rows, self._width, self._table_type, self._file = tuple(table_rows), width, table_type, file
        self._header_bytes = -(-(_FIXED.size + 8 * len(table_rows) + 4) // _PAGE) * _PAGE
        self._checksums = array("I")  # 4 bytes of memory for 4096 of the file
        self._rest = b""
        self._put(b"\0" * self._header_bytes)

    def add(self, rows: np.ndarray) -> None:
        """Take rows, as `encode_rows` gives them, behind those so far."""
        self._rest += rows.tobytes()
        self._flush(len(self._rest) // _PAGE * _PAGE)

    def finish(self, table_rows: Sequence[int] = ()) -> tuple[int, str]:
        """Write what is left, and the header; bytes and identity of the file.

        Args:
            table_rows: rows of each table, if they are others than was thought.
        """
        sizes = tuple(table_rows) or self._table_rows
        self._rest = self._rest.ljust(-(-len(self._rest) // _PAGE) * _PAGE, b"\0")
        self._flush(len(self._rest))
        checksums = np.array(self._checksums, "<u4").tobytes()
        self._put(checksums)
        fixed = _FIXED.pack(
            _MAGIC, _VERSION, TABLE_TYPES.index(self._table_type), self._width, len(sizes), sum(sizes),
            self._header_bytes, zlib.crc32(checksums), 0,
        )  # fmt: skip
        header = (fixed + np.array(sizes, "<u8").tobytes()).ljust(self._header_bytes - 4, b"\0")
        if self._file:
            self._file.seek(0)
        self._put(header + struct.pack("<I", zlib.crc32(header)))
        return self._header_bytes + len(self._checksums) * (_PAGE + 4), f"{zlib.crc32(header):08x}"

    def _flush(self, size: int) -> None:
        whole, self._rest = self._rest[:size], self._rest[size:]
        self._checksums.extend(zlib.crc32(whole[start : start + _PAGE]) for start in range(0, size, _PAGE))
        self._put(whole)

    def _put(self, data: bytes) -> None:
        if self._file:
            self._file.write(data)


def write_tables(
    path: Path, table_rows: Sequence[int], width: int, fill: "Fill", table_type: str = "fp32"
) -> tuple[int, str]:
    """Write the tables to a file, whole or not at all, in memory of a fixed size.

    Args:
        path: the file.
        table_rows: rows of each table.
        width: D.
        fill: writes a piece's values to an array [rows, D].
        table_type: of TABLE_TYPES.

    Returns:
        The file's bytes and identity.

    Raises:
        InputError: more rows than an int32 can number, or values that the type can't hold.
    """
    with whole_file(path) as file:
        writer = TableWriter(table_rows, width, table_type, file)
        for _, values in chunks(table_rows, width, fill):
            writer.add(encode_rows(values, table_type))
        return writer.finish()


def chunks(table_rows: Sequence[int], width: int, fill: "Fill") -> Iterator[tuple["Piece", np.ndarray]]:
    """The values of all tables, piece by piece; arguments as for `write_tables`."""
    from src.ranks.placement import Piece

    for field, rows in enumerate(table_rows):
        for low in range(0, rows, CHUNK_ROWS):
            piece = Piece(field, low, min(low + CHUNK_ROWS, rows))
            values = np.empty((piece.rows, width), np.float32)
            fill(piece, values)
            yield piece, values


@functools.lru_cache(maxsize=64)
def _of_ids(of_fields: tuple[int, ...], layout: Layout) -> np.ndarray:
    """What fields have, for each of a row's ids, [L]: made once, since requests of a single row would wait for it."""
    found = np.array(layout.of_ids(of_fields))
    found.flags.writeable = False
    return found


def check_ids(ids: np.ndarray, table_rows: Sequence[int], layout: Layout) -> None:
    """Refuse ids [B, L] of which one is not among its table's, nor padding of a list.

    Args:
        ids: to be checked.
        table_rows: rows of each field's table, [F].
        layout: of the ids.

    Raises:
        InputError: it names the first one.
    """
    rows = _of_ids(tuple(table_rows), layout)
    first = _of_ids(tuple(PADDING if pool else 0 for pool in layout.pools), layout)
    if wrong := np.argwhere((ids < first) | (ids >= rows)).tolist():
        row, place = wrong[0]
        field = layout.of_ids(range(layout.fields))[place]
        raise InputError(
            f"row {row + 1}, field {field + 1}: id {ids[row, place]} is not among the {rows[place]} of its "
            f"table: code the rows with this model's vocabulary"
        )


class Tables:
    """Tables that rows are looked up in.

    Args:
        table_rows, width, table_type: as for `write_tables`.

    Attributes:
        table_rows, width, table_type: the same.
        starts: number of each table's first row among all, [T].
    """

    def __init__(self, table_rows: Sequence[int], width: int, table_type: str):
        self.table_rows, self.width, self.table_type = tuple(table_rows), width, table_type
        self.starts = tuple(np.cumsum([0, *self.table_rows[:-1]]).tolist())

    def encoded(self, rows: np.ndarray) -> np.ndarray:
        """Rows of these numbers among all, [n], as a file holds them, uint8 [n, row_bytes].

        Raises:
            InputError: a damaged page, or a file that changed since it was opened.
        """
        raise NotImplementedError

    def lookup(self, ids: np.ndarray, layout: Layout | None = None) -> np.ndarray:
        """The vectors [B, F, D] float32 of ids [B, L], each table's own or padding; those of lists are pooled.

        Args:
            ids: to be looked up.
            layout: of the ids; unless given each table is of a field of one value.

        Raises:
            InputError: an id that its table has not, or as `encoded`.
        """
        layout = layout or Layout.plain(len(self.table_rows))
        check_ids(ids, layout.of_fields(self.table_rows), layout)
        starts = _of_ids(layout.of_fields(self.starts), layout)
        rows = (np.maximum(ids, 0) + starts).reshape(-1)  # some row in the place of padding, which is not pooled
        vectors = decode_rows(self.encoded(rows), self.table_type).reshape(*ids.shape, self.width)
        return layout.pool(vectors, ids)


class TableFile(Tables):
    """The tables of a file, mapped into memory.

    Args:
        path: the file.

    Attributes:
        identity: a checksum of the header, and so of the checksums of all rows.

    Raises:
        InputError: the file is damaged, or was not written by `write_tables`.
    """

    def __init__(self, path: Path):
        self.path = path
        with path.open("rb") as file:
            fixed = file.read(_FIXED.size)
            if len(fixed) < _FIXED.size or fixed[:8] != _MAGIC:
                raise self._damaged("it does not begin as one of this program")
            _, version, kind, width, fields, rows, header_bytes, pages_crc, _ = _FIXED.unpack(fixed)
            smallest = _FIXED.size + 8 * fields + 4
            if version != _VERSION or kind >= len(TABLE_TYPES) or not smallest <= header_bytes <= path.stat().st_size:
                raise self._damaged(f"its header says version {version}, type {kind}, {header_bytes} bytes")
            header = fixed + file.read(header_bytes - len(fixed))
        if zlib.crc32(header[:-4]) != struct.unpack("<I", header[-4:])[0]:
            raise self._damaged("the checksum of its header differs")
        self.identity = f"{zlib.crc32(header[:-4]):08x}"
        sizes = np.frombuffer(header, "<u8", fields, _FIXED.size).astype(np.int64)
        super().__init__(sizes.tolist(), width, TABLE_TYPES[kind])
        self._row_bytes = row_bytes(self.table_type, self.width)
        page_count = -(-rows * self._row_bytes // _PAGE)
        expected = header_bytes + page_count * (_PAGE + 4)
        if path.stat().st_size != expected:
            raise self._damaged(f"it has {path.stat().st_size} bytes instead of {expected}")
        self._file = MappedFile(path)
        mapped = np.frombuffer(self._file.data, np.uint8)
        self._pages = mapped[header_bytes : header_bytes + page_count * _PAGE].reshape(-1, _PAGE)
        self._checksums = mapped[header_bytes + page_count * _PAGE :].view("<u4")
        if zlib.crc32(self._checksums.data) != pages_crc:
            raise self._damaged("the checksum of its checksums differs")
        self._rows = self._pages.reshape(-1)[: rows * self._row_bytes].reshape(rows, self._row_bytes)
        self._checked = np.zeros(page_count, bool)

    def encoded(self, rows: np.ndarray) -> np.ndarray:
        """As of `Tables`."""
        self._file.check()
        first = rows * self._row_bytes
        self._check_pages(np.unique(np.concatenate((first // _PAGE, (first + self._row_bytes - 1) // _PAGE))))
        return self._rows[rows]

    def check(self) -> None:
        """Refuse a file of which any page is damaged.

        Raises:
            InputError: one is.
        """
        self._file.check()
        self._check_pages(np.arange(len(self._pages)))

    def _check_pages(self, touched: np.ndarray) -> None:
        for page in touched[~self._checked[touched]].tolist():
            if zlib.crc32(self._pages[page].data) != self._checksums[page]:
                raise self._damaged(f"the checksum of page {page} of its rows differs")
            self._checked[page] = True

    def _damaged(self, reason: str) -> InputError:
        return InputError(f"{self.path} is no whole table file, {reason}: export the model again")
