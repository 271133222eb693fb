"""A data folder: how rows are split and coded, where it goes, and what its manifest says."""

import hashlib
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import preprocess_lines, raw_lines, write_raw

from src.base import events
from src.base.errors import InputError
from src.data import records
from src.data.manifest import MANIFEST, PARTS, VOCABULARY, DataFolder, find
from src.data.vocabulary import load_vocabulary
from src.dataset import RowBatches, Rows
from src.engines import engine
from src.engines.engine import Local
from src.preprocess_data import main
from src.preprocessing.run import REJECTS
from src.preprocessing.source import split
from src.rows import text_file
from src.rows.columns import Columns
from src.rows.keys import key_of, keys_of

GOOD = "\t".join(["1", *["5"] * 13, *["abcdef01"] * 26])
BAD = "\t".join(["7", *["5"] * 13, *["abcdef01"] * 26])


def ids_of(data: DataFolder, part: str) -> np.ndarray:
    """A part's ids [rows, F]."""
    paths, rows = data.shards(part)
    width = len(data.manifest.dense), len(data.manifest.categorical)
    return np.concatenate([ids for _, ids, _ in RowBatches(Rows(paths, sum(rows), *width), 64)])


def files_below(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("rows", "train", "valid", "test"),
    [(137_139, 117_548, 9_796, 9_795), (45_840_617, 39_291_958, 3_274_330, 3_274_329), (2000, 1715, 143, 142)]
    + [(rows, rows, 0, 0) for rows in range(1, 7)]
    + [(rows, rows - 1, 1, 0) for rows in range(7, 14)]
    + [(rows, rows - 2, 1, 1) for rows in range(14, 21)]
    + [(21, 18, 2, 1)],
)
def test_last_seventh_is_halved_into_validation_and_test(rows, train, valid, test):
    bounds = {"train": (0, train), "valid": (train, train + valid), "test": (train + valid, rows)}
    assert train + valid + test == rows
    assert split(rows, 0.5) == {part: (first, last) for part, (first, last) in bounds.items() if first < last}


@pytest.mark.parametrize(
    ("valid_fraction", "expected"),
    [
        (0.0, {"train": (0, 117_548), "test": (117_548, 137_139)}),
        (1.0, {"train": (0, 117_548), "valid": (117_548, 137_139)}),
        (0.1, {"train": (0, 117_548), "valid": (117_548, 119_507), "test": (119_507, 137_139)}),
    ],
)
def test_valid_fraction_is_the_share_of_the_last_seventh(valid_fraction, expected):
    assert split(137_139, valid_fraction) == expected


def test_part_without_rows_is_absent(tmp_path):
    data = preprocess_lines(write_raw(tmp_path / "t", raw_lines(30)), tmp_path / "dataset", valid_fraction=0.0)
    assert list(data.manifest.parts) == ["train", "test"]
    assert data.manifest.parts["test"].rows == 4
    assert not (tmp_path / "dataset" / "valid").exists()


def category_cells(lines: list[str]) -> list[list[str]]:
    return [line.split("\t")[14:] for line in lines]


@pytest.mark.parametrize(
    ("vocab_scope", "min_count", "shard_rows"),
    [("train", 1, 512), ("train", 3, 512), ("all", 1, 512), ("all", 3, 512), ("train", 2, 6)],
)
def test_vocabulary_and_manifest_equal_plain_counts(tmp_path, vocab_scope, min_count, shard_rows):
    """Shards of 6 rows make more parts of training rows than are merged at once."""
    lines = raw_lines(300)
    raw = write_raw(tmp_path / "train.txt", lines)
    options = {"vocab_scope": vocab_scope, "min_count": min_count, "shard_rows": shard_rows, "record_rows": 2}
    data = preprocess_lines(raw, tmp_path / "dataset", **options)
    bounds = {"train": (0, 258), "valid": (258, 279), "test": (279, 300)}
    counted = category_cells(lines if vocab_scope == "all" else lines[:258])
    ids = []
    for cells in zip(*counted):
        kept = [(-count, key_of(cell), cell) for cell, count in Counter(cells).items() if count >= min_count]
        ids.append({cell: place for place, (_, _, cell) in enumerate(sorted(kept), 1)})
    manifest = data.manifest
    assert manifest.table_rows == tuple(len(field_ids) + 1 for field_ids in ids)
    assert manifest.dense == tuple(f"I{i}" for i in range(1, 14))
    assert manifest.categorical == tuple(f"C{i}" for i in range(1, 27))
    assert manifest.bad_rows == 0
    columns = {"label": "label", "order": [], "separator": "\t", "header": False}
    assert manifest.source == {"names": ["train.txt"], "lines": 300, "columns": columns}
    assert manifest.columns() == Columns.numbered()
    assert manifest.options.items() >= ({"valid_fraction": 0.5, "max_bad_rows": 0, "seed": 1} | options).items()
    assert list(manifest.parts) == list(bounds)
    for name, (first, last) in bounds.items():
        expected = [[field_ids.get(cell, 0) for field_ids, cell in zip(ids, row)] for row in category_cells(lines)]
        np.testing.assert_array_equal(ids_of(data, name), expected[first:last])
        part = manifest.parts[name]
        assert (part.rows, part.first_line, part.last_line) == (last - first, first + 1, last)
        assert sum(part.shard_rows) == part.rows
        assert part.label_mean == pytest.approx(sum(line[0] == "1" for line in lines[first:last]) / (last - first))
        unseen = (np.array(expected[first:last]) == 0).mean(axis=0)
        assert part.unseen_share == pytest.approx(unseen.tolist())
    assert find(str(tmp_path / "dataset")).manifest == manifest


