"""The C++ program's results: there whole or not at all, whatever stops it."""

import re
import resource
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest
from program_310 import put, run, scored, with_ids

from src.base.sealed import read_facts
from src.export.scored_files import RowFiles, RowSource


def test_a_full_disk_leaves_no_results(program, exports, coded, here):
    def small_files():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    done = run(program, f"--model={exports['fp32']}", f"--input={coded}/rows", "--device_type=CPU",
               preexec_fn=small_files)  # fmt: skip
    assert done.returncode == 2
    assert re.fullmatch(
        r"error: [^\n]*000000.bin can't be written: File too large; free some space[^\n]*\n", done.stderr
    )
    assert list(here.iterdir()) == []


def test_earlier_results_stay_until_new_ones_are_whole(program, scored_once, exports, coded, here):
    shutil.copytree(scored_once("fp32"), here, dirs_exist_ok=True)
    before = (here / "result_Files/000000.bin").read_bytes()
    shutil.copytree(coded / "rows", here / "rows")
    with_ids(here, put(0, 0, 999))
    assert run(program, f"--model={exports['fp32']}", "--input=rows", "--device_type=CPU").returncode == 2
    assert (here / "result_Files/000000.bin").read_bytes() == before
    scored(program, exports["int8"], coded / "rows")
    assert (here / "result_Files/000000.bin").read_bytes() != before


def test_killed_program_leaves_no_results(program, exports, here, monkeypatch):
    """Killed when the first of sixteen files of scores is written."""
    monkeypatch.setattr("src.export.scored_files._ROWS", 8192)
    table_rows = [int(rows) for _, rows in read_facts(exports["fp32"] / "dlrm.model", "model")["field"]]
    vocabulary = read_facts(exports["fp32"] / "dlrm.model", "model")["vocabulary"][0][0]
    block = (np.zeros((1 << 16, 13), np.float32), np.zeros((1 << 16, 26), np.int32), np.zeros(1 << 16, np.uint8))
    (here / "rows").mkdir()
    RowFiles.write(here / "rows", RowSource(iter([block] * 2)), table_rows, vocabulary, True)
    command = [str(program), f"--model={exports['fp32']}", "--input=rows", "--device_type=CPU", "--batch_size=1"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as child:
        while not (here / "result_Files.writing/new/000000.bin").exists():
            assert child.poll() is None
            time.sleep(0.01)
        child.send_signal(signal.SIGSTOP)  # a busy machine may be slower to start the second run than to end this one
        second = run(program, *command[1:])
        child.kill()
    assert (second.returncode, second.stdout) == (2, "")
    assert "result_Files: another run is at work there: wait for it, or name another --output" in second.stderr
    assert not (here / "result_Files").exists()
    scored(program, exports["fp32"], here / "rows", "--batch_size=8192")
    assert sorted(path.name for path in here.iterdir()) == ["result_Files", "rows", "time_Result"]


@pytest.mark.parametrize("killed_at", ["between", "behind"])
def test_the_next_run_tidies_up_behind_a_killed_one(sanitized_program, scored_once, exports, coded, here, killed_at):
    """As it is left by one that was killed between the two renames, or behind them."""
    shutil.copytree(scored_once("fp32"), here, dirs_exist_ok=True)
    before = (here / "result_Files/000000.bin").read_bytes()
    (here / "result_Files.writing/new").mkdir(parents=True)
    (here / "result_Files.writing/new/x").write_bytes(b"")
    if killed_at == "between":
        (here / "result_Files").rename(here / "result_Files.writing/old")
    else:
        shutil.copytree(here / "result_Files", here / "result_Files.writing/old")
    shutil.copytree(coded / "rows", here / "rows")
    with_ids(here, put(0, 0, 999))
    assert run(sanitized_program, f"--model={exports['fp32']}", "--input=rows", "--device_type=CPU").returncode == 2
    assert (here / "result_Files/000000.bin").read_bytes() == before
    assert sorted(path.name for path in here.iterdir()) == ["result_Files", "rows", "time_Result"]


def test_of_a_linked_result_folder_the_target_is_replaced(sanitized_program, exports, coded, here):
    (here / "result_Files").symlink_to("disk/scores")  # where there is nothing yet
    (here / "disk").mkdir()
    for kind in ("fp32", "int8"):
        found = scored(sanitized_program, exports[kind], coded / "rows")
        assert (here / "result_Files").is_symlink()
        assert np.array_equal(np.fromfile("disk/scores/000000.bin", "<f4"), found.astype(np.float32))
    assert [path.name for path in (here / "disk").iterdir()] == ["scores"]
