"""What an unfinished preprocessing run has done, so that the next one goes on from there.

    dataset/.work/plan-<step>.json  what decides the step's results: the input, options, earlier steps, the program
    dataset/.work/<step>-<n>.npz    the result of a finished piece of work
    dataset/.work/unpacked/         text of compressed raw files, of use whatever the options are
    dataset/.work/new/              the data folder, until it is whole
    dataset/.work/attempts/         what workers that are not forked made, until it is put in its place above
    dataset/.lock                   held by the run that is at work

A piece's file appears by rename once its work is done and on the disk, with all that it tells of: a kill or a power cut
at any moment loses no more than the pieces under way.
What is finished under another plan is of no use and goes, step by step: counts outlive a change of what comes behind
them. The folder goes when the new data folder stands in its place. A lock keeps a second run out; it goes with the
process that holds it.

Forked workers end with the run, so they put their results in place themselves. Others may outlive it, or do a piece
that was given up for lost and is done by another, too: each attempt has a folder of its own, a mirror of `.work`, and
the run alone moves what is in it to its place, once.
"""

import contextlib
import hashlib
import json
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from src.base.errors import InputError
from src.base.events import happens
from src.base.files import MappedFile, flush, whole_file
from src.base.locks import hold
from src.base.npz import Arrays, is_whole, mapped_arrays, save_arrays
from src.base.workers import processes
from src.engines.engine import Engine
from src.engines.fitness import checksum_of

FOLDER, LOCK = ".work", ".lock"
UNPACKED, NEW = f"{FOLDER}/unpacked", f"{FOLDER}/new"
_ATTEMPTS = "attempts"