def test_manifest_lists_every_file_with_its_size_and_checksum(tiny_data):
    files = files_below(tiny_data.path)
    del files[MANIFEST]
    expected = {name: (len(content), hashlib.sha256(content).hexdigest()) for name, content in files.items()}
    assert {file.name: (file.bytes, file.sha256) for file in tiny_data.manifest.files} == expected
    assert [name for name in expected if name.startswith("train/") and name.endswith(".mindrecord")]
    for part in tiny_data.manifest.parts.values():
        assert set(part.shards) <= set(expected)


@pytest.mark.parametrize("vocab_scope", ["train", "all"])
def test_value_that_only_the_last_seventh_holds_is_unseen_but_with_scope_all(tmp_path, vocab_scope):
    lines = [GOOD] * 25 + [GOOD.replace("abcdef01", "only-here", 1)] * 3
    data = preprocess_lines(write_raw(tmp_path / "t", lines), tmp_path / "dataset", vocab_scope=vocab_scope)
    late = ids_of(data, "test")
    assert set(late[:, 0].tolist()) == {0 if vocab_scope == "train" else 2}
    assert set(late[:, 1:].ravel().tolist()) == {1}
    assert late.shape == (2, 26)  # an unseen value costs the row no column
    vocabulary = load_vocabulary(tmp_path / "dataset" / VOCABULARY)
    known = vocabulary.ids_of(0, keys_of(["only-here"], vocabulary.key_seed)).tolist()
    assert known == [2 if vocab_scope == "all" else 0]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_however_many_processes_write_the_same_files(tmp_path, monkeypatch, workers):
    """By default one a core, or this one alone where there is little to read."""
    raw, options = write_raw(tmp_path / "train.txt", raw_lines(600)), {"record_rows": 32, "shard_rows": 128}

    def files_and_processes(name, workers):
        ids = tmp_path / f"{name}.txt"
        ids.touch()

        def note(moment):
            if moment == "a piece of work is kept":
                with ids.open("a") as file:
                    print(os.getpid(), file=file)

        with monkeypatch.context() as patch:
            patch.setattr(events, "listeners", [note])
            preprocess_lines(raw, tmp_path / name, engine=Local(workers), **options)
        return files_below(tmp_path / name), {int(line) for line in ids.read_text().split()}

    alone, here = files_and_processes("here", 0)
    assert here == {os.getpid()}
    monkeypatch.setattr(engine, "_LITTLE_BYTES", raw.stat().st_size)
    shared, others = files_and_processes("shared", workers)
    assert os.getpid() not in others
    assert len(alone) > 9
    assert {name for name in alone.keys() | shared.keys() if alone.get(name) != shared.get(name)} == set()


def test_a_last_file_of_few_rows_is_read_with_those_of_large_records(tmp_path, monkeypatch):
    """For which MindRecord's pages must be larger than usual: so they are in all files of a part."""
    monkeypatch.setattr(records, "_PAGE_BYTES", 64 << 10)
    raw = write_raw(tmp_path / "train.txt", raw_lines(700))
    data = preprocess_lines(raw, tmp_path / "dataset", record_rows=512, shard_rows=512)
    assert data.manifest.parts["train"].shard_rows == (512, 88)
    assert ids_of(data, "train").shape == (600, 26)


def test_files_do_not_depend_on_the_blocks_that_are_read(tmp_path, monkeypatch):
    raw = write_raw(tmp_path / "train.txt", raw_lines(100))
    preprocess_lines(raw, tmp_path / "one", record_rows=8, shard_rows=32)
    monkeypatch.setattr(text_file, "_BLOCK_BYTES", 1000)  # about three lines
    preprocess_lines(raw, tmp_path / "two", record_rows=8, shard_rows=32)
    assert files_below(tmp_path / "one") == files_below(tmp_path / "two")


