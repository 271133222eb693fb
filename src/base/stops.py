"""Ctrl-C and SIGTERM that Python's imports would make a traceback of, and those that MindSpore would lose."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from src.base.machine import untried_versions, wrong_versions

STOPPED = "stopped by the keyboard or a signal"


def end_at_once() -> None:
    """Let Ctrl-C and SIGTERM end this process with a line until `interrupt` is called; and end it at once, with a line
    that says what to do, where Python or numpy is one with which it would fail.

    For a program's imports, which take a second: nothing is begun yet, and a KeyboardInterrupt among them would be a
    traceback, or an ImportError of whoever catches it.
    """
    if line := wrong_versions():
        print(f"error: {line}", file=sys.stderr, flush=True)
        sys.exit(2)
    if line := untried_versions():
        print(f"warning: {line}", file=sys.stderr, flush=True)
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
        if signal.getsignal(number) == usual:  # else it is ignored, as SIGINT is in the background of a script
            signal.signal(number, _end)


def interrupt() -> None:
    """Let Ctrl-C and SIGTERM raise KeyboardInterrupt.

    Both alike: while a graph runs, MindSpore turns the keyboard's SIGINT into SIGTERM.
    """
    if signal.getsignal(signal.SIGINT) == _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def _end(*_: Any) -> None:
    os.write(2, f"{STOPPED}\n".encode())
    os._exit(128 + signal.SIGINT)


@contextmanager
def answered_alike() -> Iterator[None]:
    """Let SIGTERM, where it would end the process, interrupt as Ctrl-C does: MindSpore makes it of Ctrl-C in a graph.

    For programs of others, such as notebooks, whose handler is there again at the end; the programs here do so from
    their beginning. Other threads than the main one receive no signals.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def held_back() -> Iterator[None]:
    """Hold Ctrl-C and SIGTERM back until the end.

    For graphs while they run: a KeyboardInterrupt within may leave MindSpore 2.10's buffers half done, so that the
    process aborts. And while it compiles one, it now and then loses the KeyboardInterrupt, so that the program runs on,
    and else prints some 80 lines of its own. A second signal is not held back. Other threads than the main one receive
    no signals, and nothing is held back there.

    Raises:
        KeyboardInterrupt: when the end comes, if there was a signal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked: list[int] = []

    def hold(number: int, frame: Any) -> None:
        if asked:
            signal.default_int_handler(number, frame)
        asked.append(number)

    # Not of those that are ignored, as SIGINT is in the background of a script, or left to the system.
    answered = [number for number in (signal.SIGINT, signal.SIGTERM) if callable(signal.getsignal(number))]
    before = {number: signal.signal(number, hold) for number in answered}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if asked:
        raise KeyboardInterrupt
