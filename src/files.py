"""Files and folders that are there whole or not at all: written beside their place, then renamed."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from src.errors import InputError, naming


@contextmanager
def whole_file(path: Path, sync: bool = False) -> Iterator[BinaryIO]:
    """A file to write to, which takes the place of `path` when the block ends well.

    Args:
        path: the file.
        sync: whether it must be on the disk by then, so that it outlives a power cut.

    Raises:
        OSError: it can't be written; it names the file, and nothing is left beside it.
    """
    beside = path.with_name(path.name + ".tmp")
    try:
        with beside.open("wb") as file:
            yield file
            if sync:
                file.flush()
                os.fsync(file.fileno())
        beside.rename(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from None


def check_place(folder: Path, marker: str, option: str, overwrite: bool) -> None:
    """Refuse to put a folder where something is that may not be replaced.

    Args:
        folder: the place.
        marker: pattern of a file that a folder of this kind has.
        option: what names the place.
        overwrite: whether a folder of this kind may be replaced.

    Raises:
        InputError: there is one, and overwrite is not set, or there is something else.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not folder.is_dir() or not any(folder.glob(marker)):
        raise InputError(f"{option} {folder} holds something else than an earlier result: name another --{option}")
    if not overwrite:
        raise InputError(
            f"{option} {folder} already holds an earlier result: name another --{option}, or replace it with "
            f"--overwrite=True"
        )


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A new folder to write to, which takes the place of `folder`, whatever is there, when the block ends well.

    Raises:
        OSError: it can't be written; it names the folder, and nothing is left beside it.
    """
    beside = folder.with_name(folder.name + ".writing")
    shutil.rmtree(beside, ignore_errors=True)
    with naming(folder):
        try:
            beside.mkdir(parents=True)
            yield beside
            if folder.exists():
                shutil.rmtree(folder)
            beside.rename(folder)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
