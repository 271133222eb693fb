"""A preprocessing run that is really killed goes on where it was, and ends with the files of an undisturbed run."""

import json
import os
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import ROOT, preprocess_lines, raw_lines, write_raw
from stopping import Comes, run_program

from src.base import events
from src.data.manifest import MANIFEST, find
from src.preprocessing.journal import NEW

ROWS = 6_000
INPUTS = ["--numeric_transform=quantile", "--missing_indicators=True", "--numeric_buckets=5", "--category_counts=True"]
# 12 spans, 26 fields, 13 columns; with two workers, which else are not for so few rows
OPTIONS = ["--shard_rows=512", "--record_rows=64", "--max_bad_rows=5", "--workers=2", *INPUTS]


@pytest.fixture(scope="session")
def raw(made_once):
    """Raw text. Do not change it."""
    lines = raw_lines(ROWS, 7)
    lines[777] = "not a row"
    return made_once("raw", lambda folder: write_raw(folder / "train.txt", lines)) / "train.txt"


def run(raw, output, *more, kill=None, options=OPTIONS, **how):
    """Exit code and output of the program, which is killed in the first moment of which `kill` holds."""
    return run_program("src.preprocess_data", raw.parent, f"--data_path={raw}", f"--output_path={output}",
                       *options, *more, kill=kill, **how)  # fmt: skip


def files_of(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="session")
def whole(raw, made_once):
    """The data folder of an undisturbed run. Do not change its files."""

    def make(folder):
        code, text = run(raw, folder / "dataset")
        assert (code, "bad rows: 1" in text, "going on" in text) == (0, True, False)

    return made_once("undisturbed", make) / "dataset"


@pytest.fixture
def undisturbed(whole):
    """Its files."""
    return files_of(whole)


def finished(output):
    return len(list((output / ".work").glob("*-*.npz")))


@dataclass
class Finished:
    """Whether so many pieces of work are finished."""

    output: Path
    pieces: int

    def __call__(self, moment):
        return finished(self.output) >= self.pieces


@dataclass
class Coded:
    """Whether so many pieces are coded."""

    output: Path
    pieces: int

    def __call__(self, moment):
        return len(list((self.output / ".work").glob("encode-*.npz"))) >= self.pieces


def kill_when(raw, output, kill, *more, options=OPTIONS):
    had_ended = (output / MANIFEST).exists()
    code, text = run(raw, output, *more, kill=kill, options=options)
    assert code == -signal.SIGKILL, ("the run ended before it was to be killed", text)
    assert (output / MANIFEST).exists() == had_ended


def test_killed_again_and_again_it_ends_as_if_undisturbed(raw, undisturbed, tmp_path):
    """Points of all steps: 13 spans are counted, 26 fields and 13 columns merged, 13 spans encoded."""
    output = tmp_path / "dataset"
    points = [0, 1, 4, 13, 15, 25, 39, 40, 46, 53, 59, 65]
    for point in points:
        kill_when(raw, output, Finished(output, point))
    kept = finished(output)
    assert kept >= points[-1]
    code, text = run(raw, output)
    assert code == 0
    assert "count: going on from an earlier run" in text
    assert files_of(output) == undisturbed


def test_killed_while_a_file_is_written_it_is_written_again(raw, undisturbed, tmp_path):
    output = tmp_path / "dataset"
    kill_when(raw, output, Comes("a file of records has no index yet"))
    shards = list((output / NEW / "train").glob("*.mindrecord"))
    assert any(not shard.with_name(shard.name + ".db").exists() for shard in shards)
    assert run(raw, output)[0] == 0
    assert files_of(output) == undisturbed


@pytest.fixture(scope="module")
def stopped(raw, tmp_path_factory):
    """A copy of the raw text, where it was preprocessed to, and what a run left that was killed when all was merged."""
    place = tmp_path_factory.mktemp("stopped")
    mine, output = shutil.copy2(raw, place / "train.txt"), place / "dataset"
    kill_when(mine, output, Finished(output, 58))
    return mine, output, output.rename(place / "left")


@pytest.mark.parametrize("change", ["options", "input", "nothing"])
def test_other_options_or_input_start_afresh_where_they_matter(raw, undisturbed, stopped, change):
    mine, output, left = stopped
    shutil.rmtree(output, ignore_errors=True)
    shutil.copytree(left, output)
    shutil.copy2(raw, mine)
    if change == "input":
        mine.write_bytes(raw.read_bytes().replace(b"not a row", b"still no row"))
    code, text = run(mine, output, *(["--min_count=2"] if change == "options" else []))
    assert code == 0
    afresh = {"input": ["count", "merge", "merge_numbers"], "options": ["merge"], "nothing": []}[change]
    for step in ("count", "merge", "merge_numbers"):
        assert (f"{step}: input, options or program have changed" in text) == (step in afresh)
        assert (f"{step}: going on from an earlier run" in text) == (step not in afresh)
    data = find(str(output))
    data.manifest.verify(output, [file.name for file in data.manifest.files])
    if change == "options":
        assert max(data.manifest.table_rows) < max(find_rows(undisturbed))
    else:
        same = {name for name, content in files_of(output).items() if content == undisturbed.get(name)}
        assert set(undisturbed) - same == ({MANIFEST, "rejected_rows.txt"} if change == "input" else set())


def find_rows(files):
    return json.loads(files[MANIFEST])["table_rows"]


