"""The folder of a model that goes on from day to day.

MODEL/current            a link to the day whose model is in use, switched at once
MODEL/history.jsonl      a JSON a line for each day that ended, taken into use or refused
MODEL/report.html        the days side by side
MODEL/options.yaml       the options of all days, schema.yaml the columns, if a schema named them
MODEL/days/0003/         a day: dataset/, checkpoint/ and export/ as the programs write them, known/ its rows as the
                         earlier model codes them, scores of both models, day.json what it is made of, report.html
"""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.base.errors import AlreadyDone, InputError
from src.base.files import flush, sha256_of, whole_file
from src.base.locks import hold
from src.rows.unpacking import file_and_member

CURRENT, HISTORY, DAYS, PAGE = "current", "history.jsonl", "days", "report.html"
OPTIONS, SCHEMA, LOCK = "options.yaml", "schema.yaml", ".lock"
ACCEPTED, REFUSED = "in use", "refused"
Line = dict[str, Any]  # of the history


@dataclass(frozen=True)
class RawFile:
    """A raw file by what is in it: its name is for people."""

    name: str
    bytes: int
    sha256: str


def identities(raws: Sequence[Path]) -> list[RawFile]:
    """What tells raw files from others, be they moved or renamed; of an archive's members, the archive's.

    Raises:
        InputError: two have the same content.
    """
    found: dict[str, RawFile] = {}
    for file in dict.fromkeys(file_and_member(raw)[0] for raw in raws):
        one = RawFile(file.name, file.stat().st_size, sha256_of(file))
        if other := found.setdefault(one.sha256, one) is not one and found[one.sha256]:
            raise InputError(f"{one.name} and {other.name} have the same content: name each day's rows once")
    return list(found.values())


class ModelFolder:
    """Where a model's days are.

    Args:
        place: the folder, which need not be there yet.
    """

    def __init__(self, place: Path):
        self.place, self.options, self.schema = place, place / OPTIONS, place / SCHEMA

    @contextmanager
    def held(self) -> Iterator[None]:
        """Make the folder, if need be, and keep other runs out while the block runs.

        Raises:
            InputError: another run is at work there, or it holds something else.
        """
        there = {path.name for path in self.place.iterdir()} if self.place.is_dir() else set()
        if there - {LOCK} and not there & {DAYS, OPTIONS, f"{OPTIONS}.tmp"}:
            raise InputError(f"{self.place} holds something else than a model of days: name another folder")
        self.place.mkdir(parents=True, exist_ok=True)
        lock = hold(self.place / LOCK, str(self.place))
        try:
            yield
        finally:
            lock.close()

    @property
    def current(self) -> Path | None:
        """The day whose model is in use; None before the first one ended."""
        link = self.place / CURRENT
        return self.place / os.readlink(link) if link.is_symlink() else None

    def use(self, name: str) -> None:
        """Let a day's model be the one in use; who looks finds the earlier one or this one, always one of both."""
        beside = self.place / f".{CURRENT}.new"
        beside.unlink(missing_ok=True)
        beside.symlink_to(Path(DAYS) / name)
        os.replace(beside, self.place / CURRENT)
        flush(self.place)

    def history(self) -> list[Line]:
        """The days that ended, in their order.

        Raises:
            InputError: a line can't be read.
        """
        path = self.place / HISTORY
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        try:
            return [dict(json.loads(line)) for line in text.split("\n") if line]
        except ValueError:
            raise InputError(f"{path} is damaged: copy it anew, or mend the line that is no JSON") from None

    def append(self, line: Line) -> None:
        """Add a day to the history, unless it is there."""
        lines = self.history()
        if len(lines) >= line["day"]:
            return
        with whole_file(self.place / HISTORY, sync=True) as file:
            file.write("".join(f"{json.dumps(one, ensure_ascii=False)}\n" for one in [*lines, line]).encode())

    def folder_of(self, day: int) -> Path:
        """Where a day is, by its number from 1."""
        return self.place / DAYS / f"{day:04d}"

    def forget(self, kept: int) -> None:
        """Remove the folders of all days but the newest ones and the one in use; 0 keeps all."""
        folders = sorted((self.place / DAYS).iterdir()) if kept else []
        for folder in folders[:-kept]:
            if self.current is None or folder.name != self.current.name:
                shutil.rmtree(folder)


def check_new(history: Sequence[Line], files: Sequence[RawFile], retry: bool) -> None:
    """Refuse files that a day had before.

    Args:
        history: the days that ended.
        files: of the new day.
        retry: whether files whose model was refused may come again.

    Raises:
        AlreadyDone: this very day is in the model.
        InputError: some of the files are, or its model was refused.
    """
    own = {file.sha256: file.name for file in files}
    for line in reversed(history):
        known = {file["sha256"] for file in line["files"]}
        if not (common := known & own.keys()) or (retry and line["state"] == REFUSED):
            continue
        if line["state"] == REFUSED:
            raise InputError(
                f"{own[min(common)]} is of day {line['day']}, whose model was refused ({line['reason']}): try it again "
                f"with --retry=True and other options, or a larger --fail_below"
            )
        if known == own.keys():
            raise AlreadyDone(f"these rows are day {line['day']}'s, which the model has been trained on")
        raise InputError(
            f"{own[min(common)]} is of day {line['day']}, which the model has been trained on: leave it out, so that "
            f"no row is trained on twice"
        )
