"""Locks that keep a second run out of a folder; they go with the process that holds them."""

import fcntl
from pathlib import Path
from typing import IO

from src.errors import InputError


def hold(path: Path, what: str) -> IO[str]:
    """Take the lock; closing what is returned gives it back.

    Args:
        path: the lock's file, which is made.
        what: names the folder in the error.

    Raises:
        InputError: another process, or another run of this one, holds it.
    """
    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise InputError(f"{what}: another run is at work there: wait for it, or stop it") from None
    return file
