"""Ctrl-C and SIGTERM that Python's imports would make a traceback of, and those that MindSpore would lose."""

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from src.base.machine import untried_versions, wrong_versions

STOPPED = "stopped by the keyboard or a signal"


# A thread's own doing; and what stops or ends, without a handler, a process in which nothing moves.
_STAY = (
    signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP, signal.SIGSYS, signal.SIGABRT,
    signal.SIGQUIT, signal.SIGTSTP, signal.SIGCONT,
)  # fmt: skip
_libc = ctypes.PyDLL(None)  # signal.pthread_sigmask takes 50 microseconds to make all these into sets of Python's
_Signals = ctypes.c_ulong * 16
_of_others = _Signals()
_libc.sigfillset(_of_others)
for _number in _STAY:
    _libc.sigdelset(_of_others, int(_number))


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


def take_no_signals() -> None:
    """Leave signals to other threads from now on, here and in the threads that this one starts.

    For those that read by MindSpore's pipeline of data, which gives up, with lines of its own, where one comes to them.
    """
    _libc.pthread_sigmask(int(signal.SIG_BLOCK), _of_others, None)


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
def held_back(off_thread: bool = False) -> Iterator[None]:
    """Hold Ctrl-C and SIGTERM back until the end.

    For graphs while they run: a KeyboardInterrupt within may leave MindSpore 2.10's buffers half done, so that the
    process aborts. And while it compiles one, it now and then loses the KeyboardInterrupt, so that the program runs on,
    and else prints some 80 lines of its own. A second signal is not held back, if a thread is there to take it. Other
    threads than the main one receive no signals, and nothing is held back there.

    Args:
        off_thread: whether no signal at all may come to this thread, but to others or at the end: where oneDNN
            multiplies matrices on it. Its product of float32 has the stack pointer in a page of the heap, where the
            frame of a signal, some kilobytes, is written over what lies below. Processes that are started within would
            inherit that; on a CPU, MindSpore starts none.

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
    mask = _Signals()
    if off_thread:
        _libc.pthread_sigmask(int(signal.SIG_BLOCK), _of_others, mask)
    try:
        yield
    finally:
        try:
            if off_thread:  # what came meanwhile comes to `hold` now
                _libc.pthread_sigmask(int(signal.SIG_SETMASK), mask, None)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    if asked:
        raise KeyboardInterrupt
