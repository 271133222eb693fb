"""A preprocessing run that is really killed goes on where it was, and ends with the files of an undisturbed run."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import ROOT, raw_lines, write_raw
from stopping import Comes, run_program

from src.data.manifest import MANIFEST, find

ROWS = 6_000
INPUTS = ["--numeric_transform=quantile", "--missing_indicators=True", "--numeric_buckets=5", "--category_counts=True"]
OPTIONS = ["--shard_rows=512", "--record_rows=64", "--max_bad_rows=5", *INPUTS]  # 12 spans, 26 fields, 13 columns


@pytest.fixture(scope="session")
def raw(made_once):
    """Raw text. Do not change it."""
    lines = raw_lines(ROWS, 7)
    lines[777] = "not a row"
    return made_once("raw", lambda folder: write_raw(folder / "train.txt", lines)) / "train.txt"


def run(raw, output, *more, kill=None):
    """Exit code and output of the program, which is killed in the first moment of which `kill` holds."""
    return run_program("src.preprocess_data", raw.parent, f"--data_path={raw}", f"--output_path={output}",
                       *OPTIONS, *more, kill=kill)  # fmt: skip


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


def kill_when(raw, output, kill):
    code, text = run(raw, output, kill=kill)
    assert code == -signal.SIGKILL, ("the run ended before it was to be killed", text)
    assert not (output / MANIFEST).exists()


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
    shards = list((output / "train").glob("*.mindrecord"))
    assert any(not shard.with_name(shard.name + ".db").exists() for shard in shards)
    assert run(raw, output)[0] == 0
    assert files_of(output) == undisturbed


@pytest.mark.parametrize("change", ["options", "input"])
def test_other_options_or_input_start_afresh(raw, undisturbed, tmp_path, change):
    output, mine = tmp_path / "dataset", tmp_path / "train.txt"
    mine.write_bytes(raw.read_bytes())
    kill_when(mine, output, Finished(output, 58))
    if change == "input":
        mine.write_bytes(raw.read_bytes().replace(b"not a row", b"still no row"))
    code, text = run(mine, output, *(["--min_count=2"] if change == "options" else []))
    assert (code, "starting afresh" in text, "going on" in text) == (0, True, False)
    data = find(str(output))
    data.manifest.verify(output, [file.name for file in data.manifest.files])
    if change == "input":
        same = {name for name, content in files_of(output).items() if content == undisturbed.get(name)}
        assert set(undisturbed) - same == {MANIFEST, "rejected_rows.txt"}
    else:
        assert max(data.manifest.table_rows) < max(find_rows(undisturbed))


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
    assert files_of(output) == before
    assert find(str(output)).manifest.bad_rows == 1


@pytest.mark.parametrize("size", ["200k", "2m"])
def test_full_disk_is_one_line_and_no_manifest(raw, tmp_path, size):
    """A file system too small for the counts, the vocabulary or the shards; needs the right to mount one."""
    small = tmp_path / "small"
    command = [
        sys.executable,
        str(ROOT / "src/preprocess_data.py"),
        f"--data_path={raw}",
        f"--output_path={small}/dataset",
    ]
    small.mkdir()
    if (
        os.geteuid()
        or subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", small], check=False).returncode
    ):
        pytest.skip("mounting a small tmpfs needs root")
    try:
        child = subprocess.run([*command, *OPTIONS], capture_output=True, text=True, check=False)
        assert child.returncode == 2
        assert len(child.stderr.splitlines()) == 1
        assert "space" in child.stderr
        assert not (small / "dataset" / MANIFEST).exists()
    finally:
        subprocess.run(["umount", small], check=True)
