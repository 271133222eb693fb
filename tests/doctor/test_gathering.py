"""What is kept of rows in bounded memory is as of all rows."""

import numpy as np
import pytest

from src.doctor.gathering import Gathering, hashes_of

ROWS = 20_000
RNG = np.random.default_rng(1)
IDS = RNG.integers(0, 40, (ROWS, 3)).astype(np.int32)
DENSE = RNG.integers(0, 3, (ROWS, 1)).astype(np.float32)
LABELS = (RNG.random(ROWS) < 0.3).astype(np.uint8)


def gathered(rows=slice(None), **most):
    gathering = Gathering(**most)
    dense, ids, labels = DENSE[rows], IDS[rows], LABELS[rows]
    for start in range(0, len(ids), 777):
        part = slice(start, start + 777)
        gathering.add(dense[part], ids[part], labels[part], dense[part] * 2, ids[part].T.astype(np.uint64))
    return gathering.end()


def test_all_of_few_rows_is_kept_in_their_order():
    found = gathered()
    assert (found.rows, found.clicks) == (ROWS, LABELS.sum())
    assert found.label_mean == pytest.approx(LABELS.mean())
    np.testing.assert_array_equal(found.ids, IDS)
    np.testing.assert_array_equal(found.dense, DENSE)
    np.testing.assert_array_equal(found.labels, LABELS)
    np.testing.assert_array_equal(found.numbers, 2 * DENSE)
    np.testing.assert_array_equal(found.keys, IDS.T)
    hashes, times = np.unique(hashes_of(DENSE, IDS), return_counts=True)
    np.testing.assert_array_equal(found.hashes, hashes)
    np.testing.assert_array_equal(found.times, times)


def test_some_of_many_rows_are_kept_by_chance_and_belong_together():
    found = gathered(most_rows=1000, most_hashes=500)
    assert (found.rows, found.clicks, len(found.ids)) == (ROWS, LABELS.sum(), 1000)
    rows = {tuple(row) for row in np.column_stack([DENSE, IDS, LABELS]).tolist()}
    assert {tuple(row) for row in np.column_stack([found.dense, found.ids, found.labels]).tolist()} <= rows
    np.testing.assert_array_equal(found.keys.T, found.ids)
    np.testing.assert_array_equal(found.numbers, 2 * found.dense)
    assert found.labels.mean() == pytest.approx(LABELS.mean(), abs=0.06)
    assert found.ids.mean() == pytest.approx(IDS.mean(), abs=0.8)


def test_the_smallest_hashes_are_kept_with_how_often_they_come():
    found = gathered(most_hashes=500)
    hashes, times = np.unique(hashes_of(DENSE, IDS), return_counts=True)
    np.testing.assert_array_equal(found.hashes, hashes[:500])
    np.testing.assert_array_equal(found.times, times[:500])
    assert found.bound == hashes[499]


def test_the_share_of_rows_in_both_parts_follows_from_few_hashes():
    first, second = gathered(slice(0, 12_000), most_hashes=600), gathered(slice(10_000, None), most_hashes=900)
    bound = min(first.bound, second.bound)
    (hashes, times), (others, _) = second.within(bound), first.within(bound)
    found = times[np.isin(hashes, others)].sum() / times.sum()
    exact = np.isin(hashes_of(DENSE, IDS)[10_000:], hashes_of(DENSE, IDS)[:12_000]).mean()
    assert found == pytest.approx(exact, abs=0.05)


def test_rows_that_differ_have_other_hashes():
    ids = np.arange(60_000, dtype=np.int32)[:, None] + np.zeros((1, 4), np.int32)
    dense = np.zeros((60_000, 2), np.float32)
    assert len(np.unique(hashes_of(dense, ids))) == 60_000
    assert hashes_of(dense[:1], ids[:1]) != hashes_of(dense[:1] + 1, ids[:1])


def test_no_rows_are_nothing():
    assert Gathering().end() is None


def test_rows_count_by_their_weights():
    weights = RNG.choice([0.0, 0.5, 3.0], ROWS)
    gathering = Gathering(most_rows=1000)
    for start in range(0, ROWS, 777):
        part = slice(start, start + 777)
        gathering.add(DENSE[part], IDS[part], LABELS[part], weights=weights[part])
    found = gathering.end()
    assert found.label_mean == pytest.approx(np.average(LABELS, weights=weights))
    assert found.effective == pytest.approx(weights.sum() ** 2 / (weights**2).sum())
    assert len(found.weights) == 1000
    kept = found.weights[found.labels == 1]
    assert found.of_labels[0] == pytest.approx(kept.sum() ** 2 / (kept**2).sum())
    one = gathered()
    assert (one.weights, one.effective, one.of_labels) == (None, ROWS, (LABELS.sum(), ROWS - LABELS.sum()))
