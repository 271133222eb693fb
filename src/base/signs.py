"""Signs of life: what a process of several writes every second, and whether it hangs by what another one reads of it.

A sign is a small file with counters, and the one of them that must change within a time limit:

    {"beat": 41, "done": 17, "step": 12, "expects": "done"}

A beat of a thread of its own is expected while the process works by itself. While it computes together with others
something must get done: its thread goes on where it waits for them in vain. While MindSpore may compile, which takes
as long as it takes, and lets no other thread work, the process is expected to use processor time, or to beat. Nothing
is expected of it while it ends.
"""

import atexit
import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

_SECONDS_BETWEEN_BEATS = 1.0
_COMPILES = "processor time"  # or a beat


def processor_time(process: int) -> int | None:
    """Ticks of the processor that a process and those that it started have used so far; None if there is none."""
    try:
        # Behind its name, which may hold anything.
        found = Path(f"/proc/{process}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        threads = Path(f"/proc/{process}/task").glob("*/children")
        began = [child for thread in threads for child in thread.read_text(encoding="ascii").split()]
    except OSError:
        return None
    return sum(map(int, found[11:15])) + sum(processor_time(int(child)) or 0 for child in began)


def sign_of(folder: Path, rank: int) -> Path:
    """The file of a rank's sign."""
    return folder / f"rank_{rank}.json"


class SignOfLife:
    """A process's own sign.

    Args:
        path: its file; None for a process of which nobody looks for signs.
    """

    def __init__(self, path: Path | None = None):
        self.path = path
        self.beat = self.done = self.step = 0
        self.expects: str | None = None
        self.writing = threading.Lock()
        if path:
            self._write()
            threading.Thread(target=self._beat, daemon=True).start()
            atexit.register(self._expect_nothing)

    def begin_step(self) -> None:
        """A training step begins; the first one compiles."""
        if not self.step:
            self._tell("a training step")
        self._expect("done" if self.step else _COMPILES)

    def end_step(self, step: int) -> None:
        """The training step of this number, from 1, has ended."""
        self.done, self.step = self.done + 1, step
        self._expect("beat")

    @contextlib.contextmanager
    def work(self, compiles: bool) -> Iterator[None]:
        """Work together with others within; whether MindSpore may compile meanwhile."""
        before = self.expects
        if compiles:
            self._tell("an evaluation")
        self._expect(_COMPILES if compiles else "done")
        yield
        self.done += 1
        self._expect(before)

    def _tell(self, graph: str) -> None:
        """Say what takes some seconds, in which no thread of this process could; of several, the first one does."""
        if self.path in (None, sign_of(Path(self.path or "").parent, 0)):
            tqdm.write(f"compiling the graph of {graph}", file=sys.stdout)  # which takes a bar out of its way
            sys.stdout.flush()

    def _expect(self, what: str | None) -> None:
        told = what == self.expects or {what, self.expects} == {"beat", "done"}
        self.expects = what
        if not told:  # at once: a process that hangs before its next beat would have none expected
            self._write()

    def _beat(self) -> None:
        while True:
            time.sleep(_SECONDS_BETWEEN_BEATS)
            self.beat += 1
            self._write()

    def _write(self) -> None:
        if self.path is None:
            return
        new = self.path.with_suffix(".new")
        with self.writing, contextlib.suppress(OSError):  # a full disk is told by what matters more
            values = {name: getattr(self, name) for name in ("beat", "done", "step", "expects")}
            new.write_text(json.dumps(values), encoding="utf-8")
            os.replace(new, self.path)

    def _expect_nothing(self) -> None:
        """At the end, when threads are no more, MindSpore takes leave of the other processes."""
        self._expect(None)


class Watch:
    """Looks at the signs of some ranks, and tells whether one hangs, by this process's own clock.

    Args:
        folder: of the signs, and of rank_0.pid and so on, files with the numbers of the processes.
        ranks: their numbers.
        timeout_s: within which what is expected must happen.
        of_all: whether these are all ranks of a run. If not, they may wait for one elsewhere that does something by
            itself, and only those without a beat hang.
    """

    def __init__(self, folder: Path, ranks: Sequence[int], timeout_s: float, of_all: bool = True):
        self.of_all = of_all
        self.folder, self.ranks, self.timeout_s = folder, ranks, timeout_s
        self.signs: dict[int, dict[str, Any]] = {}
        self.used: dict[int, int | None] = {}  # processor time of ranks that compile
        self.changed: dict[tuple[int, str], float] = {}  # when a rank's counter was seen to change, or to be awaited

    def hanging(self, now: float) -> tuple[int, str] | None:
        """A rank that hangs, and how, in words; None for none. To be asked again and again, at growing times."""
        for rank in self.ranks:
            self._look(rank, now)
        stopped = [rank for rank in self.signs if self._is_late(rank, "beat", now)]
        if stopped:
            return stopped[0], f"rank {stopped[0]} has given no sign of life for {self.timeout_s:.0f} s"
        # One that does something by itself, such as a callback of the user's, is waited for.
        waiting = [rank for rank in self.signs if self._is_late(rank, "done", now)]
        if waiting and len(waiting) == len(self.ranks) and self.of_all:
            least = min(waiting, key=lambda rank: (self.signs[rank]["done"], rank))
            step = self.signs[least]["step"]
            return least, f"ranks wait in vain: for {self.timeout_s:.0f} s rank {least} has stood behind step {step}"
        return None

    def have_begun(self) -> bool:
        """Whether a rank has ended a training step."""
        return any(sign["step"] > 0 for rank in self.ranks if (sign := self._sign(rank)))

    def _sign(self, rank: int) -> dict[str, Any] | None:
        try:
            return dict(json.loads(sign_of(self.folder, rank).read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return None

    def _look(self, rank: int, now: float) -> None:
        if (sign := self._sign(rank)) is None:
            return
        before = self.signs.get(rank, {})
        for name in ("beat", "done"):
            if sign[name] != before.get(name) or sign["expects"] != before.get("expects"):
                self.changed[rank, name] = now
        if sign["expects"] == _COMPILES and (used := self._used(rank)) != self.used.get(rank):
            self.used[rank] = used
            self.changed[rank, "beat"] = now
        self.signs[rank] = sign

    def _used(self, rank: int) -> int | None:
        try:
            return processor_time(int(sign_of(self.folder, rank).with_suffix(".pid").read_text(encoding="ascii")))
        except (OSError, ValueError):
            return None

    def _is_late(self, rank: int, name: str, now: float) -> bool:
        expects = self.signs[rank]["expects"]
        awaited = expects == "done" or (name == "beat" and expects == "beat")
        if name == "beat" and expects == _COMPILES:
            awaited = self.used.get(rank) is not None  # else it is not known
        return awaited and now - self.changed[rank, name] > self.timeout_s
