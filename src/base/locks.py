"""Locks that keep a second run out of a folder; they go with the process that holds them."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO

from src.base.errors import InputError

_PAUSE_S = 0.05  # between two looks whether a file is free; flock itself knows no limit


def hold(path: Path, what: str) -> IO[str]:
    """Take the lock; closing what is returned gives it back.

    Args:
        path: the lock's file, which is made.
        what: names the folder in the error.

    Raises:
        InputError: another process, or another run of this one, holds it.
    """
    file = path.open("w")
    if not _taken(file.fileno(), path):
        file.close()
        raise InputError(f"{what}: another run is at work there: wait for it, or stop it")
    return file


@contextmanager
def turn(path: Path) -> Iterator[None]:
    """Hold a folder while the block runs, as soon as no other process does."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


@contextmanager
def hold_folder(path: Path, what: str) -> Iterator[None]:
    """Make a folder, if need be, and hold it while the block runs, which may remove it.

    Args:
        path: the folder.
        what: names in the error what the folder is for.

    Raises:
        InputError: another process, or another run of this one, holds it.
    """
    path.mkdir(parents=True, exist_ok=True)
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if not _taken(folder, path):
            raise InputError(f"{what}: another run is at work there: wait for it, or stop it")
        yield
    finally:
        os.close(folder)


@contextmanager
def when_free(path: Path, what: str, limit_s: float = 600) -> Iterator[BinaryIO]:
    """An empty file to write to, which no one else writes meanwhile; the block may remove or rename it.

    Args:
        path: the file.
        what: names it in the line that tells of the wait, and in the error.
        limit_s: how long another process may have it.

    Raises:
        InputError: one has it for longer.
    """
    deadline, told = time.monotonic() + limit_s, False
    while True:
        with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "wb") as file:
            is_free = _locked(file.fileno())
            if is_free and _is_at(file.fileno(), path):
                try:
                    file.truncate()
                    yield file
                finally:
                    fcntl.flock(file, fcntl.LOCK_UN)  # processes that were forked meanwhile would hold it
                return
        if is_free:
            continue
        if not told:
            print(f"waits for another writer of {what}", flush=True)
            told = True
        if time.monotonic() >= deadline:
            raise InputError(f"{what}: another process has been writing it for {limit_s:g} s: stop it, and try again")
        time.sleep(_PAUSE_S)


def is_held(path: Path) -> bool:
    """Whether a lock's file is there and a run holds it."""
    if not path.is_file():
        return False
    with path.open("r") as file:
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _taken(place: int, path: Path) -> bool:
    return _locked(place) and _is_at(place, path)


def _locked(place: int) -> bool:
    """Whether the lock could be had at once."""
    try:
        fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(place: int, path: Path) -> bool:
    """Whether what was opened still stands at its path: whoever held it may have removed or renamed it meanwhile."""
    try:
        return os.path.samestat(os.fstat(place), path.stat())
    except FileNotFoundError:
        return False
