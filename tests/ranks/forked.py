"""Launchers, and the ranks that they start, forked from a process that has imported MindSpore and has not yet used it.

They are processes as any others, but for the import, which takes most of the time of a small training: `Launcher` is
src/launch.py, and in it `Fork` does what subprocess.Popen does there. Launchers from the scripts, and ranks that begin
as Python programs do, are those of `trainings.start`.
"""

import atexit
import ctypes
import gc
import io
import multiprocessing
import os
import runpy
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

from stopping import forkserver

from src import launch
from src.base import errors
from src.base.workers import die_with_parent

ROOT = Path(__file__).resolve().parents[2]
_NEW_NETWORK, _NEW_MOUNTS, _SLAVE, _DETACH = 0x40000000, 0x20000, 0x84000, 2  # of Linux


class Launcher:
    """A launcher in a process of its own, with what tests ask of a subprocess.Popen.

    Args:
        folder: where it works; what it says is in files beside.
        argv: its arguments.
        main: what it is: src.launch.main, or another function of a list of texts that gives an exit code.
        environment: of it and its ranks, what is other than here.
    """

    def __init__(
        self, folder: Path, argv: Sequence[str], main: Callable[[Sequence[str]], int] = launch.main, **environment: str
    ):
        self._said = [folder.with_name(f"{folder.name}.{stream}") for stream in ("stdout", "stderr")]
        environment = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | environment
        self.process: Any = forkserver.Process(target=_launch, args=(folder, self._said, argv, main, environment))
        self.process.start()
        self.pid = self.process.pid

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def poll(self) -> int | None:
        return self.process.exitcode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        self.process.join(timeout)
        assert self.process.exitcode is not None, self._said[1].read_text()
        return self._said[0].read_text(), self._said[1].read_text()

    @property
    def stderr(self) -> Any:
        return self._said[1].open()


def launch_in_network(argv: Sequence[str]) -> int:
    """src.launch.main in the network namespace of a name, as by `ip netns exec`: UCX looks for networks in /sys."""
    libc, name = ctypes.CDLL(None, use_errno=True), argv[0]

    def call(function: str, *arguments: Any) -> None:
        if getattr(libc, function)(*arguments):
            raise OSError(ctypes.get_errno(), function)

    with Path("/var/run/netns", name).open() as namespace:
        call("setns", namespace.fileno(), _NEW_NETWORK)
    call("unshare", _NEW_MOUNTS)
    call("mount", b"", b"/", None, _SLAVE, None)
    call("umount2", b"/sys", _DETACH)
    call("mount", name.encode(), b"/sys", b"sysfs", 0, None)
    return launch.main(argv[1:])


def _launch(
    folder: Path, said: Sequence[Path], argv: Sequence[str], main: Callable[[Sequence[str]], int],
    environment: dict[str, str],
) -> None:  # fmt: skip
    die_with_parent()
    gc.freeze()  # a collection would copy the pages of all that is imported
    os.chdir(folder)
    os.environ |= environment
    _say(*(path.open("wb", 0) for path in said))
    sys.argv = [launch.__file__, *argv]
    vars(launch)["subprocess"] = SimpleNamespace(Popen=Fork, STDOUT=None, DEVNULL=None)
    errors.run(main)


def _say(out: BinaryIO, err: BinaryIO) -> None:
    """What this process says goes to these files from now on."""
    for number, name, file in ((1, "stdout", out), (2, "stderr", err)):
        os.dup2(file.fileno(), number)
        setattr(sys, name, io.TextIOWrapper(os.fdopen(number, "wb", 0, closefd=False), write_through=True))


class Fork:
    """A child of this process that does what a Python command says, in a session of its own."""

    def __init__(
        self, command: Sequence[str], *, stdout: BinaryIO, env: dict[str, str], preexec_fn: Callable[[], None], **_: Any
    ):
        assert command[0] == sys.executable, command
        self.process: Any = multiprocessing.get_context("fork").Process(
            target=_run, args=(command[1:], stdout, env, preexec_fn)
        )
        self.process.start()
        self.pid = self.process.pid
        # Who ends it before would end this process, too.
        while self.process.exitcode is None and os.getsid(self.pid) != self.pid:
            time.sleep(0.001)

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def poll(self) -> int | None:
        return self.process.exitcode

    def wait(self) -> int:
        self.process.join()
        return self.process.exitcode


def _run(argv: Sequence[str], out: BinaryIO, env: dict[str, str], prepare: Callable[[], None]) -> None:
    os.setsid()
    prepare()
    os.environ.clear()
    os.environ |= env
    _say(out, out)
    sys.argv = list(argv)
    try:
        if argv[0] == "-c":
            exec(argv[1], {"__name__": "__main__"})
        else:
            sys.path.insert(0, str(Path(argv[0]).parent))
            runpy.run_path(argv[0], run_name="__main__")
    finally:
        atexit._run_exitfuncs()  # as MindSpore takes leave of the other ranks
