"""Files of object storages, and folders of this machine in the same manner.

ModelArts' own (OBS) is reached by its module moxing, which is part of ModelArts' images, and to be had nowhere else:
the package of that name on PyPI is another one. All others (s3://, hdfs://, gs://, ..) are reached by fsspec, which
reads their addresses and keys from the environment and its configuration.
"""

import importlib
import os
import shutil
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from src.base.errors import InputError
from src.base.files import sha256_from

REQUIREMENTS = "requirements-storage.txt"
_OF_MODELARTS = "obs://"
_OF_HTTP = ("ETag", "Last-Modified")  # what tells of a change there


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

    def mark(self, url: str) -> str:
        """What tells that a file is still the one that it was, such as its time of change; "" where nothing does."""

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

    def mark(self, url: str) -> str:
        """See Store."""
        return str(os.stat(url).st_mtime_ns)

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

    def mark(self, url: str) -> str:
        """See Store."""
        stat = getattr(self.file, "stat", None)  # as os.stat, it is documented without what it returns
        return str(getattr(stat(url), "mtime_nsec", "")) if stat else ""

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


class Fsspec:
    """A storage that fsspec knows.

    Args:
        files: fsspec's file system.
    """

    def __init__(self, files: Any):
        self._files = files

    def exists(self, url: str) -> bool:
        """See Store."""
        self._files.invalidate_cache()  # else it tells of what was there when it looked last
        return bool(self._files.exists(url))

    def make_folder(self, url: str) -> None:
        """See Store."""
        place = self._files._strip_protocol(url)
        bucket = place.split("/")[0]
        if bucket and not self._files.exists(bucket):  # fsspec would make one
            raise FileNotFoundError(f"there is no bucket {bucket}")
        self._files.makedirs(place, exist_ok=True)

    def files(self, url: str) -> dict[str, int]:
        """See Store."""
        self._files.invalidate_cache()
        place = self._files._strip_protocol(url)
        if self._files.isfile(place):
            return {"": int(self._files.size(place))}
        found = self._files.find(place, detail=True)
        return {name[len(place) :].lstrip("/"): int(found[name]["size"]) for name in sorted(found)}

    def copy_folder(self, source: str, target: str) -> None:
        """See Store."""
        names = list(sizes_below(Path(source))) if is_remote(target) else list(self.files(source))
        move = self._files.put if is_remote(target) else self._files.get
        move([join(source, name) for name in names], [join(target, name) for name in names])

    def copy(self, source: str, target: str) -> None:
        """See Store."""
        if is_remote(target):
            self._files.put_file(source, target)
        else:
            self._files.get_file(source, target)

    def mark(self, url: str) -> str:
        """See Store."""
        found = self._files.info(url)  # of which http's ukey tells nothing
        return " ".join([str(self._files.ukey(url)), *(str(found.get(name, "")) for name in _OF_HTTP)])

    def open(self, url: str) -> BinaryIO:
        """See Store."""
        opened: BinaryIO = self._files.open(url, "rb")
        return opened

    def remove(self, url: str) -> None:
        """See Store."""
        self._files.rm_file(url)

    def remove_folder(self, url: str) -> None:
        """See Store."""
        self._files.rm(url, recursive=True)


def is_remote(url: str) -> bool:
    """Whether an url is one of an object storage."""
    return "://" in url


def refuse_remote(url: str, option: str) -> None:
    """Refuse an object storage where only folders of this machine can be read.

    Raises:
        InputError: it is one; it says how to copy it.
    """
    if is_remote(url):
        raise InputError(
            f"{option} {url} is in an object storage, and is read from this machine: copy it by 'python -m "
            f"src.model_utils.copying {url} FOLDER', and name that folder"
        )


def store_of(url: str) -> Store:
    """What has the files of an url.

    Raises:
        InputError: what reaches its storage is not installed.
    """
    if not is_remote(url):
        return Folders()
    needs_moxing = url.startswith(_OF_MODELARTS)
    if not needs_moxing and not url.startswith("s3://"):  # by which ModelArts' own storage is named, too
        return _by_fsspec(url)
    try:
        file = importlib.import_module("moxing").file
        if not hasattr(file, "copy_parallel"):
            raise AttributeError("no copy_parallel")
    except (ImportError, AttributeError) as error:
        if not needs_moxing:
            return _by_fsspec(url)
        raise InputError(
            f"{url} needs ModelArts' own module moxing ({error}), which is part of its images; PyPI's package of that "
            f"name is another one. Outside of ModelArts name a folder, or drop --enable_modelarts"
        ) from None
    return Moxing(file)


def _by_fsspec(url: str) -> Fsspec:
    try:
        return Fsspec(importlib.import_module("fsspec").url_to_fs(url)[0])
    except (ImportError, ValueError) as error:
        kind = url.partition("://")[0]
        raise InputError(
            f"{url} can't be reached ({error}): pip install -r {REQUIREMENTS}, or what fsspec needs for {kind}://"
        ) from None


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
    with store.open(url) as file:
        return sha256_from(file)
