"""The logs of ranks, log0/output.log and so on, from one run to the next in the same folder.

A run's own logs take the place of an earlier one's only once it trains: of a start that is refused, or has nothing to
do, with an earlier log in its place, the lines are in log0/refused.log. A folder of the user's may have such a name
too: launch_log/ has a mark for each rank whose log is one of these. Those of an evaluation are log0/eval_output.log and
so on, beside a training's.
"""

import shutil
from collections.abc import Iterable
from pathlib import Path

_FOLDER = Path("launch_log")


class RankLogs:
    """The logs of a program's ranks.

    Args:
        prefix: of the files' names, which tells programs apart that are started in one folder; "" for a training.
    """

    def __init__(self, prefix: str = ""):
        self._prefix = prefix

    def folder_of(self, first_rank: int) -> Path:
        """Where a launcher keeps what it needs, by the number of its first rank."""
        return _FOLDER / f"{self._prefix}from_rank_{first_rank}"

    def log_of(self, rank: int) -> Path:
        """Where a rank's lines go."""
        return Path(f"log{rank}/{self._prefix}output.log")

    def refused_of(self, rank: int) -> Path:
        """Where the lines of a rank are whose start was refused, and whose log is an earlier run's."""
        return self.log_of(rank).with_name(f"{self._prefix}refused.log")

    def lines_of(self, rank: int, begin: str) -> list[str]:
        """The lines of a rank's log that begin so."""
        text = self.log_of(rank).read_text(encoding="utf-8", errors="replace")
        return [line for line in text.splitlines() if line.startswith(begin)]

    def _earlier(self, rank: int) -> Path:
        log = self.log_of(rank)
        return log.with_name(f"{log.name}.earlier")

    def _mark(self, rank: int) -> Path:
        return _FOLDER / f"{self._prefix}log{rank}.mark"

    def keep_earlier(self, ranks: Iterable[int]) -> None:
        """Put the logs that some ranks have of an earlier run aside, and mark those that are to be written as a run's.

        Where one is aside, what stands in its place is of a start that failed before it trained, and goes.
        """
        for rank in ranks:
            log = self.log_of(rank)
            if log.is_file() and log.stat().st_size and not self._earlier(rank).is_file():
                log.replace(self._earlier(rank))
            _FOLDER.mkdir(exist_ok=True)
            self._mark(rank).touch()

    def give_back_earlier(self, ranks: Iterable[int], shown: bool = True) -> None:
        """Put what was kept back in its place, and what the refused start wrote beside it.

        Where there is no earlier run, nothing is left of a start whose lines were shown.
        """
        for rank in ranks:
            log = self.log_of(rank)
            if self._earlier(rank).is_file():
                log.replace(self.refused_of(rank))
                self._earlier(rank).replace(log)
            elif shown:
                _remove(log, self._mark(rank))
        of_launchers = list(_FOLDER.glob("*from_rank_*"))
        if not list(_FOLDER.glob("*.mark")) and len(of_launchers) < 2:  # another one's, of a host
            shutil.rmtree(_FOLDER, ignore_errors=True)

    def forget_earlier(self, ranks: Iterable[int], worker_num: int) -> None:
        """Remove what was kept, and the logs of ranks that a run of worker_num has not: an earlier one had more."""
        for rank in ranks:
            self._earlier(rank).unlink(missing_ok=True)
            self.refused_of(rank).unlink(missing_ok=True)
        for mark in _FOLDER.glob(f"{self._prefix}log*.mark"):
            rank = int(mark.stem.removeprefix(f"{self._prefix}log"))
            if rank >= worker_num:
                _remove(self.log_of(rank), self._earlier(rank), self.refused_of(rank), mark)


def _remove(log: Path, *others: Path) -> None:
    """Remove a rank's log and more, and the log's folder if nothing else is in it."""
    for one in (log, *others):
        one.unlink(missing_ok=True)
    if log.parent.is_dir() and not any(log.parent.iterdir()):
        log.parent.rmdir()
