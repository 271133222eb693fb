"""Data folders whose vocabulary grows: by the program's own steps, from raw rows to records."""

import dataclasses
import os
import shutil
import signal

import numpy as np
import pytest
from conftest import raw_lines, write_raw
from stopping import run_program

from src.base.errors import InputError
from src.data.counted import COUNTS, Counted, Growth, rows_since
from src.data.encoder import load_encoder
from src.data.manifest import MANIFEST, VOCABULARY, Manifest, find
from src.dataset import batches_of
from src.preprocess_data import columns_of, growth_lines, main
from src.preprocessing.options import PreprocessingSpec, RawSpec
from src.preprocessing.run import preprocess
from src.rows.cells.lists import ListColumn
from src.rows.columns import Columns
from src.rows.keys import free_keys, is_free, keys_of

SMALL = Columns(("n",), ("a", "b"))
SHARED = dataclasses.replace(
    SMALL, categorical=("a", "b", "c"), lists=(ListColumn("b", ";", 3, "sum"),), shared=(("c", "a"),)
)


def made(folder, name, lines, columns=SMALL, **options):
    """A data folder all of whose rows but one are for training."""
    raw, held_out = write_raw(folder / f"{name}.txt", lines), write_raw(folder / f"{name}_test.txt", lines[:1])
    chosen = PreprocessingSpec(**({"record_rows": 8, "shard_rows": 64} | options))
    return preprocess([raw], folder / name, columns, chosen, own={"test": [held_out]})


def grown(folder, name, old, lines, columns=SMALL, **options):
    return made(folder, name, lines, columns, vocab_path=str(old.path), grow=True, **options)


def test_columns_are_the_earlier_folder_s_unless_given(tmp_path):
    old = made(tmp_path, "old", random_lines(40, 1))
    assert columns_of(RawSpec(), str(old.path)) == old.manifest.columns() == SMALL
    assert columns_of(RawSpec(dense_dim=2), str(old.path)) == Columns.numbered(2, 26)


def encoder_of(data):
    return load_encoder(data.path / VOCABULARY, data.manifest.dense)


def tables_of(data):
    return [keys.tolist() for keys in encoder_of(data).vocabulary.keys]


def random_lines(rows, seed, columns=SMALL):
    rng = np.random.default_rng(seed)
    cells = [(rng.zipf(1.5, rows) % 300).astype(str) for _ in columns.categorical]
    if columns.lists:
        parts = [(rng.zipf(1.5, rng.integers(0, 5)) % 200).astype(str) for _ in range(rows)]
        cells[1] = np.array([";".join(part) for part in parts])
    return ["\t".join([str(rng.integers(2)), str(rng.integers(99)), *row]) for row in zip(*cells)]


def test_grown_in_one_step_or_in_five_gives_the_same_ids(tmp_path):
    """Of lists and of fields that share a table too, be they counted in few pieces or in many."""
    first, rest = random_lines(150, 1, SHARED), random_lines(400, 2, SHARED)
    data = base = made(tmp_path, "base", first, SHARED, min_count=2)
    whole = grown(tmp_path, "whole", base, rest, SHARED)
    for day, cut in enumerate(np.array_split(np.arange(len(rest)), 5)):
        data = grown(tmp_path, f"day{day}", data, [rest[row] for row in cut], SHARED, shard_rows=256)
    assert (data.path / VOCABULARY).read_bytes() == (whole.path / VOCABULARY).read_bytes()
    for before, after in zip(tables_of(base), tables_of(data), strict=True):
        assert after[: len(before)] == before
        assert len(after) > len(before)
    ids = [np.concatenate([batch[1] for batch in batches_of(one, "train", 64)]) for one in (data, whole)]
    np.testing.assert_array_equal(ids[0], ids[1][-len(ids[0]) :])
    growth = Growth.of(data.manifest)
    assert (growth.number, len(growth.ancestors)) == (5, 5)
    assert growth.ancestors[0] == base.manifest.sha256(VOCABULARY)
    assert Growth.of(whole.manifest).ancestors == growth.ancestors[:1]


def test_values_get_ids_when_they_have_come_often_enough(tmp_path):
    """As in a loop over the rows."""
    first, rest = random_lines(150, 1), random_lines(300, 2)
    base = made(tmp_path, "base", first, min_count=3)
    after = tables_of(grown(tmp_path, "next", base, rest))
    for field, ids in enumerate(tables_of(base)):
        times = keys_of([line.split("\t")[2 + field] for line in first]).tolist()
        known = len(ids)
        for key in keys_of([line.split("\t")[2 + field] for line in rest]).tolist():
            times.append(key)
            if key not in ids and times.count(key) >= 3:
                ids.append(key)
        assert after[field] == ids
        assert len(ids) > known


