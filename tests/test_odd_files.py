"""A part of what benchmarks/odd_files.py and benchmarks/damaged_files.py do in full."""

import sys
import threading
from collections import deque
from pathlib import Path

import pytest

from benchmarks import damaged_files, odd_files

# Takes no other case once it has told of one, as a process that dies behind its verdict.
DYING = """
import os, signal, sys
sys.stdin.readline()
os.close(0)
print('["right", ""]', flush=True)
signal.pause()
"""


def test_odd_inputs_are_right_or_refused(program, here):
    verdicts = {name: odd_files.verdict_of(name, here, program) for name in odd_files.QUICK}  # where graphs are shared
    assert all(verdict in ("right", "refused") for verdict, _ in verdicts.values()), verdicts
    assert verdicts["columns with names of the program's"] == ("right", "")
    assert verdicts["changed gzip"][0] == "refused"


def test_processes_take_cases(capsys):
    code = odd_files.main(["--quick", "--only=gzip", "--jobs=1", "--program="])
    told = capsys.readouterr().out
    assert code == 0, told
    assert told.startswith("refused  changed gzip: ")
    assert told.endswith("\ncases=1 right=0 refused=1 faults=0\n")


@pytest.mark.parametrize("program", [Path("/elsewhere/main"), None])
def test_a_process_is_told_the_folder_and_the_program(tmp_path, monkeypatch, program):
    told = []
    monkeypatch.setattr(odd_files, "work", lambda *given: told.append(given))
    assert odd_files.main(odd_files.Worker(deque(), tmp_path, program).command[2:]) == 0
    assert told == [(tmp_path, program)]


def test_a_program_is_found_from_the_folder_where_it_is_named(tmp_path, monkeypatch, capsys):
    """Else each case would fail to start it, in a folder of its own, and count as refused."""
    monkeypatch.chdir(tmp_path)
    commands = []
    monkeypatch.setattr(odd_files.Worker, "run", lambda worker: commands.append(worker.command))
    with pytest.raises(SystemExit, match="2"):
        odd_files.main(["--quick", "--program=main"])
    assert "--program main is no file" in capsys.readouterr().err
    (tmp_path / "main").touch()
    odd_files.main(["--quick", "--jobs=1", "--program=main"])
    assert [command[-1] for command in commands] == [f"--program={tmp_path}/main"]


def test_a_process_that_dies_behind_its_verdict_loses_no_case(tmp_path):
    worker = odd_files.Worker(deque("abc"), tmp_path, None)
    worker.command = [sys.executable, "-c", DYING]
    worker.run()
    died = "FAULT", "the process died or hung"
    assert worker.verdicts == {"a": ("right", ""), "b": died, "c": ("right", "")}
    assert not any(isinstance(thread, threading.Timer) and thread.is_alive() and not thread.finished.is_set()
                   for thread in threading.enumerate())  # fmt: skip


def test_cases_without_a_verdict_are_faults(monkeypatch, capsys):
    monkeypatch.setattr(odd_files.Worker, "run", lambda self: None)
    assert odd_files.main(["--quick", "--program="]) == 1
    assert capsys.readouterr().out.endswith(f"cases={len(odd_files.QUICK)} right=0 refused=0 faults=0\n")


def test_damaged_files_are_refused_or_give_the_same(program, capsys):
    code = damaged_files.main(["--flips=1", "--cuts=1", f"--program={program}"])
    told = capsys.readouterr().out
    assert code == 0, told
    assert "files=30 damages=60 " in told.splitlines()[-1]


def test_damage_that_is_accepted_is_a_fault(tmp_path):
    """The program notices where a reader would not."""
    path = tmp_path / "file"
    path.write_bytes(b"some text")
    verdicts = damaged_files.damage(path, path.read_bytes, 3, 1, 1)
    assert all(verdict.startswith("FAULT: it was accepted, with other values (") for verdict in verdicts)
    assert damaged_files.damage(path, lambda: 5, 3, 1, 1) == ["alike"] * 4
    assert path.read_bytes() == b"some text"
