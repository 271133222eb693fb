"""Ctrl-C and SIGTERM that MindSpore would lose."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def held_back() -> Iterator[Callable[[], None]]:
    """Hold Ctrl-C and SIGTERM back until the end, or until the function that this gives is called.

    For graphs that are run for the first time: while MindSpore 2.10 compiles one, it now and then loses the
    KeyboardInterrupt, so that the program runs on, and else prints some 80 lines of its own. A second signal is not
    held back. Other threads than the main one receive no signals, and nothing is held back there.

    Raises:
        KeyboardInterrupt: when the end comes, if there was a signal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    asked: list[int] = []

    def hold(number: int, frame: Any) -> None:
        if asked:
            signal.default_int_handler(number, frame)
        asked.append(number)

    # Not of those that are ignored, as SIGINT is in the background of a script, or left to the system.
    answered = [number for number in (signal.SIGINT, signal.SIGTERM) if callable(signal.getsignal(number))]
    before = {number: signal.signal(number, hold) for number in answered}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)
        before.clear()

    def release() -> None:
        restore()
        if asked:
            asked.clear()
            raise KeyboardInterrupt

    try:
        yield release
    finally:
        restore()
    release()
