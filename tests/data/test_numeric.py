"""What is learned from numbers, against plain loops, and sums of columns with many values."""

import math
import statistics
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.data import numeric
from src.data.numeric import bucket_edges, count_scale, count_scores, merge, summarise
from src.data.transforms import StandardLog

# Few values, so that they repeat; None is an empty cell.
some_numbers = st.lists(st.sampled_from([None, -2.0, 0.0, 0.5, 1.0, 7.0, 1e30]), max_size=40)


def summary_of(values):
    return summarise(np.array([math.nan if value is None else value for value in values], np.float32))


def present(values):
    return sorted(np.float32(value).item() for value in values if value is not None)


def plain_share(ordered, value):
    """Share of smaller values, and half of the equal ones."""
    return (sum(other < value for other in ordered) + ordered.count(value) / 2) / len(ordered)


def plain_edges(ordered, buckets):
    """The smallest values that so many buckets' shares of all values do not exceed, without the largest of all."""
    found = []
    for bucket in range(1, buckets):
        for value in ordered:
            if sum(other <= value for other in ordered) * buckets >= bucket * len(ordered):
                found.append(value)
                break
    return sorted(set(found) - {ordered[-1]}) if ordered else []


@given(st.lists(some_numbers, min_size=1, max_size=5))
def test_summaries_of_parts_equal_counts_of_the_whole(parts):
    values, counts = merge([summary_of(part) for part in parts])
    expected = Counter(present(value for part in parts for value in part))
    assert dict(zip(values.tolist(), counts.tolist())) == expected
    assert values.tolist() == sorted(expected)
    assert (values.dtype, counts.dtype) == (np.float32, np.int64)


@given(some_numbers, st.integers(2, 6))
def test_bucket_edges(values, buckets):
    assert bucket_edges(summary_of(values), buckets).tolist() == plain_edges(present(values), buckets)


@given(st.lists(st.integers(1, 9), max_size=6), st.integers(0, 3))
def test_count_scores_are_standardised_over_the_rows(counts, unseen):
    rows = sum(counts) + unseen
    of_rows = [math.log(1 + count) for count in counts for _ in range(count)] + [0.0] * unseen
    mean = statistics.fmean(of_rows) if of_rows else 0
    deviation = 1 if not of_rows or max(of_rows) == min(of_rows) else statistics.pstdev(of_rows)
    expected = [(math.log(1 + count) - mean) / deviation for count in [0, *counts]]
    found = np.array(counts, np.int64)
    scores = count_scores(found, count_scale(found, rows))
    assert scores.dtype == np.float32
    assert scores.tolist() == pytest.approx(expected, rel=1e-5, abs=1e-5)


def many():
    """100,000 values, half of them distinct, and a heavy one; in parts."""
    rng = np.random.default_rng(5)
    values = np.concatenate([rng.lognormal(2, 3, 50_000), np.full(50_000, 3.0)]).astype(np.float32)
    rng.shuffle(values)
    return np.array_split(values, 60)


def test_many_values_take_bounded_memory(monkeypatch):
    """Merged in groups one after the other, as for a long file."""
    parts = many()
    exact = merge([summarise(part) for part in parts])
    assert len(exact[0]) > 40_000
    monkeypatch.setattr(numeric, "MOST_VALUES", 4096)
    pending = []
    for part in parts:
        pending.append(summarise(part))
        if len(pending) == 8:
            pending = [merge(pending)]
            assert len(pending[0][0]) <= 4096
    values, counts = merge(pending)
    assert counts.sum() == 100_000
    assert np.all(np.diff(values) > 0)
    assert set(values.tolist()) <= set(exact[0].tolist())
    shares = (np.cumsum(counts) - counts / 2) / counts.sum()
    ends = np.cumsum(exact[1])
    expected = ((ends - exact[1] / 2) / ends[-1])[np.searchsorted(exact[0], values)]
    assert np.abs(shares - expected).max() < 9 / 4096  # a merge may move each by one group
    assert np.abs(counts[values == 3.0] - 50_000).max() < 9 * 100_000 / 4096
    np.testing.assert_allclose(StandardLog().learn((values, counts)), StandardLog().learn(exact), rtol=1e-3)
