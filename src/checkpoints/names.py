"""Names of files in a checkpoint folder, and the checkpoint that a user named, found without MindSpore."""

import re
from pathlib import Path

from src.base.errors import InputError
from src.base.locks import is_held

TABLE = "embedding."  # begins the names of tables in a checkpoint
CHECKPOINT, UNFINISHED, LOCK = "dlrm.ckpt", "unfinished", ".lock"
REPORT, REPORT_PAGE, SCORES, EVALUATIONS = "report.json", "report.html", "scores.npz", "evaluations.json"


def file_of(checkpoint_path: str) -> Path:
    """The checkpoint that a user named, by itself or by its folder.

    Raises:
        InputError: there is none.
    """
    path = Path(checkpoint_path)
    path = path / CHECKPOINT if path.is_dir() else path
    check_is_file(path)
    return path


def folder_of(checkpoint_path: str) -> Path:
    """The folder of a checkpoint that a user named, which may not be there yet."""
    path = Path(checkpoint_path)
    return path.parent if path.suffix == Path(CHECKPOINT).suffix else path


def check_is_file(path: Path) -> None:
    """Refuse a checkpoint that is not there, and name the best network of a training that was stopped."""
    if path.is_file():
        return
    if is_held(path.parent / UNFINISHED / LOCK):
        raise InputError(f"checkpoint_path {path} is not there yet: its training is at work; wait for its end")
    found = (re.fullmatch(r"best-(\d+)\.ckpt", one.name) for one in (path.parent / UNFINISHED).glob("best-*.ckpt"))
    if steps := [int(name[1]) for name in found if name]:
        raise InputError(
            f"checkpoint_path {path} is not there, since its training was stopped: let the same train.py command go "
            f"on, or name the best network so far, {path.parent / UNFINISHED / f'best-{max(steps)}.ckpt'}"
        )
    raise InputError(f"checkpoint_path {path} is not a file: name a checkpoint that train.py wrote")
