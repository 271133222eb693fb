"""The logs of ranks, log0/output.log and so on, from one run to the next in the same folder.

A run's own logs take the place of an earlier one's only once it trains: of a start that is refused, or has nothing to
do, with an earlier log in its place, the lines are in log0/refused.log.
"""

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


def keep_earlier(ranks: Iterable[int]) -> None:
    """Put the logs that some ranks have of an earlier run aside."""
    for log in map(log_of, ranks):
        if log.is_file() and log.stat().st_size:
            log.replace(_earlier(log))


def give_back_earlier(ranks: Iterable[int]) -> None:
    """Put what was kept back in its place, and what the refused start wrote beside it."""
    for rank in ranks:
        log = log_of(rank)
        if _earlier(log).is_file():
            log.replace(refused_of(rank))
            _earlier(log).replace(log)


def forget_earlier(ranks: Iterable[int], worker_num: int) -> None:
    """Remove what was kept, and the logs of ranks that a run of worker_num has not: an earlier one had more."""
    for rank in ranks:
        _earlier(log_of(rank)).unlink(missing_ok=True)
        refused_of(rank).unlink(missing_ok=True)
    for log in Path().glob("log*/output.log"):
        number = log.parent.name.removeprefix("log")
        if number.isdecimal() and int(number) >= worker_num:
            for one in (log, _earlier(log), refused_of(int(number))):
                one.unlink(missing_ok=True)
            if not any(log.parent.iterdir()):
                log.parent.rmdir()