def test_shards_are_as_long_as_asked_for(tmp_path):
    raw = write_raw(tmp_path / "train.txt", raw_lines(70))
    data = preprocess_lines(raw, tmp_path / "dataset", record_rows=4, shard_rows=16)
    assert {name: part.shard_rows for name, part in data.manifest.parts.items()} == {
        "train": (16, 16, 16, 12),
        "valid": (5,),
        "test": (5,),
    }


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize(
    ("raw", "data_path", "dataset"),
    [
        ("data/origin_data/train.txt", "data", "data/dataset"),
        ("data/train.txt", "data", "data/dataset"),
        ("data/day_0.tsv", "data/day_0.tsv", "data/dataset"),
    ],
)
def test_raw_file_is_found_with_and_without_trailing_slash(tmp_path, raw, data_path, dataset, slash):
    write_raw(tmp_path / raw, raw_lines(9))
    main([f"--data_path={tmp_path / data_path}{slash}"])
    manifest = find(str(tmp_path / dataset)).manifest
    assert manifest.source["names"] == [Path(raw).name]
    assert {name: part.rows for name, part in manifest.parts.items()} == {"train": 8, "valid": 1}


def test_data_path_may_be_relative_and_origin_data_comes_first(tmp_path, monkeypatch):
    write_raw(tmp_path / "data" / "train.txt", raw_lines(9))
    write_raw(tmp_path / "data" / "origin_data" / "train.txt", raw_lines(8))
    monkeypatch.chdir(tmp_path)
    main(["--data_path=./data/"])
    assert find("data/dataset").manifest.source["lines"] == 8


def test_output_path_is_where_the_data_folder_goes(tmp_path):
    raw = write_raw(tmp_path / "train.txt", raw_lines(9))
    main([f"--data_path={tmp_path}", f"--output_path={tmp_path / 'deep' / 'er'}/"])
    assert find(str(tmp_path / "deep" / "er")).manifest.source["names"] == ["train.txt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", raw.name]


@pytest.mark.parametrize("make_folder", [True, False])
def test_missing_raw_file_is_refused(tmp_path, make_folder):
    folder = tmp_path / "data"
    if make_folder:
        folder.mkdir()
    looked_for = f"{folder}/origin_data/train.txt, {folder}/" if make_folder else f"{folder}, nor a folder of that name"
    with pytest.raises(InputError, match=rf"data_path {folder}: there is no file {looked_for}"):
        main([f"--data_path={folder}"])


def test_train_line_count_reads_the_first_rows(tmp_path):
    lines = raw_lines(40)
    write_raw(tmp_path / "train.txt", lines[:28] + [BAD] * 12)
    main([f"--data_path={tmp_path}", "--train_line_count=28"])
    data = find(str(tmp_path / "dataset"))
    assert {name: part.last_line for name, part in data.manifest.parts.items()} == {
        "train": 24,
        "valid": 26,
        "test": 28,
    }
    assert data.manifest.source["lines"] == 28
    write_raw(tmp_path / "short.txt", lines[:28])
    preprocess_lines(tmp_path / "short.txt", tmp_path / "short")
    for part in PARTS:
        np.testing.assert_array_equal(ids_of(data, part), ids_of(find(str(tmp_path / "short")), part))


def test_train_line_count_of_the_whole_file_is_taken(tmp_path):
    raw = write_raw(tmp_path / "train.txt", raw_lines(20))
    assert preprocess_lines(raw, tmp_path / "dataset", train_line_count=20).manifest.source["lines"] == 20


def test_train_line_count_beyond_the_file_is_refused_before_anything_is_written(tmp_path):
    raw = write_raw(tmp_path / "train.txt", raw_lines(20))
    with pytest.raises(InputError, match=r"train_line_count is 21, but \S+train.txt has 20 lines: give at most that"):
        preprocess_lines(raw, tmp_path / "dataset", train_line_count=21)
    assert not (tmp_path / "dataset").exists()


def test_other_numbers_of_columns(tmp_path):
    write_raw(tmp_path / "train.txt", ["1\t3\t\ta\tb\tc", "0\t-1\t4\ta\t\tlonger than eight bytes"] * 14)
    main([f"--data_path={tmp_path}", "--dense_dim=2", "--slot_dim=3"])
    data = find(str(tmp_path / "dataset"))
    assert (data.manifest.dense, data.manifest.categorical) == (("I1", "I2"), ("C1", "C2", "C3"))
    assert data.manifest.table_rows == (2, 3, 3)
    paths, rows = data.shards("train")
    ((dense, ids, labels),) = RowBatches(Rows(paths, sum(rows), 2, 3), 24)
    np.testing.assert_allclose(dense[:2], np.log([[4, 1], [1, 5]]), rtol=1e-6)
    assert ids[0, 0] == ids[1, 0] == 1
    assert sorted(ids[:2, 1].tolist()) == sorted(ids[:2, 2].tolist()) == [1, 2]
    assert labels[:, 0].tolist() == [1.0, 0.0] * 12


