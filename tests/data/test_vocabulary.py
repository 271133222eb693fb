import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.base.errors import InputError
from src.base.npz import save_arrays
from src.data.compiled.key_tables import merge_counts
from src.data.vocabulary import (
    UNSEEN,
    HashedVocabulary,
    Vocabulary,
    _bisect,
    count,
    load_vocabulary,
    ordered,
    shared_keys,
)
from src.rows.keys import key_of, keys_of

# Few values, so that they repeat; 0 is the key of an empty cell, the last ones need all 64 bits.
some_keys = st.lists(st.sampled_from([0, 1, 2, 3, 97, 2**31, 2**63 - 1, 2**63, 2**64 - 1]), max_size=40)


def fit(names, counts, min_count=1) -> Vocabulary:
    return Vocabulary(names, [ordered(keys, totals, min_count)[0] for keys, totals in counts])


def as_counter(counts) -> Counter:
    keys, totals = counts
    assert len(set(keys.tolist())) == len(keys)
    return Counter(dict(zip(keys.tolist(), totals.tolist())))


def plain_order(counter: Counter, min_count: int) -> list[int]:
    kept = [(-total, key) for key, total in counter.items() if total >= min_count]
    return [key for _, key in sorted(kept)]


@given(some_keys, some_keys)
def test_count_equals_counter(first, second):
    rows = min(len(first), len(second))
    keys = np.array([first[:rows], second[:rows]], np.uint64)
    assert [as_counter(counts) for counts in count(keys)] == [Counter(first[:rows]), Counter(second[:rows])]


@given(st.lists(some_keys, min_size=1, max_size=5))
def test_merge_of_parts_equals_count_of_the_whole(parts):
    merged = merge_counts([count(np.array([part], np.uint64))[0] for part in parts])
    assert as_counter(merged) == Counter(key for part in parts for key in part)
    assert merged[0].dtype == np.uint64


@given(
    st.lists(st.lists(st.tuples(st.sampled_from([3, 5, 7, 9]), st.sampled_from([0, 1, 5, 7])), max_size=9), min_size=1)
)
def test_keys_of_texts_with_different_checks_are_counted_wherever_they_are(parts):
    """0 is no check; parts may have none at all."""
    arrays = [np.array(part, np.uint64).reshape(-1, 2).T for part in parts]
    merged = merge_counts([count(keys[None], checks[None].astype(np.uint32))[0] for keys, checks in arrays])
    found: dict[int, set[int]] = {}
    for key, check in (pair for part in parts for pair in part):
        found.setdefault(key, set()).update({check} - {0})
    several = sum(len(checks) > 1 for checks in found.values())
    assert shared_keys(merged) == (several if any(found.values()) else -1)
    assert shared_keys(merge_counts([merged, merged])) == shared_keys(merged)
    assert as_counter(merged[:2]) == Counter(key for part in parts for key, _ in part)


@given(some_keys, some_keys, st.integers(1, 4))
def test_ids_follow_falling_frequency_and_rare_or_unseen_keys_have_id_0(train, later, min_count):
    vocabulary = fit(["C1"], count(np.array([train], np.uint64)), min_count)
    order = plain_order(Counter(train), min_count)
    assert vocabulary.keys[0].tolist() == order
    assert vocabulary.table_rows == (len(order) + 1,)
    ids = {key: place for place, key in enumerate(order, 1)}
    encoded = vocabulary.encode(np.array([train + later], np.uint64))
    assert encoded.dtype == np.int32
    assert encoded.shape == (len(train) + len(later), 1)
    assert encoded[:, 0].tolist() == [ids.get(key, UNSEEN) for key in train + later]


def test_ties_go_by_key():
    keys = np.array([[9, 2**63, 5, 7, 7]], np.uint64)
    assert fit(["C1"], count(keys)).keys[0].tolist() == [7, 5, 9, 2**63]


def test_each_field_has_ids_of_its_own():
    keys = np.array([[1, 1, 2], [2, 2, 1]], np.uint64)
    vocabulary = fit(["C1", "C2"], count(keys))
    assert vocabulary.encode(keys).tolist() == [[1, 1], [1, 1], [2, 2]]


