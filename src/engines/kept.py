"""Values that travel to workers by the path of a file, and not with each piece of work.

Who unpickles a value that lies in a file, an `InFile`, reads that file, once a process. Paths travel in full, for
workers have other working folders.
"""

import io
import os
import pickle
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any

from src.base.errors import InputError
from src.base.files import sha256_of

_MOST = 4  # values that a process keeps: the shared ones of a step, an encoder, and what that grows from
_lock = threading.RLock()  # what is read may hold further ones
_kept: OrderedDict[tuple[Any, ...], Any] = OrderedDict()


Load = Callable[..., Any]


class InFile:
    """A value that may lie in a file."""

    def place(self) -> tuple[Load, Path, tuple[Any, ...]] | None:
        """A function of a module or class, the path, and more, so that load(path, *more) gives an equal value; None
        where it lies in none."""
        raise NotImplementedError


def once(load: Load, path: Path, sha256: str, *more: Any) -> Any:
    """What load(path, *more) gives, or gave before in this process.

    Raises:
        InputError: another file stands there.
    """
    place = load, path, sha256, *more
    with _lock:
        if place not in _kept:
            if sha256_of(path) != sha256:
                raise InputError(f"{path} is another file here than where the run began: is the folder really shared?")
            _kept[place] = load(path, *more)
            while len(_kept) > _MOST:
                _kept.popitem(last=False)
        _kept.move_to_end(place)
        return _kept[place]


def forget() -> None:
    """Give up all that this process keeps."""
    with _lock:
        _kept.clear()


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, InFile) and (place := value.place()):
            load, path, more = place
            return once, (load, path, sha256_of(path), *more)
        if isinstance(value, PurePath) and not value.is_absolute():
            return Path, (os.path.abspath(value),)
        return NotImplemented


def pickled(value: Any) -> bytes:
    """A value to be unpickled in another process, wherever that works."""
    file = io.BytesIO()
    _Pickler(file, pickle.HIGHEST_PROTOCOL).dump(value)
    return file.getvalue()


def unpickled_from(path: Path) -> Any:
    """The value that a file holds as `pickled` gave it."""
    return pickle.loads(path.read_bytes())