def test_columns_may_have_names_of_their_own(tmp_path):
    columns = Columns(("age",), ("city", "site"))
    raw = write_raw(tmp_path / "t", ["1\t30\tParis\tx"] * 7)
    data = preprocess_lines(raw, tmp_path / "dataset", columns)
    assert (data.manifest.dense, data.manifest.categorical) == (("age",), ("city", "site"))
    assert load_vocabulary(tmp_path / "dataset" / VOCABULARY).names == ("city", "site")


def test_wrong_number_of_columns_is_refused(tmp_path):
    write_raw(tmp_path / "train.txt", raw_lines(9))
    message = r"none of the first 9 lines is a row of 39 columns; line 1: 40 columns instead of 39. Are --dense_dim and"
    with pytest.raises(InputError, match=message):
        main([f"--data_path={tmp_path}", "--slot_dim=25"])


@pytest.mark.parametrize("option", ["min_count", "record_rows", "shard_rows"])
def test_number_below_1_is_refused(tmp_path, option):
    with pytest.raises(InputError, match=rf"--{option} is 0: it must (be a finite number above 0|lie between 1 and )"):
        main([f"--data_path={tmp_path}", f"--{option}=0"])


@pytest.mark.parametrize("value", ["-0.1", "1.5", "nan"])
def test_valid_fraction_beyond_0_and_1_is_refused(tmp_path, value):
    with pytest.raises(InputError, match=rf"--valid_fraction is {value}: it must lie between 0 and 1"):
        main([f"--data_path={tmp_path}", f"--valid_fraction={value}"])


def test_shards_of_broken_records_are_refused(tmp_path):
    with pytest.raises(InputError, match="shard_rows 100 must be a multiple of record_rows 64"):
        main([f"--data_path={tmp_path}", "--shard_rows=100", "--record_rows=64"])


def spoiled(rows: int, places: list[int]) -> list[str]:
    lines = raw_lines(rows)
    for place in places:
        lines[place] = lines[place].replace("\t", "x\t", 1)
    return lines


def test_windows_line_ends_and_byte_order_mark_change_nothing(tmp_path):
    lines = raw_lines(30)
    plain = preprocess_lines(write_raw(tmp_path / "plain", lines), tmp_path / "one")
    (tmp_path / "windows").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    windows = preprocess_lines(tmp_path / "windows", tmp_path / "two")
    assert windows.manifest.parts == plain.manifest.parts
    assert windows.manifest.files == plain.manifest.files


def test_earlier_data_folder_is_not_overwritten(tmp_path):
    raw = write_raw(tmp_path / "train.txt", raw_lines(30))
    preprocess_lines(raw, tmp_path / "dataset")
    before = files_below(tmp_path / "dataset")
    with pytest.raises(InputError, match=r"output \S+dataset already holds preprocessed data: .*--overwrite=True"):
        preprocess_lines(raw, tmp_path / "dataset", min_count=2)
    assert files_below(tmp_path / "dataset") == before


def test_overwrite_replaces_the_earlier_run_and_nothing_else(tmp_path):
    folder = tmp_path / "dataset"
    raw = write_raw(tmp_path / "train.txt", spoiled(80, [3]))
    preprocess_lines(raw, folder, max_bad_rows=1, record_rows=4, shard_rows=4)
    (folder / "notes.txt").write_text("mine")
    (folder / "train" / "notes.txt").write_text("mine")
    write_raw(raw, raw_lines(30, seed=2))
    data = preprocess_lines(raw, folder, overwrite=True)
    expected = {MANIFEST, "notes.txt", "train/notes.txt", *(file.name for file in data.manifest.files)}
    assert set(files_below(folder)) == expected
    fresh = preprocess_lines(raw, tmp_path / "fresh")
    assert fresh.manifest == find(str(folder)).manifest


def test_unfinished_run_needs_no_overwrite(tmp_path):
    """Files without a manifest are what a killed run leaves."""
    folder = tmp_path / "dataset"
    for name in ("train/part-00009.mindrecord", "train/part-00009.mindrecord.db", VOCABULARY, REJECTS):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"half")
    data = preprocess_lines(write_raw(tmp_path / "train.txt", raw_lines(30)), folder)
    assert set(files_below(folder)) == {MANIFEST, *(file.name for file in data.manifest.files)}
    data.manifest.verify(folder, [file.name for file in data.manifest.files])
