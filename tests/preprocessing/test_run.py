"""The run around the steps: what it imports, who may be at work in a folder, and what a refused run leaves behind."""

import contextlib
import gzip
import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT, preprocess_lines, raw_lines, write_raw

from src.base import events
from src.base.errors import InputError
from src.base.locks import hold
from src.data.manifest import find
from src.engines.engine import Local
from src.preprocessing import journal, options, run, steps
from src.preprocessing.journal import Journal
from src.preprocessing.options import PreprocessingSpec
from src.preprocessing.run import preprocess
from src.preprocessing.source import Piece, find_rows
from src.rows import text_file, unpacking
from src.rows.columns import Columns
from src.rows.reader import RawInput
from src.rows.text_file import LineIndex


def test_programs_begin_without_what_not_all_of_their_work_needs():
    """Workers are forked from a process that has imported no more than this, or import it to do a piece."""
    ours = ["src.preprocessing.steps", "src.preprocessing.run", "src.data.records", "src.data.transforms",
            "src.preprocess_data", "export", "src.doctor.__main__"]  # fmt: skip
    check = "assert 'mindspore' not in sys.modules, {0!r}"
    lines = ["import sys", *(f"import {name}; {check.format(name)}" for name in ours)]
    lines += [f"assert 'pandas' not in sys.modules; import src.engines.over_dask; {check.format('dask')}"]
    if importlib.util.find_spec("distributed") is None:
        lines[-1] = lines[-1].partition(";")[0]
    subprocess.run([sys.executable, "-c", "\n".join(lines)], cwd=ROOT, check=True)


def files_of(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_run_that_ends_just_before_the_next_one_has_the_lock_is_not_replaced(tmp_path, monkeypatch):
    """Whether there is a manifest is of no use before the lock is taken."""
    folder, ended = tmp_path / "dataset", []

    def hold_after_another(path, what):
        monkeypatch.undo()
        preprocess_lines(write_raw(tmp_path / "one.txt", raw_lines(60)), folder)
        ended.append(files_of(folder))
        return hold(path, what)

    monkeypatch.setattr(journal, "hold", hold_after_another)
    with pytest.raises(InputError, match=r"output \S+dataset already holds preprocessed data: .*--overwrite=True"):
        preprocess_lines(write_raw(tmp_path / "two.txt", raw_lines(30, seed=2)), folder)
    assert [files_of(folder)] == ended


@pytest.mark.parametrize("overwrite", [False, True])
def test_nobody_else_gets_in_while_the_rows_are_found(tmp_path, monkeypatch, overwrite):
    """That is ten seconds of a large file; nor does a run that is refused take the other's lock away."""
    folder, refused = tmp_path / "dataset", []
    other = write_raw(tmp_path / "two.txt", raw_lines(30, seed=2))

    class AnotherStarts(LineIndex):
        def __init__(self, path, **more):
            super().__init__(path, **more)
            for _ in range(2):
                with pytest.raises(InputError, match="dataset: another run is at work there: wait for it, or stop it"):
                    preprocess_lines(other, folder, overwrite=overwrite)
                refused.append(1)

    monkeypatch.setattr(text_file, "LineIndex", AnotherStarts)
    data = preprocess_lines(write_raw(tmp_path / "one.txt", raw_lines(60)), folder)
    assert refused == [1, 1]
    assert find(str(folder)).manifest == data.manifest
    assert data.manifest.source["names"] == ["one.txt"]
    assert not (folder / journal.LOCK).exists()


def test_a_refused_run_removes_what_it_made_and_nothing_else(tmp_path):
    raw = write_raw(tmp_path / "train.txt", raw_lines(30))
    mine = tmp_path / "mine"
    mine.mkdir()
    for folder in (tmp_path / "deep/er/dataset", mine, mine / "dataset"):
        with pytest.raises(InputError, match="train_line_count is 31"):
            preprocess_lines(raw, folder, train_line_count=31)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "train.txt"]
    assert list(mine.iterdir()) == []
    done = preprocess_lines(raw, mine)
    before = files_of(mine)
    for more in ({}, {"train_line_count": 31, "overwrite": True}):
        with pytest.raises(InputError, match="already holds preprocessed data|train_line_count is 31"):
            preprocess_lines(raw, mine, **more)
    assert files_of(mine) == before
    assert find(str(mine)).manifest == done.manifest