def test_missing_is_a_value_of_its_own():
    """An empty cell has key 0 and gets an id like any other, which is not the id of unseen values."""
    keys = np.array([[0, 0, 5]], np.uint64)
    vocabulary = fit(["C1"], count(keys))
    assert vocabulary.encode(np.array([[0, 5, 6]], np.uint64)).tolist() == [[1], [2], [UNSEEN]]


def test_missing_that_training_never_had_is_unseen():
    vocabulary = fit(["C1"], count(np.array([[5, 5]], np.uint64)))
    assert vocabulary.encode(np.array([[0]], np.uint64)).tolist() == [[UNSEEN]]


@pytest.mark.parametrize(("min_count", "table_rows"), [(1, 4), (2, 3), (3, 2), (4, 1)])
def test_min_count_is_the_least_count_that_is_kept(min_count, table_rows):
    keys = np.array([[1, 1, 1, 2, 2, 3]], np.uint64)
    assert fit(["C1"], count(keys), min_count).table_rows == (table_rows,)


def test_prepare_changes_no_id():
    keys = np.array([[3, 3, 4], [0, 1, 1]], np.uint64)
    vocabulary = fit(["C1", "C2"], count(keys))
    before = vocabulary.encode(keys).tolist()
    vocabulary.prepare()
    assert vocabulary.encode(keys).tolist() == before


@given(some_keys, some_keys)
def test_save_and_load_give_the_same_vocabulary(first, second):
    counts = [count(np.array([keys], np.uint64))[0] for keys in (first, second)]
    vocabulary = fit(["C10", "C2"], counts)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "vocabulary.npz")
        save_arrays(path, vocabulary.arrays())
        loaded = load_vocabulary(path)
    assert loaded.names == ("C10", "C2")
    assert [keys.dtype for keys in loaded.keys] == [np.uint64, np.uint64]
    assert [keys.tolist() for keys in loaded.keys] == [keys.tolist() for keys in vocabulary.keys]


@given(some_keys, some_keys)
def test_bisection_gives_the_ids_of_the_hash_table(train, wanted):
    vocabulary = fit(["C1"], count(np.array([train], np.uint64)))
    keys = np.array([wanted], np.uint64)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "vocabulary.npz")
        save_arrays(path, vocabulary.arrays())
        loaded = load_vocabulary(path)
        bisected = _bisect(loaded.keys[0], loaded._orders[0], keys[0])
    assert bisected.tolist() == vocabulary.encode(keys)[:, 0].tolist()


def test_only_large_jobs_build_a_hash_table(tmp_path):
    keys = np.random.default_rng(1).permutation(1000).astype(np.uint64)
    save_arrays(tmp_path / "v.npz", Vocabulary(["C1"], [keys]).arrays())
    loaded = load_vocabulary(tmp_path / "v.npz")
    places = np.argsort(keys) + 1
    assert loaded.encode(np.arange(100, dtype=np.uint64)[None])[:, 0].tolist() == places[:100].tolist()
    assert loaded._indexes == [None]
    assert loaded.encode(np.arange(1001, dtype=np.uint64)[None])[:, 0].tolist() == [*places, UNSEEN]
    assert loaded._indexes[0] is not None


def test_any_names_are_kept_apart(tmp_path):
    names = [
        "file",
        "/inputs/x",
        "/names",
        "/keys/0",
        "a",
        "a.npy",
        "../x",
        "@",
        '"',
        " ",
        "漢字",
        "x" * 200,
        "/hash_rows",
    ]
    keys = [np.array([place], np.uint64) for place in range(len(names))]
    save_arrays(tmp_path / "v.npz", Vocabulary(names, keys).arrays())
    loaded = load_vocabulary(tmp_path / "v.npz")
    assert loaded.names == tuple(names)
    assert [own.tolist() for own in loaded.keys] == [[place] for place in range(len(names))]


