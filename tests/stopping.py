"""Programs in processes of their own, really killed in a moment of src/base/events.py.

They are forked from a process that has imported MindSpore and has not yet used it, so that none waits for the import.
"""

import importlib
import io
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from src.base import errors, events

# Also what their work imports, but for what none of them is tested with: scikit-learn takes a second.
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([
    "stopping", "train", "src.run", "src.training.prepare", "src.preprocess_data", "src.days.__main__",
    "src.engines.over_dask", "distributed.worker", "benchmarks.combinations", "pandas", "mindspore.mindrecord",
])  # fmt: skip


@dataclass
class Comes:
    """Whether a moment comes for the n-th time."""

    moment: str
    number: int = 1

    def __call__(self, moment: str) -> bool:
        self.number -= moment == self.moment
        return moment == self.moment and self.number == 0


def run_program(
    module: str, folder: Path, *arguments: str, kill: Callable[[str], bool] | None = None
) -> tuple[int, str]:
    """Exit code and output of a program's run in a folder; its process is killed in the first moment of which it holds.

    Args:
        module: the program.
        folder: where it runs.
        arguments: its command line.
        kill: called with the name of each moment, also in the processes that the program forks; can be pickled.
    """
    reader, writer = _context.Pipe(duplex=False)
    child: Any = _context.Process(target=_run, args=(module, folder, writer, arguments, kill))
    child.start()
    writer.close()
    with os.fdopen(os.dup(reader.fileno())) as output:
        text = output.read()  # ends when the last process that holds the pipe has, so that no worker is left
    child.join()
    return child.exitcode, text


def _run(
    module: str, folder: Path, writer: Connection, arguments: tuple[str, ...], kill: Callable[[str], bool] | None
) -> None:
    os.chdir(folder)
    for number, name in ((1, "stdout"), (2, "stderr")):  # anew: those of a file would seek
        os.dup2(writer.fileno(), number)
        setattr(sys, name, io.TextIOWrapper(os.fdopen(number, "wb", 0, closefd=False), write_through=True))
    writer.close()
    program = os.getpid()

    def listen(moment: str) -> None:
        if kill and kill(moment):
            os.kill(program, signal.SIGKILL)
            signal.pause()  # a worker goes no further until it is killed with its program

    events.listeners.append(listen)
    sys.argv = [module, *arguments]
    errors.run(importlib.import_module(module).main)
