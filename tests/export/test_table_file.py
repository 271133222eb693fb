"""Table files: what they hold, to the byte, and that no damage goes unnoticed."""

import os
import struct
import zlib

import numpy as np
import pytest

from src.base.errors import InputError
from src.export.options import TABLE_TYPES
from src.export.table_file import TableFile, decode_rows, encode_rows, row_bytes, write_tables

TABLE_ROWS, WIDTH = (5, 700, 1), 8


def values_of(rows, seed=1):
    values = np.random.default_rng(seed).normal(0, 0.1, (rows, WIDTH)).astype(np.float32)
    values[0] = 0
    return values


@pytest.fixture(params=TABLE_TYPES)
def table(request, tmp_path):
    """A file of each type, the values it was written from, and the type."""
    values = [values_of(rows, field) for field, rows in enumerate(TABLE_ROWS)]

    def fill(piece, target):
        target[:] = values[piece.table][piece.low : piece.high]

    write_tables(tmp_path / "t.tables", TABLE_ROWS, WIDTH, fill, request.param)
    return tmp_path / "t.tables", values, request.param


def plain_row(values, table_type):
    """A row as it comes back, value by value."""
    if table_type == "fp32":
        return list(values)
    if table_type == "fp16":
        return [struct.unpack("<e", struct.pack("<e", value))[0] for value in values]
    scale = np.float32(max(abs(value) for value in values)) / np.float32(127)
    return [scale * np.float32(round(float(value / scale)) if scale else 0) for value in values]


def test_lookup_gives_the_rows(table):
    path, values, table_type = table
    file = TableFile(path)
    assert (file.table_rows, file.width, file.table_type) == (TABLE_ROWS, WIDTH, table_type)
    ids = np.array([[0, 0, 0], [4, 699, 0], [2, 511, 0], [2, 1, 0]], np.int32)
    found = file.lookup(ids)
    assert found.dtype == np.float32
    for row, of_fields in zip(found, ids):
        for field, (vector, one) in enumerate(zip(row, of_fields)):
            assert vector.tolist() == pytest.approx(plain_row(values[field][one], table_type), rel=1e-6)


