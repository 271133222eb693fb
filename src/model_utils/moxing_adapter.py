"""A job on ModelArts: what it needs is copied to this machine before it runs, and what it leaves to the object storage.

    with job(spec, data="dataset", checkpoint=Path("checkpoint"), results=[...]):
        ...

Of the processes of a machine one copies in, while the others wait for it; if it is killed, the next one does. Rank 0
copies out. What was copied is compared in size, and where its SHA-256 is known in content, and then takes its place
whole or not at all.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from src.base.errors import InputError
from src.base.files import whole_file
from src.base.locks import turn
from src.base.logs import warn
from src.model_utils import ALIVE_FOLDER
from src.model_utils.copying import (
    CHECKSUMS,
    check_space,
    check_whole,
    fetch,
    files_of,
    newest_whole,
    persist,
    read_json,
    send,
)  # fmt: skip
from src.model_utils.local_adapter import get_job_id, get_rank_id
from src.model_utils.object_storage import Store, join, sha256_of, sizes_below, store_of
from src.model_utils.options import option

_WORK, _MARKER = ".modelarts", "copied.json"  # beside what is copied in
_PARTS = ("train", "valid", "test")  # of a data folder
_TELLING = ("manifest.json", CHECKSUMS)  # small files with the checksums of others


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
        _bring(spec.checkpoint_url, checkpoint, _Stays.COPIED)
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

    persist(f"train_url {train_url} can't be written to", look)
    for path in found:
        if not _is_taken(path):
            check_whole(store, join(train_url, path.name))
        _bring(join(train_url, path.name), path, _Stays.ALWAYS)


def _bring_data(url: str, data: Path) -> None:
    place = data.parent if data.name in _PARTS else data
    if "://" in url:
        _bring(url, place, _Stays.SAME)
    elif place.resolve() != Path(url).resolve():
        _link(Path(url), place)


def _link(source: Path, place: Path) -> None:
    """Let a place lead to a folder of this machine, which data of any size then need not be copied from."""
    if not source.is_dir():
        raise InputError(f"data_url {source} is not a folder: name one, or obs://bucket/folder")
    with turn(_work_of(place)):
        if place.is_symlink() and place.resolve() == source.resolve():
            return
        if not place.is_symlink() and _is_taken(place):
            raise _in_the_way(str(source), place)
        _remove(place)
        place.symlink_to(source.resolve(), target_is_directory=True)


class _Stays(Enum):
    """When what is in the place of a copy stays there; what is no copy, and does not stay, is refused."""

    ALWAYS = "always"
    COPIED = "if it was copied from there, for a training has changed it since"
    SAME = "if it was copied from there, and the files there are the same ones"


def _bring(url: str, place: Path, stays: _Stays) -> None:
    """Copy a file or folder to its place, unless it is there."""
    url = url.rstrip("/")
    store = store_of(url)  # which refuses before a folder is made
    work = _work_of(place)
    with turn(work):
        new, old = work / "new", work / "old"
        for left in (new, old):  # by a process that was killed
            _remove(left)
        marker = read_json(work / _MARKER)
        if _is_taken(place):
            copied = marker.get("url") == url
            if stays is _Stays.ALWAYS or (copied and stays is _Stays.COPIED):
                return
            if copied and _is_same(store, url, place, marker["files"]):
                return
            if not copied and not _is_as_copied(place, work / _MARKER, marker):
                raise _in_the_way(url, place)
        source, files = (url, files_of(store, url)) if stays is _Stays.SAME else newest_whole(store, url)
        check_space(files, source, place)
        try:
            fetch(store, source, files, new)
            if place.exists() or place.is_symlink():
                place.rename(old)
            # While nothing is in the place: the marker tells of a whole copy, which would be in the way without it.
            with whole_file(work / _MARKER) as file:
                file.write(json.dumps({"url": url, "files": files}).encode())
            new.rename(place)
        finally:
            _remove(new)
        _remove(old)
        _tell(source, place, len(files))


def _is_as_copied(place: Path, marker: Path, copied: Mapping[str, Any]) -> bool:
    """Whether a place has what was copied to it, from wherever, and nothing changed it since: it is nobody's work."""
    made = marker.stat().st_mtime_ns if copied else 0  # behind the last file of the copy
    files = [place / name if name else place for name in sizes_below(place)]
    return copied.get("files") == sizes_below(place) and all(file.stat().st_mtime_ns <= made for file in files)


def _is_same(store: Store, url: str, place: Path, copied: Mapping[str, int]) -> bool:
    """Whether a place has all files that were copied to it, and the url the same ones: by size, and by the content of
    those that tell the others' checksums.
    """
    if copied != files_of(store, url) or not copied.items() <= sizes_below(place).items():
        return False
    local = store_of(str(place))
    return all(
        sha256_of(local, join(str(place), name)) == sha256_of(store, join(url, name))
        for name in copied
        if Path(name).name in _TELLING
    )


def _tell(source: str | Path, target: str | Path, files: int) -> None:
    print(f"job {get_job_id()}: copied {source} to {target}: {files} files", flush=True)


def _is_taken(place: Path) -> bool:
    return place.exists() and not (place.is_dir() and not any(place.iterdir()))


def _work_of(place: Path) -> Path:
    """The folder beside a place in which its copy is made, and which is held meanwhile."""
    work = place.absolute().parent / _WORK / place.name
    work.mkdir(parents=True, exist_ok=True)
    return work


def _in_the_way(url: str, place: Path) -> InputError:
    return InputError(f"{place} holds something else than a copy of {url}: name another place, or move it away")


def _send_all(results: Sequence[Path], train_url: str) -> None:
    """Copy results out that are there."""
    for path in results:
        if path.exists():
            url = join(train_url, path.name)
            _tell(path, url, send(path, url))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
