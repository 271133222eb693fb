"""Which rank takes which rows of a batch, and what it reads for them."""

import numpy as np
import pytest

from src import dataset
from src.data import records
from src.dataset import RowBatches, Rows
from tests.test_dataset import (
    DENSE_DIM,
    RECORD_ROWS,
    ROWS,
    SHARD_ROWS,
    SLOT_DIM,
    make,
    numbers_of,
    shards,
    side_by_side,
)

__all__ = ["shards"]  # a fixture


def dealt(rows: Rows, batch_size: int, **options) -> RowBatches:
    """Of a rank that may take any part of a batch."""
    batches = RowBatches(rows, batch_size, **options)
    batches.deal()
    return batches


@pytest.mark.parametrize("window_rows", [1, 37, 100, 1 << 16])
@pytest.mark.parametrize(("batch_size", "ranks", "shuffle"), [
    (4, 2, True), (48, 3, True), (128, 2, True), (1000, 4, True), (100, 4, False)])  # fmt: skip
def test_ranks_that_deal_have_the_rows_of_each_batch_of_one_process(
    shards, batch_size, ranks, shuffle, window_rows, monkeypatch
):
    """Each row once, and all ranks as many."""
    monkeypatch.setattr(dataset, "_WINDOW_ROWS", window_rows)
    rows = Rows(shards, ROWS, DENSE_DIM, SLOT_DIM, SHARD_ROWS, record_rows=RECORD_ROWS)
    options = {"shuffle": shuffle, "drop_last": True, "seed": 4}
    one = make(shards, batch_size, **options)
    of_ranks = [dealt(rows, batch_size, **options, rank=rank, ranks=ranks) for rank in range(ranks)]
    for together, whole in side_by_side(one, of_ranks):
        assert {len(ids) for _, ids, _ in together} == {batch_size // ranks}
        assert sorted(numbers_of(together)) == sorted(whole[:, 0])


@pytest.mark.parametrize(("ranks", "most"), [(2, 0.75), (3, 0.65)])
def test_ranks_that_deal_read_little_more_than_their_share_of_the_records(shards, monkeypatch, ranks, most):
    """Of 63. Batches are small here, so that more records than usual have rows for all of them."""
    read, unpack = [], records.unpack
    monkeypatch.setattr(dataset.records, "unpack", lambda *given: read.append(1) or unpack(*given))
    rows = Rows(shards, ROWS, DENSE_DIM, SLOT_DIM, SHARD_ROWS, record_rows=RECORD_ROWS)
    for rank in range(ranks):
        read.clear()
        list(dealt(rows, 252, shuffle=True, drop_last=True, rank=rank, ranks=ranks))
        assert 63 / ranks - 4 < len(read) < most * 63
        read.clear()
        list(RowBatches(rows, 252, shuffle=True, drop_last=True, rank=rank, ranks=ranks))
        assert len(read) == 63


@pytest.mark.parametrize(("sizes", "message"), [
    ((SHARD_ROWS, 20), "hold 63 records, not 50 of 1000 rows"),
    (([320, 320, 328, 32], RECORD_ROWS), "have other numbers of rows than the manifest"),
])  # fmt: skip
def test_records_of_other_sizes_than_the_manifest_has_are_refused(shards, sizes, message):
    rows = Rows(shards, ROWS, DENSE_DIM, SLOT_DIM, sizes[0], record_rows=sizes[1])
    with pytest.raises(ValueError, match=message):
        list(dealt(rows, 100, shuffle=True, drop_last=True, rank=0, ranks=2))


@pytest.mark.parametrize("shuffle", [True, False])
def test_dealt_rows_have_the_unseen_values_that_one_process_gives_them(shards, shuffle):
    """Which are those of the row's place in the epoch."""
    rows = Rows(shards, ROWS, DENSE_DIM, SLOT_DIM, SHARD_ROWS, category_ids=2, record_rows=RECORD_ROWS)
    options = {"shuffle": shuffle, "drop_last": True, "unseen_share": 0.3}
    one = RowBatches(rows, 100, **options)
    two = [dealt(rows, 100, **options, rank=rank, ranks=2) for rank in range(2)]
    for (_, whole, _), *parts in zip(one, *two, strict=True):
        ids = np.concatenate([part[1] for part in parts])
        assert 30 < (whole[:, :2] == 0).sum() < 90
        np.testing.assert_array_equal(ids[np.argsort(ids[:, 2])], whole[np.argsort(whole[:, 2])])
