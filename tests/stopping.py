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

# Also what their work imports, but for what none of them is tested with: scikit-learn takes a second.
forkserver = multiprocessing.get_context("forkserver")
forkserver.set_forkserver_preload([
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
    module: str, folder: Path, *arguments: str, kill: Callable[[str], bool] | None = None,
    sources: Path | None = None, stderr: Path | None = None,
) -> tuple[int, str]:  # fmt: skip
    """Exit code and output of a program's run in a folder; its process is killed in the first moment of which it holds.

    Args:
        module: the program.
        folder: where it runs.
        arguments: its command line.
        kill: called with the name of each moment, also in the processes that the program forks; can be pickled.
        sources: a folder with another version of the program.
        stderr: the file that stderr goes to; None for where stdout goes.
    """
    reader, writer = forkserver.Pipe(duplex=False)
    child: Any = forkserver.Process(target=_run, args=(module, folder, writer, arguments, kill, sources, stderr))
    child.start()
    writer.close()
    with os.fdopen(os.dup(reader.fileno())) as output:
        text = output.read()  # ends when the last process that holds the pipe has, so that no worker is left
    child.join()
    return child.exitcode, text


def _run(
    module: str, folder: Path, writer: Connection, arguments: tuple[str, ...], kill: Callable[[str], bool] | None,
    sources: Path | None, stderr: Path | None,
) -> None:  # fmt: skip
    os.chdir(folder)
    if sources:
        for name in [name for name in sys.modules if name.split(".")[0] == "src"]:
            del sys.modules[name]
        sys.path.insert(0, str(sources))
    errors, events = (importlib.import_module(f"src.base.{name}") for name in ("errors", "events"))
    assert not sources or Path(events.__file__ or "").is_relative_to(sources)
    places = {"stdout": writer.fileno(), "stderr": writer.fileno()}
    if stderr:
        places["stderr"] = os.open(stderr, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for number, (name, place) in enumerate(places.items(), 1):  # anew: those of a file would seek
        os.dup2(place, number)
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
