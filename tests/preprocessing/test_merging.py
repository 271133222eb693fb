"""What was counted, merged along many files in a bounded memory, against counters of the whole."""

import resource
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import preprocess_lines, raw_lines, write_raw
from hypothesis import given, settings
from hypothesis import strategies as st

from src.base.npz import save_arrays
from src.data.compiled.key_tables import count_keys
from src.preprocessing import merging
from src.preprocessing.merging import counts_of_fields, join_counts, joins_of, merge_tables, merged_counts


def write_counts(folder, rows, checks=None):
    """A file for each of rows [files][fields][B] of keys."""
    paths = []
    for number, fields in enumerate(rows):
        own = [count_keys(np.array(keys, np.uint64), None if checks is None else checks[number][field])
               for field, keys in enumerate(fields)]  # fmt: skip
        paths.append(folder / f"count-{number}.npz")
        save_arrays(paths[-1], counts_of_fields(own))
    return paths


def vocabulary_of(counter, least, most=None):
    """Keys by falling counts, and those that are left, with their counts."""
    order = sorted((-count, key) for key, count in counter.items() if count >= least)[:most]
    kept = [key for _, key in order]
    left = sorted(set(counter) - set(kept))
    return kept, [counter[key] for key in kept], left, [counter[key] for key in left]


def random_rows(files, fields=3, rows=200, seed=1):
    rng = np.random.default_rng(seed)
    return [[rng.zipf(1.3, rows) % 10 ** (field + 1) for field in range(fields)] for _ in range(files)]


@pytest.mark.parametrize("most", [1, 7, 100, 1 << 20])
@pytest.mark.parametrize(("least", "max_rows"), [(1, 0), (3, 0), (2, 5)])
def test_tables_are_those_of_a_counter_however_little_is_read_at_once(tmp_path, most, least, max_rows):
    rows = random_rows(9)
    paths = write_counts(tmp_path, rows)
    fields = [[0], [2, 1]]  # the second table is of two fields
    found = merge_tables(range(4, 6), fields, [least] * 2, paths, max_rows, most)
    for table, own in zip((4, 5), fields):
        counter = Counter(int(key) for of_file in rows for field in own for key in of_file[field])
        expected = vocabulary_of(counter, least, max_rows - 1 if max_rows else None)
        names = ("keys", "counts", "left_keys", "left_counts")
        assert [found[f"{name}_{table}"].tolist() for name in names] == list(expected)
        np.testing.assert_array_equal(found[f"order_{table}"], np.argsort(found[f"keys_{table}"]))
        assert found[f"shared_{table}"] == -1
    for (keys, counts), shared in merged_counts(fields, paths, most):
        assert shared == -1
        assert (np.diff(keys.astype(np.int64)) > 0).all()
        assert counts.sum() % 200 == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in paths)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 3), max_size=12), min_size=1, max_size=6),
       st.integers(1, 9))  # fmt: skip
def test_any_keys_are_merged(tmp_path_factory, rows, most):
    folder = tmp_path_factory.mktemp("any")
    paths = write_counts(folder, [[keys] for keys in rows])
    (((keys, counts), _),) = merged_counts([[0]], paths, most)
    assert list(zip(keys.tolist(), counts.tolist())) == sorted(
        Counter(key for of_file in rows for key in of_file).items()
    )


def test_keys_of_several_texts_are_told_of_the_tables_that_have_hashed_ones(tmp_path):
    """One key has different checks in two files, another one the same; a field beside them has none."""
    rows = [[[1, 2], [8, 8]], [[1, 2], [8, 9]]]
    checks = [[np.array([3, 5], np.uint32), None], [np.array([7, 5], np.uint32), None]]
    paths = write_counts(tmp_path, rows, checks)
    found = merge_tables(range(2), [[0], [1]], [1, 1], paths)
    assert [int(found[f"shared_{table}"]) for table in range(2)] == [1, -1]
    joined = tmp_path / "joined.npz"
    save_arrays(joined, join_counts(paths, 1))
    assert [shared for _, shared in merged_counts([[0], [1]], [joined], 1)] == [1, -1]


def test_joined_files_hold_what_all_of_them_do(tmp_path, monkeypatch):
    """As a tree: nine files, then three, then one, which all give the same tables."""
    monkeypatch.setattr(merging, "_MOST_FILES", 2)
    monkeypatch.setattr(merging, "_JOINED", 3)
    paths = write_counts(tmp_path, random_rows(9))
    levels = [paths]
    while joins := joins_of(levels[-1]):
        level = [tmp_path / f"join{len(levels)}-{number}.npz" for number in range(len(joins))]
        for files, path in zip(joins, level):
            save_arrays(path, join_counts(files, 50))
        levels.append(level)
    assert [len(level) for level in levels] == [9, 3, 1]
    found = [merge_tables(range(3), [[0], [1], [2]], [2] * 3, level) for level in levels]
    for other in found[1:]:
        for name, array in found[0].items():
            np.testing.assert_array_equal(array, other[name], name)


def test_counts_that_32_bits_do_not_hold_stay_whole(tmp_path):
    many = (np.array([5], np.uint64), np.array([1 << 31], np.int64))
    paths = [tmp_path / f"{number}.npz" for number in range(3)]
    for path in paths:
        save_arrays(path, counts_of_fields([many]))
    assert join_counts(paths[:1], 9)["counts"].dtype == np.uint32
    save_arrays(tmp_path / "joined.npz", join_counts(paths, 9))
    assert merge_tables(range(1), [[0]], [1], [tmp_path / "joined.npz"])["counts_0"].tolist() == [3 << 31]


def test_fewer_files_may_be_open_than_there_are(tmp_path):
    paths = write_counts(tmp_path, random_rows(120, 1, 5))
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(list(Path("/proc/self/fd").iterdir()))
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 20, before[1]))
        found = merge_tables(range(1), [[0]], [1], paths)
        joined = join_counts(paths, 64)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert found["counts_0"].sum() == joined["counts"].sum() == 600


def test_a_run_that_joins_gives_the_files_of_one_that_does_not(tmp_path, monkeypatch):
    raw = write_raw(tmp_path / "raw.txt", raw_lines(120, 3))
    options = {"shard_rows": 16, "record_rows": 16, "min_count": 2, "category_counts": True}
    apart = preprocess_lines(raw, tmp_path / "apart", **options)
    monkeypatch.setattr(merging, "_MOST_FILES", 4)
    monkeypatch.setattr(merging, "_JOINED", 3)
    together = preprocess_lines(raw, tmp_path / "together", **options, memory_mb=450)
    assert [file.sha256 for file in together.manifest.files] == [file.sha256 for file in apart.manifest.files]
