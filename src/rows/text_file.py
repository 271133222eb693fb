"""A file of plain text: where its lines begin, and spans of them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from src.base.errors import InputError
from src.rows.block import Block, RowFile, Span
from src.rows.columns import Columns
from src.rows.lines import parse
from src.rows.text import BYTE_ORDER_MARK, is_utf8

_NEWLINE = ord("\n")
_BLOCK_BYTES = 8 << 20
_CELL_BYTES = 1 << 18
_LONGEST_LINE = 16 << 20


@dataclass(frozen=True)
class TextSpan(Span):
    """A run of whole lines.

    Attributes:
        path: the file, or the unpacked text of one.
        start, end: its bytes.
        first_line: number of its first line in its file, from 1.
    """

    path: Path
    start: int
    end: int
    first_line: int

    def blocks(self, columns: Columns) -> Iterator[Block]:
        line = self.first_line
        for text in self._texts(_BLOCK_BYTES):
            block = parse(text, columns, line)
            block.bad = [replace(row, file=self.raw) for row in block.bad]
            yield block
            line += text.count(b"\n")

    def cells(self, columns: Columns) -> Iterator[list[list[str]]]:
        return (cells_of(text, columns) for text in self._texts(_CELL_BYTES))

    def _texts(self, size: int) -> Iterator[bytes]:
        """Whole lines, about so many bytes of them at a time."""
        left, rest = self.end - self.start, b""
        with self.path.open("rb") as file:
            file.seek(self.start)
            while left > 0 or rest:
                chunk = file.read(min(size, left))
                left = left - len(chunk) if chunk else 0
                text, rest = rest + chunk, b""
                if left > 0:
                    cut = text.rfind(b"\n") + 1
                    text, rest = text[:cut], text[cut:]
                if text:
                    yield text


def cells_of(text: bytes, columns: Columns) -> list[list[str]]:
    """The text of the cells of each of `columns.names` in whole lines; odd lines are passed over."""
    places = [columns.file_names.index(name) for name in columns.names]
    rows = []
    for line in text.removesuffix(b"\n").split(b"\n"):
        try:
            cells = line.removesuffix(b"\r").decode().split(columns.separator)
        except UnicodeDecodeError:
            continue
        if len(cells) == len(columns.file_names):
            rows.append([cells[place] for place in places])
    return [list(column) for column in zip(*rows)] or [[] for _ in places]


class LineIndex:
    """Where lines begin in a raw file, known after one pass that looks at line ends alone.

    Args:
        path: raw file; it may begin with a UTF-8 byte order mark.
        every: lines between the places that are remembered.
        header: whether the first line is not a row.

    Raises:
        InputError: a line of many megabytes, or a file without line ends.
    """

    def __init__(self, path: Path, every: int = 16384, header: bool = False):
        self.header = header
        self.path, self.every = path, every
        self.size = path.stat().st_size
        self.rows = 0
        with path.open("rb") as file:
            position, last = len(BYTE_ORDER_MARK) * (file.read(3) == BYTE_ORDER_MARK), b"\n"
            file.seek(position)
            position += len(file.readline(_LONGEST_LINE)) if header else 0
            file.seek(position)
            starts, unended = [position], 0
            while chunk := file.read(_BLOCK_BYTES):
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


class TextFile(RowFile):
    """A file of lines; arguments as for `RawInput`, and the name that messages give it."""

    def __init__(self, path: Path, columns: Columns, raw: Path):
        self._index = LineIndex(path, header=columns.header)
        self.columns = _with_header(columns, path, raw) if columns.header else columns
        self.rows = self._index.rows

    def spans(self, first_row: int, last_row: int, rows: int) -> list[TextSpan]:
        return self._index.spans(first_row, last_row, rows)


def _with_header(columns: Columns, text: Path, raw: Path) -> Columns:
    """The columns in the order that the first line of a file gives."""
    with text.open("rb") as file:
        line = file.readline(_LONGEST_LINE).removeprefix(BYTE_ORDER_MARK).rstrip(b"\r\n")
    order = tuple(line.decode("utf-8", "replace").split(columns.separator))
    hint = ""
    if not is_utf8(line):
        hint = f", which is not {columns.encoding} text: a schema may name another encoding"
    elif len(order) == 1 and len(columns.names) > 1:
        hint = f", which has no {columns.separator!r} to separate columns: a schema may name another separator"
    for name in columns.names:
        if order.count(name) != 1:
            raise InputError(
                f"{raw}: its header has column {name!r} {order.count(name)} times: it must stand there once, and "
                f"the header is {columns.separator.join(order)[:200]!r}{hint}"
            )
    return replace(columns, order=order)
