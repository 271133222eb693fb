"""Work shared among forked processes, one a core, with a line of progress."""

import ctypes
import gc
import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any

from tqdm import tqdm

from src.base.errors import InputError
from src.base.logs import draws_bars

_SECONDS_BETWEEN_LINES = 10
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h
_KEPT_BYTES = 1 << 30
_shared: tuple[Any, ...] = ()


def processes(workers: int = 0) -> int:
    """How many share the work: so many, or for 0 one a core."""
    return workers or len(os.sched_getaffinity(0))


def keep_memory() -> None:
    """Let this process keep memory that is freed: else the system clears the pages of large arrays again and again."""
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_MAX, 0)
    libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def give_back_memory() -> None:
    """Give memory that this process has freed back to the system: it keeps much of it, among what is in use."""
    ctypes.CDLL(None).malloc_trim(0)


def die_with_parent() -> None:
    """Let this process be killed when its parent ends, however: an orphan would write to files of the next run."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _share(values: tuple[Any, ...]) -> None:
    global _shared
    _shared = values
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is stopped by the keyboard and says so
    die_with_parent()
    keep_memory()
    gc.freeze()  # a collection would look at all of the parent's objects, and so copy their pages


def _call(function: Callable[..., Any], run: Sequence[tuple[Any, ...]]) -> list[Any]:
    return [function(*arguments, *_shared) for arguments in run]


def runs_of(follows: Sequence[bool], pieces: int, workers: int) -> list[slice]:
    """Pieces of work that are best done one behind the other; shorter ones where there are too few for all workers."""
    follows, most = follows or [False] * pieces, -(-pieces // workers)
    starts: list[int] = []
    for number, follow in enumerate(follows):
        if not starts or not follow or number - starts[-1] >= most:
            starts.append(number)
    return [slice(start, end) for start, end in itertools.pairwise([*starts, len(follows)])]


@contextmanager
def told_progress(what: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    """What is told of work that is done, in a total of units: on a terminal a bar, elsewhere a line every ten seconds.

    The block calls what it is given with the size of each piece that is done.
    """
    begin, done = time.perf_counter(), 0
    said = begin
    quiet = not draws_bars()
    with tqdm(total=total, unit=f" {unit}", unit_scale=True, desc=what, disable=quiet) as bar:

        def tell(size: int) -> None:
            nonlocal said, done
            bar.update(size)
            done += size
            now = time.perf_counter()
            if quiet and (done == total or now - said > _SECONDS_BETWEEN_LINES):
                said, rate = now, done / (now - begin)
                left_s = (total - done) / rate
                print(f"{what}: {done} of {total} {unit}, {rate:.0f} {unit}/s, {left_s:.0f} s left", flush=True)

        yield tell


def run_here(
    what: str, function: Callable[..., Any], work: Sequence[tuple[Any, ...]], sizes: Sequence[int], unit: str,
    shared: tuple[Any, ...] = (),
) -> Iterator[Any]:  # fmt: skip
    """What `run_parallel` gives, by this process alone; see there."""
    with told_progress(what, sum(sizes), unit) as tell:
        for arguments, size in zip(work, sizes):
            yield function(*arguments, *shared)
            tell(size)


def run_parallel(
    what: str, function: Callable[..., Any], work: Sequence[tuple[Any, ...]], sizes: Sequence[int], unit: str,
    shared: tuple[Any, ...] = (), follows: Sequence[bool] = (), workers: int = 0,
) -> Iterator[Any]:  # fmt: skip
    """The results of function(*arguments, *shared) for each of the arguments, in their order.

    Args:
        what: names the work in its progress line.
        function: the work, a function of a module.
        work: arguments of each call; they and the results travel between processes.
        sizes: of each piece of work, for the progress.
        unit: what the sizes count.
        shared: further arguments of all calls; processes are forked, so these cost no copy.
        follows: of each piece of work, whether it is best done by the process that does the one before; so it is, as
            long as there is work for all.
        workers: processes at most, 0 for one a core.

    Raises:
        InputError: a process was killed, most likely by the system for want of memory.
    """
    if not work:
        return
    workers = min(processes(workers), len(work))
    with (
        ProcessPoolExecutor(workers, get_context("fork"), _share, (shared,)) as pool,
        told_progress(what, sum(sizes), unit) as tell,
    ):
        runs = runs_of(follows, len(work), workers)
        futures = [pool.submit(_call, function, work[run]) for run in runs]
        try:
            for future, run in zip(futures, runs):
                yield from future.result()
                tell(sum(sizes[run]))
        except BrokenProcessPool:
            raise InputError(
                f"{what}: one of {workers} processes was killed, as the system does where memory runs out: free some, "
                f"or let fewer run (--workers=1), and start again"
            ) from None
        finally:
            for future in futures:
                future.cancel()
