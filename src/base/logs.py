"""The logs that programs leave: lines for people, and one JSON object a line for machines."""

import json
import math
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from src.base.errors import naming

FIRST_WORD_S, NEXT_WORD_S = 5.0, 30.0  # of silence that `phase` breaks


class Follower(Protocol):
    """What hears all that a `MetricsFile` does, such as to write it in another form."""

    def follow(self, kind: str, values: Mapping[str, Any]) -> None:
        """Take a line of a kind."""

    def scored(self, step: int, part: str, labels: np.ndarray, logits: np.ndarray) -> None:
        """Take the scores of a part's rows by the network of a step, which is kept: labels [B] and logits [B]."""

    def close(self) -> None:
        """The run is over."""


class MetricsFile:
    """A file of one JSON object a line, one for each log interval and evaluation; runs append to it.

    Args:
        path: the file.
        run: name of the run, which every line carries.

    Attributes:
        followers: who hears the same.
    """

    def __init__(self, path: str, run: str):
        self.path, self.run = Path(path), run
        self.followers: list[Follower] = []

    def __enter__(self) -> "MetricsFile":
        return self

    def __exit__(self, _: Any, error: BaseException | None, *__: Any) -> None:
        """Let followers end."""
        for follower in self.followers:
            follower.close()

    def save(self, state: str) -> None:
        """Bring what is kept beside the lines to the disk, of a run in this state; nothing here."""

    def write(self, kind: str, **values: Any) -> None:
        """Append a line of a kind, such as "loss", "eval" or "end"; what is not a finite number becomes null."""
        values = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in values.items()
        }
        _append(self.path, json.dumps({"run": self.run, "kind": kind, **values}) + "\n")
        for follower in self.followers:
            follower.follow(kind, values)


def open_logs(*paths: str) -> None:
    """Make the log files and their folders, so that a place that can't be written is found before the first step.

    A last line that was cut, such as by a full disk, gets its end, or the next one would stand in the same line.

    Raises:
        OSError: one can't be made.
    """
    for path in paths:
        _append(path, "")
        with naming(path), open(path, "rb") as file:
            file.seek(max(os.path.getsize(path) - 1, 0))
            cut = file.read() not in (b"", b"\n")
        _append(path, "\n" if cut else "")


def append_line(path: str, line: str) -> None:
    """Append a line with the time to a log file."""
    _append(path, f"{datetime.now():%Y-%m-%d %H:%M:%S} {line}\n")


def _append(path: str | Path, text: str) -> None:
    with naming(path):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a", encoding="utf-8") as file:
            file.write(text)


def evaluation_line(metrics: Mapping[str, float], seconds: float) -> str:
    """An evaluation as auc.log and acc.log show it, and why there is no AUC where there is none."""
    missing = "; no auc: all rows have one label" if math.isnan(metrics.get("auc", 0.0)) else ""
    return f"EvalCallBack metric {dict(metrics)}; eval_time {seconds:.0f}s{missing}"


def figure(value: float | None, digits: int) -> str:
    """A value for people; "-" where it is not known, or not measured yet."""
    return f"{value:.{digits}f}" if value is not None and math.isfinite(value) else "-"


def speed(samples_per_s: float | None) -> str:
    """Throughput in words, also where there is none yet."""
    known = samples_per_s is not None and math.isfinite(samples_per_s)
    return f"{samples_per_s:.0f} samples/s" if known else "samples/s not measured, as the first step compiles"


@contextmanager
def phase(what: str) -> Iterator[None]:
    """Work that may take long, and is silent: if it does, a line on stderr says what is done, and again now and then.

    For work in which no process is forked, since a thread waits beside it.

    Args:
        what: such as "making the report".
    """
    done, begin = threading.Event(), time.monotonic()

    def tell() -> None:
        wait = FIRST_WORD_S
        while not done.wait(wait):
            print(f"{what}, for {time.monotonic() - begin:.0f} s so far", file=sys.stderr, flush=True)
            wait = NEXT_WORD_S

    threading.Thread(target=tell, daemon=True).start()
    try:
        yield
    finally:
        done.set()


def draws_bars() -> bool:
    """Whether a bar of progress can be seen: on a terminal, but on one of no width it would be empty."""
    return sys.stderr.isatty() and os.get_terminal_size(sys.stderr.fileno()).columns > 0


def warn(line: str) -> None:
    """Say what may be wrong, though the program goes on."""
    print(f"warning: {line}", file=sys.stderr, flush=True)
