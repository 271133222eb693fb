"""Rows that are none: refused with the first ones named, or left out and written to a file of their own."""

import numpy as np
import pytest
from conftest import preprocess_lines, raw_lines, write_raw
from test_preprocess import BAD, GOOD, ids_of, spoiled

from src.base.errors import InputError
from src.data.manifest import MANIFEST, PARTS, find
from src.preprocessing.options import PreprocessingSpec
from src.preprocessing.run import REJECTS, preprocess
from src.rows import text_file
from src.rows.columns import Columns
from src.rows.text_file import LineIndex


def test_bad_rows_are_refused_with_the_first_ones_named_and_nothing_valid_left(tmp_path):
    lines = spoiled(60, [4, 20, 21, 58])
    raw = write_raw(tmp_path / "train.txt", lines)
    reasons = "; ".join(f"line {i + 1}: label is '{lines[i][:2]}', which is not 0 or 1" for i in (4, 20, 21))
    with pytest.raises(
        InputError,
        match=rf"train.txt has 4 bad rows, 0 are allowed: {reasons}; \.\.\.\. Mend them, or skip them into "
        rf"rejected_rows.txt with --max_bad_rows=4$",
    ):
        preprocess_lines(raw, tmp_path / "dataset", shard_rows=10, record_rows=10)
    with pytest.raises(InputError, match="is not a folder|holds no manifest.json"):
        find(str(tmp_path / "dataset"))


def test_one_bad_row_too_many_is_refused(tmp_path):
    raw = write_raw(tmp_path / "train.txt", spoiled(60, [4, 20, 58]))
    with pytest.raises(InputError, match="has 3 bad rows, 2 are allowed"):
        preprocess_lines(raw, tmp_path / "dataset", max_bad_rows=2)
    assert not (tmp_path / "dataset" / MANIFEST).exists()


def test_a_small_file_of_bad_rows_may_come_first(tmp_path):
    raws = [write_raw(tmp_path / "a.txt", ["x", "y"]), write_raw(tmp_path / "b.txt", raw_lines(40))]
    data = preprocess(raws, tmp_path / "dataset", Columns.numbered(), PreprocessingSpec(max_bad_rows=2))
    assert (data.manifest.bad_rows, sum(part.rows for part in data.manifest.parts.values())) == (2, 40)
    with pytest.raises(InputError, match=r"a.txt, \S+b.txt has 2 bad rows, 0 are allowed: \S+a.txt line 1: 1 columns"):
        preprocess(raws, tmp_path / "other", Columns.numbered(), PreprocessingSpec())


def test_allowed_bad_rows_are_left_out_and_written_to_the_reject_file(tmp_path):
    bad = [4, 20, 21, 58]
    lines = spoiled(60, bad)
    raw = write_raw(tmp_path / "train.txt", lines)
    data = preprocess_lines(raw, tmp_path / "dataset", max_bad_rows=4, shard_rows=10, record_rows=10)
    rejects = (tmp_path / "dataset" / REJECTS).read_text().splitlines()
    assert rejects == [f"{i + 1}\tlabel is '{lines[i][:2]}', which is not 0 or 1\t{lines[i]}" for i in bad]
    manifest = data.manifest
    assert manifest.bad_rows == 4
    assert REJECTS in [file.name for file in manifest.files]
    assert {name: (part.rows, part.first_line, part.last_line) for name, part in manifest.parts.items()} == {
        "train": (49, 1, 52),
        "valid": (4, 53, 56),
        "test": (3, 57, 60),
    }
    kept = {part: range(manifest.parts[part].first_line - 1, manifest.parts[part].last_line) for part in PARTS}
    for part, rows in kept.items():
        good = [lines[row] for row in rows if row not in bad]
        assert manifest.parts[part].label_mean == pytest.approx(np.mean([line[0] == "1" for line in good]))
        assert len(ids_of(data, part)) == len(good)


def test_reject_file_holds_the_raw_bytes(tmp_path):
    (tmp_path / "train.txt").write_bytes(b"\n".join([GOOD.encode(), b"\xff\t\xc3\xa9\r", GOOD.encode()]))
    preprocess_lines(tmp_path / "train.txt", tmp_path / "dataset", max_bad_rows=1)
    content = (tmp_path / "dataset" / REJECTS).read_bytes()
    assert content == b"2\tis not utf-8 text (a --schema may name another encoding)\t\xff\t\xc3\xa9\r\n"


@pytest.mark.parametrize("place", [0, 12, 27])
def test_shard_whose_rows_are_all_bad_is_left_out(tmp_path, place):
    """One row a shard, one of them bad: of training, in the middle of it, and the last row of the test part."""
    raw = write_raw(tmp_path / "train.txt", spoiled(28, [place]))
    data = preprocess_lines(raw, tmp_path / "dataset", max_bad_rows=1, record_rows=1, shard_rows=1)
    assert {name: part.rows for name, part in data.manifest.parts.items()} == {
        "train": 24 - (place < 24),
        "valid": 2,
        "test": 2 - (place >= 26),
    }
    assert sum(len(ids_of(data, part)) for part in PARTS) == 27


def test_part_whose_rows_are_all_bad_is_absent(tmp_path):
    raw = write_raw(tmp_path / "train.txt", spoiled(14, [13]))
    data = preprocess_lines(raw, tmp_path / "dataset", max_bad_rows=1)
    assert {name: part.rows for name, part in data.manifest.parts.items()} == {"train": 12, "valid": 1}


def test_empty_file_is_refused(tmp_path):
    raw = write_raw(tmp_path / "train.txt", [])
    with pytest.raises(InputError, match=r"train.txt is empty: it must hold lines of raw text"):
        preprocess_lines(raw, tmp_path / "dataset")
    assert not (tmp_path / "dataset").exists()


@pytest.mark.parametrize("max_bad_rows", [0, 8, 9, 1000])
def test_file_of_bad_rows_alone_is_refused(tmp_path, max_bad_rows):
    raw = write_raw(tmp_path / "train.txt", [BAD] * 9)
    with pytest.raises(InputError, match="none of the first 9 lines is a row of 40 columns; line 1: label is '7'"):
        preprocess_lines(raw, tmp_path / "dataset", max_bad_rows=max_bad_rows)
    assert not (tmp_path / "dataset").exists()


def test_training_part_of_bad_rows_alone_is_refused(tmp_path):
    raw = write_raw(tmp_path / "train.txt", [BAD] * 6 + [GOOD])
    with pytest.raises(InputError, match="has no good row to train on"):
        preprocess_lines(raw, tmp_path / "dataset", max_bad_rows=6)
    assert not (tmp_path / "dataset" / MANIFEST).exists()


def test_raw_file_that_grows_while_it_is_read_is_refused(tmp_path, monkeypatch):
    raw = write_raw(tmp_path / "train.txt", raw_lines(20))

    class GrowingIndex(LineIndex):
        def __init__(self, path, header):
            super().__init__(path, header=header)
            with path.open("a") as file:
                file.write(GOOD + "\n")

    monkeypatch.setattr(text_file, "LineIndex", GrowingIndex)
    with pytest.raises(InputError, match=r"train.txt changed .*while it was read: start again when it is whole"):
        preprocess_lines(raw, tmp_path / "dataset")
    assert not (tmp_path / "dataset" / MANIFEST).exists()