def test_forgotten_values_give_their_rows_to_new_ones(tmp_path):
    """x and w come in the first rows alone: w is known, so that its row is free behind two days, and dealt on the
    third."""

    def day(*values):
        return [f"1\t5\t{value}\tz" for value in values for _ in range(2)]

    data = made(tmp_path, "base", day("v", "v", "w", "y"))
    assert tables_of(data)[0] == keys_of(["v", "w", "y"]).tolist()
    days = [("v", "y"), ("v", "y"), ("v", "y", "new"), ("v", "y", "w", "new")]
    expected = [["v", "w", "y"], ["v", None, "y"], ["v", "new", "y"], ["v", "new", "y", "w"]]
    for number, (values, rows) in enumerate(zip(days, expected), 1):
        old, data = data, grown(tmp_path, f"day{number}", data, day(*values), forget_after=2)
        keys = [int(free_keys(np.array(row))) if text is None else int(keys_of([text])[0])
                for row, text in enumerate(rows)]  # fmt: skip
        assert tables_of(data)[0] == keys, number
        if number == 2:
            assert Growth.of(data.manifest).tables["a"] == {"new": 0, "dealt": 0, "freed": 1, "free": 1, "waiting": 0}
            assert growth_lines(data.manifest)[0].endswith("1 values gave theirs up, 1 rows are free")
            ids = encoder_of(data).vocabulary.ids_of(0, keys_of(["w", "v", "y"]))
            assert ids.tolist() == [0, 1, 3]
        if number == 3:
            assert Growth.of(data.manifest).tables["a"]["dealt"] == 1
        kept = rows_since(data.path, data.manifest, old.manifest.sha256(VOCABULARY))
        assert kept[0].kept.tolist()[2] is (number not in (2, 3)), number
    first = find(str(tmp_path / "base")).manifest.sha256(VOCABULARY)
    assert rows_since(data.path, data.manifest, first)[0].kept.tolist() == [True, True, False, True, False]
    assert rows_since(data.path, data.manifest, "another") is None


def test_a_bounded_table_keeps_the_most_frequent_values(tmp_path):
    lines = [f"1\t5\t{value}\tz" for value in "aaaabbbcc"]
    base = made(tmp_path, "base", lines, max_rows_per_field=3)  # two values
    assert tables_of(base)[0] == keys_of(["a", "b"]).tolist()
    data = grown(tmp_path, "next", base, [f"1\t5\t{value}\tz" for value in "ccddd"])
    assert tables_of(data)[0] == keys_of(["a", "c"]).tolist()  # 4, 4, and b and d have 3
    wider = grown(tmp_path, "wider", data, [f"1\t5\t{value}\tz" for value in "ad"], max_rows_per_field=5)
    assert tables_of(wider)[0] == keys_of(["a", "c", "b", "d"]).tolist()
    assert wider.manifest.options["max_rows_per_field"] == 5
    assert is_free(np.array(tables_of(wider)[0], np.uint64)).sum() == 0


def test_numbers_and_frequencies_stay_or_are_learned_anew(tmp_path):
    options = {"numeric_transform": "standard_log", "numeric_buckets": 4, "category_counts": True}
    base = made(tmp_path, "base", random_lines(300, 1), **options)
    more = [line.replace("\t", "\t1", 1) for line in random_lines(400, 2)]
    kept, anew = (grown(tmp_path, f"n{flag}", base, more, relearn_numbers=flag) for flag in (False, True))
    old, same, other = (encoder_of(data).learned for data in (base, kept, anew))
    assert [array.tolist() for array in same.edges] == [array.tolist() for array in old.edges]
    assert [array.tolist() for array in other.edges] != [array.tolist() for array in old.edges]
    assert np.array(same.columns).tolist() == np.array(old.columns).tolist() != np.array(other.columns).tolist()
    counted = Counted.load(kept.path / COUNTS)
    for field, (before, scores) in enumerate(zip(old.counts, same.counts)):
        rows = kept.manifest.table_rows[field]
        assert len(scores) == rows > len(before)
        np.testing.assert_array_equal(scores[: len(before)], before)
        mean, deviation = counted.scales[field]
        expected = (np.log1p(counted.tables[field].counts) - mean) / deviation
        np.testing.assert_allclose(scores[len(before) :], expected[len(before) - 1 :], rtol=1e-6)
    counts = Counted.load(anew.path / COUNTS)
    assert counts.rows == 700
    weights = np.concatenate([[0], counts.tables[0].counts])
    mean = np.average(other.counts[0], weights=weights)
    np.testing.assert_allclose([mean, np.average(other.counts[0] ** 2, weights=weights)], [0, 1], atol=1e-5)
    first = base.manifest.sha256(VOCABULARY)
    assert rows_since(kept.path, kept.manifest, first)[2].kept.all()
    assert not rows_since(anew.path, anew.manifest, first)[2].kept.any(), "buckets are others now"


