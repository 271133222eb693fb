"""A job on ModelArts: what it needs is copied to this machine before it runs, and what it leaves to the object storage.

    with job(spec, data="dataset", checkpoint=Path("checkpoint"), results=[...]):
        ...

Of the processes of a machine one copies in, while the others wait for it; if it is killed, the next one does. Rank 0
copies out. What was copied is compared in size, and where its SHA-256 is known in content, and then takes its place
whole or not at all.
"""

import contextlib
import errno
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.base.errors import InputError
from src.base.files import whole_file
from src.base.locks import turn
from src.base.logs import warn
from src.model_utils import ALIVE_FOLDER
from src.model_utils.local_adapter import get_job_id, get_rank_id
from src.model_utils.object_storage import Store, is_remote, join, sha256_of, sizes_below, store_of
from src.model_utils.options import option

CHECKSUMS = "checksums.json"  # in a folder that was copied out: SHA-256 of each of its files
TRIES, WAIT_S = 3, 1.0  # seconds before the second try, twice as many before each more
_WORK, _MARKER = ".modelarts", "copied.json"  # beside what is copied in
_PARTS = ("train", "valid", "test")  # of a data folder


@dataclass(frozen=True)
class ModelArtsSpec:
    """What a job on ModelArts copies in, and out."""

    enable_modelarts: bool = option(
        False, "whether this is a ModelArts job, which copies in what it needs and out what it leaves",
        free=True, told=False,
    )  # fmt: skip
    data_url: str = option(
        "", "what dataset_path is to be a copy of: obs://bucket/folder; a folder of this machine is linked to instead",
        free=True, told=False,
    )  # fmt: skip
    checkpoint_url: str = option("", "what the checkpoint's folder is to be a copy of", free=True, told=False)
    train_url: str = option(
        "", "where results are copied to at the end; those of an earlier job there are copied in first, to go on",
        free=True, told=False,
    )  # fmt: skip

    def __post_init__(self) -> None:
        for name in ("data_url", "checkpoint_url", "train_url"):
            if getattr(self, name) and not self.enable_modelarts:
                raise InputError(f"{name} has no effect without enable_modelarts: drop it, or --enable_modelarts=True")


@contextlib.contextmanager
def job(
    spec: ModelArtsSpec, data: str, checkpoint: Path, results: Sequence[Path], sends: bool | None = None
) -> Iterator[None]:
    """Copy in, run what stands within, and copy out, also what a run leaves that fails or is stopped.

    In ranks of src/launch.py nothing is copied, as it does that for all of them.

    Args:
        spec: what to copy; nothing unless it is a ModelArts job.
        data: the data folder on this machine, or a part of it.
        checkpoint: the checkpoint's folder on this machine.
        results: files and folders that the run leaves on this machine; ranks have them in one place.
        sends: whether this process copies them out; unless given, rank 0 of the job does.

    Raises:
        InputError: something can't be copied, or stands in the way.
    """
    if not spec.enable_modelarts or os.environ.get(ALIVE_FOLDER):
        yield
        return
    names = [path.name for path in results]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"two results are named {twice[0]}, and train_url can have one of them: name one otherwise")
    if spec.data_url:
        _bring_data(spec.data_url, Path(data))
    if spec.checkpoint_url:
        _bring(spec.checkpoint_url, checkpoint, _keep_own)
    if spec.train_url:
        _bring_earlier(results, spec.train_url)
    sends = get_rank_id() == 0 if sends is None else sends
    sent = results if spec.train_url and sends else []
    try:
        yield
    except BaseException:
        try:
            _send_all(sent, spec.train_url)
        except (InputError, OSError) as error:
            warn(str(error))  # of two errors the first one is to be heard as one
        raise
    _send_all(sent, spec.train_url)


def _bring_earlier(results: Sequence[Path], train_url: str) -> None:
    """Copy in what an earlier job has left; a place that can't be written is found before the run."""
    store = store_of(train_url)
    found: list[Path] = []

    def look() -> str:
        store.make_folder(train_url)
        found[:] = [path for path in results if store.exists(join(train_url, path.name))]
        return ""

    _persist(f"train_url {train_url} can't be written to", look)
    for path in found:
        _bring(join(train_url, path.name), path, _keep_any)


def _bring_data(url: str, data: Path) -> None:
    place = data.parent if data.name in _PARTS else data
    if "://" in url:
        _bring(url, place, _keep_same)
    elif place.resolve() != Path(url).resolve():
        _link(Path(url), place)


def _link(source: Path, place: Path) -> None:
    """Let a place lead to a folder of this machine, which data of any size then need not be copied from."""
    if not source.is_dir():
        raise InputError(f"data_url {source} is not a folder: name one, or obs://bucket/folder")
    with turn(_work_of(place)):
        if place.is_symlink() and place.resolve() == source.resolve():
            return
        if place.is_symlink():
            place.unlink()
        elif place.exists():
            raise _in_the_way(str(source), place)
        place.symlink_to(source.resolve(), target_is_directory=True)


