"""A file of plain text: where its lines begin, and spans of them."""

import difflib
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from src.base.errors import InputError
from src.base.files import read_ahead
from src.rows.block import Block, RowFile, Span
from src.rows.cells.finding import Found, find_cells
from src.rows.columns import Columns
from src.rows.parsing import cells_of, names_in, parse, parse_rows
from src.rows.text import BYTE_ORDER_MARK, is_utf8

_NEWLINE = ord("\n")
_BLOCK_BYTES = 8 << 20
_AHEAD = 3  # blocks that are fetched from the disk while one is read
_CELL_BYTES = 1 << 18
_LONGEST_LINE = 16 << 20
_HEADER_BYTES = 1 << 20
_TAIL_BYTES = 1 << 16
Read = TypeVar("Read")


@dataclass(frozen=True)
class TextSpan(Span):
    """A run of whole rows of text.

    Attributes:
        path: the file, or the unpacked text of one.
        start, end: its bytes.
        first_line: number of its first line in its file, from 1.
        by_lines: whether each row is a line.
    """

    path: Path
    start: int
    end: int
    first_line: int
    by_lines: bool = True

    def blocks(self, columns: Columns) -> Iterator[Block]:
        def block_of(text: bytes, line: int, last: bool) -> tuple[Block, int, int]:
            if self.by_lines:
                block = parse(text, columns, line)
                return block, len(text), len(block.labels) + len(block.bad)  # each a line
            return parse_rows(text, columns, line, last)

        for block in self._read(_BLOCK_BYTES, block_of):
            block.bad = [replace(row, file=self.raw) for row in block.bad]
            yield block

    def cells(self, columns: Columns) -> Iterator[list[list[str]]]:
        return self._read(_CELL_BYTES, lambda text, _, last: cells_of(text, columns, last))

    def _read(self, size: int, work: Callable[[bytes, int, bool], tuple[Read, int, int]]) -> Iterator[Read]:
        """What some work gives for the text, about so many bytes of it at a time.

        The work gets text, the number of its first line, and whether it is the last text; it says how many bytes and
        lines it took.
        """
        line, left, rest = self.first_line, self.end - self.start, b""
        with self.path.open("rb") as file:
            file.seek(self.start)
            while left > 0 or rest:
                read_ahead(file, self.end - left, min(_AHEAD * size, left))
                chunk = file.read(min(size, left))
                left = left - len(chunk) if chunk else 0
                text, rest = rest + chunk, b""
                if self.by_lines and left > 0:
                    cut = text.rfind(b"\n") + 1
                    text, rest = text[:cut], text[cut:]
                if text:
                    found, taken, lines = work(text, line, left == 0)
                    yield found
                    line, rest = line + lines, text[taken:] + rest
                    if left == 0 and taken == 0:
                        return


