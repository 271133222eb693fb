"""Raw files: found, unpacked, and seen as one run of rows, of which parts are read apart from each other."""

import gzip
import hashlib
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
        raw: the raw file as the user gave it, where there are several; `path` may be its unpacked text.
    """

    path: Path
    start: int
    end: int
    first_row: int
    rows: int
    first_line: int
    raw: str = ""


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

    def spans(self, first_row: int, last_row: int, rows: int) -> list[Span]:
        """Rows first_row up to, not including, last_row, in spans of `rows` rows, the last one shorter."""
        bounds = [*range(first_row, last_row, rows), last_row]
        offsets = [self.offset(bound) for bound in bounds]
        return [
            Span(self.path, start, end, first, last - first, first + 1 + self.header)
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
                block = parse(text, columns, line)
                block.bad = [replace(row, file=span.raw) for row in block.bad]
                yield block
                line += text.count(b"\n")


class RawInput:
    """The rows of text files, one behind the other: packed or not, with a header or without.

    A file that is no text would need blocks of its own beside `read_span`, which the steps of preprocessing call too.

    Args:
        raws: the files as the user gave them, in order.
        columns: what their lines hold.
        folder: takes the text of packed ones, where it stays for a later run.

    Attributes:
        columns: of each file, in the order that its header gives, if there are headers.
        rows: of all files.

    Raises:
        InputError: a file can't be unpacked, or its header lacks a column.
    """

    def __init__(self, raws: Sequence[Path], columns: Columns, folder: Path):
        self.raws = tuple(raws)
        self._texts = [_unpacked(raw, folder) for raw in raws]
        self._indexes = [LineIndex(text, header=columns.header) for text in self._texts]
        self.columns = [
            _with_header(columns, text, raw) if columns.header else columns for raw, text in zip(raws, self._texts)
        ]
        self.rows = sum(index.rows for index in self._indexes)

    def spans(self, first_row: int, last_row: int, rows: int) -> list[Span]:
        """Rows first_row up to, not including, last_row, in spans of at most `rows` rows of one file."""
        found: list[Span] = []
        before = 0
        for raw, index in zip(self.raws, self._indexes):
            first, last = max(first_row - before, 0), min(last_row - before, index.rows)
            name = str(raw) if len(self.raws) > 1 else ""
            spans = index.spans(first, last, rows) if first < last else []
            found += [replace(span, first_row=before + span.first_row, raw=name) for span in spans]
            before += index.rows
        return found

    def read(self, span: Span) -> Iterator[Block]:
        """The blocks of one of the spans, in order."""
        return read_span(span, self.columns[self._texts.index(span.path)])

    def remove_unpacked(self) -> None:
        """Remove the text of packed files, once the rows are through."""
        for text in set(self._texts) - set(self.raws):
            text.unlink()


def fingerprint(raw: Path) -> tuple[str, int, int]:
    """Place, size and time of change of a raw file, which tell whether it is still the one that it was."""
    return str(raw.resolve()), raw.stat().st_size, raw.stat().st_mtime_ns


def _unpacked(raw: Path, folder: Path) -> Path:
    """The file itself, or for .gz and .xz its unpacked text in the folder.

    Lines of a compressed file can't be found again without reading all before them, hence the unpacking. The text's
    name tells which file it is of, so that no other is taken for it, be it of the same name.
    """
    if raw.suffix not in _OPENERS:
        return raw
    which = hashlib.sha256(repr(fingerprint(raw)).encode()).hexdigest()[:16]
    target = folder / f"{which}-{raw.name}.txt"
    if not target.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        beside = target.with_suffix(".tmp")
        try:
            with _OPENERS[raw.suffix](raw, "rb") as packed, beside.open("wb") as text:
                shutil.copyfileobj(packed, text, _BLOCK_BYTES)
        except (EOFError, lzma.LZMAError, gzip.BadGzipFile) as error:
            raise InputError(f"{raw} can't be unpacked ({error}): is it damaged, or of another kind?") from None
        beside.rename(target)
    return target


def _with_header(columns: Columns, text: Path, raw: Path) -> Columns:
    """The columns in the order that the first line of a file gives."""
    with text.open("rb") as file:
        line = file.readline().removeprefix(_BYTE_ORDER_MARK).rstrip(b"\r\n")
    order = tuple(line.decode("utf-8", "replace").split(columns.separator))
    for name in columns.names:
        if order.count(name) != 1:
            raise InputError(
                f"{raw}: its header has column {name!r} {order.count(name)} times: it must stand there once, and "
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
