import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.data.records import pack, row_bytes, unpack, write
from src.dataset import RowBatches, Rows

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


@pytest.mark.parametrize(
    ("rows", "record_rows", "most_bytes"),
    [(2000, 500, 1_000_000), (40_000, 500, 17_000_000), (30_000, 16_384, 26_000_000)],
)
def test_files_of_few_rows_are_small_and_read_together_with_larger_ones(tmp_path, rows, record_rows, most_bytes):
    """As long as all are told the rows of the largest: MindRecord wants one layout."""
    rng, found = np.random.default_rng(1), []
    for number, count in enumerate((rows, 7)):
        found.append(
            (rng.random((count, 13), np.float32), rng.integers(0, 9, (count, 26), dtype=np.int32),
             rng.integers(0, 2, count, dtype=np.uint8))
        )  # fmt: skip
        starts = range(0, count, record_rows)
        packed = [pack(*(column[at : at + record_rows] for column in found[-1])) for at in starts]
        write(
            tmp_path / f"part-{number}.mindrecord", packed, *(size * row_bytes(13, 26) for size in (rows, record_rows))
        )
    paths = [tmp_path / f"part-{number}.mindrecord" for number in range(2)]
    assert paths[1].stat().st_size <= paths[0].stat().st_size < most_bytes
    batches = list(RowBatches(Rows([*map(str, paths)], rows + 7, 13, 26), 1000))
    for read, written in zip(zip(*batches), zip(*found)):
        np.testing.assert_array_equal(np.concatenate(read).squeeze(), np.concatenate(written))
