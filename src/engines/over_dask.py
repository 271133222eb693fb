"""Pieces of work done by the workers of a Dask scheduler: those of a cluster, or processes that are started here.

Dask finds workers, notices which are lost, and does their pieces again elsewhere. What this module adds: workers are
looked at before they get any work, also those that come later; values go by files in the run's folder (`kept.py`), so
that no worker's loss takes them along; pieces are handed out a few at a time, so that who comes later gets some too.
"""

import contextlib
import logging
import pickle
import queue
import site
import time
import uuid
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distributed import Client, Future, KilledWorker, LocalCluster

from src.base.errors import InputError
from src.base.files import sha256_of
from src.base.logs import warn
from src.base.workers import processes, runs_of, told_progress
from src.engines.fitness import Facts, Probe, look
from src.engines.kept import forget, once, pickled, unpickled_from

_ROOT = Path(__file__).parents[2]
_CONNECT_S, _CLOSE_S = 10, 5
_WAIT_S = 600  # for workers where there are none, such as those that queue for a machine
_TICK_S = 0.5  # between two looks at which workers there are
_AHEAD = 2  # pieces that a worker has, so that it need not wait for the next one
_TRIES = 4  # of a piece whose workers are lost, as many as Dask itself makes, and of asking a worker for its facts
_NO_PROGRAM = ImportError, AttributeError, pickle.UnpicklingError  # of who unpickles what it has no sources of


@contextlib.contextmanager
def dask_engine(scheduler: str, workers: int) -> Iterator["DaskEngine"]:
    """An engine of the workers of a scheduler, or of so many (0: one a core) that are started here.

    Raises:
        InputError: there is no scheduler.
    """
    log = logging.getLogger("distributed")
    before = log.level
    log.setLevel(logging.CRITICAL)  # what matters of it is told in the lines of this program
    with contextlib.ExitStack() as stack:
        stack.callback(log.setLevel, before)
        if not scheduler:
            cluster = LocalCluster(
                n_workers=processes(workers), threads_per_worker=1, processes=True,
                memory_limit=0, dashboard_address=":0", silence_logs=logging.CRITICAL,
            )  # fmt: skip
            stack.callback(cluster.close, _CLOSE_S)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of other versions, which are refused
                client = Client(scheduler or cluster, timeout=_CONNECT_S, set_as_default=False)
        except (OSError, ValueError) as error:
            raise InputError(
                f"scheduler {scheduler} can't be reached ({error}): start it with 'dask scheduler', or name its address"
            ) from None
        stack.callback(client.close, _CLOSE_S)
        engine = DaskEngine(client, scheduler or "of this machine")
        engine.workers = workers
        stack.callback(engine.end)
        yield engine


@dataclass(frozen=True)
class _Try:
    """Pieces that workers do one behind the other, and which of these may."""

    run: slice
    number: int
    hands: frozenset[str]


