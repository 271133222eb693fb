"""Files of an object storage on this machine, where programs read them, and a folder that is to go there.

STAGE/<which>/NAME           a copy of a file or a folder
STAGE/<which>/copied.json    of which files it is, and what marks these
"""

import fnmatch
import hashlib
import json
import shutil
from pathlib import Path

from src.base.errors import InputError
from src.base.files import whole_file
from src.base.locks import turn
from src.model_utils.copying import check_space, fetch, files_of, persist, read_json
from src.model_utils.object_storage import Store, is_remote, join, sizes_below, store_of

_MARKER = "copied.json"
_PATTERN = "*?["


def staged(given: str, stage: Path) -> str:
    """What an option names, of several files with commas between, with those of an object storage as copies.

    A copy that is there is taken, if the files have not changed since.

    Args:
        given: files, folders and patterns, of this machine or urls.
        stage: folder of copies.

    Raises:
        InputError: a file can't be copied.
    """
    if not is_remote(given):
        return given
    return ",".join(_copied(one, stage) if is_remote(one) else one for one in given.split(","))


def place_of_url(url: str, stage: Path) -> Path:
    """Where a file or folder of an object storage is on this machine."""
    url = url.rstrip("/")
    return stage / hashlib.sha256(url.encode()).hexdigest()[:16] / url.rpartition("/")[2]


def _copied(url: str, stage: Path) -> str:
    """The place of a copy of an url, or, of a pattern, the pattern of the copies."""
    folder, _, pattern = url.rpartition("/")
    if not any(sign in pattern for sign in _PATTERN):
        folder, pattern = url.rstrip("/"), ""
    store, place = store_of(folder), place_of_url(url, stage)
    place = place.with_name(folder.rpartition("/")[2])  # of another pattern the copy stands elsewhere
    place.parent.mkdir(parents=True, exist_ok=True)
    with turn(place.parent):
        files = files_of(store, folder)
        chosen = {name: size for name, size in files.items() if not pattern or _matches(name, pattern)}
        _bring(store, folder, chosen, place, len(chosen) == len(files))
    return str(place / pattern) if pattern else str(place)


def _matches(name: str, pattern: str) -> bool:
    """As in a folder of this machine."""
    return "/" not in name and not name.startswith(".") and fnmatch.fnmatchcase(name, pattern)


def _bring(store: Store, url: str, files: dict[str, int], place: Path, whole: bool) -> None:
    marker = place.parent / _MARKER
    marks = _marks(store, url, files)
    if read_json(marker) == marks and (sizes_below(place) if place.exists() else {}) == files:
        return
    marker.unlink(missing_ok=True)
    if place.is_dir():
        shutil.rmtree(place)
    place.unlink(missing_ok=True)
    check_space(files, url, place)
    fetch(store, url, files, place, whole)
    # Else it may have half of an earlier file and half of a later one, of one size.
    if _marks(store, url, files) != marks or sizes_below(place) != files:
        raise InputError(f"{url} changed while it was copied: begin again when nobody writes there")
    with whole_file(marker) as file:
        file.write(json.dumps(marks).encode())
    print(f"copied {url} to {place}: {len(files)} files", flush=True)


def _marks(store: Store, url: str, files: dict[str, int]) -> dict[str, list[int | str]]:
    """Size and mark of each file by now, by name."""
    marks: dict[str, list[int | str]] = {}

    def look() -> str:
        sizes = store.files(url)  # as they are by now
        marks.update((name, [sizes.get(name, -1), store.mark(join(url, name))]) for name in files)
        return ""

    persist(f"{url} can't be looked at", look)
    return marks
