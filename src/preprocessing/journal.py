"""What an unfinished preprocessing run has done, so that the next one goes on from there.

    dataset/.work/plan.json         what is being done: the input, its size and time of change, and the options
    dataset/.work/<step>-<n>.npz    the result of a finished piece of work
    dataset/.lock                   held by the run that is at work

A piece's file appears by rename once its work is done, so a kill at any moment loses no more than the pieces under way.
The folder goes when the manifest has come. A lock keeps a second run out; it goes with the process that holds it.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from src.base.files import whole_file
from src.base.locks import hold
from src.base.npz import Arrays, save_arrays

FOLDER, LOCK = ".work", ".lock"


class Journal:
    """Results of pieces of work in a folder, each some named arrays.

    Args:
        folder: the data folder being made.
        plan: what determines the results, in JSON's types; results of another plan are thrown away.
    """

    def __init__(self, folder: Path, plan: dict[str, Any]):
        self.folder = folder / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = hold(folder / LOCK, f"output {folder}")
        path, text = self.folder / "plan.json", json.dumps(plan, indent=1)
        old = path.read_text(encoding="utf-8") if path.is_file() else None
        if old not in (None, text):
            print(f"{folder} holds an unfinished run with another input or other options: starting afresh", flush=True)
        if old != text:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
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

    def load(self, step: str, number: int) -> Any:
        """The arrays of a finished piece, each read when it is asked for."""
        return np.load(self.path(step, number))

    def close(self) -> None:
        """Remove everything: the work is done, or can't be done."""
        shutil.rmtree(self.folder)
        (self.folder.parent / LOCK).unlink()
        self._lock.close()


def record(path: Path, function: Callable[..., Arrays], *arguments: Any) -> None:
    """Do a piece of work and keep its arrays at `path`."""
    save_arrays(path, function(*arguments))