class DaskEngine:
    """See `Engine`.

    Args:
        client: of the scheduler.
        name: of the scheduler, for messages.
    """

    is_forked = False
    workers = 0

    def __init__(self, client: Client, name: str):
        self._client, self._name = client, name
        self._here = Facts.here()
        self._fit: dict[str, Facts] = {}
        self._unfit: dict[str, str] = {}
        self._probe: Probe | None = None
        self._asked: Counter[str] = Counter()
        self._looked = 0.0

    def begin(self, folder: Path, reads: Sequence[Path]) -> None:
        """See `Engine`; waits until there are workers."""
        self._probe = Probe.made(folder.absolute(), [path.absolute() for path in reads])
        self._fit, self._unfit, self._looked = {}, {}, 0.0
        try:
            self._hands("a run", told=False)
            for address, why in self._unfit.items():
                more = f" (and {len(self._unfit) - 1} more can't work)" if len(self._unfit) > 1 else ""
                raise InputError(f"worker {address} of scheduler {self._name} {why}{more}")
        except BaseException:
            self._probe.file.unlink()
            raise
        print(f"scheduler {self._name}: {len(self._fit)} workers", flush=True)
        others = {facts.processor for facts in self._fit.values()} - {self._here.processor}
        if others:
            warn("workers have other kinds of processors than this machine: numbers may differ in their last digit")

    def end(self) -> None:
        """Let workers give up what they keep of the run."""
        with contextlib.suppress(Exception):  # such as of one that is lost just now
            there = self._client.nthreads().keys() & self._fit.keys()
            self._client.run(forget, workers=sorted(there), on_error="ignore", callback_timeout=_CLOSE_S)

    def map(
        self, what: str, function: Callable[..., Any], work: Sequence[tuple[Any, ...]], sizes: Sequence[int],
        unit: str, shared: tuple[Any, ...] = (), follows: Sequence[bool] = (), needs: str = "",
    ) -> Iterator[Any]:  # fmt: skip
        """See `Engine`."""
        if not work:
            return
        hands = self._hands(what, needs)
        waiting = deque(_Try(run, 1, frozenset()) for run in runs_of(follows, len(work), len(hands)))
        running: dict[Future, _Try] = {}
        ended: queue.SimpleQueue[Future] = queue.SimpleQueue()
        with self._shared(shared) as place, told_progress(what, sum(sizes), unit) as tell:
            try:
                while waiting or running:
                    hands = self._hands(what, needs, ended=ended)
                    if hands:
                        self._recall(what, waiting, running, hands)
                    while waiting and len(running) < _AHEAD * len(hands):
                        one = waiting.popleft()
                        future = self._submit(what, _Call(function, work[one.run], *place), hands)
                        running[future] = _Try(one.run, one.number, hands)
                        future.add_done_callback(ended.put)
                    with contextlib.suppress(queue.Empty):
                        future = ended.get(timeout=_TICK_S)
                        if future in running:
                            one = running.pop(future)
                            results = self._results(what, future, one, waiting)
                            yield from results
                            tell(sum(sizes[one.run]) if results else 0)
            finally:
                with contextlib.suppress(Exception):
                    self._client.cancel(list(running), force=True)

    def _submit(self, what: str, call: "_Call", hands: frozenset[str]) -> Future:
        with self._naming_scheduler():  # which need not have this program: it unpickles what there is to call
            return self._client.submit(
                pickle.loads, pickled(call), key=f"{what}-{uuid.uuid4().hex}", workers=sorted(hands), pure=False
            )

    def _results(self, what: str, future: Future, one: _Try, waiting: deque[_Try]) -> list[Any]:
        """What pieces that have ended gave; nothing where they are to be done again."""
        if future.status == "finished":
            with self._naming_scheduler():
                found: list[Any] = future.result()
            return found
        if future.status != "error":  # it was taken from us, as by a scheduler that was started anew
            self._again(what, one, waiting)
            return []
        error = future.exception()
        if isinstance(error, KilledWorker):
            raise InputError(_killed(what))
        raise error

    def _recall(
        self, what: str, waiting: deque[_Try], running: dict[Future, _Try], hands: frozenset[str]
    ) -> None:  # fmt: skip
        """Take back pieces of which no worker is left that may do them."""
        for future in [future for future, one in running.items() if not one.hands & hands]:
            self._again(what, running.pop(future), waiting)
            with self._naming_scheduler():
                self._client.cancel([future], force=True)

    def _again(self, what: str, one: _Try, waiting: deque[_Try]) -> None:
        if one.number == _TRIES:
            raise InputError(_killed(what))
        waiting.appendleft(_Try(one.run, one.number + 1, frozenset()))

    @contextlib.contextmanager
    def _shared(self, values: tuple[Any, ...]) -> Iterator[tuple[Path, str]]:
        """A file of values for all pieces of a step, and its checksum."""
        assert self._probe, "the run has begun"
        path = self._probe.file.with_name(f"shared-{uuid.uuid4().hex}")
        try:
            path.write_bytes(pickled(values))
            yield path, sha256_of(path)
        finally:
            path.unlink(missing_ok=True)

    def _hands(
        self, what: str, needs: str = "", told: bool = True, ended: "queue.SimpleQueue[Future] | None" = None
    ) -> frozenset[str]:
        """Addresses of the workers that may do a step's pieces; waits where there are none.

        Nor does it wait while some have ended, such as a piece that killed all the workers there were.

        Raises:
            InputError: there are none for too long, or none that has what the step needs.
        """
        begin = 0.0
        while True:
            if time.monotonic() - self._looked >= _TICK_S:
                self._look(told)
            found = frozenset(name for name, facts in self._fit.items() if not needs or needs in facts.libraries)
            if found or (self._unfit and not told) or (ended is not None and not ended.empty()):
                return found
            if self._fit:
                raise InputError(f"{what} needs {needs}, which no worker of scheduler {self._name} has: install it")
            if not begin:
                print(f"{what}: waits for workers of scheduler {self._name}", flush=True)
                begin = time.monotonic()
            elif time.monotonic() - begin > _WAIT_S:
                raise InputError(f"scheduler {self._name} has had no workers for {_WAIT_S} s: start some")
            time.sleep(_TICK_S)

    def _look(self, told: bool) -> None:
        """See which workers there are, and look at new ones."""
        with self._naming_scheduler():
            there = self._client.nthreads()
            new = sorted(there.keys() - self._fit.keys() - self._unfit.keys())
            found: dict[str, Any] = {}
            if new:
                self._client.run(site.addsitedir, str(_ROOT), workers=new, on_error="ignore")
                found = self._client.run(look, self._probe, workers=new, on_error="return")
        self._looked = time.monotonic()
        for known in (self._fit, self._unfit):
            for address in known.keys() - there.keys():
                del known[address]  # type: ignore[attr-defined]
        for address, facts in found.items():
            self._asked[address] += 1
            if not isinstance(facts, Facts) and not isinstance(facts, _NO_PROGRAM) and self._asked[address] < _TRIES:
                continue  # it has gone meanwhile, or is asked again
            if why := _unfit(facts, self._here, there[address]):
                self._unfit[address] = why
                if told:
                    warn(f"worker {address} is left out: it {why}")
            else:
                self._fit[address] = facts

    @contextlib.contextmanager
    def _naming_scheduler(self) -> Iterator[None]:
        try:
            yield
        except (OSError, TimeoutError) as error:
            raise InputError(
                f"scheduler {self._name} was lost ({error}): start it again; the same command goes on"
            ) from None


