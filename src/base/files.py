"""Files and folders that are there whole or not at all: written beside their place, then renamed."""

import hashlib
import mmap
import os
import shutil
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from src.base.errors import InputError, naming
from src.base.locks import hold_folder, when_free


@contextmanager
def whole_file(path: Path, sync: bool = False) -> Iterator[BinaryIO]:
    """A file to write to, which takes the place of `path` when the block ends well.

    Of several that write it at once each waits for those before it.

    Args:
        path: the file.
        sync: whether it must be on the disk by then, so that it outlives a power cut.

    Raises:
        InputError: another process writes it for too long.
        OSError: it can't be written; it names the file, and nothing is left beside it.
    """
    beside = path.with_name(path.name + ".tmp")
    try:
        with when_free(beside, str(path)) as file:
            placed = False
            try:
                yield file
                file.flush()
                if sync:
                    os.fsync(file.fileno())
                beside.rename(path)
                placed = True
            finally:
                if not placed:  # else what stands there is another's
                    beside.unlink(missing_ok=True)
        if sync:
            flush(path.parent)  # the name, too, must be on the disk
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def flush(path: Path) -> None:
    """Return when a file's content, or a folder's names, are on the disk."""
    place = os.open(path, os.O_RDONLY)
    try:
        os.fsync(place)
    finally:
        os.close(place)


def read_ahead(file: BinaryIO, place: int, size: int) -> None:
    """Have the system fetch bytes from a place of a file on, which will be read soon, without waiting for them.

    Its own reading ahead is short: with this one a cold file is read twice to four times as fast.
    """
    if size > 0 and hasattr(os, "posix_fadvise"):  # 0 would be all the rest
        os.posix_fadvise(file.fileno(), place, size, os.POSIX_FADV_WILLNEED)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hex digits."""
    with path.open("rb") as file:
        return sha256_from(file)


def sha256_from(file: BinaryIO) -> str:
    """The SHA-256 of what is left to read of a file, in hex digits."""
    digest = hashlib.sha256()
    while chunk := file.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()


def link_or_copy(source: Path, target: Path) -> None:
    """A hard link where the file system can, since full Criteo's tables have 2 GB; else a copy. In any target's place.

    Raises:
        OSError: it can't be made; it names the target, of which nothing is left.
    """
    beside = target.with_name(f"{target.name}.writing")
    beside.unlink(missing_ok=True)
    try:
        try:
            os.link(source, beside)
        except OSError:
            shutil.copyfile(source, beside)
        os.replace(beside, target)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(target)) from None
    finally:
        beside.unlink(missing_ok=True)  # two links to one file: renaming one to the other leaves both


def check_place(folder: Path, is_ours: Callable[[Path], bool], option: str, overwrite: bool) -> None:
    """Refuse to put a folder where something is that may not be replaced.

    Args:
        folder: the place.
        is_ours: whether a folder is of the kind that is to be put there.
        option: what names the place.
        overwrite: whether a folder of this kind may be replaced.

    Raises:
        InputError: there is one, and overwrite is not set, or there is something else, or work is done in it.
    """
    place = folder.resolve()
    if place in (Path.cwd(), *Path.cwd().parents):
        raise InputError(f"{option} {folder} is the working folder, or one around it: name a folder in it, such as out")
    if not place.exists() or (place.is_dir() and not any(place.iterdir())):
        return
    if not place.is_dir() or not is_ours(place):
        raise InputError(f"{option} {folder} holds something else than an earlier result: name another --{option}")
    if not overwrite:
        raise InputError(
            f"{option} {folder} already holds an earlier result: name another --{option}, or replace it with "
            f"--overwrite=True"
        )


@contextmanager
def whole_folder(folder: Path, check: Callable[[], None] = lambda: None) -> Iterator[Path]:
    """A new folder to write to, which takes the place of `folder`, whatever is there, when the block ends well.

    Of a link what it leads to is replaced. All is done in a folder beside, `FOLDER.writing`, which only one run holds:
    it has the new one, and for the moment between two renames the earlier one, which the next run puts back if this one
    is killed there.

    Args:
        folder: the place.
        check: refuses what may not be replaced; called once no other run can put anything there.

    Raises:
        InputError: another run writes this folder, or the check refuses.
        OSError: it can't be written; it names the folder, and nothing is left beside it.
    """
    place = folder.resolve()
    work = place.with_name(place.name + ".writing")
    new, old = work / "new", work / "old"
    with naming(folder), hold_folder(work, str(folder)):
        try:
            if old.exists() and not place.exists():
                old.rename(place)
            check()
            for left in (new, old):
                shutil.rmtree(left, ignore_errors=True)
            new.mkdir()
            yield new
            if place.exists():
                place.rename(old)
            new.rename(place)
        except OSError as error:
            name = str(error.filename or place)
            raise OSError(error.errno, error.strerror or str(error), name.replace(str(new), str(folder))) from None
        finally:
            if old.exists() and not place.exists():  # the second rename failed
                old.rename(place)
            shutil.rmtree(work, ignore_errors=True)


class MappedFile:
    """A file mapped into memory, of which no more is read than is looked at.

    The mapping stays that of the file that was opened, even if another is put in its place. But a file that is cut
    while it is mapped ends the process that looks at it (SIGBUS), and one that is written over has other values than
    those that were checked: so `check` comes before each use.

    Args:
        path: the file; one that is empty can't be mapped.

    Attributes:
        data: its bytes.
    """

    def __init__(self, path: Path):
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)
        self._state = self._now()
        self.data = mmap.mmap(self._descriptor, 0, access=mmap.ACCESS_READ)

    def _now(self) -> tuple[int, int]:
        found = os.fstat(self._descriptor)
        return found.st_size, found.st_mtime_ns

    def page_out(self) -> None:
        """Let what was looked at be in the file alone until it is again."""
        self.data.madvise(mmap.MADV_DONTNEED)

    def check(self) -> None:
        """Refuse to go on where the file has changed.

        Raises:
            InputError: it has.
        """
        if self._now() != self._state:
            raise InputError(
                f"{self.path} changed while it was in use: begin again, and replace such files by renaming, as "
                f"export.py does, not in place"
            )
