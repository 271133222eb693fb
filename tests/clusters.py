"""A Dask scheduler and workers, each a process of its own, which are forked as those of stopping.py are."""

import asyncio
import contextlib
import hashlib
import logging
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from stopping import forkserver

from src.base import events
from src.base.errors import InputError
from src.base.workers import die_with_parent
from src.engines.fitness import Facts, Probe

# Files of a cluster's folder; behind all but the first stands a process.
KILL, KILLED, WORKED, WROTE = "kill", "killed", "worked", "wrote"
MOMENTS = {"a piece of work is kept": WORKED, "a file of records has no index yet": WROTE}


class Cluster:
    """A scheduler and its workers.

    Args:
        folder: an empty one, where workers look for what they are to do: a file KILL holds the name of a moment, and
            the first worker in which that comes takes the file away and is killed. A worker that has done a piece
            leaves a file WORKED, and one that has written records WROTE.

    Attributes:
        address: of the scheduler.
        facts: of each worker what was given, by its process.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.facts: dict[int, dict[str, Any]] = {}
        self._addresses: dict[int, str] = {}
        self._processes: list[Any] = []
        reader, writer = forkserver.Pipe(duplex=False)
        self._start(_schedule, writer)
        self.address: str = reader.recv()

    def add(self, threads: int = 1, **facts: Any) -> int:
        """Start a worker, in which attributes of src.engines.fitness have other values; its process's number."""
        reader, writer = forkserver.Pipe(duplex=False)
        process = self._start(_work, writer, self.address, self.folder, threads, facts)
        number = int(process.pid)
        self._addresses[number], self.facts[number] = reader.recv(), facts
        return number

    def end(self, number: int | None = None) -> None:
        """Kill a worker, or all and the scheduler."""
        for process in [one for one in self._processes if number in (None, one.pid)]:
            process.kill()
            process.join()
            self._processes.remove(process)

    def addresses(self, numbers: Iterable[int]) -> set[str]:
        """Of workers, by their processes."""
        return {self._addresses[number] for number in numbers}

    def told(self, name: str) -> set[int]:
        """The numbers of the processes that have left a file of a name."""
        return {int(path.name.rpartition("-")[2]) for path in self.folder.glob(f"{name}-*")}

    def _start(self, function: Any, writer: Connection, *arguments: Any) -> Any:
        process: Any = forkserver.Process(target=function, args=(writer, *arguments), daemon=True)
        process.start()
        writer.close()
        self._processes.append(process)
        return process


@contextlib.contextmanager
def cluster(folder: Path, workers: int) -> Iterator[Cluster]:
    """A cluster with so many workers, all of which end with the block."""
    made = Cluster(folder)
    try:
        for _ in range(workers):
            made.add()
        yield made
    finally:
        made.end()


def _schedule(writer: Connection) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "src"]:
        del sys.modules[name]
    sys.path[:] = [path for path in sys.path if not Path(path, "src").is_dir()]  # it may be on a machine without
    os.chdir("/")
    from distributed import Scheduler

    async def main() -> None:
        async with Scheduler(host="127.0.0.1", port=0, dashboard=False) as scheduler:
            writer.send(scheduler.address)
            await scheduler.finished()

    _quietly(main())


def _work(writer: Connection, address: str, folder: Path, threads: int, facts: dict[str, Any]) -> None:
    from distributed import Worker

    from src.engines import fitness

    for name, value in facts.items():
        setattr(fitness, name, value)
    os.chdir(folder)  # not where the program runs

    def listen(moment: str) -> None:
        if moment in MOMENTS:
            (folder / f"{MOMENTS[moment]}-{os.getpid()}").touch()
        kill = folder / KILL
        with contextlib.suppress(FileNotFoundError):
            if kill.read_text() == moment:
                kill.rename(folder / f"{KILLED}-{os.getpid()}")
                os.kill(os.getpid(), signal.SIGKILL)

    events.listeners.append(listen)

    async def main() -> None:
        scratch = str(folder / f"scratch-{os.getpid()}")
        async with Worker(address, nthreads=threads, local_directory=scratch, dashboard=False, memory_limit=0) as one:
            writer.send(one.address)
            await one.finished()

    _quietly(main())


def _quietly(main: Any) -> None:
    die_with_parent()
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    asyncio.run(main)


@dataclass
class Kills:
    """For `stopping.run_program`: never kills the program, but has a worker killed in each of its steps.

    Attributes:
        folder: of the cluster; None to have none killed.
        moment: in which, and another one for steps that write records.
        bundled: what the program takes for src.preprocessing.steps._BUNDLED.
    """

    folder: Path | None
    moment: str = "a piece of work is kept"
    of_records: str = "a file of records has no index yet"
    bundled: int = 4
    steps: list[str] = field(default_factory=list)

    def __call__(self, moment: str) -> bool:
        from src.preprocessing import steps

        steps._BUNDLED = self.bundled
        step, is_step, _ = moment.partition(" is to be finished")
        if is_step and self.folder:
            self.steps.append(step)
            (self.folder / f"{KILL}.new").write_text(self.of_records if step in ("gather", "encode") else self.moment)
            (self.folder / f"{KILL}.new").rename(self.folder / KILL)
        return False


@dataclass
class Interrupts:
    """For `stopping.run_program`: interrupts the program in a moment, as Ctrl-C does, which the background ignores."""

    moment: str

    def __call__(self, moment: str) -> bool:
        if moment == self.moment:
            os.kill(os.getpid(), signal.SIGTERM)
        return False


def die() -> None:
    """A piece of work that ends its worker."""
    os.kill(os.getpid(), signal.SIGKILL)


def refuse(what: str) -> None:
    """A piece of work that is refused."""
    raise InputError(f"{what} is refused")


def sees_nothing(probe: Probe) -> Facts:
    """As of a worker on another machine."""
    return Facts.here(replace(probe, file=probe.file.with_name("gone")))


def has_no_program(probe: Probe) -> Facts:
    """As of a worker without the sources."""
    raise ModuleNotFoundError("No module named 'src'")


def process_of(number: int, pause_s: float = 0.0) -> tuple[int, int]:
    """A piece of work that tells who does it."""
    time.sleep(pause_s)
    return number, os.getpid()


def checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of each file of a folder, by its name there."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