@pytest.mark.parametrize("name", ["train.txt", "train.txt.gz"])
def test_a_mistake_costs_an_unfinished_run_nothing(tmp_path, monkeypatch, capfd, name):
    """The next run goes on; another one, of other options, unpacks no file again."""
    raw, folder = tmp_path / name, tmp_path / "dataset"
    text = "".join(line + "\n" for line in raw_lines(60)).encode()
    raw.write_bytes(gzip.compress(text) if name.endswith("gz") else text)

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run, "code", interrupted)
        with pytest.raises(KeyboardInterrupt):
            preprocess_lines(raw, folder)
    before = files_of(folder)
    assert len(list((folder / ".work").glob("*.npz"))) == 3 + 26
    assert len(list((folder / journal.UNPACKED).glob("*"))) == name.endswith("gz")
    with pytest.raises(InputError, match="train_line_count is 61"):
        preprocess_lines(raw, folder, train_line_count=61)
    assert files_of(folder) == before
    monkeypatch.setattr(unpacking, "_OPENERS", dict.fromkeys(unpacking._OPENERS))  # so that nothing can be unpacked
    capfd.readouterr()
    first = preprocess_lines(raw, folder)
    assert "count: going on from an earlier run, 3 of 3 pieces are done" in capfd.readouterr().out
    assert not (folder / ".work").exists()
    monkeypatch.undo()
    with monkeypatch.context() as patch:
        patch.setattr(run, "code", interrupted)
        with pytest.raises(KeyboardInterrupt):
            preprocess_lines(raw, tmp_path / "other", min_count=2)
    monkeypatch.setattr(unpacking, "_OPENERS", dict.fromkeys(unpacking._OPENERS))
    assert preprocess_lines(raw, tmp_path / "other").manifest == first.manifest
    assert "starting afresh" in capfd.readouterr().out


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_seed_concerns_only_what_is_random(tmp_path, monkeypatch, capfd, shuffle):
    """Of a run with another seed than the stopped one's."""
    raw, folder = write_raw(tmp_path / "train.txt", raw_lines(60)), tmp_path / "dataset"
    given = {"shard_rows": 10, "record_rows": 10, "shuffle_rows": shuffle}

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run, "manifest_of", interrupted)
        with pytest.raises(KeyboardInterrupt):
            preprocess_lines(raw, folder, seed=1, **given)
    capfd.readouterr()
    preprocess_lines(raw, folder, seed=2, **given)
    told = capfd.readouterr().out
    for step in ("scatter", "gather"):
        assert (f"{step}: input, options or program have changed" in told) == shuffle
    assert f"encode: going on from an earlier run, {2 if shuffle else 8} of {2 if shuffle else 8} pieces" in told
    monkeypatch.undo()
    preprocess_lines(raw, tmp_path / "fresh", seed=2, **given)
    assert files_of(folder) == files_of(tmp_path / "fresh")


