"""Signals are held back while a graph is compiled or runs, and none is lost."""

# ruff: noqa: PT012 - how far a block came before it was stopped is what is tested

import os
import signal
import threading

import pytest

from src.base.stops import held_back


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