class LineIndex:
    """Where lines begin in a raw file, known after one pass that looks at line ends alone.

    Args:
        path: raw file; it may begin with a UTF-8 byte order mark.
        every: lines between the places that are remembered.
        header: whether the first line is not a row.
        end: the byte behind the last row, by default the file's size.
        sign: looked for in the rows.

    Attributes:
        has_sign: whether it stands there.

    Raises:
        InputError: a line of many megabytes, or a file without line ends.
    """

    def __init__(
        self, path: Path, every: int = 16384, header: bool = False, end: int | None = None, sign: str = ""
    ):  # fmt: skip
        self.header, self.has_sign = header, False
        self.path, self.every = path, every
        self.size = path.stat().st_size if end is None else end
        self.rows = 0
        with path.open("rb") as file:
            position, last = len(BYTE_ORDER_MARK) * (file.read(3) == BYTE_ORDER_MARK), b"\n"
            file.seek(position)
            position += len(file.readline(_LONGEST_LINE)) if header else 0
            file.seek(position)
            starts, unended = [position], 0
            read_ahead(file, position, _AHEAD * _BLOCK_BYTES)
            while chunk := file.read(min(_BLOCK_BYTES, max(self.size - position, 0))):
                read_ahead(file, position + len(chunk), _AHEAD * _BLOCK_BYTES)
                self.has_sign = self.has_sign or (sign != "" and sign.encode() in chunk)
                found = np.flatnonzero(np.frombuffer(chunk, np.uint8) == _NEWLINE)
                unended = len(chunk) - int(found[-1]) - 1 if len(found) else unended + len(chunk)
                if unended > _LONGEST_LINE:
                    raise InputError(
                        f"{path}: line {self.rows + len(found) + header + 1} has more than {_LONGEST_LINE >> 20} MiB: "
                        f"give text of a row a line"
                    )
                first = -self.rows % every or every  # line ends still to come before the next place
                starts.extend((found[first - 1 :: every] + position + 1).tolist())
                self.rows += len(found)
                position, last = position + len(chunk), chunk[-1:]
        if last != b"\n":
            self.rows += 1
        self.starts = starts

    def offset(self, row: int) -> int:
        """The byte at which a row (from 0) begins; the file's size for the row behind the last one."""
        if row >= self.rows:
            return self.size
        with self.path.open("rb") as file:
            file.seek(self.starts[row // self.every])
            for _ in range(row % self.every):
                file.readline()
            return file.tell()

    def spans(self, first_row: int, last_row: int, rows: int) -> list[TextSpan]:
        """Rows first_row up to, not including, last_row, in spans of `rows` rows, the last one shorter."""
        bounds = [*range(first_row, last_row, rows), last_row]
        offsets = [self.offset(bound) for bound in bounds]
        return [
            TextSpan(first, last - first, self.path, start, end, first + 1 + self.header)
            for first, last, start, end in zip(bounds, bounds[1:], offsets, offsets[1:])
        ]


class RowIndex:
    """Where rows begin in a raw file, and at which lines, where they may take several or none; arguments as above."""

    def __init__(self, path: Path, columns: Columns, end: int, every: int = 16384):
        self.path, self.columns, self.every, self.size = path, columns, every, end
        self.rows, self.starts = 0, list[tuple[int, int]]()
        with path.open("rb") as file:
            begin = len(BYTE_ORDER_MARK) * (file.read(3) == BYTE_ORDER_MARK)
            file.seek(begin)
            line = 1
            if columns.header:
                _, taken, line = names_in(file.read(min(_HEADER_BYTES, end)), columns)
                begin, line = begin + taken, line + 1
        for found, place, before in self._rows(begin, line):
            firsts = np.arange(-self.rows % every, len(found.counts), every)
            begins, lines = found.begins[firsts] + place, found.lines[firsts] + before
            self.starts += zip(begins.tolist(), lines.tolist())
            self.rows += len(found.counts)

    def _rows(self, place: int, line: int) -> Iterator[tuple[Found, int, int]]:
        """The rows from a place on, some at a time, with the place and line that theirs count from."""
        rest = b""
        with self.path.open("rb") as file:
            file.seek(place)
            while place + len(rest) < self.size:
                read_ahead(file, place + len(rest), _AHEAD * _BLOCK_BYTES)
                rest += file.read(min(_BLOCK_BYTES, self.size - place - len(rest)))
                found = find_cells(rest, self.columns, place + len(rest) >= self.size, used=False)
                yield found, place, line
                taken = int(found.begins[-1])
                place, line, rest = place + taken, line + int(found.lines[-1]), rest[taken:]

    def place(self, row: int) -> tuple[int, int]:
        """The byte and the line at which a row (from 0) begins; the file's size for the row behind the last one."""
        if row >= self.rows:
            return self.size, 0
        left = row % self.every
        for found, place, line in self._rows(*self.starts[row // self.every]):
            if left < len(found.counts):
                return place + int(found.begins[left]), line + int(found.lines[left])
            left -= len(found.counts)
        raise AssertionError("a row that was found is there again")

    def spans(self, first_row: int, last_row: int, rows: int) -> list[TextSpan]:
        """As for `LineIndex`."""
        bounds = [*range(first_row, last_row, rows), last_row]
        places = [self.place(bound) for bound in bounds]
        return [
            TextSpan(first, last - first, self.path, start, end, line, by_lines=False)
            for first, last, (start, line), (end, _) in zip(bounds, bounds[1:], places, places[1:])
        ]


class TextFile(RowFile):
    """A file of text; arguments as for `RawInput`, and the name that messages give it.

    Blank lines at its end are passed over, unless a row of one column may be blank.
    """

    def __init__(self, path: Path, columns: Columns, raw: Path):
        self.columns = _with_header(columns, path, raw) if columns.header else columns
        self.names = self.columns.file_names
        if self.columns.split and self.columns.split.column not in self.names:
            raise InputError(
                f"split: {raw} has no column {self.columns.split.column!r}: its columns are "
                f"{', '.join(self.names)[:200]}"
            )
        end = _end_of_rows(path) if len(self.columns.file_names) > 1 else path.stat().st_size
        self._index: LineIndex | RowIndex
        if not columns.comment:
            self._index = LineIndex(path, header=columns.header, end=end, sign=columns.quotes)
        if columns.comment or self._index.has_sign:
            self._index = RowIndex(path, self.columns, end)
        self.rows = self._index.rows

    def spans(self, first_row: int, last_row: int, rows: int) -> list[TextSpan]:
        return self._index.spans(first_row, last_row, rows)


def _end_of_rows(path: Path) -> int:
    """The byte behind the last line that is not blank."""
    with path.open("rb") as file:
        end = file.seek(0, 2)
        while end > 0:
            begin = max(end - _TAIL_BYTES, 0)
            file.seek(begin)
            tail = file.read(end - begin)
            if kept := tail.rstrip(b"\r\n"):
                line_end = tail.find(b"\n", len(kept))
                return begin + (line_end + 1 if line_end >= 0 else len(tail))
            end = begin
    return 0


def _looks_like_utf8(line: bytes, encoding: str) -> bool:
    """Whether a line that was read in another encoding stood in the file as UTF-8."""
    try:
        stood = line.decode().encode(encoding)
    except UnicodeError:
        return False
    return stood != line and not stood.isascii() and is_utf8(stood)


def _with_header(columns: Columns, text: Path, raw: Path) -> Columns:
    """The columns in the order that the first line of a file gives."""
    with text.open("rb") as file:
        begin = file.read(_HEADER_BYTES).removeprefix(BYTE_ORDER_MARK)
    if not begin.strip():
        raise InputError(f"{raw} is empty: it must hold a header and rows")
    order, taken, _ = names_in(begin, columns)
    hint = ""
    if begin.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        raise InputError(f"{raw} is UTF-16 text, as Windows' programs write it: say encoding: utf-16 in the --schema")
    if not is_utf8(begin[:taken]):
        hint = f", which is not {columns.encoding} text: a schema may name another encoding"
    elif _looks_like_utf8(begin[:taken], columns.encoding):
        hint = f", which is utf-8 text read as {columns.encoding}: leave encoding out of the schema"
    elif len(order) == 1 and len(columns.names) > 1:
        hint = f", which has no {columns.separator!r} to separate columns: a schema may name another separator"
    for name in columns.read_names:
        if order.count(name) != 1:
            alike = [one for one in order if one.strip().casefold() == name.casefold()]
            alike += difflib.get_close_matches(name, order, 1, 0.7)
            hint = hint or (f"; did you mean {alike[0]!r}?" if alike and name not in order else "")
            raise InputError(
                f"{raw}: its header has column {name!r} {order.count(name)} times: it must stand there once, and "
                f"the header is {columns.separator.join(order)[:200]!r}{hint}"
            )
    return replace(columns, order=order)