def test_what_the_journal_tells_of_is_on_the_disk_before_it(tmp_path, monkeypatch):
    """And the data folder before its manifest: after a power cut, a file that was not flushed may be empty."""
    (tmp_path / "train.gz").write_bytes(gzip.compress("".join(line + "\n" for line in raw_lines(60)).encode()))
    log, real = tmp_path / "synced", os.fsync

    def fsync(place):
        with log.open("a") as file:  # of forked processes too
            file.write(os.readlink(f"/proc/self/fd/{place}").removesuffix(".tmp").removeprefix(f"{tmp_path}/") + "\n")
        real(place)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(steps, "_BUNDLED", 2)
    given = {"shard_rows": 10, "record_rows": 10, "shuffle_rows": True, "numeric_transform": "quantile"}
    preprocess_lines(tmp_path / "train.gz", tmp_path / "data", **given)
    synced = log.read_text().splitlines()
    names = [Path(name).name for name in synced]
    assert sum(name.endswith("-train.gz.txt") for name in names) == 1
    for step, pieces in (
        ("count", 8),
        ("merge", 26),
        ("merge_numbers", 13),
        ("bundle", 3),
        ("gather", 6),
        ("encode", 2),
    ):
        assert {f"{step}-{piece:05d}.npz" for piece in range(pieces)} <= set(names), step
    for step in ("scatter", "bundle"):
        assert names.index(f"{step}-00000.rows") < names.index(f"{step}-00000.npz")
    for shard, piece in (("train/part-00005", "gather-00005"), ("test/part-00000", "encode-00001")):
        for suffix in (".mindrecord", ".mindrecord.db"):
            assert synced.index(f"data/.work/new/{shard}{suffix}") < names.index(f"{piece}.npz")
    assert names.index("vocabulary.npz") < names.index("encode-00000.npz")
    assert names.index("encode-00001.npz") < names.index("manifest.json")
    assert {"data", "data/train", "data/valid", "data/test"} <= set(synced[names.index("manifest.json") :])


def test_tables_of_buckets_count_among_the_rows_that_ids_tell_apart(tmp_path, monkeypatch):
    raw = write_raw(tmp_path / "train.txt", raw_lines(60))
    with_buckets = {"numeric_buckets": 5, "min_count": 2}
    rows = preprocess_lines(raw, tmp_path / "one", **with_buckets).manifest.table_rows
    monkeypatch.setattr(options, "_MOST_ROWS", sum(rows))
    preprocess_lines(raw, tmp_path / "two", **with_buckets)
    monkeypatch.setattr(options, "_MOST_ROWS", sum(rows) - 1)
    with pytest.raises(InputError, match=rf"the tables of 39 fields would have {sum(rows)} rows"):
        preprocess_lines(raw, tmp_path / "three", **with_buckets)
    monkeypatch.undo()
    most = (2**31 - 1) // 26
    PreprocessingSpec(hash_rows=most).check_columns(Columns.numbered())
    with pytest.raises(InputError, match="the tables of 39 fields would have"):  # before a row is read
        PreprocessingSpec(hash_rows=most, numeric_buckets=5).check_columns(Columns.numbered())


def test_compressed_files_of_one_name_are_all_read(tmp_path):
    """day=1/part.gz and day=2/part.gz."""
    lines = raw_lines(60)
    one = preprocess_lines(write_raw(tmp_path / "all.txt", lines), tmp_path / "one")
    raws = [tmp_path / day / "part.gz" for day in ("day=1", "day=2")]
    for raw, own in zip(raws, (lines[:20], lines[20:])):
        raw.parent.mkdir()
        raw.write_bytes(gzip.compress("".join(line + "\n" for line in own).encode()))
    two = preprocess(raws, tmp_path / "two", Columns.numbered(), PreprocessingSpec())
    assert [part.label_mean for part in two.manifest.parts.values()] == [
        part.label_mean for part in one.manifest.parts.values()
    ]
    assert two.manifest.files[0] == one.manifest.files[0]  # the vocabulary


def test_rows_are_found_without_a_run(tmp_path):
    raws = [write_raw(tmp_path / "a.txt", raw_lines(9)), write_raw(tmp_path / "b.txt", raw_lines(19))]
    found = RawInput(raws, Columns.numbered(), tmp_path)
    source = find_rows(found, PreprocessingSpec(record_rows=10, shard_rows=10), all_test=False)
    assert (source.rows, source.bounds) == (28, {"train": (0, 24), "valid": (24, 26), "test": (26, 28)})
    spans = [*found.spans(0, 24, 10), *found.spans(24, 26, 10), *found.spans(26, 28, 10)]
    assert [span.rows for span in spans] == [9, 10, 5, 2, 2]
    places = [("train", 0), ("train", 1), ("train", 2), ("valid", 0), ("test", 0)]
    assert source.pieces == tuple(Piece(*place, (span,)) for place, span in zip(places, spans))
    known = find_rows(found, PreprocessingSpec(train_line_count=12), all_test=True)
    assert (known.rows, known.bounds) == (12, {"test": (0, 12)})
    assert [[span.rows for span in piece.spans] for piece in known.pieces] == [[9, 3]]  # small ones are one piece