def test_file_is_laid_out_as_described(table):
    path, values, table_type = table
    data = path.read_bytes()
    magic, version, kind, width, fields, rows, header, pages_crc, _ = struct.unpack_from("<8s4I2Q2I", data)
    assert (magic, version, kind, width, fields, rows) == (
        b"DLRMTBL\n",
        1,
        TABLE_TYPES.index(table_type),
        WIDTH,
        3,
        706,
    )
    assert struct.unpack_from("<3Q", data, 48) == TABLE_ROWS
    assert header == 4096
    assert struct.unpack_from("<I", data, header - 4)[0] == zlib.crc32(data[: header - 4])
    size = row_bytes(table_type, WIDTH)
    assert data[header + 7 * size :][:size] == encode_rows(values[1][2:3], table_type).tobytes()
    pages = -(-rows * size // 4096)
    assert len(data) == header + pages * 4100
    sums = struct.unpack_from(f"<{pages}I", data, header + pages * 4096)
    assert list(sums) == [zlib.crc32(data[header + 4096 * page :][:4096]) for page in range(pages)]
    assert pages_crc == zlib.crc32(data[header + pages * 4096 :])


@pytest.mark.parametrize(("table_type", "bytes_of_row"), [("fp32", 64), ("fp16", 32), ("int8", 20)])
def test_sizes_of_rows(table_type, bytes_of_row):
    assert row_bytes(table_type, 16) == bytes_of_row
    assert encode_rows(np.ones((3, 16), np.float32), table_type).shape == (3, bytes_of_row)


@pytest.mark.parametrize("scale", [1e-30, 3e-4, 1.0, 1e30])
def test_int8_is_within_half_a_step(scale):
    values = values_of(100) * np.float32(scale)
    back = decode_rows(encode_rows(values, "int8"), "int8")
    step = np.abs(values).max(axis=1, keepdims=True) / 127
    assert np.all(np.abs(back - values) <= step * 0.5001)


@pytest.mark.parametrize("table_type", TABLE_TYPES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(table_type, value):
    with pytest.raises(InputError, match="hold nan or infinity, .*: train again, with a lower lr"):
        encode_rows(np.array([[1, 2], [0, value]], np.float32), table_type)


def test_the_least_values_do_not_change_their_sign_in_int8():
    """The scale of such a row is a multiple of 2**-149, up to half a step off."""
    least = np.float32(2.0**-149)
    values = least * np.array([[190, -190], [127 + 63, 5], [-63, 63]], np.float32)
    codes = encode_rows(values, "int8")[:, 4:].view(np.int8)
    assert codes.min() >= -127
    assert np.all(np.sign(codes) * np.sign(values) >= 0)


def test_more_rows_than_an_int32_can_number_are_refused(tmp_path):
    with pytest.raises(InputError, match="the tables have 2147483648 rows, of which a file holds at most 2147483647"):
        write_tables(tmp_path / "t", (2**31 - 1, 1), WIDTH, lambda *_: None)
    assert not list(tmp_path.iterdir())


def test_fp16_refuses_what_it_cannot_hold():
    with pytest.raises(InputError, match="fp16 can't: give --table_type=fp32"):
        encode_rows(np.array([[70000.0]], np.float32), "fp16")


@pytest.mark.parametrize(("ids", "message"), [
    ([[0, 0, 0], [0, 700, 0]], "row 2, field 2: id 700 is not among the 700"),
    ([[-1, 0, 0]], "row 1, field 1: id -1"),
])  # fmt: skip
def test_ids_out_of_range_are_refused(table, ids, message):
    with pytest.raises(InputError, match=message):
        TableFile(table[0]).lookup(np.array(ids, np.int32))


def every_id():
    return np.stack([np.arange(700) % rows for rows in TABLE_ROWS], axis=1).astype(np.int32)


def test_any_changed_byte_is_noticed(table):
    """One byte in every 97, and all of the header's fixed part."""
    path, _, _ = table
    data = path.read_bytes()
    for place in [*range(80), *range(80, len(data), 97)]:
        changed = bytearray(data)
        changed[place] ^= 0x10
        path.write_bytes(changed)
        with pytest.raises(InputError, match="is no whole table file"):
            TableFile(path).lookup(every_id())


@pytest.mark.parametrize("size", [0, 10, 47, 4095, 4096, -1, -4096])
def test_any_cut_is_noticed(table, size):
    path, _, _ = table
    data = path.read_bytes()
    path.write_bytes(data[:size])
    with pytest.raises(InputError, match="is no whole table file"):
        TableFile(path)
    path.write_bytes(data + b"\0")
    with pytest.raises(InputError, match="bytes instead of"):
        TableFile(path)


def test_only_touched_pages_are_checked(table):
    """Damage in a page that no row touches is not seen; in the same file a row that touches it is refused."""
    path, values, table_type = table
    data = bytearray(path.read_bytes())
    data[4096 + 505 * row_bytes(table_type, WIDTH)] ^= 1  # row 500 of the second field, in neither end's page
    path.write_bytes(data)
    file = TableFile(path)
    found = file.lookup(np.array([[1, 2, 0]], np.int32))
    for field, one in enumerate((1, 2, 0)):
        assert found[0, field].tolist() == pytest.approx(plain_row(values[field][one], table_type), rel=1e-6)
    with pytest.raises(InputError, match="the checksum of page"):
        file.lookup(np.array([[1, 500, 0]], np.int32))


@pytest.mark.parametrize("change", [
    lambda path: os.truncate(path, 4096),
    lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\0"),
])  # fmt: skip
def test_a_table_file_that_changes_while_it_is_used_is_refused(table, change):
    """Where it was cut, reading on would end the process (SIGBUS)."""
    path, _, _ = table
    os.utime(path, (1, 1))
    used = TableFile(path)
    used.lookup(np.zeros((1, len(used.table_rows)), int))
    change(path)
    with pytest.raises(InputError, match=r"t.tables changed while it was in use: begin again"):
        used.lookup(np.zeros((1, len(used.table_rows)), int))