@contextlib.contextmanager
def hold_output(folder: Path, check: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Make a data folder's place, if need be, and keep other runs out while the block runs.

    What was made and is empty in the end goes again. What a refused run has done stays, for one that goes on, and the
    refusal names it and its size.

    Args:
        folder: the data folder.
        check: refuses what may not be replaced; called once no other run can put anything there.

    Raises:
        InputError: another run is at work there, or the check refuses.
    """
    new = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with hold(folder / LOCK, f"output {folder}"):
            try:
                check()
                with _naming_what_stays(folder / FOLDER):
                    yield
            finally:
                (folder / LOCK).unlink(missing_ok=True)
    finally:
        with contextlib.suppress(OSError):  # something is in it
            for place in new:
                place.rmdir()


@contextlib.contextmanager
def _naming_what_stays(work: Path) -> Iterator[None]:
    """A refusal within the block says what it leaves of an unfinished run."""
    try:
        yield
    except InputError as error:
        if not (size := sum(path.stat().st_size for path in work.rglob("*") if path.is_file())):
            raise
        raise InputError(
            f"{error}; {work} keeps {size / 1e6:,.1f} MB of what was done, for a run that goes on: remove it if none "
            f"will"
        ) from None


@dataclass(frozen=True)
class Work:
    """A piece of work.

    Attributes:
        function: a function of a module.
        arguments: its first ones; others are shared by all pieces of a step.
        size: how much work it is, for the progress.
        follows: whether it is best done by the process that did the one before.
        target: the file that it writes beside its result, if it does, below the journal's folder: the argument behind
            the first ones. Other files may stand beside it, whose names begin with its name.
    """

    function: Callable[..., Arrays]
    arguments: tuple[Any, ...]
    size: int = 1
    follows: bool = False
    target: Path | None = None


class Journal:
    """Results of pieces of work in a folder, each some named arrays.

    Args:
        folder: the data folder being made, which must be held.
        engine: does the pieces.
    """

    def __init__(self, folder: Path, engine: Engine):
        self.folder, self.engine = folder / FOLDER, engine
        self._attempts = self.folder / _ATTEMPTS
        self.folder.mkdir(exist_ok=True)
        shutil.rmtree(self._attempts, ignore_errors=True)  # who writes there has been given up
        self._plans: dict[str, str] = {}

    def path(self, step: str, number: int) -> Path:
        """Where a piece's result stands or will stand."""
        return self.folder / f"{step}-{number:05d}.npz"

    @property
    def workers(self) -> int:
        """How many processes of this machine share a step."""
        return processes(self.engine.workers)

    def missing(self, step: str, pieces: int) -> list[int]:
        """Numbers of the pieces that are not finished."""
        return [number for number in range(pieces) if not self.path(step, number).is_file()]

    def plan(self, step: str, decides: dict[str, Any], *after: str) -> None:
        """Say what decides a step's results, the program and earlier steps included; those of another plan go.

        Those of an earlier run that are damaged go, too: what reads them later compares no checksums.

        Args:
            step: its name.
            decides: what else decides, in JSON's types.
            after: names of the steps whose results it takes.
        """
        whole = {"program": _program(), "after": [_digest(self._plans[name]) for name in after], **decides}
        self._plans[step] = text = json.dumps(whole, indent=1)
        path = self.folder / f"plan-{step}.json"
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            for left in sorted(self.folder.glob(f"{step}-*.npz")):
                if not is_whole(left):
                    print(f"{step}: {left} of an earlier run is damaged: its piece is done anew", flush=True)
                    left.unlink()
            return
        path.unlink(missing_ok=True)
        results = [left for left in self.folder.glob(f"{step}-*") if left.is_file()]
        if results:
            print(f"{step}: input, options or program have changed since an earlier run: starting afresh", flush=True)
        for left in results:
            left.unlink()
        with whole_file(path) as file:
            file.write(text.encode())

    def forget(self, step: str, number: int) -> None:
        """Take a piece as not finished."""
        self.path(step, number).unlink(missing_ok=True)

    def finish(self, step: str, work: Sequence[Work], unit: str, *shared: Any, needs: str = "") -> None:
        """Do the pieces of a planned step that are not finished, in parallel.

        Args:
            step: its name.
            work: the pieces; their sizes count so many of the unit.
            unit: what they count.
            shared: arguments of all pieces.
            needs: the package that workers must have.
        """
        missing = self.missing(step, len(work))
        if len(missing) < len(work):
            done = len(work) - len(missing)
            print(f"{step}: going on from an earlier run, {done} of {len(work)} pieces are done", flush=True)
        happens(f"{step} is to be finished")
        left = [work[number] for number in missing]
        places = [(self.path(step, number), one.target) for number, one in zip(missing, left)]
        arguments = [(*place, one.function, one.arguments) for place, one in zip(places, left)]
        sizes, follows = [one.size for one in left], [one.follows for one in left]
        if self.engine.is_forked:
            for _ in self.engine.map(step, _record, arguments, sizes, unit, shared, follows):
                pass
            return
        self._attempts.mkdir(exist_ok=True)
        apart = [(self.folder, *one) for one in arguments]
        for attempt in self.engine.map(step, _attempt, apart, sizes, unit, shared, follows, needs):
            self._put_in_place(self._attempts / attempt)

    def _put_in_place(self, attempt: Path) -> None:
        """Move what an attempt has made to its place, the result last, for it tells of the rest."""
        files = sorted((path for path in attempt.rglob("*") if path.is_file()), key=lambda path: path.parent == attempt)
        targets = [self.folder / path.relative_to(attempt) for path in files]
        for target in targets[:-1]:  # what a killed run left beside it would be taken for its own
            for leftover in target.parent.glob(f"{target.name}*"):
                leftover.unlink()
        for path, target in zip(files, targets):
            if target == targets[-1]:
                for folder in {one.parent for one in targets[:-1]}:
                    flush(folder)
            path.rename(target)
        flush(self.folder)
        shutil.rmtree(attempt)
        happens("an attempt is put in its place")

    def load(self, step: str, number: int, *names: str) -> list[np.ndarray]:
        """Arrays of a finished piece, in the order of the names."""
        return [np.array(array) for array in self.mapped(step, number, *names)]

    def mapped(self, step: str, number: int, *names: str) -> list[np.ndarray]:
        """The same, of which no more is read than is looked at; they can't be written to, and need not be aligned."""
        arrays = mapped_arrays(MappedFile(self.path(step, number)), names)
        return [arrays[name] for name in names]

    def close(self) -> None:
        """Remove everything: the work is done."""
        shutil.rmtree(self._attempts, ignore_errors=True)  # a worker that was given up may still write there
        shutil.rmtree(self.folder, ignore_errors=not self.engine.is_forked)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _program() -> str:
    """A checksum of the sources that give the results, and of NumPy's version."""
    return checksum_of("rows", "data", "preprocessing")


def _record(path: Path, target: Path | None, function: Callable[..., Arrays], own: Sequence[Any], *shared: Any) -> None:
    """Do a piece of work, which may write a target, and keep its arrays at `path`."""
    save_arrays(path, function(*own, *([target] if target else []), *shared), sync=True)
    happens("a piece of work is kept")


def _attempt(
    folder: Path, path: Path, target: Path | None, function: Callable[..., Arrays], own: Sequence[Any], *shared: Any
) -> str:
    """The same in a folder of its own among a journal's attempts; its name."""
    attempt = folder / _ATTEMPTS / uuid.uuid4().hex
    attempt.mkdir()  # not those around it: of a run that has ended nothing is left to write to
    aside = attempt / target.relative_to(folder) if target else None
    if aside:
        aside.parent.mkdir(parents=True, exist_ok=True)
    _record(attempt / path.name, aside, function, own, *shared)
    return attempt.name
