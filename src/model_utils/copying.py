"""Copies between the object storage and this machine, made again where they failed or came wrong."""

import errno
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from src.base.errors import InputError
from src.base.files import whole_file
from src.model_utils.object_storage import Store, is_remote, join, sha256_of, sizes_below, store_of

CHECKSUMS = "checksums.json"  # in a folder that was copied out: SHA-256 of each of its files
TRIES, WAIT_S = 3, 1.0  # seconds before the second try, twice as many before each more
_NOT_WHOLE = "the job that copied it out was stopped there; name another place, or remove that one"


def files_of(store: Store, url: str) -> dict[str, int]:
    """Bytes of each file of an url, by name.

    Raises:
        InputError: there is no such bucket, folder or file, or none is in it.
    """
    files: dict[str, int] = {}

    def look() -> str:
        nonlocal files
        files = store.files(url) if store.exists(url) else {}
        return ""

    persist(f"{url} can't be listed", look)
    if not files:
        raise InputError(f"{url} is not there, or empty: check the name of the bucket and the job's right to read it")
    return files


def check_whole(store: Store, url: str) -> None:
    """Refuse a folder that `send` has not copied out to its end.

    Raises:
        InputError: it has not.
    """
    files = files_of(store, url)
    if "" not in files and CHECKSUMS not in files:
        raise InputError(f"{url} has no {CHECKSUMS}: {_NOT_WHOLE}")


def check_space(files: Mapping[str, int], url: str, place: Path) -> None:
    """Refuse files for which there is no room.

    Raises:
        InputError: there is none.
    """
    needed, free = sum(files.values()), shutil.disk_usage(place.absolute().parent).free
    if needed > free:
        raise InputError(
            f"{url} has {needed / 2**20:.0f} MB, and the disk of {place} {free / 2**20:.0f} MB left: free some space, "
            f"or name a place on another disk, such as below /cache"
        )


def fetch(store: Store, url: str, files: Mapping[str, int], new: Path) -> None:
    """Copy files to this machine, those again that came wrong.

    Raises:
        InputError: they can't be copied, or the disk is full.
    """
    wrong = list(files)

    def copy() -> str:
        nonlocal wrong
        _copy(store, url, str(new), wrong, whole=len(wrong) == len(files) and "" not in files)
        wrong = _wrong(new, files, url)
        return f"{new / wrong[0]} is not what {join(url, wrong[0])} is" if wrong else ""

    persist(f"{url} can't be copied", copy)


def _copy(store: Store, source: str, target: str, names: Sequence[str], whole: bool) -> None:
    if whole:
        store.copy_folder(source, target)
        return
    for name in names:
        if not is_remote(target):
            Path(join(target, name)).parent.mkdir(parents=True, exist_ok=True)
        store.copy(join(source, name), join(target, name))


def _wrong(folder: Path, files: Mapping[str, int], url: str) -> list[str]:
    """Names of those files that are not as they should be by size, and by checksum where that is known."""
    found, checksums = sizes_below(folder) if folder.exists() else {}, {}
    if CHECKSUMS in files and found.get(CHECKSUMS) == files[CHECKSUMS]:
        checksums = read_json(folder / CHECKSUMS)
        if missing := sorted(set(checksums) - set(files)):
            raise InputError(f"{url} has no {missing[0]}, which its {CHECKSUMS} lists: {_NOT_WHOLE}")
    local = store_of(str(folder))
    return [
        name for name, size in files.items()
        if found.get(name) != size
        or (name in checksums and sha256_of(local, join(str(folder), name)) != checksums[name])
    ]  # fmt: skip


def send(path: Path, url: str) -> int:
    """Copy a result out, its checksums with it, and compare what came there; what an earlier job left there goes.

    Returns:
        How many files were copied.

    Raises:
        InputError: they can't be.
    """
    store = store_of(url)
    if path.is_dir():
        (path / CHECKSUMS).unlink(missing_ok=True)
    local = store_of(str(path))
    checksums = {name: sha256_of(local, join(str(path), name)) for name in sizes_below(path)}
    earlier = _sent_before(store, url)
    if path.is_dir():
        with whole_file(path / CHECKSUMS) as file:
            file.write(json.dumps(checksums).encode())
        checksums[CHECKSUMS] = sha256_of(local, join(str(path), CHECKSUMS))
    wrong = list(checksums)

    def copy() -> str:
        nonlocal wrong
        if not is_remote(url):
            Path(url).parent.mkdir(parents=True, exist_ok=True)
        _copy(store, str(path), url, wrong, whole=path.is_dir() and len(wrong) == len(checksums))
        wrong = [name for name, sha256 in checksums.items() if sha256_of(store, join(url, name)) != sha256]
        return f"{join(url, wrong[0])} is not what {path / wrong[0]} is" if wrong else ""

    def remove() -> str:
        for name in sorted(earlier - set(checksums)):
            if store.exists(join(url, name)):
                store.remove(join(url, name))
        return ""

    persist(f"{path} can't be copied to {url}", copy)
    persist(f"files of an earlier job can't be removed from {url}", remove)
    return len(checksums)


def _sent_before(store: Store, url: str) -> set[str]:
    """Names of the files that an earlier job has copied to an url."""
    try:
        with store.open(join(url, CHECKSUMS)) as file:
            return set(json.loads(file.read()))
    except Exception:
        return set()


def persist(what: str, work: Callable[[], str]) -> None:
    """Do some work up to TRIES times, which gives what is wrong, "" for nothing.

    Raises:
        InputError: it failed each time, or where trying again is of no use.
    """
    error = ""
    for number in range(TRIES):
        if number:
            time.sleep(WAIT_S * 2 ** (number - 1))
        try:
            error = work()
        except InputError:
            raise
        except Exception as caught:
            if os.strerror(errno.ENOSPC) in str(caught):
                raise InputError(
                    f"{what}: the disk is full ({' '.join(str(caught).split())}): free some space"
                ) from None
            error = f"{type(caught).__name__}: {' '.join(str(caught).split())}"
        if not error:
            return
    raise InputError(f"{what}, tried {TRIES} times ({error}): check the url, the network and the rights of the job")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file of this adapter's; nothing where there is none that can be read."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}
