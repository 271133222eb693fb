"""Programs in processes of their own, really killed in a moment of src/base/events.py that is told by name.

They are forked from a process that has imported MindSpore and has not yet used it, so that none waits for the import.
"""

import importlib
import multiprocessing
import os
import signal
import sys
from pathlib import Path
from typing import Any

from src.base import errors, events

_PRELOADED = ["stopping", "train", "src.run", "src.training.prepare", "src.preprocess_data"]
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(_PRELOADED)


def run_program(program: str, folder: Path, *arguments: str, kill: tuple[str, int] | None = None) -> tuple[int, str]:
    """Exit code and output of a program's run in a folder; the process is killed when a moment comes the n-th time."""
    log = folder / "output.txt"
    child: Any = _context.Process(target=_run, args=(program, folder, log, arguments, kill))
    child.start()
    child.join()
    text = log.read_text()
    log.unlink()
    return child.exitcode, text


def _run(program: str, folder: Path, log: Path, arguments: tuple[str, ...], kill: tuple[str, int] | None) -> None:
    os.chdir(folder)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(output, stream.fileno())
        stream.reconfigure(write_through=True)
    if kill:
        events.listeners.append(_Killer(*kill))
    sys.argv = [program, *arguments]
    errors.run(importlib.import_module(program).main)


class _Killer:
    """Kills the process that it was made in, also where a worker of that process tells of the moment."""

    def __init__(self, moment: str, number: int):
        self.process, self.moment, self.left = os.getpid(), moment, number

    def __call__(self, moment: str) -> None:
        self.left -= moment == self.moment
        if moment == self.moment and not self.left:
            os.kill(self.process, signal.SIGKILL)
