"""Signals are held back while a graph is compiled or runs, and none is lost."""

# ruff: noqa: PT012 - how far a block came before it was stopped is what is tested

import os
import signal
import threading
import time

import pytest

from src.base.stops import held_back, take_no_signals


@pytest.fixture(autouse=True)
def _handlers(interrupting):
    """Both signals are answered, and are again at the end."""
    yield
    assert signal.getsignal(signal.SIGTERM) is signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_counts_at_the_end(number):
    reached = []
    with pytest.raises(KeyboardInterrupt), held_back():
        os.kill(os.getpid(), number)
        reached.append(1)
    assert reached == [1]


def test_a_second_signal_counts_at_once():
    reached = []
    with pytest.raises(KeyboardInterrupt), held_back():
        os.kill(os.getpid(), signal.SIGINT)
        reached.append(1)
        os.kill(os.getpid(), signal.SIGTERM)
        reached.append(2)
    assert reached == [1]


def test_signals_off_this_thread_count_at_the_end_or_are_another_ones():
    """None comes to the thread itself, whatever its number, but those of its own doing; a second one still counts."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())  # what started the tests may have blocked some
    for number in (signal.SIGINT, signal.SIGTERM):
        blocked = set()
        with pytest.raises(KeyboardInterrupt), held_back(off_thread=True):
            signal.raise_signal(number)  # to this thread
            blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        assert {signal.SIGINT, signal.SIGTERM, signal.SIGALRM, signal.SIGCHLD} < blocked
        assert signal.SIGSEGV not in blocked
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before < blocked
    reached, end = [], threading.Event()
    other = threading.Thread(target=end.wait)
    other.start()
    with pytest.raises(KeyboardInterrupt), held_back(off_thread=True):
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.pthread_kill(other.ident, number)
            reached.append(number)
        while True:
            time.sleep(0.01)
    end.set()
    other.join()
    assert reached[0] == signal.SIGINT


def test_threads_that_take_no_signals_start_others_that_take_none():
    found = []

    def look():
        found.append(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()))

    def work():
        take_no_signals()
        look()
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    look()
    assert found == [True, True, False]


def test_an_error_goes_before_a_signal():
    with pytest.raises(ValueError, match="first"), held_back():
        os.kill(os.getpid(), signal.SIGTERM)
        raise ValueError("first")


def test_other_threads_are_left_alone():
    reached = []

    def work():
        with held_back():
            reached.append(signal.getsignal(signal.SIGINT) is signal.default_int_handler)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert reached == [True]


def test_an_ignored_signal_stays_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with held_back():
        os.kill(os.getpid(), signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
