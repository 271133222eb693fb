"""Raw files: found, unpacked, and seen as one run of rows, of which parts are read apart from each other."""

import bz2
import gzip
import hashlib
import itertools
import lzma
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from src.base.errors import InputError
from src.base.files import whole_file
from src.base.logs import warn
from src.data.lines import BadRow, Block, Columns, parse
from src.data.text import BYTE_ORDER_MARK, UTF8, is_utf8, utf8_blocks

REJECTS = "rejected_rows.txt"
_NAMES = ("train.txt", "train.txt.gz", "train.txt.xz")
_NEWLINE = ord("\n")
_BLOCK_BYTES = 8 << 20
_LONGEST_LINE = 16 << 20
_OPENERS: dict[str, Any] = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open}
_PACKED_AS = {b"\x1f\x8b\x08": ".gz", b"\xfd7zXZ\0": ".xz", b"BZh91AY&SY": ".bz2"}  # how such files begin
_NO_TEXT = {b"PK\3\4": "unzip {}", b"\x28\xb5\x2f\xfd": "zstd -d {}"}
_SHOWN_OF_NAME = 50  # for people; a name has at most 255 bytes, and a letter up to 4
_TAR_PLACE, _TAR = 257, b"ustar"


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

    def text(self) -> bytes:
        """The first lines, some megabytes of them."""
        size = min(self.end - self.start, _BLOCK_BYTES)
        with self.path.open("rb") as file:
            file.seek(self.start)
            text = file.read(size)
        return text if size == self.end - self.start else text[: text.rfind(b"\n") + 1]


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
        raws: the files as the user gave them, in order; empty ones among them are passed over.
        columns: what their lines hold.
        folder: takes the text of those that are packed or in another encoding, where it stays for a later run.

    Attributes:
        raws: those that are not empty, or the first one.
        columns: of each file, in the order that its header gives, if there are headers.
        rows: of all files.

    Raises:
        InputError: a file can't be unpacked or read, or its header lacks a column.
    """

    def __init__(self, raws: Sequence[Path], columns: Columns, folder: Path):
        texts = {raw: _unpacked(raw, folder, columns.encoding) for raw in raws}
        filled = [raw for raw, text in texts.items() if text.stat().st_size]
        if 0 < len(filled) < len(raws):
            empty = next(raw for raw in raws if raw not in filled)
            warn(f"{len(raws) - len(filled)} of {len(raws)} files are empty and passed over, such as {empty}")
        self.raws, self._named = tuple(filled or raws[:1]), len(raws) > 1
        self._texts = [texts[raw] for raw in self.raws]
        self._indexes = [LineIndex(text, header=columns.header) for text in self._texts]
        self.columns = [
            _with_header(columns, text, raw) if columns.header else columns for raw, text in zip(self.raws, self._texts)
        ]
        self.rows = sum(index.rows for index in self._indexes)

    def spans(self, first_row: int, last_row: int, rows: int) -> list[Span]:
        """Rows first_row up to, not including, last_row, in spans of at most `rows` rows of one file."""
        found: list[Span] = []
        before = 0
        for raw, index in zip(self.raws, self._indexes):
            first, last = max(first_row - before, 0), min(last_row - before, index.rows)
            name = str(raw) if self._named else ""
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


def _unpacked(raw: Path, folder: Path, encoding: str) -> Path:
    """The file itself, or its text as UTF-8 in the folder if it is packed or in another encoding.

    Lines of a compressed file can't be found again without reading all before them, hence the unpacking. The text's
    name tells which file it is of, so that no other is taken for it, be it of the same name.
    """
    with raw.open("rb") as file:
        begin = file.read(_TAR_PLACE + len(_TAR))
    kind = next((kind for start, kind in _PACKED_AS.items() if begin.startswith(start)), "")
    if raw.suffix in _OPENERS and begin:  # what is not packed as its name says is refused
        kind = raw.suffix
    _refuse_other_kinds(raw, begin)
    if not kind and encoding == UTF8:
        return raw
    which = hashlib.sha256(repr((fingerprint(raw), encoding)).encode()).hexdigest()[:16]
    target = folder / f"{which}-{raw.name[-_SHOWN_OF_NAME:]}.txt"
    if target.is_file():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(target) as text:
        for block in _text_of(raw, kind, encoding):
            text.write(block)
    return target


def _text_of(raw: Path, kind: str, encoding: str) -> Iterator[bytes]:
    """The text of a file as UTF-8, unpacked if it is of a packed kind."""
    try:
        with _OPENERS[kind](raw, "rb") if kind else raw.open("rb") as file:
            _refuse_other_kinds(raw, file.read(_TAR_PLACE + len(_TAR)))
            file.seek(0)
            yield from utf8_blocks(file, encoding, _BLOCK_BYTES)
    except (EOFError, OSError, lzma.LZMAError, zlib.error) as error:
        if isinstance(error, OSError) and error.errno:  # the others are of damaged content
            raise
        raise InputError(f"{raw} can't be unpacked ({error}): is it damaged, or of another kind?") from None


def _refuse_other_kinds(raw: Path, begin: bytes) -> None:
    """Refuse an archive, which the first bytes of a file, or of what is packed in it, tell."""
    command = next((command for start, command in _NO_TEXT.items() if begin.startswith(start)), "")
    if begin[_TAR_PLACE:] == _TAR:
        command = "tar -xf {}"
    if command:
        raise InputError(f"{raw} is an archive and no text: unpack it with {command.format(raw)!r}, and name the text")


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


def find_raws(data_path: str, option: str = "data_path") -> list[Path]:
    """The raw files at a path: origin_data/train.txt or train.txt below it, itself, or several with commas between.

    Raises:
        InputError: there is none, or one is given twice.
    """
    path = Path(data_path)
    several = [Path(name) for name in data_path.split(",")]
    if len(several) > 1 and not os.path.exists(path):  # by os, for which what is too long for a path is not there
        for one in several:
            if not one.is_file():
                raise InputError(f"{option} {data_path}: there is no file {one}: name files, with commas between")
        _refuse_twice(several, option)
        if option == "data_path":  # what is scored may come in any order
            _tell_of_order(several)
        return several
    places = [*(path / "origin_data" / name for name in _NAMES), *(path / name for name in _NAMES), path]
    found = [place for place in places if place.is_file()]
    if not found:
        raise InputError(
            f"{option} {data_path}: there is no file {places[0]}, {path / _NAMES[0]} or {path}: unpack the raw text "
            f"there, or make some with src/synthetic.py"
        )
    if found[1:]:
        warn(f"{found[0]} is read, and not {', '.join(map(str, found[1:]))}")
    return found[:1]


def _refuse_twice(raws: Sequence[Path], option: str) -> None:
    """Refuse a file that is given twice, whatever it is called."""
    known: dict[tuple[int, int], Path] = {}
    for raw in raws:
        place = raw.stat().st_dev, raw.stat().st_ino
        if place in known:
            raise InputError(f"{option}: {raw} and {known[place]} are the same file: give each file once")
        known[place] = raw


def _tell_of_order(raws: Sequence[Path]) -> None:
    """Tell of numbered files that do not come in the order of their numbers."""
    for one, other in itertools.pairwise(raws):
        words, numbers = re.split(r"\d+", str(one)), [int(number) for number in re.findall(r"\d+", str(one))]
        if words == re.split(r"\d+", str(other)) and numbers > [int(n) for n in re.findall(r"\d+", str(other))]:
            warn(f"{one} is read before {other}: rows must come in the order of time, as the last ones are for tests")
            return


def write_rejects(path: Path, bad: Sequence[BadRow]) -> None:
    """The bad lines: number, reason, and the line as it stood, between tabs."""
    with path.open("wb") as file:
        for row in bad:
            place = f"{row.file}:{row.line}" if row.file else str(row.line)
            file.write(f"{place}\t{row.reason}\t".encode("utf-8", "surrogateescape") + row.text + b"\n")
