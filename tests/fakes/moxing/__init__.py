"""A module of moxing's documented interface that really copies files: obs://bucket/x is $FAKE_OBS/bucket/x.

The interface is that of docs/moxing_api_doc in https://github.com/huaweicloud/ModelArts-Lab. A bucket is there if its
folder is. $FAKE_OBS/.calls has a line for each copy; $FAKE_OBS/.fault may hold a fault that the next copy has:

    kill      the process is killed behind the first file
    flip      the first file comes with another byte
    refuse    the storage answers with an error
    full      the disk is full, in moxing's words
    wait      the copy ends once the fault is taken away

"kill 3" is a fault of the third file from then on.
"""

import os
import shutil
import signal
import time
from pathlib import Path
from types import SimpleNamespace


class MoxFileRespException(Exception):
    """As moxing's, it is no OSError."""


def _path(url):
    url = str(url)
    if not url.startswith(("obs://", "s3://")):
        return Path(url)
    path = Path(os.environ["FAKE_OBS"]) / url.split("://")[1]
    bucket = Path(os.environ["FAKE_OBS"]) / url.split("://")[1].split("/")[0]
    if not bucket.is_dir():
        raise MoxFileRespException(f"[404] NoSuchBucket {bucket.name}\nHostId: x")
    return path


def _fault(name):
    place = Path(os.environ["FAKE_OBS"]) / ".fault"
    found, _, number = place.read_text().partition(" ") if place.is_file() else ("", "", "")
    if found == name and int(number or 1) > 1:
        place.write_text(f"{name} {int(number) - 1}")
    elif found == name:
        if name == "wait":
            while place.exists():
                time.sleep(0.01)
        place.unlink(missing_ok=True)
        return True
    return False


def copy(src_url, dst_url):
    source, target = _path(src_url), _path(dst_url)
    if _fault("refuse"):
        raise MoxFileRespException("[503] ServiceUnavailable")
    if _fault("full"):
        raise MoxFileRespException(f"[Errno 28] No space left on device: {target}")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    if _fault("flip"):
        target.write_bytes(bytes([target.read_bytes()[0] ^ 1]) + target.read_bytes()[1:])
    with (Path(os.environ["FAKE_OBS"]) / ".calls").open("a") as calls:
        calls.write(f"{os.getpid()} {src_url} {dst_url}\n")
    _fault("wait")
    if _fault("kill"):
        os.kill(os.getpid(), signal.SIGKILL)


def copy_parallel(src_url, dst_url):
    for path in sorted(_path(src_url).rglob("*")):
        if path.is_file():
            name = path.relative_to(_path(src_url))
            copy(f"{src_url}/{name}", f"{dst_url}/{name}")


def list_directory(url, recursive=False, skip_dir=False):
    paths = _path(url).rglob("*") if recursive else _path(url).iterdir()
    ends = {False: "", True: "/"}
    return [
        path.relative_to(_path(url)).as_posix() + ends[path.is_dir()]
        for path in paths
        if not (skip_dir and path.is_dir())
    ]


file = SimpleNamespace(
    copy=copy,
    copy_parallel=copy_parallel,
    exists=lambda url: _path(url).exists(),
    is_directory=lambda url: _path(url).is_dir(),
    get_size=lambda url: _path(url).stat().st_size,
    stat=lambda url: SimpleNamespace(mtime_nsec=_path(url).stat().st_mtime_ns),
    list_directory=list_directory,
    make_dirs=lambda url: _path(url).mkdir(parents=True, exist_ok=True),
    remove=lambda url, recursive=False: shutil.rmtree(_path(url)) if recursive else _path(url).unlink(),
    File=lambda name, mode: _path(name).open(mode),
)
