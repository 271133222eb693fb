"""Copies between the object storage and this machine, made again where they failed or came wrong.

python -m src.model_utils.copying s3://bucket/dataset ./data/dataset      # one of the two is an url
"""

if __name__ == "__main__":
    from src.base.stops import end_at_once

    end_at_once()

import contextlib
import errno
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from src.base.errors import InputError, run
from src.model_utils.object_storage import Store, is_remote, join, sha256_of, sizes_below, store_of

CHECKSUMS = "checksums.json"  # in a folder that was copied out: SHA-256 of each of its files, "" while they are sent
BESIDE = ".new"  # ends the name of the folder that is whole while a folder's files are replaced
TRIES, WAIT_S = 3, 1.0  # seconds before the second try, twice as many before each more
_NOT_WHOLE = "the job that copied it out was stopped there; name another place, or remove that one"
_CHECK = "check the url, the network and the rights of the job"


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


def newest_whole(store: Store, url: str) -> tuple[str, dict[str, int]]:
    """Where what `send` copied to an url is newest and whole, and the bytes of each file: there, or beside it.

    Raises:
        InputError: there is nothing.
    """
    files, beside = files_of(store, url), url + BESIDE
    if "" not in files and _is_whole(store, beside):  # it was stopped before it had replaced the older ones
        return beside, files_of(store, beside)
    return url, files


def check_whole(store: Store, url: str) -> None:
    """Refuse a folder that `send` has not copied out to its end, and has not left whole beside its place.

    Raises:
        InputError: it has not.
    """
    source, files = newest_whole(store, url)
    if "" not in files and (fault := _fault_of(files, _checksums_at(store, source))):
        raise InputError(f"{url} {fault}: {_NOT_WHOLE}")


def is_unfinished(store: Store, url: str) -> bool:
    """Whether `send` began to copy a folder to an url, and was stopped, and nothing whole is left there."""
    checksums = _checksums_at(store, url)
    begun = checksums is not None and bool(_fault_of(files_of(store, url), checksums))
    return begun and not _is_whole(store, url + BESIDE)


def _fault_of(files: Mapping[str, int], checksums: Mapping[str, str] | None) -> str:
    """What a folder lacks of being whole, in words that follow its url; "" for nothing."""
    if checksums is None:
        return f"has no {CHECKSUMS}"
    if missing := sorted(set(checksums) - set(files)):
        return f"has no {missing[0]}, which its {CHECKSUMS} lists"
    return "" if all(checksums.values()) else f"has a {CHECKSUMS} that is not finished"


def _is_whole(store: Store, url: str) -> bool:
    checksums = _checksums_at(store, url)
    return checksums is not None and not _fault_of(files_of(store, url), checksums)


def _checksums_at(store: Store, url: str) -> dict[str, str] | None:
    """What is said of the files that a job has copied to an url; None where nothing is that can be read."""
    found: dict[str, str] | None = None

    def look() -> str:
        nonlocal found
        content = b""
        if store.exists(join(url, CHECKSUMS)):
            with store.open(join(url, CHECKSUMS)) as file:
                content = file.read()
        with contextlib.suppress(ValueError, TypeError):
            found = dict(json.loads(content))
        return ""

    persist(f"{url} can't be read", look)
    return found


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


def fetch(store: Store, url: str, files: Mapping[str, int], new: Path, whole: bool = True) -> None:
    """Copy files to this machine, those again that came wrong.

    Args:
        store: has them.
        url: of their folder.
        files: their bytes, by name.
        new: where they go.
        whole: whether they are all of that folder.

    Raises:
        InputError: they can't be copied, or the disk is full.
    """
    wrong, advice = list(files), _CHECK

    def copy() -> str:
        nonlocal wrong, advice
        advice = _CHECK
        _copy(store, url, str(new), wrong, whole=whole and len(wrong) == len(files) and "" not in files)
        wrong = _wrong(new, files, url)
        if wrong and sizes_below(new).get(wrong[0]) == files[wrong[0]]:
            advice = _NOT_WHOLE  # if it is so each time, it is not the copy that is wrong
        return f"{new / wrong[0]} is not what {join(url, wrong[0])} is" if wrong else ""

    persist(f"{url} can't be copied", copy, lambda: advice)


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
        if fault := _fault_of(files, checksums):
            raise InputError(f"{url} {fault}: {_NOT_WHOLE}")
    local = store_of(str(folder))
    return [
        name for name, size in files.items()
        if found.get(name) != size
        or (name in checksums and sha256_of(local, join(str(folder), name)) != checksums[name])
    ]  # fmt: skip


