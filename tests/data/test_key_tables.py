"""Counting, merging, ranking and looking up keys, in compiled code and by pandas, against plain Python."""

import shutil
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.data.compiled import key_tables
from src.data.compiled.key_tables import KeyTable, Ranking, count_keys, find_places, merge_counts

SPREAD = np.uint64(0x9E3779B97F4A7C15)
# Few values, so that they repeat; 0 is the key of an empty cell, the last ones need all 64 bits.
some_keys = st.lists(st.sampled_from([0, 1, 2, 255, 256, 2**63 - 1, 2**63, 2**64 - 1]), max_size=40)


@pytest.fixture(params=["compiled", "pandas"])
def way(request, monkeypatch):
    """With the library, and as it is where there is no compiler."""
    if request.param == "pandas":
        monkeypatch.setattr(key_tables, "_library", lambda: None)
    elif not shutil.which("g++"):
        pytest.skip("there is no compiler")
    return request.param


def random_keys(distinct, size, seed=1):
    return np.random.default_rng(seed).integers(0, distinct, size).astype(np.uint64) * SPREAD


@pytest.mark.parametrize(("distinct", "size"), [(3, 0), (3, 1), (3, 1000), (900, 3000), (50_000, 60_000)])
def test_counts_are_those_of_a_counter_by_rising_keys(way, distinct, size):
    """Few keys are counted in a table, many by sorting: both come, and keys that stand in both."""
    keys = np.concatenate([random_keys(7, size // 2), random_keys(distinct, size - size // 2)])
    found, counts = count_keys(keys)
    expected = sorted(Counter(keys.tolist()).items())
    assert (found.dtype, counts.dtype) == (np.uint64, np.int64)
    assert list(zip(found.tolist(), counts.tolist())) == expected


@given(some_keys)
def test_any_keys_are_counted(keys):
    found, counts = count_keys(np.array(keys, np.uint64))
    assert list(zip(found.tolist(), counts.tolist())) == sorted(Counter(keys).items())


@pytest.mark.parametrize("distinct", [5, 30_000])
def test_a_key_of_several_texts_has_a_check_that_no_text_has(way, distinct):
    keys = random_keys(distinct, 40_000)
    checks = np.random.default_rng(2).choice(np.array([0, 5, 7], np.uint32), len(keys), p=[0.6, 0.39, 0.01])
    found, counts, own = count_keys(keys, checks)
    texts: dict[int, set[int]] = {}
    for key, check in zip(keys.tolist(), checks.tolist()):
        texts.setdefault(key, set()).update({check} - {0})
    told = {key: next(iter(one)) if len(one) == 1 else 2 if one else 0 for key, one in texts.items()}
    assert dict(zip(found.tolist(), own.tolist())) == told
    parts = [count_keys(keys[first::7], checks[first::7]) for first in range(7)]
    for array, merged in zip((found, counts, own), merge_counts(parts)):
        np.testing.assert_array_equal(array, merged)


@pytest.mark.parametrize("parts", [1, 2, 3, 8, 13])
def test_any_number_of_parts_is_merged(way, parts):
    keys = random_keys(2000, 5000)
    cuts = np.sort(np.random.default_rng(parts).integers(0, len(keys), parts - 1))
    merged = merge_counts([count_keys(part) for part in np.split(keys, cuts)])
    assert len(merged) == 2
    for array, whole in zip(merged, count_keys(keys)):
        np.testing.assert_array_equal(array, whole)


def test_parts_without_checks_are_merged_with_those_that_have_some(way):
    keys = np.array([3, 9], np.uint64)
    merged = merge_counts([count_keys(keys), count_keys(keys[1:], np.array([5], np.uint32))])
    assert [array.tolist() for array in merged] == [[3, 9], [1, 2], [0, 5]]


def test_places_fall_by_counts_and_rise_by_keys_whatever_the_cut(way):
    """Counts beyond 2^16 are found otherwise than smaller ones."""
    totals = np.random.default_rng(1).choice([1, 2, 3, 9, 70_000, 2**40], 1000)
    counts, keys = np.unique(totals[totals >= 2], return_counts=True)
    order = [place for place in np.argsort(-totals, kind="stable").tolist() if totals[place] >= 2]
    expected = np.full(len(totals), -1)
    expected[order] = np.arange(len(order))
    ranking = Ranking(counts, keys)
    np.testing.assert_array_equal(np.concatenate([ranking.places(part) for part in np.split(totals, [0, 1, 400])]),
                                  expected)  # fmt: skip
    assert Ranking(counts[:0], keys[:0]).places(totals[:3]).tolist() == [-1, -1, -1]


def test_a_table_finds_the_place_of_each_key_and_no_other(way):
    keys = np.random.default_rng(1).permutation(np.arange(100_000, dtype=np.uint64)) * SPREAD
    table, small, empty = KeyTable(keys[:70_000]), KeyTable(np.zeros(1, np.uint64)), KeyTable(keys[:0])
    assert table.places(keys[:70_000]).tolist() == list(range(1, 70_001))
    assert not table.places(keys[70_000:]).any()
    wanted = np.stack([keys[60_000:75_000], np.zeros(15_000, np.uint64), keys[:15_000]])
    wanted[1, 1::2] = 8
    places = find_places([table, small, empty], wanted)
    assert (places.dtype, places.shape) == (np.int32, (15_000, 3))
    assert places[:, 0].tolist() == [*range(60_001, 70_001), *[0] * 5_000]
    assert places[:, 1].tolist() == [1, 0] * 7_500
    assert not places[:, 2].any()
    assert not empty.places(keys[:0]).size


def test_keys_need_not_be_aligned(way):
    data = np.concatenate([np.zeros(3, np.uint8), np.array([7, 9], np.uint64).view(np.uint8)])
    keys = np.frombuffer(data.data, np.uint64, 2, 3)
    assert not keys.flags.aligned
    assert KeyTable(keys).places(np.array([9, 7, 8], np.uint64)).tolist() == [2, 1, 0]
