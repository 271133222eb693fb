"""Where the cells of text stand whose rows are more than lines.

A cell that begins with the sign of quotes ends with the next one that is not doubled; between them may stand separators
and line ends, and two such signs for one (RFC 4180). Elsewhere the sign is one like any other. Behind the closing sign
comes a separator or a line end, or the line is no row; nor is the line of a sign that none closes within a mebibyte.
Lines that begin with the sign of comments are no rows. All this is found by compiled/cells.cc, or in Python, a hundred
times slower, where there is no C++ compiler.

Legend: B rows, S columns that are used.
"""

import ctypes
import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from src.base.native import build
from src.rows.cells.column import TextColumn
from src.rows.cells.reasons import BEHIND_QUOTE, CONTROL, NOT_CLOSED
from src.rows.columns import Columns
from src.rows.keys import PAD

SOURCE = Path(__file__).parents[1] / "compiled/cells.cc"
_FLAGS = ("-std=c++17", "-O3", "-shared", "-fPIC")
LONGEST_QUOTED = 1 << 20


@dataclass(frozen=True)
class Found:
    """The rows of some text.

    Attributes:
        buffer: the text, between PAD bytes, where pairs of quotes within a cell are one.
        starts, ends: of the cells of `columns.read_names`, places in the buffer, [S, B].
        counts: of each row's cells, or what is wrong with it: see `reasons`; [B].
        begins: the byte of the text at which each row begins, [B + 1]: the last one for a row that is not whole.
        lines: the number of line ends before these, [B + 1].
    """

    buffer: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    counts: np.ndarray
    begins: np.ndarray
    lines: np.ndarray

    def columns(self, rows: np.ndarray) -> list[TextColumn]:
        """The cells of some rows."""
        return [TextColumn(self.buffer, starts[rows], ends[rows], True) for starts, ends in zip(self.starts, self.ends)]


def find_cells(text: bytes, columns: Columns, last: bool = True, used: bool = True) -> Found:
    """The rows of a text.

    Args:
        text: it; in UTF-8.
        columns: what the rows hold.
        last: whether nothing follows; else what the text ends within is left for the next one.
        used: whether the cells' places are wanted, and not only where rows begin.
    """
    buffer = np.zeros(len(text) + 2 * PAD, np.uint8)
    buffer[PAD:-PAD] = np.frombuffer(text, np.uint8)
    slot_of = {name: slot for slot, name in enumerate(columns.read_names)} if used else {}
    slots = np.array([slot_of.get(name, -1) for name in columns.file_names], np.int32)
    most = text.count(b"\n") + 1
    starts, ends = (np.zeros((len(slot_of), most), np.int64) for _ in range(2))
    begins, lines, counts = (np.zeros(most + 1, kind) for kind in (np.int64, np.int64, np.int32))
    separator, signs = (
        columns.separator.encode(),
        bytes(ord(sign or "\0") for sign in (columns.quotes, columns.comment)),
    )
    arrays = (slots, starts, ends, begins, lines, counts)
    if library := _library():
        rest = np.zeros(2, np.int64)
        places = [ctypes.c_void_p(array.ctypes.data) for array in (*arrays, rest)]
        library.FindCells.restype = ctypes.c_int64
        rows = library.FindCells(
            ctypes.c_void_p(buffer.ctypes.data + PAD), ctypes.c_int64(len(text)), int(last), separator,
            len(separator), signs, places[0], len(slots), ctypes.c_int64(most), *places[1:],
        )  # fmt: skip
        begins[rows], lines[rows] = rest
    else:
        rows = _Finder(buffer, len(text), last, separator, signs).find(*arrays)
    filled = slice(rows)
    return Found(
        buffer, starts[:, filled] + PAD, ends[:, filled] + PAD, counts[filled], begins[: rows + 1], lines[: rows + 1]
    )


