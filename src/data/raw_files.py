"""Raw files: where their lines begin, and runs of lines to be read apart from each other."""

import gzip
import lzma
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from src.base.errors import InputError
from src.data.lines import BadRow, Block, Columns, parse

REJECTS = "rejected_rows.txt"
_NAMES = ("train.txt", "train.txt.gz", "train.txt.xz")
_NEWLINE = ord("\n")
_BLOCK_BYTES = 8 << 20
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_OPENERS: dict[str, Any] = {".gz": gzip.open, ".xz": lzma.open}


@dataclass(frozen=True)
class Span:
    """A run of whole lines in a raw file.

    Attributes:
        path: the file.
        start, end: its bytes.
        first_row: number of its first line among all rows of all files, from 0.
        rows: how many lines.
        first_line: number of its first line in its file, from 1.
    """

    path: Path
    start: int
    end: int
    first_row: int
    rows: int
    first_line: int


class LineIndex:
    """Where lines begin in a raw file, known after one pass that looks at line ends alone.

    Args:
        path: raw file; it may begin with a UTF-8 byte order mark.
        every: lines between the places that are remembered.
        header: whether the first line is not a row.
    """

    def __init__(self, path: Path, every: int = 16384, header: bool = False):
        self.header = header
        self.path, self.every = path, every
        self.size = path.stat().st_size
        self.rows = 0
        with path.open("rb") as file:
            position, last = len(_BYTE_ORDER_MARK) * (file.read(3) == _BYTE_ORDER_MARK), b"\n"
            file.seek(position)
            position += len(file.readline()) if header else 0
            file.seek(position)
            starts = [position]
            while chunk := file.read(_BLOCK_BYTES):
                found = np.flatnonzero(np.frombuffer(chunk, np.uint8) == _NEWLINE)
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

    def spans(self, first_row: int, last_row: int, rows: int, rows_before: int = 0) -> list[Span]:
        """Rows first_row up to, not including, last_row, in spans of `rows` rows, the last one shorter.

        Rows_before is the number of rows in the files before this one.
        """
        bounds = [*range(first_row, last_row, rows), last_row]
        offsets = [self.offset(bound) for bound in bounds]
        return [
            Span(self.path, start, end, rows_before + first, last - first, first + 1 + self.header)
            for first, last, start, end in zip(bounds, bounds[1:], offsets, offsets[1:])
        ]


def read_span(span: Span, columns: Columns) -> Iterator[Block]:
    """The blocks of a span of lines, in order."""
    line, left, rest = span.first_line, span.end - span.start, b""
    with span.path.open("rb") as file:
        file.seek(span.start)
        while left > 0 or rest:
            chunk = file.read(min(_BLOCK_BYTES, left))
            left = left - len(chunk) if chunk else 0
            text, rest = rest + chunk, b""
            if left > 0:
                cut = text.rfind(b"\n") + 1
                text, rest = text[:cut], text[cut:]
            if text:
                yield parse(text, columns, line)
                line += text.count(b"\n")


class RawFiles:
    """The rows of several raw files, one behind the other.

    Args:
        indexes: of the files, in order.
    """

    def __init__(self, indexes: Sequence[LineIndex]):
        self.indexes = list(indexes)
        self.rows = sum(index.rows for index in indexes)

    def spans(self, first_row: int, last_row: int, rows: int) -> list[Span]:
        """Rows first_row up to, not including, last_row, in spans of at most `rows` rows of one file."""
        found: list[Span] = []
        before = 0
        for index in self.indexes:
            first, last = max(first_row - before, 0), min(last_row - before, index.rows)
            if first < last:
                found += index.spans(first, last, rows, before)
            before += index.rows
        return found


def is_packed(path: Path) -> bool:
    """Whether a file is compressed, going by its name."""
    return path.suffix in _OPENERS


def unpacked(path: Path, folder: Path) -> Path:
    """The file itself, or for .gz and .xz its unpacked text in the folder, where it stays for a later run.

    Lines of a compressed file can't be found again without reading all before them, hence the unpacking.

    Raises:
        InputError: the file can't be unpacked.
    """
    if not is_packed(path):
        return path
    target = folder / f"{path.name}.txt"
    if not target.is_file():
        beside = target.with_suffix(".tmp")
        try:
            with _OPENERS[path.suffix](path, "rb") as packed, beside.open("wb") as text:
                shutil.copyfileobj(packed, text, _BLOCK_BYTES)
        except (EOFError, lzma.LZMAError, gzip.BadGzipFile) as error:
            raise InputError(f"{path} can't be unpacked ({error}): is it damaged, or of another kind?") from None
        beside.rename(target)
    return target


def with_header(columns: Columns, path: Path) -> Columns:
    """The columns in the order that the first line of a file gives.

    Raises:
        InputError: a column is not there, or there twice.
    """
    with path.open("rb") as file:
        line = file.readline().removeprefix(_BYTE_ORDER_MARK).rstrip(b"\r\n")
    order = tuple(line.decode("utf-8", "replace").split(columns.separator))
    for name in columns.names:
        if order.count(name) != 1:
            raise InputError(
                f"{path}: its header has column {name!r} {order.count(name)} times: it must stand there once, and "
                f"the header is {columns.separator.join(order)[:200]!r}"
            )
    return replace(columns, order=order)


def find_raws(data_path: str, option: str = "data_path") -> list[Path]:
    """The raw files at a path: origin_data/train.txt or train.txt below it, itself, or several with commas between."""
    path = Path(data_path)
    for candidate in [*(path / "origin_data" / name for name in _NAMES), *(path / name for name in _NAMES), path]:
        if candidate.is_file():
            return [candidate]
    several = [Path(name) for name in data_path.split(",")]
    if len(several) > 1:
        for one in several:
            if not one.is_file():
                raise InputError(f"{option} {data_path}: there is no file {one}: name files, with commas between")
        return several
    raise InputError(
        f"{option} {data_path}: there is no file {path / 'origin_data' / 'train.txt'}, {path / 'train.txt'} or "
        f"{path}: unpack the raw text there, or make some with src/synthetic.py"
    )


def write_rejects(path: Path, bad: Sequence[BadRow]) -> None:
    """The bad lines: number, reason, and the line as it stood, between tabs."""
    with path.open("wb") as file:
        for row in bad:
            place = f"{row.file}:{row.line}" if row.file else str(row.line)
            file.write(f"{place}\t{row.reason}\t".encode() + row.text + b"\n")
