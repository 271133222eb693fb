"""What a program says at its end, and with which exit code."""

import gc
import os
import re
import subprocess
import sys

import pytest
from conftest import ROOT

from src.base.errors import InputError
from src.base.workers import run_parallel

# SIGINT interrupts here also where the tests run in the background of a script.
STOPPED = (
    "import os, signal; from src.base.errors import run; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "run(lambda _: os.kill(os.getpid(), signal.SIGINT){})"
)
# A program, whose import of a module a signal meets.
IMPORTS = """
import os, runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
class Finder:
    def find_spec(self, name, *_):
        if name == "src.base.errors":
            os.kill(os.getpid(), signal.{})
sys.meta_path.insert(0, Finder())
sys.path.insert(0, os.getcwd())
runpy.run_path("{}", run_name="__main__")
"""
PROGRAMS = sorted(
    str(path.relative_to(ROOT)) for path in (*ROOT.glob("*.py"), *ROOT.glob("src/**/*.py"))
    if re.search(r"^ +run\(main", path.read_text(), re.MULTILINE)
)  # fmt: skip
WRITES = """
from src.base.errors import run
def main(_):
    for number in range(100_000):
        print(number{})
run(main)
"""

COLLECTS = """
import atexit, gc
from src.base.errors import run
def main(_):
    print(gc.get_threshold()[0] > 700)
    gc.collect()
    print(gc.get_freeze_count() > 0)
    atexit.register(lambda: print(len(gc.get_objects()) < 1000))
    main.kept = [[] for _ in range(10_000)]
run(main)
"""


def end_of(code):
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("goes_on", [False, True])
def test_only_who_goes_on_says_so(goes_on):
    done = end_of(STOPPED.format(f", goes_on={goes_on}"))
    assert done.returncode == 130
    assert done.stderr.startswith("stopped by the keyboard or a signal")
    assert ("the same command goes on" in done.stderr) == goes_on


@pytest.mark.parametrize(
    ("program", "signal"), [*((program, "SIGINT") for program in PROGRAMS), ("train.py", "SIGTERM")]
)
def test_who_stops_a_program_while_it_is_imported_gets_a_line(program, signal):
    done = end_of(IMPORTS.format(signal, program))
    assert (done.returncode, done.stderr) == (130, "stopped by the keyboard or a signal\n")


def test_programs_are_found():
    assert {"train.py", "eval.py", "export.py", "preprocess.py", "postprocess.py", "src/launch.py"} <= set(PROGRAMS)


def test_what_is_done_already_is_no_error():
    code = "from src.base.errors import AlreadyDone, run\ndef main(_): raise AlreadyDone('x is there')\nrun(main)"
    done = end_of(code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "nothing to do: x is there\n", "")


def test_what_stays_is_no_garbage_to_look_for():
    """Neither behind the first full collection nor at the end; see `errors.run`."""
    assert end_of(COLLECTS).stdout.split() == ["True", "True", "True"]


@pytest.mark.parametrize("more", ["", ", flush=True"])
def test_a_broken_pipe_ends_a_program_quietly(more):
    command = [sys.executable, "-c", WRITES.format(more)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"0\n"
        child.stdout.close()
        assert child.stderr.read() == b""
    assert child.returncode == 141


def test_what_a_terminal_can_not_show_is_shown_otherwise():
    code = "from src.base.errors import run; run(lambda _: print('a\\udcff \u5317'))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False,
                          env=os.environ | {"PYTHONIOENCODING": "latin-1:strict"})  # fmt: skip
    assert (done.returncode, done.stdout) == (0, b"a\\udcff \\u5317\n")


def die(*_):
    import os
    import signal

    os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_is_killed_is_one_line():
    """As the system does where memory runs out."""
    with pytest.raises(InputError, match=r"^count: one of 1 processes was killed, as the system does where memory"):
        list(run_parallel("count", die, [()], [1], "rows"))


def frozen(*_):
    return gc.get_freeze_count()


def test_workers_leave_their_parents_objects_out_of_collections():
    """Which would copy the pages of all of them, mindspore's among them, in each worker."""
    before = gc.get_freeze_count()
    (count,) = run_parallel("count", frozen, [()], [1], "rows")
    assert before == gc.get_freeze_count() < count