def test_an_earlier_data_folder_survives_a_refused_input(raw, whole, tmp_path):
    output = shutil.copytree(whole, tmp_path / "dataset")
    before = files_of(output)
    bad = tmp_path / "bad.txt"
    bad.write_bytes(raw.read_bytes()[:2000].rpartition(b"\n")[0] + b"\nnot a row" * 100)
    code, text = run(bad, output, "--overwrite=True")
    assert code == 2
    assert "100 bad rows" in text
    shutil.rmtree(output / ".work")  # what was counted, for a run that allows them
    assert files_of(output) == before
    assert find(str(output)).manifest.bad_rows == 1


def test_a_vocabulary_that_was_replaced_codes_all_rows(raw, tmp_path):
    """Between kill and restart, at the same vocab_path, as a training run every night does."""
    models = {name: tmp_path / name for name in ("a", "b", "model")}
    lines = raw.read_text().splitlines()
    raw = write_raw(tmp_path / "new.txt", lines[300:940])
    for name, rows in (("a", lines[:300]), ("b", lines[1000:1300])):
        assert run(write_raw(tmp_path / f"{name}.txt", rows), models[name], options=[])[0] == 0
    small = ["--shard_rows=64", "--record_rows=64", "--max_bad_rows=5", f"--vocab_path={models['model']}"]
    shutil.copytree(models["a"], models["model"])
    kill_when(raw, tmp_path / "new", Coded(tmp_path / "new", 3), options=small)
    shutil.rmtree(models["model"])
    shutil.copytree(models["b"], models["model"])
    code, text = run(raw, tmp_path / "new", options=small)
    assert (code, "count: going on" in text, "encode: input, options or program have ch" in text) == (0, True, True)
    assert run(raw, tmp_path / "fresh", options=small)[0] == 0
    assert files_of(tmp_path / "new") == files_of(tmp_path / "fresh")


def test_another_version_of_the_program_codes_all_rows(raw, undisturbed, tmp_path):
    copied, output = tmp_path / "program", tmp_path / "dataset"
    shutil.copytree(ROOT / "src", copied / "src")
    (copied / "build").symlink_to(ROOT / "build")  # or the parser would be compiled again
    numeric = copied / "src/data/numeric.py"
    numeric.write_text(numeric.read_text() + "\n# another version\n")
    code, text = run(raw, output, kill=Comes("the manifest is to be written"), sources=copied)
    assert code == -signal.SIGKILL, text
    assert Coded(output, 1)("")
    code, text = run(raw, output)
    assert (code, "count: input, options or program have changed" in text, "going on" in text) == (0, True, False)
    assert files_of(output) == undisturbed


def test_an_earlier_data_folder_survives_until_the_new_one_is_whole(raw, undisturbed, tmp_path):
    """Stopped after all is counted, coded, or in the middle of putting the new files in place."""
    output, small = tmp_path / "dataset", write_raw(tmp_path / "small.txt", raw_lines(100))
    data = preprocess_lines(small, output)
    before = files_of(output)
    for kill in (Comes("merge is to be finished"), Coded(output, 1), Comes("the manifest is to be written")):
        kill_when(raw, output, kill, "--overwrite=True")
        assert {name: content for name, content in files_of(output).items() if name in before} == before
        data.manifest.verify(output, [file.name for file in data.manifest.files])
    code, text = run(raw, output, "--overwrite=True")
    assert (code, "encode: going on from an earlier run" in text) == (0, True)
    assert files_of(output) == undisturbed


PUT_IN_PLACE = "an earlier data folder is to be replaced", "a new file is in its place"


@pytest.fixture(scope="module")
def replaced(tmp_path_factory):
    """New raw text; an earlier data folder, and the one that comes of the new text. Do not change their files."""
    place = tmp_path_factory.mktemp("replaced")
    raws = [write_raw(place / f"{rows}.txt", raw_lines(rows)) for rows in (300, 400)]
    folders = [preprocess_lines(raw, place / raw.stem, shard_rows=64).path for raw in raws]
    return raws[1], *folders


@pytest.mark.parametrize("moment", [1, 2, 5, 9])
def test_killed_while_the_new_files_are_put_in_place_it_ends_as_if_undisturbed(tmp_path, replaced, monkeypatch, moment):
    """An exception ends this process's run where a kill would, for nothing there cleans up."""
    raw, earlier, fresh = replaced
    output, options = shutil.copytree(earlier, tmp_path / "dataset"), {"shard_rows": 64}
    told = []

    def die(name):
        told.extend([name] if name in PUT_IN_PLACE else [])
        if name in PUT_IN_PLACE and len(told) == moment:
            raise KeyboardInterrupt

    monkeypatch.setattr(events, "listeners", [die])
    with pytest.raises(KeyboardInterrupt):
        preprocess_lines(raw, output, overwrite=True, **options)
    monkeypatch.undo()
    preprocess_lines(raw, output, **options)
    assert files_of(output) == files_of(fresh)


@pytest.mark.parametrize("size", ["200k", "2m"])
def test_full_disk_is_one_line_and_no_manifest(raw, tmp_path, size):
    """A file system too small for the counts, the vocabulary or the shards; needs the right to mount one."""
    small = tmp_path / "small"
    small.mkdir()
    if (
        os.geteuid()
        or subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", small], check=False).returncode
    ):
        pytest.skip("mounting a small tmpfs needs root")
    try:
        assert run(raw, small / "dataset", stderr=tmp_path / "said")[0] == 2
        said = (tmp_path / "said").read_text()
        assert len(said.splitlines()) == 1
        assert "space" in said
        assert not (small / "dataset" / MANIFEST).exists()
    finally:
        subprocess.run(["umount", small], check=True)
