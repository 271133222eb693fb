"""The folder of a training run: what it leaves, and while it works, what it is killed or stopped with.

checkpoint/dlrm.ckpt         the network that is kept, and the files beside it that checkpoint.py names
checkpoint/report.html       the run for people, report.json the same for machines, scores.npz its scores
checkpoint/unfinished/       the same of a run that has not ended, or was stopped, and the state it goes on from
"""

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import yaml

from src.base.errors import InputError, naming
from src.base.events import happens
from src.base.files import whole_file
from src.base.locks import hold
from src.base.sealed import check_json, sealed_json, sealed_text
from src.checkpoints.checkpoint import part_of, parts_of
from src.checkpoints.names import CHECKPOINT, LOCK, REPORT, REPORT_PAGE, SCORES, UNFINISHED
from src.checkpoints.protobuf import CheckpointFile
from src.data.manifest import MANIFEST, VOCABULARY, DataFolder, Manifest
from src.ranks.group import ONE_RANK, Ranks


@dataclass(frozen=True)
class RunOptions:
    """The options that are kept beside a checkpoint.

    Attributes:
        name: of their file.
        text: YAML.
        free: names of those that no value of the network depends on.
        defaults: YAML of what each is unless given, and was before there was such an option.
    """

    name: str
    text: str
    free: frozenset[str] = frozenset()
    defaults: str = ""

    def difference(self, saved: str) -> str:
        """What is different in the text of a run that was stopped, in words, but for what is free; "" for nothing."""
        if not saved.strip():
            return "no options in its file"
        known, old, new = (yaml.safe_load(text) or {} for text in (self.defaults, saved, self.text))
        old = known | old  # an older version, which knew fewer options, may have saved them
        for name in [*new, *old]:
            if name not in self.free and old.get(name) != new.get(name):
                return f"{name} {old.get(name)} instead of {new.get(name)}"
        return ""