def test_a_file_that_lacks_an_array_or_holds_another_is_refused(tmp_path):
    arrays = Vocabulary(["C1"], [np.array([7], np.uint64)]).arrays()
    save_arrays(tmp_path / "v.npz", {name: array for name, array in arrays.items() if name != "/order/0"})
    with pytest.raises(InputError, match="v.npz lacks /order/0, which its /names promises"):
        load_vocabulary(tmp_path / "v.npz")
    save_arrays(tmp_path / "v.npz", arrays | {"/keys/1": np.array([7], np.uint64)})
    with pytest.raises(InputError, match="v.npz holds /keys/1, which this program does not know"):
        load_vocabulary(tmp_path / "v.npz")


def test_an_old_hashed_vocabulary_gives_the_ids_it_gave(tmp_path):
    """Files of the first kind say nothing of bits; ids were made of 32 of the hash."""
    keys = np.array([[key_of(f"v{number}") for number in range(500)]], np.uint64)
    with np.errstate(over="ignore"):
        mixed = keys * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ mixed >> np.uint64(32)) * np.uint64(0xD6E8FEB86659FD93)
    save_arrays(tmp_path / "old.npz", {"/hash_rows": np.array(1001), "names": np.array(["C1"])})
    old = load_vocabulary(tmp_path / "old.npz")
    np.testing.assert_array_equal(old.encode(keys)[:, 0], (mixed[0] >> np.uint64(32)) % np.uint64(1000) + 1)
    new = HashedVocabulary(["C1"], 1001)
    save_arrays(tmp_path / "new.npz", new.arrays())
    loaded = load_vocabulary(tmp_path / "new.npz")
    np.testing.assert_array_equal(loaded.encode(keys), new.encode(keys))
    assert (new.encode(keys) != old.encode(keys)).any()
    save_arrays(tmp_path / "newer.npz", new.arrays() | {"/hash_bits": np.array(128)})
    with pytest.raises(InputError, match="holds /hash_bits 128, which this program does not know"):
        load_vocabulary(tmp_path / "newer.npz")


SEED = "00112233445566778899aabbccddeeff"


@pytest.mark.parametrize("seed", ["", SEED])
@pytest.mark.parametrize("kind", ["vocabulary", "hashed"])
def test_a_vocabulary_keeps_the_seed_of_its_keys(tmp_path, kind, seed):
    keys = keys_of(["short", "more than eight bytes"], seed)[None]
    made = Vocabulary(["C1"], keys, key_seed=seed) if kind == "vocabulary" else HashedVocabulary(["C1"], 99, 64, seed)
    save_arrays(tmp_path / "v.npz", made.arrays())
    assert ("/key_seed" in made.arrays()) == (seed != "")  # without one, a file is as those of the first kinds
    loaded = load_vocabulary(tmp_path / "v.npz")
    assert loaded.key_seed == seed
    assert loaded.encode(keys).tolist() == made.encode(keys).tolist()
    save_arrays(tmp_path / "v.npz", made.arrays() | {"/key_seed": np.array("any")})
    with pytest.raises(InputError, match="v.npz holds /key_seed any, which this program does not know"):
        load_vocabulary(tmp_path / "v.npz")


def test_short_texts_that_share_an_id_share_none_with_another_seed():
    keys = np.arange(10_000, dtype=np.uint64)[None]
    plain, one, other = (HashedVocabulary(["C1"], 10_001, 64, seed) for seed in ("", SEED, SEED[::-1]))
    together = np.flatnonzero(plain.encode(keys)[:, 0] == plain.encode(keys)[0, 0])
    assert len(together) > 1
    for vocabulary in (one, other):
        ids = vocabulary.encode(keys)[:, 0]
        assert len(set(ids[together].tolist())) > 1
        assert 6000 < len(set(ids.tolist())) < 6600  # 6321 expected of even hashes
    assert (one.encode(keys) == other.encode(keys)).mean() < 0.01


def test_a_hash_of_64_bits_fills_the_largest_table_evenly():
    rows = 2**31 - 1
    ids = HashedVocabulary(["C1"], rows).encode(np.arange(200_000, dtype=np.uint64)[None])[:, 0]
    assert ids.min() > 0
    share = np.histogram(ids, 8, (0, rows))[0] / len(ids)
    assert abs(share - 1 / 8).max() < 0.004  # deviation 0.0007
