import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.data.records import pack, row_bytes, unpack

dims = st.tuples(st.integers(0, 40), st.integers(1, 5), st.integers(1, 5))


@given(dims, st.integers(0, 2**32 - 1))
def test_unpack_gives_what_was_packed(shape, seed):
    rows, dense_dim, slot_dim = shape
    rng = np.random.default_rng(seed)
    dense = rng.normal(0, 1e6, (rows, dense_dim)).astype(np.float32)
    ids = rng.integers(0, 2**31, (rows, slot_dim), dtype=np.int32)
    labels = rng.integers(0, 2, rows, dtype=np.uint8)
    record = pack(dense, ids, labels)
    assert len(record) == rows * row_bytes(dense_dim, slot_dim)
    actual = unpack(np.frombuffer(record, np.uint8), dense_dim, slot_dim)
    for value, expected in zip(actual, (dense, ids, labels)):
        assert value.dtype == expected.dtype
        np.testing.assert_array_equal(value, expected)


def test_row_of_criteo_takes_157_bytes():
    assert row_bytes(13, 26) == 157


def test_blocks_stand_one_behind_the_other_little_endian():
    record = pack(np.array([[1.0], [2.0]], np.float32), np.array([[3], [258]], np.int32), np.array([1, 0], np.uint8))
    assert record.hex() == "0000803f" + "00000040" + "03000000" + "02010000" + "01" + "00"


@pytest.mark.parametrize("size", [1, 8, 10, 17, 19])
def test_record_of_broken_length_is_refused(size):
    with pytest.raises(ValueError, match=f"a record of {size} bytes does not hold whole rows of 9"):
        unpack(np.zeros(size, np.uint8), 1, 1)