class Run:
    """The files of a training run, in a subfolder until it ends well, so that no unfinished one looks whole.

    A run that was stopped leaves the subfolder, and the next one goes on there. A context, which holds a lock on it.
    All ranks of a run share it; what concerns all is done by rank 0, while the others wait.

    Args:
        folder: the checkpoint folder.
        data: the data, whose manifest and vocabulary are kept with the checkpoint.
        options: of the run.
        overwrite: whether the folder's checkpoint may be replaced when the run ends.
        resume: whether to go on with a run that was stopped; otherwise its files are thrown away.
        ranks: of the run.

    Attributes:
        path: the subfolder.

    Raises:
        InputError: the folder already holds a checkpoint, which overwrite does not allow to be replaced; another run
            is at work there, or one was stopped that had other options or data.
    """

    def __init__(
        self, folder: Path, data: DataFolder, options: RunOptions, *, overwrite: bool = False, resume: bool = True,
        ranks: Ranks = ONE_RANK,
    ):  # fmt: skip
        self.folder, self.path, self._options, self._ranks = folder, folder / UNFINISHED, options, ranks
        self._progress = self.path / "progress.json"
        self._lock: IO[str] | None = None
        self._by_rank_0(lambda: self._prepare(data, overwrite, resume))

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *_: Any) -> None:
        if self._lock:
            self._lock.close()

    def _prepare(self, data: DataFolder, overwrite: bool, resume: bool) -> None:
        if (self.folder / CHECKPOINT).exists() and not overwrite:
            raise InputError(
                f"ckpt_path {self.folder} already holds {CHECKPOINT}: name another --ckpt_path, or replace it with "
                f"--overwrite=True"
            )
        data.manifest.verify(data.path, [VOCABULARY])
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = hold(self.path / LOCK, f"ckpt_path {self.folder}")
        try:
            with naming(self.path):
                if resume and self._progress.is_file():
                    self._check_same(data)
                else:
                    self._start(data)
        except BaseException:
            self._lock.close()
            raise

    def _start(self, data: DataFolder) -> None:
        self._progress.unlink(missing_ok=True)  # first, so that what is left is never taken for a whole state
        for path in self.path.iterdir():
            if path.name != LOCK:
                path.unlink()
        _link_or_copy(data.path / VOCABULARY, self.path / VOCABULARY)
        shutil.copyfile(data.path / MANIFEST, self.path / MANIFEST)
        (self.path / self._options.name).write_text(sealed_text(self._options.text), encoding="utf-8")

    def _check_same(self, data: DataFolder) -> None:
        """Refuse to go on with other options or data than those the run began with."""
        kept = self.path / self._options.name
        difference = self._options.difference(kept.read_text(encoding="utf-8"))
        if not difference and Manifest.load(self.path / MANIFEST) != data.manifest:
            difference = f"other data than {data.path}"
        if difference:
            raise InputError(
                f"{self.path} holds a training that was stopped, with {difference}: go on with what it had, name "
                f"another --ckpt_path, or throw it away with --resume=False"
            )
        with whole_file(kept) as file:
            file.write(sealed_text(self._options.text).encode())  # of those that are free, the new ones

    def best(self, step: int) -> Path:
        """Where the best network so far, that of a step, is kept. Each has a name of its own, so that a state always
        finds the one it goes with, whenever the run is killed."""
        return self.path / f"best-{step}.ckpt"

    def state(self, step: int) -> Path:
        """Where the state after a step is kept."""
        return self.path / f"state-{step}.ckpt"

    def progress(self) -> dict[str, Any] | None:
        """What the last `commit` of a run that was stopped had to say; None if it never came so far."""
        if not self._progress.is_file():
            return None
        try:
            content = dict(json.loads(self._progress.read_text(encoding="utf-8")))
            return check_json(content, self._progress, "start afresh with --resume=False")
        except (ValueError, TypeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"{self._progress} is damaged ({error}), so the stopped training can't go on: start afresh with "
                f"--resume=False"
            ) from None

    def commit(self, progress: dict[str, Any], step: int, best_step: int) -> None:
        """Make the state of a step the one to go on from; `write_part` has returned, so all ranks have written it.

        Args:
            progress: what `progress` is to give.
            step: the step; states of others are removed.
            best_step: best networks of other steps are removed.
        """
        self._by_rank_0(lambda: self._commit(progress, step, best_step))

    def _by_rank_0(self, work: Callable[[], None]) -> None:
        """What concerns all, done by rank 0 while the others wait for it, or for its error."""
        self._ranks.together(work if self._ranks.rank == 0 else lambda: None)

    def _commit(self, progress: dict[str, Any], step: int, best_step: int) -> None:
        happens("a state is whole")
        with whole_file(self._progress, sync=True) as file:
            file.write(sealed_json(progress).encode())
        happens("the progress names another state")
        self._remove_older(step, best_step)

    def _remove_older(self, step: int, best_step: int) -> None:
        for path in self.path.iterdir():
            found = re.match(r"(state|best)-(\d+)\.", path.name)
            if found and int(found[2]) < step and (found[1] == "state" or int(found[2]) != best_step):
                path.unlink()

    def finish(self, step: int) -> Path:
        """Put the files of a run that ended well in their places, the best network, that of a step, last.

        Returns:
            The checkpoint's path.
        """
        target = self.folder / CHECKPOINT
        self._by_rank_0(lambda: self._publish(self.best(step), target))
        return target

    def _publish(self, best: Path, target: Path) -> None:
        """Nothing leaves the subfolder before all is in its place, so a run that is killed here can go on."""
        happens("the files are to go to their places")
        with naming(self.folder):
            target.unlink(missing_ok=True)  # it must not stand beside another run's files
            for path in self.folder.glob(f"{target.stem}.rank_*{target.suffix}"):
                path.unlink()
            for name in (self._options.name, MANIFEST, VOCABULARY):
                _place(self.path / name, self.folder / name)
            for name in (REPORT, REPORT_PAGE, SCORES):
                (self.folder / name).unlink(missing_ok=True)
                if (self.path / name).is_file():
                    _place(self.path / name, self.folder / name)
            for rank in reversed(range(parts_of(CheckpointFile(best, check=False)))):
                _place(part_of(best, rank), part_of(target, rank))
            happens("all files are in their places")
            self._progress.unlink(missing_ok=True)
            shutil.rmtree(self.path)


def _place(source: Path, target: Path) -> None:
    """A link to the file, or a copy, in the target's place; the source stays."""
    beside = target.with_name(f"{target.name}.writing")
    beside.unlink(missing_ok=True)
    _link_or_copy(source, beside)
    os.replace(beside, target)
    happens(f"{target.name} is in its place")
    beside.unlink(missing_ok=True)  # two links to one file: renaming one to the other leaves both


def _link_or_copy(source: Path, target: Path) -> None:
    """A hard link where the file system can, since full Criteo's vocabulary has 270 MB."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