# What is done about what is in the place of a copy already: whether it stays, by whether it was copied from there, and
# whether with the files that are there now. What is no copy and does not stay is refused.
def _keep_any(_copied: bool, _same: Callable[[], bool]) -> bool:
    return True


def _keep_own(copied: bool, _same: Callable[[], bool]) -> bool:
    return copied  # a training has changed it since


def _keep_same(copied: bool, same: Callable[[], bool]) -> bool:
    return copied and same()


def _bring(url: str, place: Path, stays: Callable[[bool, Callable[[], bool]], bool]) -> None:
    """Copy a file or folder to its place, unless it is there."""
    url = url.rstrip("/")
    work = _work_of(place)
    with turn(work):
        store = store_of(url)
        marker = _read(work / _MARKER)
        if place.exists() and not (place.is_dir() and not any(place.iterdir())):
            copied = marker.get("url") == url
            if stays(copied, lambda: marker["files"] == _files(store, url)):
                return
            if not copied:
                raise _in_the_way(url, place)
        files, new = _files(store, url), work / "new"
        _remove(new)
        _check_space(files, url, place)
        try:
            _fetch(store, url, files, new)
            with whole_file(work / _MARKER) as file:  # before the copy is in its place, where it would be in the way
                file.write(json.dumps({"url": url, "files": files}).encode())
            _remove(place)
            new.rename(place)
        finally:
            _remove(new)
        print(
            f"job {get_job_id()}: copied {url} to {place}: {len(files)} files, {sum(files.values()) / 2**20:.1f} MB",
            flush=True,
        )


def _work_of(place: Path) -> Path:
    """The folder beside a place in which its copy is made, and which is held meanwhile."""
    work = place.absolute().parent / _WORK / place.name
    work.mkdir(parents=True, exist_ok=True)
    return work


def _in_the_way(url: str, place: Path) -> InputError:
    return InputError(f"{place} holds something else than a copy of {url}: name another place, or move it away")


def _files(store: Store, url: str) -> dict[str, int]:
    """Bytes of each file of an url, by name.

    Raises:
        InputError: there is no such bucket, folder or file, or none is in it.
    """
    files: dict[str, int] = {}

    def look() -> str:
        nonlocal files
        files = store.files(url) if store.exists(url) else {}
        return ""

    _persist(f"{url} can't be listed", look)
    if not files:
        raise InputError(f"{url} is not there, or empty: check the name of the bucket and the job's right to read it")
    return files


def _check_space(files: Mapping[str, int], url: str, place: Path) -> None:
    needed, free = sum(files.values()), shutil.disk_usage(place.absolute().parent).free
    if needed > free:
        raise InputError(
            f"{url} has {needed / 2**20:.0f} MB, and the disk of {place} {free / 2**20:.0f} MB left: free some space, "
            f"or name a place on another disk, such as below /cache"
        )


def _fetch(store: Store, url: str, files: Mapping[str, int], new: Path) -> None:
    """Copy files to this machine, those again that came wrong."""
    wrong = list(files)

    def copy() -> str:
        nonlocal wrong
        _copy(store, url, str(new), wrong, whole=len(wrong) == len(files) and "" not in files)
        wrong = _wrong(new, files, url)
        return f"{new / wrong[0]} is not what {join(url, wrong[0])} is" if wrong else ""

    _persist(f"{url} can't be copied", copy)


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
        checksums = _read(folder / CHECKSUMS)
        if missing := sorted(set(checksums) - set(files)):
            raise InputError(
                f"{url} has no {missing[0]}, which its {CHECKSUMS} lists: the job that copied it out was stopped "
                f"there; name the folder of another one"
            )
    local = store_of(str(folder))
    return [
        name for name, size in files.items()
        if found.get(name) != size
        or (name in checksums and sha256_of(local, join(str(folder), name)) != checksums[name])
    ]  # fmt: skip


def _send_all(results: Sequence[Path], train_url: str) -> None:
    """Copy results out that are there."""
    for path in results:
        if path.exists():
            _send(path, join(train_url, path.name))


def _send(path: Path, url: str) -> None:
    """Copy a result out, its checksums with it, and compare what came there; what an earlier job left goes."""
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

    _persist(f"{path} can't be copied to {url}", copy)
    for name in sorted(earlier - set(checksums)):
        if store.exists(join(url, name)):
            store.remove(join(url, name))
    print(f"job {get_job_id()}: copied {path} to {url}: {len(checksums)} files", flush=True)


def _sent_before(store: Store, url: str) -> set[str]:
    """Names of the files that an earlier job has copied to an url."""
    try:
        with store.open(join(url, CHECKSUMS)) as file:
            return set(json.loads(file.read()))
    except Exception:
        return set()


def _persist(what: str, work: Callable[[], str]) -> None:
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


def _read(path: Path) -> dict[str, Any]:
    """A JSON file of this adapter's; nothing where there is none that can be read."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