def _unfit(facts: Any, here: Facts, threads: int) -> str:
    """Why a worker can't work, "" if it can; facts are its own, or the error instead."""
    if isinstance(facts, _NO_PROGRAM):
        return f"can't import this program ({facts}): start it with PYTHONPATH={_ROOT}, or where that folder is"
    if not isinstance(facts, Facts):
        return f"can't be asked for its facts ({type(facts).__name__}: {facts}): start it anew"
    if threads > 1:
        return f"has {threads} threads, which would do pieces at once: start it with --nthreads 1 and more --nworkers"
    return facts.unfit_for(here)


def _killed(what: str) -> str:
    return (
        f"{what}: workers that did the same piece were lost {_TRIES} times, as where memory runs out: give them more, "
        f"and start again"
    )


class _Call:
    """Pieces that a worker does as it unpickles this, one behind the other: it gets their results.

    Args:
        function, work: as of `Engine.map`.
        path, sha256: of the file of the shared arguments.
    """

    def __init__(self, function: Callable[..., Any], work: Sequence[tuple[Any, ...]], path: Path, sha256: str):
        self._arguments = function, work, path, sha256

    def __reduce__(self) -> tuple[Any, ...]:
        return _do, self._arguments


def _do(function: Callable[..., Any], work: Sequence[tuple[Any, ...]], path: Path, sha256: str) -> list[Any]:
    shared = once(unpickled_from, path, sha256)
    return [function(*arguments, *shared) for arguments in work]
