"""The logs of ranks, log0/output.log and so on, from one run to the next in the same folder.

A run's own logs take the place of an earlier one's only once it trains: of a start that is refused, or has nothing to
do, with an earlier log in its place, the lines are in log0/refused.log. A folder of the user's may have such a name
too: launch_log/ has a mark for each rank whose log is one of these.
"""

import shutil
from collections.abc import Iterable
from pathlib import Path


def log_of(rank: int) -> Path:
    """Where a rank's lines go."""
    return Path(f"log{rank}/output.log")


def refused_of(rank: int) -> Path:
    """Where the lines of a rank are whose start was refused, and whose log is an earlier run's."""
    return log_of(rank).with_name("refused.log")


def lines_of(rank: int, begin: str) -> list[str]:
    """The lines of a rank's log that begin so."""
    text = log_of(rank).read_text(encoding="utf-8", errors="replace")
    return [line for line in text.splitlines() if line.startswith(begin)]


def _earlier(log: Path) -> Path:
    return log.with_name(f"{log.name}.earlier")


def _mark(rank: int | str) -> Path:
    return Path(f"launch_log/log{rank}.mark")


def keep_earlier(ranks: Iterable[int]) -> None:
    """Put the logs that some ranks have of an earlier run aside, and mark those that are to be written as a run's.

    Where one is aside, what stands in its place is of a start that failed before it trained, and goes.
    """
    for rank in ranks:
        log = log_of(rank)
        if log.is_file() and log.stat().st_size and not _earlier(log).is_file():
            log.replace(_earlier(log))
        _mark(rank).parent.mkdir(exist_ok=True)
        _mark(rank).touch()


def give_back_earlier(ranks: Iterable[int], shown: bool = True) -> None:
    """Put what was kept back in its place, and what the refused start wrote beside it.

    Where there is no earlier run, nothing is left of a start whose lines were shown.
    """
    for rank in ranks:
        log = log_of(rank)
        if _earlier(log).is_file():
            log.replace(refused_of(rank))
            _earlier(log).replace(log)
        elif shown:
            _remove(log, _mark(rank))
    folder = _mark(0).parent
    if not list(folder.glob("*.mark")) and len(list(folder.glob("from_rank_*"))) < 2:  # another launcher's, of a host
        shutil.rmtree(folder, ignore_errors=True)


def _remove(log: Path, *others: Path) -> None:
    """Remove a rank's log and more, and the log's folder if nothing else is in it."""
    for one in (log, *others):
        one.unlink(missing_ok=True)
    if log.parent.is_dir() and not any(log.parent.iterdir()):
        log.parent.rmdir()


def forget_earlier(ranks: Iterable[int], worker_num: int) -> None:
    """Remove what was kept, and the logs of ranks that a run of worker_num has not: an earlier one had more."""
    for rank in ranks:
        _earlier(log_of(rank)).unlink(missing_ok=True)
        refused_of(rank).unlink(missing_ok=True)
    for mark in Path().glob(str(_mark("*"))):
        rank = int(mark.stem.removeprefix("log"))
        if rank >= worker_num:
            _remove(log_of(rank), _earlier(log_of(rank)), refused_of(rank), mark)