def test_hashed_values_need_no_growth(tmp_path):
    base = made(tmp_path, "base", random_lines(100, 1), hash_rows=50)
    data = grown(tmp_path, "next", base, random_lines(100, 2))
    assert data.manifest.sha256(VOCABULARY) == base.manifest.sha256(VOCABULARY)
    assert not (data.path / COUNTS).exists()
    assert data.manifest.parts["train"].rows == 100
    assert rows_since(data.path, data.manifest, base.manifest.sha256(VOCABULARY))[0].kept.tolist() == [True] * 50


def test_refusals(tmp_path):
    base = made(tmp_path, "base", random_lines(50, 1))
    with pytest.raises(InputError, match="grow needs a vocab_path"):
        PreprocessingSpec(grow=True)
    with pytest.raises(InputError, match="forget_after 2 has no effect without grow: drop it"):
        PreprocessingSpec(vocab_path="x", forget_after=2)
    with pytest.raises(InputError, match="relearn_numbers True has no effect without grow: drop it"):
        PreprocessingSpec(relearn_numbers=True)
    with pytest.raises(InputError, match="min_count 2 has no effect with vocab_path, whose encoder is taken: drop it"):
        PreprocessingSpec(vocab_path="x", grow=True, min_count=2)
    shutil.copytree(base.path, tmp_path / "export")
    (tmp_path / "export" / COUNTS).unlink()
    export = dataclasses.replace(base, path=tmp_path / "export")
    with pytest.raises(InputError, match="export can't grow without counts.npz: name the data or checkpoint folder"):
        grown(tmp_path, "a", export, random_lines(50, 2))
    files = tuple(file for file in base.manifest.files if file.name != COUNTS)
    dataclasses.replace(base.manifest, files=files).save(tmp_path / "export")
    with pytest.raises(InputError, match="can't grow: it has no counts.npz, as an older version made it; preprocess"):
        grown(tmp_path, "a", export, random_lines(50, 2))
    assert not (tmp_path / "a").exists()
    (base.path / COUNTS).write_bytes((base.path / COUNTS).read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match="counts.npz has changed since manifest.json was written"):
        grown(tmp_path, "a", base, random_lines(50, 2))


class Counter:
    """Kills at the n-th moment."""

    def __init__(self, number):
        self.left = number

    def __call__(self, moment):
        self.left -= 1
        return self.left < 0


def test_a_growth_killed_again_and_again_gives_the_files_of_an_undisturbed_one(tmp_path):
    base = made(tmp_path, "base", random_lines(150, 1), Columns.numbered(1, 2), min_count=2)
    raw = write_raw(tmp_path / "new.txt", random_lines(200, 2))
    options = [f"--data_path={raw}", f"--vocab_path={base.path}", "--grow=True", "--forget_after=1", "--dense_dim=1",
               "--slot_dim=2", "--relearn_numbers=True", "--shard_rows=64", "--record_rows=64",
               "--workers=2"]  # fmt: skip
    main([*options, f"--output_path={tmp_path / 'whole'}"])
    facts = Growth.of(find(str(tmp_path / "whole")).manifest).tables["C1"]
    assert min(facts["dealt"], facts["freed"]) > 0
    for number in (2, 9, 13, 5):
        code, _ = run_program("src.preprocess_data", tmp_path, *options, "--output_path=parts", kill=Counter(number))
        assert code == -signal.SIGKILL, "the run ended before it was to be killed"
    code, text = run_program("src.preprocess_data", tmp_path, *options, "--output_path=parts")
    assert (code, "going on from an earlier run" in text) == (0, True)
    whole, parts = (
        {path.relative_to(tmp_path / name).as_posix(): path.read_bytes()
         for path in (tmp_path / name).rglob("*") if path.is_file()}
        for name in ("whole", "parts")
    )  # fmt: skip
    assert parts == whole
    assert sorted(os.listdir(tmp_path / "parts")) == [COUNTS, MANIFEST, "test", "train", "valid", VOCABULARY]


def test_the_manifest_of_a_known_vocabulary_is_read_once(tiny_data, tmp_path, monkeypatch):
    """For its columns, and for its encoder; anew where the file has changed."""
    shutil.copytree(tiny_data.path, tmp_path / "known", ignore=shutil.ignore_patterns("*.mindrecord*"))
    read, load = [], Manifest.load
    monkeypatch.setattr(Manifest, "load", lambda path, *more: read.append(path) or load(path, *more))
    raw = write_raw(tmp_path / "new.txt", raw_lines(50, seed=3))
    for place in ("one", "two"):
        main([f"--data_path={raw}", f"--vocab_path={tmp_path}/known", f"--output_path={tmp_path / place}"])
        assert read.count(tmp_path / "known/manifest.json") == 1
        (tmp_path / "known/manifest.json").touch()
        read.clear()