def test_rows_are_counted_without_a_run(tmp_path):
    lines = raw_lines(28)
    lines[3], lines[27] = "x", "y"
    found = RawInput([write_raw(tmp_path / "a.txt", lines)], Columns.numbered(), tmp_path)
    options = PreprocessingSpec(record_rows=10, shard_rows=10, max_bad_rows=2)
    book = Journal(tmp_path, Local())
    bad = run.count(find_rows(found, options, all_test=False), book, options)
    assert [str(row) for row in bad] == ["line 4: 1 columns instead of 40", "line 28: 1 columns instead of 40"]
    assert [int(book.load("count", number, "rows")[0]) for number in range(5)] == [9, 10, 4, 2, 1]


def test_many_small_files_make_few_shards(tmp_path):
    lines = raw_lines(300)
    raws = [write_raw(tmp_path / f"part-{number:05d}", [line]) for number, line in enumerate(lines)]
    data = preprocess(raws, tmp_path / "many", Columns.numbered(), PreprocessingSpec(record_rows=50, shard_rows=200))
    assert [part.shard_rows for part in data.manifest.parts.values()] == [(200, 58), (21,), (21,)]
    one = preprocess_lines(write_raw(tmp_path / "one.txt", lines), tmp_path / "one", record_rows=50, shard_rows=200)
    assert [file.sha256 for file in data.manifest.files] == [file.sha256 for file in one.manifest.files]


@contextlib.contextmanager
def interrupted_when(moment):
    """What is done within is stopped in this moment, and must come to it."""

    def interrupt(name):
        if name == moment:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(events, "listeners", [interrupt])
        with pytest.raises(KeyboardInterrupt):
            yield


def test_what_became_other_in_an_unfinished_run_is_told(tmp_path):
    """Be it read by this process or by those that merge: no data folder is made of it."""
    raw, folder = write_raw(tmp_path / "train.txt", raw_lines(60)), tmp_path / "dataset"
    with interrupted_when("merge is to be finished"):
        preprocess_lines(raw, folder, numeric_transform="quantile")
    piece = folder / ".work/count-00000.npz"
    whole = piece.read_bytes()
    with zipfile.ZipFile(piece) as archive:
        values = {name: archive.read(f"{name}.npy")[128:] for name in ("rows", "bounds", "values_3", "values_counts_3")}
    for name, value in values.items():
        place = whole.index(value, whole.index(f"{name}.npy".encode()))
        piece.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(InputError, match=r"count-00000\.npz is damaged: remove it, and start again; .* keeps"):
            preprocess_lines(raw, folder, numeric_transform="quantile")
    piece.write_bytes(whole[:-1])
    with pytest.raises(InputError, match=r"count-00000\.npz is damaged: remove it, and start again"):
        preprocess_lines(raw, folder, numeric_transform="quantile")
    piece.unlink()  # as it says
    preprocess_lines(raw, folder, numeric_transform="quantile")
    preprocess_lines(raw, tmp_path / "undisturbed", numeric_transform="quantile")
    assert (folder / "vocabulary.npz").read_bytes() == (tmp_path / "undisturbed/vocabulary.npz").read_bytes()


def test_a_run_that_had_ended_but_for_its_journal_is_done_anew(tmp_path):
    """Killed behind the manifest: what the journal calls finished may have changed since."""
    raw, folder = write_raw(tmp_path / "train.txt", raw_lines(60)), tmp_path / "dataset"
    with interrupted_when("the manifest is written"):
        preprocess_lines(raw, folder)
    assert find(str(folder)).manifest.source["lines"] == 60
    assert len(list((folder / ".work").glob("encode-*.npz"))) == 3
    (folder / "train/part-00000.mindrecord").write_bytes(b"damaged")
    data = preprocess_lines(raw, folder, overwrite=True)
    data.manifest.verify(folder, [file.name for file in data.manifest.files])
