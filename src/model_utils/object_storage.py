"""Files of ModelArts' object storage (OBS), by its own module moxing, and folders of this machine in the same manner.

moxing is part of ModelArts' images, and to be had nowhere else: the package of that name on PyPI is another one.
"""

import hashlib
import importlib
import os
import shutil
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from src.base.errors import InputError

_REMOTE = ("obs://", "s3://")


class Store(Protocol):
    """A place of files, each named by an url."""

    def exists(self, url: str) -> bool:
        """Whether there is such a file or folder."""

    def make_folder(self, url: str) -> None:
        """Make a folder, and those around it, but no bucket."""

    def files(self, url: str) -> dict[str, int]:
        """Bytes of each file below a folder by its name there, or of the file itself, whose name is then ""."""

    def copy_folder(self, source: str, target: str) -> None:
        """All files of a folder to another, one of which is on this machine."""

    def copy(self, source: str, target: str) -> None:
        """A file, to or from this machine."""

    def open(self, url: str) -> BinaryIO:
        """A file to read from."""

    def remove(self, url: str) -> None:
        """Remove a file."""

    def remove_folder(self, url: str) -> None:
        """Remove a folder and all in it."""


class Folders:
    """Folders of this machine."""

    def exists(self, url: str) -> bool:
        """See Store."""
        return os.path.exists(url)

    def make_folder(self, url: str) -> None:
        """See Store."""
        os.makedirs(url, exist_ok=True)

    def files(self, url: str) -> dict[str, int]:
        """See Store."""
        return sizes_below(Path(url))

    def copy_folder(self, source: str, target: str) -> None:
        """See Store."""
        shutil.copytree(source, target, dirs_exist_ok=True)

    def copy(self, source: str, target: str) -> None:
        """See Store."""
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, f"{target}.writing")  # a file is there whole or not at all, as in the object storage
        os.replace(f"{target}.writing", target)

    def open(self, url: str) -> BinaryIO:
        """See Store."""
        return open(url, "rb")

    def remove(self, url: str) -> None:
        """See Store."""
        os.remove(url)

    def remove_folder(self, url: str) -> None:
        """See Store."""
        shutil.rmtree(url)


class Moxing:
    """The object storage, by the interface that moxing documents."""

    def __init__(self, file: Any):
        self.file = file

    def exists(self, url: str) -> bool:
        """See Store."""
        return bool(self.file.exists(url))

    def make_folder(self, url: str) -> None:
        """See Store."""
        self.file.make_dirs(url)

    def files(self, url: str) -> dict[str, int]:
        """See Store."""
        if not self.file.is_directory(url):
            return {"": int(self.file.get_size(url))}
        names = self.file.list_directory(url, recursive=True, skip_dir=True)
        return {name: int(self.file.get_size(join(url, name))) for name in sorted(names) if not name.endswith("/")}

    def copy_folder(self, source: str, target: str) -> None:
        """See Store."""
        self.file.copy_parallel(source, target)

    def copy(self, source: str, target: str) -> None:
        """See Store."""
        self.file.copy(source, target)

    def open(self, url: str) -> BinaryIO:
        """See Store."""
        opened: BinaryIO = self.file.File(url, "rb")
        return opened

    def remove(self, url: str) -> None:
        """See Store."""
        self.file.remove(url)

    def remove_folder(self, url: str) -> None:
        """See Store."""
        self.file.remove(url, recursive=True)


def is_remote(url: str) -> bool:
    """Whether an url is one of the object storage."""
    return url.startswith(_REMOTE)


def store_of(url: str) -> Store:
    """What has the files of an url.

    Raises:
        InputError: it is one of the object storage, and there is no moxing.
    """
    if not is_remote(url):
        if "://" in url:
            raise InputError(f"{url}: such urls are not known; give one that begins with obs://, or a folder")
        return Folders()
    try:
        file = importlib.import_module("moxing").file
        if not hasattr(file, "copy_parallel"):
            raise AttributeError("no copy_parallel")
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"{url} needs ModelArts' own module moxing ({error}), which is part of its images; PyPI's package of that "
            f"name is another one. Outside of ModelArts name a folder, or drop --enable_modelarts"
        ) from None
    return Moxing(file)


def join(url: str, name: str) -> str:
    """The url of a file below another one, which "" names itself."""
    return f"{url.rstrip('/')}/{name}" if name else url


def sizes_below(path: Path) -> dict[str, int]:
    """Bytes of each file below a folder by its name there; of a file, whose name is then ""."""
    if path.is_file():
        return {"": path.stat().st_size}
    files = sorted(one for one in path.rglob("*") if one.is_file())
    return {one.relative_to(path).as_posix(): one.stat().st_size for one in files}


def sha256_of(store: Store, url: str) -> str:
    """The SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with store.open(url) as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