@functools.cache
def _library() -> ctypes.CDLL | None:
    path = build(SOURCE, _FLAGS, "the finder of cells", "cells are found by Python, slower than by compiled code")
    return ctypes.CDLL(str(path)) if path else None


class _Open(Exception):
    """The text ends before it is known what a cell is, and more may follow."""


class _Finder:
    """The same as compiled/cells.cc."""

    def __init__(self, buffer: np.ndarray, size: int, last: bool, separator: bytes, signs: bytes):
        self.buffer, self.text, self.last = buffer, buffer[PAD : PAD + size].tobytes(), last
        self.separator, self.quote, self.comment = separator, signs[:1], signs[1:]
        self.place = self.line = self.start = self.end = self.odd = 0
        self.ends_row = False

    def find(self, slots, starts, ends, begins, lines, counts) -> int:
        rows = 0
        while self.place < len(self.text):
            begin, line, count, self.odd = self.place, self.line, 0, 0
            try:
                if self.comment != b"\0" and self.text.startswith(self.comment, begin):
                    self._skip_line()
                    begins[rows], lines[rows] = self.place, self.line
                    continue
                self.ends_row = False
                while not self.ends_row:
                    self._next()
                    if count < len(slots) and slots[count] >= 0:
                        starts[slots[count], rows], ends[slots[count], rows] = self.start, self.end
                    count += 1
            except _Open:
                break
            begins[rows], lines[rows], counts[rows] = begin, line, self.odd or count
            rows += 1
            begins[rows], lines[rows] = self.place, self.line
        return rows

    def _next(self) -> None:
        self.start = self.place
        if self.quote != b"\0" and self.text.startswith(self.quote, self.place):
            self._quoted()
        else:
            found = [at for sign in (self.separator, b"\n") if (at := self.text.find(sign, self.place)) >= 0]
            self._end_at(min(found, default=len(self.text)))
            if self.ends_row and self.text[self.start : self.end].endswith(b"\r"):
                self.end -= 1
            self._see_control(self.text[self.start : self.end])

    def _end_at(self, place: int) -> None:
        """End a cell before a separator, a line end or the end of the text."""
        if place == len(self.text) and not self.last:
            raise _Open
        self.end, self.ends_row = place, self.text[place : place + 1] in (b"\n", b"")
        self.line += self.ends_row
        self.place = min(place + (1 if self.ends_row else len(self.separator)), len(self.text))

    def _see_control(self, cell: bytes) -> None:
        if min(cell, default=255) < ord("\t"):
            self.odd = self.odd or CONTROL

    def _quoted(self) -> None:
        text, first = self.text, self.place + 1
        close = text.find(self.quote, first)
        while close >= 0 and text.startswith(self.quote, close + 1):
            close = text.find(self.quote, close + 2)
        if close < 0 or close - self.place > LONGEST_QUOTED:
            if not self.last and len(text) - self.place <= LONGEST_QUOTED:
                raise _Open
            self.odd = NOT_CLOSED
            return self._skip_line()
        cell, behind = text[first:close], close + 1
        ends_line = text.startswith(b"\r\n", behind)
        if behind + len(self.separator) >= len(text) and not self.last:
            raise _Open
        if ends_line or text[behind:] == b"\r":
            behind += 1
        self.line += cell.count(b"\n")
        if not (behind == len(text) or text.startswith((self.separator, b"\n"), behind)):
            self.odd, self.place = BEHIND_QUOTE, behind
            return self._skip_line()
        self._see_control(cell)
        self._end_at(behind)
        whole = cell.replace(self.quote * 2, self.quote)
        self.start, self.end = first, first + len(whole)
        self.buffer[PAD + first : PAD + self.end] = np.frombuffer(whole, np.uint8)
        return None

    def _skip_line(self) -> None:
        found = self.text.find(b"\n", self.place)
        if found < 0 and not self.last:
            raise _Open
        self.place = found + 1 if found >= 0 else len(self.text)
        self.line += 1
        self.ends_row = True
