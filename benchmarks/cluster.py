"""Preprocessing by workers of a real Dask scheduler, which are killed: `python benchmarks/cluster.py --rows 500000`.

Generates rows, preprocesses them by forked processes, 1, 2 and 3 of them, and by three workers, which `dask worker`
starts, twice: left alone, and with one killed (SIGKILL) in each step, in whose place another one joins. Compares the
SHA-256 of all files. The last line is `same_bytes=.. files=.. killed=.. joined=.. local_rows_per_s=.. (with 2)
dask_rows_per_s=.. (left alone) dask_killed_rows_per_s=..`; it writes no result file, for a cluster of one machine says
nothing of speed. Needs requirements-cluster.txt.
"""

import argparse
import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from src.base import events
from src.options import PreprocessDataOptions, resolve_values
from src.preprocess_data import make_data_folder
from src.synthetic import generate

WORKERS = 3
KILL, KILLED = "kill", "killed"  # files of the working folder of the workers


def dask_setup(_: Any) -> None:
    """Of a worker that has this file as --preload: the first to keep a piece while there is a file KILL is killed."""

    def listen(moment: str) -> None:
        if moment == "a piece of work is kept":
            with contextlib.suppress(FileNotFoundError):
                os.rename(KILL, f"{KILLED}-{os.getpid()}")
                os.kill(os.getpid(), signal.SIGKILL)

    events.listeners.append(listen)


class Workers:
    """A scheduler and workers, started by Dask's own command, without a nanny that would start a killed one again.

    Args:
        folder: where they run.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        scheduler = self._dask("scheduler", "--host=127.0.0.1", "--port=0", "--scheduler-file=scheduler.json")
        self.all = [scheduler, *(self._worker() for _ in range(WORKERS))]
        while not (folder / "scheduler.json").is_file():
            time.sleep(0.1)
        self.address = subprocess.run(["grep", "-o", r"tcp://[0-9.:]*", "scheduler.json"], cwd=folder, check=True,
                                      capture_output=True, text=True).stdout.split()[0]  # fmt: skip

    def _dask(self, *arguments: str) -> subprocess.Popen:
        """A command of Dask's, which is silent."""
        return subprocess.Popen([sys.executable, "-m", "dask", *arguments, "--no-dashboard"], cwd=self.folder,
                                env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip

    def _worker(self) -> subprocess.Popen:
        return self._dask("worker", "--scheduler-file=scheduler.json", "--nthreads=1", "--nworkers=1", "--no-nanny",
                          "--memory-limit=0", f"--preload={Path(__file__).resolve()}")  # fmt: skip

    def killed(self) -> int:
        """How many workers were."""
        return len(list(self.folder.glob(f"{KILLED}-*")))

    @contextlib.contextmanager
    def killing(self) -> Iterator[list[subprocess.Popen]]:
        """One worker is killed in each step of this process's run, and others join, which the block gets in the end."""
        joined: list[subprocess.Popen] = []
        ended = threading.Event()

        def listen(moment: str) -> None:
            if moment.endswith(" is to be finished"):
                (self.folder / KILL).touch()

        def replace() -> None:
            while not ended.wait(0.1):
                while len(joined) < self.killed():
                    joined.append(self._worker())

        thread = threading.Thread(target=replace)
        thread.start()
        events.listeners.append(listen)
        try:
            yield joined
        finally:
            events.listeners.remove(listen)
            ended.set()
            thread.join()
            self.all += joined

    def end(self) -> None:
        """End all."""
        for process in self.all:
            process.kill()
            process.wait()


def checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of each file of a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def preprocessed(folder: Path, name: str, rows: int, **options: Any) -> tuple[dict[str, str], float]:
    """The checksums of a data folder that is made, and rows a second."""
    given = {"data_path": str(folder / "train.txt"), "output_path": str(folder / name), "shuffle_rows": True,
             "numeric_transform": "quantile", "shard_rows": 16_384}  # fmt: skip
    begin = time.perf_counter()
    make_data_folder(resolve_values(PreprocessDataOptions, given | options, "benchmark"))
    seconds = time.perf_counter() - begin
    return checksums(folder / name), rows / seconds


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=500_000)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        generate(folder / "train.txt", rows=rows)
        local = {count: preprocessed(folder, f"local{count}", rows, workers=count) for count in (1, 2, 3)}
        (folder / "workers").mkdir()
        workers = Workers(folder / "workers")
        try:
            options = {"engine": "dask", "scheduler": workers.address}
            alone = preprocessed(folder, "alone", rows, **options)
            with workers.killing() as joined:
                killed = preprocessed(folder, "killed", rows, **options)
        finally:
            workers.end()
        found = [made for made, _ in (*local.values(), alone, killed)]
        same = all(made == found[0] for made in found)
        print(f"same_bytes={same} files={len(found[0])} killed={workers.killed()} joined={len(joined)} "
              f"local_rows_per_s={local[2][1]:.0f} dask_rows_per_s={alone[1]:.0f} "
              f"dask_killed_rows_per_s={killed[1]:.0f}")  # fmt: skip
    sys.exit(not same)


if __name__ == "__main__":
    main()