def send(path: Path, url: str) -> int:
    """Copy a result out, its checksums with it, and compare what came there; what an earlier job left there goes.

    An object storage can't rename a folder. So that one is whole at each moment, a folder is copied beside the one that
    is whole, then there too, and is then removed from beside it.

    Returns:
        How many files were copied.

    Raises:
        InputError: they can't be.
    """
    store, local = store_of(url), store_of(str(path))
    if path.is_file():
        _send_files(store, path, path, url, {"": sha256_of(local, str(path))})
        return 1
    (path / CHECKSUMS).unlink(missing_ok=True)
    checksums = {name: sha256_of(local, join(str(path), name)) for name in sizes_below(path)}
    beside = url + BESIDE
    if _is_whole(store, url) and not _is_whole(store, beside):
        _send_folder(store, path, beside, checksums)
    _send_folder(store, path, url, checksums)

    def remove() -> str:
        if store.exists(beside):
            store.remove_folder(beside)
        return ""

    persist(f"{beside} can't be removed", remove)
    return len(checksums) + 1


def _send_folder(store: Store, path: Path, url: str, checksums: Mapping[str, str]) -> None:
    """Copy a folder's files out; until all are there, the checksums name them and an earlier job's, and say no more."""
    earlier = set(_checksums_at(store, url) or ())

    def remove() -> str:
        for name in sorted(earlier - set(checksums)):
            if store.exists(join(url, name)):
                store.remove(join(url, name))
        return ""

    _send_checksums(store, path, url, dict.fromkeys(sorted(earlier | set(checksums)), ""))
    _send_files(store, path, path, url, checksums)
    persist(f"files of an earlier job can't be removed from {url}", remove)
    _send_checksums(store, path, url, checksums)


def _send_checksums(store: Store, path: Path, url: str, checksums: Mapping[str, str]) -> None:
    with tempfile.TemporaryDirectory() as folder:  # not in the result, where unfinished ones might stay
        file = Path(folder, CHECKSUMS)
        file.write_text(json.dumps(checksums), encoding="utf-8")
        _send_files(store, path, Path(folder), url, {CHECKSUMS: sha256_of(store_of(folder), str(file))})


def _send_files(store: Store, path: Path, source: Path, url: str, checksums: Mapping[str, str]) -> None:
    """Copy a result's files out, by name those whose SHA-256 is given, and again those that came wrong."""
    wrong = list(checksums)

    def copy() -> str:
        nonlocal wrong
        if not is_remote(url):
            Path(url).parent.mkdir(parents=True, exist_ok=True)
        _copy(store, str(source), url, wrong, whole=len(wrong) == len(checksums) and not {"", CHECKSUMS} & set(wrong))
        wrong = [name for name, sha256 in checksums.items() if sha256_of(store, join(url, name)) != sha256]
        return f"{join(url, wrong[0])} is not what {source / wrong[0]} is" if wrong else ""

    persist(f"{path} can't be copied to {url}", copy)


def persist(what: str, work: Callable[[], str], advice: Callable[[], str] = lambda: _CHECK) -> None:
    """Do some work up to TRIES times, which gives what is wrong, "" for nothing; advice says what is then to be done.

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
    raise InputError(f"{what}, tried {TRIES} times ({error}): {advice()}")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file of this adapter's; nothing where there is none that can be read."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def main(argv: Sequence[str]) -> None:
    """Copy a file or a folder to or from the object storage."""
    if len(argv) != 2 or is_remote(argv[0]) == is_remote(argv[1]):
        raise InputError(f"copying takes a source and a target, one of which is an url, not {' '.join(argv)!r}")
    source, target = argv
    if is_remote(target):
        if not Path(source).exists():
            raise InputError(f"there is no file or folder {source}: name one")
        files = send(Path(source), target)
    else:
        place = Path(target)
        if place.exists() and not (place.is_dir() and not any(place.iterdir())):
            raise InputError(f"{target} is there: name a new place, or move it away")
        place.absolute().parent.mkdir(parents=True, exist_ok=True)
        store = store_of(source)
        where, found = newest_whole(store, source.rstrip("/"))
        check_space(found, where, place)
        new = place.with_name(f"{place.name}.writing")
        if new.is_dir():
            shutil.rmtree(new)
        fetch(store, where, found, new)
        new.rename(place)
        files = len(found)
    print(f"copied {source} to {target}: {files} files")


if __name__ == "__main__":
    run(main, usage="python -m src.model_utils.copying SOURCE TARGET; one of the two is an url of an object storage")
