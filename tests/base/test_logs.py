"""What people see of a program at work: bars where they can be seen, and lines that do not run into them."""

import fcntl
import os
import pty
import struct
import sys
import termios
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress

from tqdm import tqdm

from src.base.logs import draws_bars
from src.base.signs import SignOfLife


@contextmanager
def terminal():
    """Standard output and errors are a terminal of 80 columns, whose other end this is."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with open(theirs, "w", encoding="utf-8") as stream:
        os.set_blocking(ours, False)
        with redirect_stdout(stream), redirect_stderr(stream):
            yield ours
    os.close(ours)


def test_a_terminal_of_no_width_gets_lines_in_place_of_bars():
    with terminal():
        assert draws_bars()
        fcntl.ioctl(sys.stderr.fileno(), termios.TIOCSWINSZ, struct.pack("HHHH", 0, 0, 0, 0))
        assert not draws_bars()


def test_a_line_about_a_graph_does_not_run_into_the_bar():
    with terminal() as shown:
        with tqdm(total=9, file=sys.stderr):
            SignOfLife()._tell("a training step")
        text = b""
        with suppress(BlockingIOError):
            while True:
                text += os.read(shown, 1 << 16)
    lines = text.decode().split("\r\n")
    assert "compiling the graph of a training step" in [line.split("\r")[-1].strip() for line in lines]
