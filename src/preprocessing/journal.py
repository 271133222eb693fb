"""What an unfinished preprocessing run has done, so that the next one goes on from there.

    dataset/.work/plan.json         what is being done: the input, its size and time of change, and the options
    dataset/.work/<step>-<n>.npz    the result of a finished piece of work
    dataset/.work/unpacked/         text of compressed raw files, of use whatever the options are
    dataset/.lock                   held by the run that is at work

A piece's file appears by rename once its work is done, so a kill at any moment loses no more than the pieces under way.
The folder goes when the manifest has come. A lock keeps a second run out; it goes with the process that holds it.
"""

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from src.base.events import happens
from src.base.files import whole_file
from src.base.locks import hold
from src.base.npz import Arrays, save_arrays
from src.base.workers import run_parallel

FOLDER, LOCK = ".work", ".lock"
UNPACKED = f"{FOLDER}/unpacked"


@contextlib.contextmanager
def hold_output(folder: Path) -> Iterator[None]:
    """Make a data folder's place, if need be, and keep other runs out while the block runs.

    What was made and is empty in the end goes again, so that a refused run leaves nothing behind.

    Raises:
        InputError: another run is at work there.
    """
    new = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with hold(folder / LOCK, f"output {folder}"):
            try:
                yield
            finally:
                (folder / LOCK).unlink(missing_ok=True)
    finally:
        with contextlib.suppress(OSError):  # something is in it
            for place in new:
                place.rmdir()


@dataclass(frozen=True)
class Work:
    """A piece of work.

    Attributes:
        function: a function of a module.
        arguments: its first ones; others are shared by all pieces of a step.
        size: how much work it is, for the progress.
    """

    function: Callable[..., Arrays]
    arguments: tuple[Any, ...]
    size: int = 1


class Journal:
    """Results of pieces of work in a folder, each some named arrays.

    Args:
        folder: the data folder being made, which must be held.
        plan: what determines the results, in JSON's types; results of another plan are thrown away.
    """

    def __init__(self, folder: Path, plan: dict[str, Any]):
        self.folder = folder / FOLDER
        self.folder.mkdir(exist_ok=True)
        path, text = self.folder / "plan.json", json.dumps(plan, indent=1)
        old = path.read_text(encoding="utf-8") if path.is_file() else None
        if old not in (None, text):
            print(f"{folder} holds an unfinished run with another input or other options: starting afresh", flush=True)
        if old != text:
            for left in self.folder.iterdir():
                if left.is_file():
                    left.unlink()
            with whole_file(path) as file:
                file.write(text.encode())

    def path(self, step: str, number: int) -> Path:
        """Where a piece's result stands or will stand."""
        return self.folder / f"{step}-{number:05d}.npz"

    def missing(self, step: str, pieces: int) -> list[int]:
        """Numbers of the pieces that are not finished."""
        return [number for number in range(pieces) if not self.path(step, number).is_file()]

    def any(self, step: str) -> bool:
        """Whether a piece of the step is finished."""
        return any(self.folder.glob(f"{step}-*.npz"))

    def forget(self, step: str) -> None:
        """Take the step's pieces as not finished."""
        for path in self.folder.glob(f"{step}-*.npz"):
            path.unlink()

    def finish(self, step: str, work: Sequence[Work], unit: str, *shared: Any) -> None:
        """Do the pieces of a step that are not finished yet, in parallel; the sizes count so many of the unit."""
        missing = self.missing(step, len(work))
        if len(missing) < len(work):
            done = len(work) - len(missing)
            print(f"{step}: going on from an earlier run, {done} of {len(work)} pieces are done", flush=True)
        happens(f"{step} is to be finished")
        arguments = [(self.path(step, number), work[number].function, *work[number].arguments) for number in missing]
        for _ in run_parallel(step, _record, arguments, [work[number].size for number in missing], unit, shared):
            pass

    def load(self, step: str, number: int, *names: str) -> list[np.ndarray]:
        """Arrays of a finished piece, in the order of the names."""
        with np.load(self.path(step, number)) as arrays:
            return [arrays[name] for name in names]

    def close(self) -> None:
        """Remove everything: the work is done, or can't be done."""
        shutil.rmtree(self.folder)


def _record(path: Path, function: Callable[..., Arrays], *arguments: Any) -> None:
    """Do a piece of work and keep its arrays at `path`."""
    save_arrays(path, function(*arguments))
    happens("a piece of work is kept")
