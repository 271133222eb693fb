"""Rows that are none: refused with the first ones named, or left out and written to a file of their own."""

import gzip

import numpy as np
import pytest
from conftest import files_of, preprocess_lines, raw_lines, write_raw
from test_preprocess import BAD, GOOD, ids_of, spoiled

from src.base.errors import InputError
from src.data.manifest import MANIFEST, PARTS, find
from src.preprocessing import run, steps
from src.preprocessing.options import PreprocessingSpec
from src.preprocessing.run import REJECTS, preprocess
from src.rows import text_file, unpacking
from src.rows.columns import Columns
from src.rows.text_file import LineIndex


def test_bad_rows_are_refused_with_the_first_ones_named_and_nothing_valid_left(tmp_path):
    lines = spoiled(60, [4, 20, 21, 58])
    raw = write_raw(tmp_path / "train.txt", lines)
    reasons = "; ".join(f"line {i + 1}: label is '{lines[i][:2]}', which is not 0 or 1" for i in (4, 20, 21))
    with pytest.raises(
        InputError,
        match=rf"train.txt has 4 bad rows, 0 are allowed: {reasons}; \.\.\.\. Mend them, or skip them into "
        rf"rejected_rows.txt with --max_bad_rows=4, which goes on from what was counted; \S+/dataset/\.work keeps "
        r"0\.\d MB of what was done, for a run that goes on: remove it if none will$",
    ):
        preprocess_lines(raw, tmp_path / "dataset", shard_rows=10, record_rows=10)
    with pytest.raises(InputError, match="is not a folder|holds no manifest.json"):
        find(str(tmp_path / "dataset"))


def test_one_bad_row_too_many_is_refused(tmp_path):
    raw = write_raw(tmp_path / "train.txt", spoiled(60, [4, 20, 58]))
    with pytest.raises(InputError, match="has 3 bad rows, 2 are allowed"):
        preprocess_lines(raw, tmp_path / "dataset", max_bad_rows=2)
    assert not (tmp_path / "dataset" / MANIFEST).exists()


def test_a_run_that_allows_more_bad_rows_goes_on_from_what_was_counted(tmp_path, monkeypatch, capfd):
    """And from the unpacked text; only pieces that kept too few of their bad rows are counted again."""
    lines = spoiled(60, [4, 20, 21, 58])
    (tmp_path / "train.gz").write_bytes(gzip.compress("".join(line + "\n" for line in lines).encode()))
    small = {"shard_rows": 10, "record_rows": 10}
    counted, real = [], steps.count_rows

    def counting(spans, *more):
        counted.append(spans[0].first_row)
        return real(spans, *more)

    monkeypatch.setattr(run, "count_rows", counting)
    monkeypatch.setattr(steps, "_KEPT_BAD_BYTES", 1)
    with pytest.raises(
        InputError, match=r"4 bad rows, 0 are allowed: .*--max_bad_rows=4, which goes on from"
    ) as refusal:
        preprocess_lines(tmp_path / "train.gz", tmp_path / "dataset", **small)
    work = tmp_path / "dataset/.work"  # with the unpacked text
    stays = sum(path.stat().st_size for path in work.rglob("*") if path.is_file())
    assert list((work / "unpacked").iterdir())
    assert f"; {work} keeps {stays / 1e6:,.1f} MB of what was done" in str(refusal.value)
    pieces = [0, 10, 20, 30, 40, 50, 52, 56]
    assert counted == pieces
    monkeypatch.setattr(unpacking, "_OPENERS", dict.fromkeys(unpacking._OPENERS))  # so that nothing can be unpacked
    with pytest.raises(InputError, match="4 bad rows, 3 are allowed"):
        preprocess_lines(tmp_path / "train.gz", tmp_path / "dataset", **small, max_bad_rows=3)
    assert counted == pieces
    capfd.readouterr()
    data = preprocess_lines(tmp_path / "train.gz", tmp_path / "dataset", **small, max_bad_rows=4)
    assert "count: going on from an earlier run, 8 of 8 pieces are done" in capfd.readouterr().out
    assert data.manifest.bad_rows == 4
    assert not (tmp_path / "dataset/.work").exists()
    monkeypatch.undo()
    preprocess_lines(tmp_path / "train.gz", tmp_path / "fresh", **small, max_bad_rows=4)
    assert files_of(tmp_path / "dataset", ".", *PARTS) == files_of(tmp_path / "fresh", ".", *PARTS)


def test_a_piece_that_kept_too_few_of_its_bad_rows_is_counted_again(tmp_path, monkeypatch, capfd):
    lines = spoiled(60, [2, *range(10, 16)])
    raw, small = write_raw(tmp_path / "train.txt", lines), {"shard_rows": 10, "record_rows": 10}
    monkeypatch.setattr(steps, "_KEPT_BAD_BYTES", 1)
    with pytest.raises(InputError, match="7 bad rows, 0 are allowed"):
        preprocess_lines(raw, tmp_path / "dataset", **small)
    capfd.readouterr()
    preprocess_lines(raw, tmp_path / "dataset", **small, max_bad_rows=7)
    assert "count: going on from an earlier run, 7 of 8 pieces are done" in capfd.readouterr().out
    rejects = (tmp_path / "dataset" / REJECTS).read_text().splitlines()
    assert [int(line.split("\t")[0]) - 1 for line in rejects] == [2, *range(10, 16)]


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
        def __init__(self, path, **more):
            super().__init__(path, **more)
            with path.open("a") as file:
                file.write(GOOD + "\n")

    monkeypatch.setattr(text_file, "LineIndex", GrowingIndex)
    with pytest.raises(InputError, match=r"train.txt changed .*while it was read: start again when it is whole"):
        preprocess_lines(raw, tmp_path / "dataset")
    assert not (tmp_path / "dataset" / MANIFEST).exists()


def test_nobody_is_told_to_skip_a_third_of_the_rows(tmp_path):
    lines = [f"{'yes' if row % 3 == 0 else 1}\t5\ta" for row in range(60)]
    raw = write_raw(tmp_path / "train.txt", lines)
    with pytest.raises(InputError) as raised:
        preprocess_lines(raw, tmp_path / "dataset", Columns.numbered(1, 1))
    assert "line 1: label is 'yes', which is not 0 or 1 (a schema says which labels are clicks" in str(raised.value)
    assert "These are 33% of the rows, too many to skip. Mend them, or say in a --schema how" in str(raised.value)
    assert "--max_bad_rows" not in str(raised.value)


def test_labels_of_1_and_2_are_told_what_a_schema_says_of_them(tmp_path):
    raw = write_raw(tmp_path / "train.txt", [f"{row % 2 + 1}\t5\ta" for row in range(60)])
    with pytest.raises(InputError, match=r'If 2 is a click and 1 is none, say in a --schema positive: \["2"\]'):
        preprocess_lines(raw, tmp_path / "dataset", Columns.numbered(1, 1))
