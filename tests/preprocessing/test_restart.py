"""A preprocessing run that is really killed goes on where it was, and ends with the files of an undisturbed run."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT, preprocess_lines, raw_lines, write_raw

from src.base import events
from src.data.manifest import MANIFEST, find
from src.preprocessing.journal import NEW

PROGRAM = ROOT / "src/preprocess_data.py"
ROWS = 6_000
INPUTS = ["--numeric_transform=quantile", "--missing_indicators=True", "--numeric_buckets=5", "--category_counts=True"]
OPTIONS = ["--shard_rows=512", "--record_rows=64", "--max_bad_rows=5", *INPUTS]  # 12 spans, 26 fields, 13 columns


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    lines = raw_lines(ROWS, 7)
    lines[777] = b"not a row" if isinstance(lines[777], bytes) else "not a row"
    return write_raw(tmp_path_factory.mktemp("raw") / "train.txt", lines)


def start(raw, output, *more, options=OPTIONS, program=PROGRAM):
    command = [sys.executable, str(program), f"--data_path={raw}", f"--output_path={output}"]
    return subprocess.Popen([*command, *options, *more], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def run(raw, output, *more, **others):
    child = start(raw, output, *more, **others)
    text = child.communicate()[0]
    return child.returncode, text


def files_of(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def undisturbed(raw, tmp_path_factory):
    output = tmp_path_factory.mktemp("undisturbed") / "dataset"
    code, text = run(raw, output)
    assert (code, "bad rows: 1" in text, "going on" in text) == (0, True, False)
    return files_of(output)


def finished(output):
    return len(list((output / ".work").glob("*-*.npz")))


def kill_when(raw, output, condition, *more, **others):
    """Start, kill the main process as soon as the condition holds, and wait until its workers are gone too."""
    child = start(raw, output, *more, **others)
    while not condition() and child.poll() is None:
        time.sleep(0.0005)
    child.send_signal(signal.SIGKILL)
    child.stdout.read()  # ends when the last process that holds the pipe has
    assert child.wait() == -signal.SIGKILL, "the run ended before it was to be killed"
    if "--overwrite=True" not in more:
        assert not (output / MANIFEST).exists()


def test_killed_again_and_again_it_ends_as_if_undisturbed(raw, undisturbed, tmp_path):
    """Points of all steps: 14 spans are counted, 26 fields and 13 columns merged, 14 spans encoded."""
    output = tmp_path / "dataset"
    points = [0, 1, 4, 13, 15, 25, 39, 40, 46, 53, 59, 65]
    for point in points:
        kill_when(raw, output, lambda point=point: (output / ".work").is_dir() and finished(output) >= point)
    kept = finished(output)
    assert kept >= points[-1]
    code, text = run(raw, output)
    assert code == 0
    assert "count: going on from an earlier run" in text
    assert files_of(output) == undisturbed


def test_killed_while_a_file_is_written_it_is_written_again(raw, undisturbed, tmp_path):
    output = tmp_path / "dataset"
    shard = output / NEW / "train" / "part-00000.mindrecord"
    kill_when(raw, output, shard.exists)
    assert run(raw, output)[0] == 0
    assert files_of(output) == undisturbed


@pytest.mark.parametrize("change", ["options", "input", "nothing"])
def test_other_options_or_input_start_afresh_where_they_matter(raw, undisturbed, tmp_path, change):
    output, mine = tmp_path / "dataset", tmp_path / "train.txt"
    mine.write_bytes(raw.read_bytes())
    kill_when(mine, output, lambda: (output / ".work").is_dir() and finished(output) >= 58)
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
    import json

    return json.loads(files[MANIFEST])["table_rows"]


def test_an_earlier_data_folder_survives_a_refused_input(raw, tmp_path):
    output = tmp_path / "dataset"
    assert run(raw, output)[0] == 0
    before = files_of(output)
    bad = tmp_path / "bad.txt"
    bad.write_bytes(raw.read_bytes()[:2000].rpartition(b"\n")[0] + b"\nnot a row" * 100)
    code, text = run(bad, output, "--overwrite=True")
    assert code == 2
    assert "100 bad rows" in text
    assert files_of(output) == before
    assert find(str(output)).manifest.bad_rows == 1


def encoded(output, pieces=1):
    """Whether so many pieces are coded."""
    return lambda: len(list((output / ".work").glob("encode-*.npz"))) >= pieces


def test_a_vocabulary_that_was_replaced_codes_all_rows(raw, tmp_path):
    """Between kill and restart, at the same vocab_path, as a training run every night does."""
    models = {name: tmp_path / name for name in ("a", "b", "model")}
    lines = raw.read_text().splitlines()
    for name, rows in (("a", lines[:700]), ("b", lines[1000:1700])):
        assert run(write_raw(tmp_path / f"{name}.txt", rows), models[name], options=[])[0] == 0
    small = ["--shard_rows=64", "--record_rows=64", "--max_bad_rows=5", f"--vocab_path={models['model']}"]
    shutil.copytree(models["a"], models["model"])
    kill_when(raw, tmp_path / "new", encoded(tmp_path / "new", 3), options=small)
    shutil.rmtree(models["model"])
    shutil.copytree(models["b"], models["model"])
    code, text = run(raw, tmp_path / "new", options=small)
    assert (code, "count: going on" in text, "encode: input, options or program have ch" in text) == (0, True, True)
    assert run(raw, tmp_path / "fresh", options=small)[0] == 0
    assert files_of(tmp_path / "new") == files_of(tmp_path / "fresh")


def test_another_version_of_the_program_codes_all_rows(raw, undisturbed, tmp_path):
    copied = tmp_path / "program"
    shutil.copytree(ROOT / "src", copied / "src", ignore=shutil.ignore_patterns("__pycache__"))
    (copied / "build").symlink_to(ROOT / "build")  # or the parser would be compiled again
    numeric = copied / "src/data/numeric.py"
    numeric.write_text(numeric.read_text() + "\n# another version\n")
    output = tmp_path / "dataset"
    kill_when(raw, output, encoded(output), program=copied / "src/preprocess_data.py")
    code, text = run(raw, output)
    assert (code, "count: input, options or program have changed" in text, "going on" in text) == (0, True, False)
    assert files_of(output) == undisturbed


def test_an_earlier_data_folder_survives_until_the_new_one_is_whole(raw, undisturbed, tmp_path):
    """Stopped after all is counted, coded, or in the middle of putting the new files in place."""
    output, small = tmp_path / "dataset", write_raw(tmp_path / "small.txt", raw_lines(100))
    data = preprocess_lines(small, output)
    before = files_of(output)
    for step in ("merge", "encode"):
        done = (lambda: list((output / ".work").glob("merge-*.npz"))) if step == "merge" else encoded(output)
        kill_when(raw, output, done, "--overwrite=True")
        assert {name: content for name, content in files_of(output).items() if name in before} == before
        data.manifest.verify(output, [file.name for file in data.manifest.files])
    code, text = run(raw, output, "--overwrite=True")
    assert (code, "encode: going on from an earlier run" in text) == (0, True)
    assert files_of(output) == undisturbed


@pytest.mark.parametrize("moment", [1, 2, 5, 9])
def test_killed_while_the_new_files_are_put_in_place_it_ends_as_if_undisturbed(tmp_path, monkeypatch, moment):
    """An exception ends this process's run where a kill would, for nothing there cleans up."""
    raws = [write_raw(tmp_path / f"{rows}.txt", raw_lines(rows)) for rows in (700, 800)]
    output, options = tmp_path / "dataset", {"shard_rows": 64}
    preprocess_lines(raws[0], output, **options)
    fresh = files_of(preprocess_lines(raws[1], tmp_path / "fresh", **options).path)
    told = []

    def die(name):
        told.append(name)
        if len(told) == moment:
            raise KeyboardInterrupt

    monkeypatch.setattr(events, "listeners", [die])
    with pytest.raises(KeyboardInterrupt):
        preprocess_lines(raws[1], output, overwrite=True, **options)
    monkeypatch.undo()
    preprocess_lines(raws[1], output, **options)
    assert files_of(output) == fresh


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
