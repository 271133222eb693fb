"""The raw text of a click log: lines of label, numeric and categorical columns, parsed in whole blocks with NumPy.

One line: label (0 or 1), N numeric columns (number or empty), F categorical columns (any text or empty), by default in
this order and with a tab between them. A block of some thousand lines is parsed at once, by raw_text.cc where there is
a C++ compiler, and in NumPy, ten times slower, where there is none. NumPy has the last word on what is odd.

Legend: B rows of a block, N numeric columns, F categorical fields.

A categorical value is handled as a key of 64 bits: see `keys.py`.
"""

import ctypes
import functools
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from src.base.native import build, pointer
from src.rows.block import BadRow, Block
from src.rows.cells.reasons import SHOWN, label_reason, not_utf8, number_reason
from src.rows.columns import Columns
from src.rows.keys import PAD, checks_at, keys_at, seed_words, words_of
from src.rows.text import NUMBER, is_utf8

SOURCE = Path(__file__).parent / "compiled/raw_text.cc"
_FLAGS = ("-std=c++17", "-O3", "-march=native", "-shared", "-fPIC")

_TAB, _NEWLINE, _RETURN, _MINUS = b"\t\n\r-"
_ZEROS = np.uint64(0x3030303030303030)
_LARGEST = float(np.finfo(np.float32).max)


def parse(text: bytes, columns: Columns, first_line: int = 1) -> Block:
    """Parse whole lines; the last one may lack its line end.

    Args:
        text: the lines, as `text.utf8` gives them.
        columns: what each line must hold.
        first_line: number of the first line in its file, from 1, for the messages.
    """
    if text and not text.endswith(b"\n"):
        text += b"\n"
    block, is_ascii = _parsed(text, columns, first_line)
    refused = {} if is_ascii else _refused(text, columns)
    if not refused:
        return _numbered(block, first_line)
    lines = text.split(b"\n")
    text = b"\n".join(b"\0" if number in refused else line for number, line in enumerate(lines))
    block, _ = _parsed(text, columns, first_line)
    for place, row in enumerate(block.bad):
        if (number := row.line - first_line) in refused:
            block.bad[place] = BadRow(row.line, refused[number], lines[number])
    return _numbered(block, first_line)


def _numbered(block: Block, first_line: int) -> Block:
    """The block with the numbers of its rows' lines, which follow each other but for the bad ones."""
    lines = np.arange(first_line, first_line + len(block.labels) + len(block.bad))
    block.lines = np.delete(lines, [row.line - first_line for row in block.bad]) if block.bad else lines
    return block


def _parsed(text: bytes, columns: Columns, first_line: int) -> tuple[Block, bool]:
    """The rows by the faster parser that there is, be the text UTF-8 or not, and whether all of it is ASCII."""
    if library := _library():
        return _parse_compiled(library, text, columns, first_line)
    return _parse(text, columns, first_line), text.isascii()


def _refused(text: bytes, columns: Columns) -> dict[int, str]:
    """Lines whose text as such can't be used, counted from 0, and why."""
    if is_utf8(text):
        return {}
    reason = not_utf8(columns)
    return {number: reason for number, line in enumerate(text.split(b"\n")) if not is_utf8(line)}


@functools.cache
def _library() -> ctypes.CDLL | None:
    path = build(SOURCE, _FLAGS, "the parser of raw text", "raw text is parsed by NumPy, slower than by compiled code")
    return ctypes.CDLL(str(path)) if path else None


def _parse_compiled(library: ctypes.CDLL, text: bytes, columns: Columns, first_line: int) -> tuple[Block, bool]:
    """As `_parsed`; `_parse` gets only the lines that the compiled parser leaves."""
    rows = int(np.count_nonzero(np.frombuffer(text, np.uint8) == _NEWLINE))  # 8 times as fast as text.count
    dense_dim = len(columns.dense)
    role_of = {name: role for role, name in enumerate(columns.names, 0 if columns.label else 1)}
    roles = np.array([role_of.get(name, -1) for name in columns.file_names], np.int32)
    labels, numbers = np.zeros(rows, np.uint8), np.empty((rows, dense_dim), np.float32)
    keys = np.empty((len(columns.categorical), rows), np.uint64)
    odd, odd_lines = np.empty((rows, 2), np.int64), np.empty(rows, np.int64)
    seed, is_ascii = seed_words(columns.key_seed), np.empty(1, np.uint8)
    checks = np.zeros(keys.shape, np.uint32) if columns.checked else None
    places = [pointer(array) for array in (labels, numbers, keys, odd, odd_lines, is_ascii, checks)]
    count = library.ParseLines(
        text, ctypes.c_int64(len(text)), ord(columns.separator), ctypes.c_void_p(roles.ctypes.data), len(roles),
        dense_dim, pointer(seed if len(seed) else None), ctypes.c_int64(rows), *places,
    )  # fmt: skip
    if checks is not None and not checks.any():
        checks = None
    if not count:
        return Block(labels, numbers, keys, [], columns.key_seed, checks), bool(is_ascii[0])
    lines = odd_lines[:count]
    others = _parse(b"".join(text[begin:end] for begin, end in odd[:count].tolist()), columns, 0)
    if checks is None and others.checks is not None and others.checks.any():
        checks = np.zeros(keys.shape, np.uint32)
    bad = {row.line for row in others.bad}
    good = lines[[number not in bad for number in range(count)]]
    labels[good], numbers[good], keys[:, good] = others.labels, others.numbers, others.keys
    if checks is not None:
        checks[:, good] = 0 if others.checks is None else others.checks
    kept = np.ones(rows, bool)
    kept[lines[sorted(bad)]] = False
    rejected = [BadRow(first_line + int(lines[row.line]), row.reason, row.text) for row in others.bad]
    checks = None if checks is None else checks[:, kept]
    return Block(labels[kept], numbers[kept], keys[:, kept], rejected, columns.key_seed, checks), bool(is_ascii[0])


def _parse(text: bytes, columns: Columns, first_line: int) -> Block:
    buffer = np.frombuffer(bytes(PAD) + text + bytes(PAD), np.uint8)
    starts, ends, lines, bad = _cells(buffer, len(text), columns)
    words = words_of(buffer)

    labels, good = np.zeros(len(lines), np.uint8), np.ones(len(lines), bool)
    first = 0
    if columns.label:
        labels = buffer[starts[0]] - ord("0")
        good = (ends[0] - starts[0] == 1) & (labels <= 1)
        _explain(bad, lines[~good], lambda shown: label_reason(columns, shown), buffer, starts[0], ends[0], ~good)
        first = 1
    numbers = np.empty((len(lines), len(columns.dense)), np.float32)
    for index, name in enumerate(columns.dense):
        begins, stops = starts[first + index], ends[first + index]
        numbers[:, index], wrong = _numbers(buffer, words, begins, stops)
        wrong &= good
        reason = partial(number_reason, name)
        _explain(bad, lines[wrong], reason, buffer, begins, stops, wrong)
        good &= ~wrong
    first += len(columns.dense)
    cells = words, starts[first:][:, good], ends[first:][:, good], columns.key_seed
    labels, numbers, keys = labels[good], numbers[good], keys_at(*cells)
    checks = checks_at(*cells) if columns.checked else None
    all_lines = text.split(b"\n") if bad else []
    rows = [BadRow(first_line + line, reason, all_lines[line]) for line, reason in sorted(bad.items())]
    return Block(labels, numbers, keys, rows, columns.key_seed, checks)


def _cells(
    buffer: np.ndarray, size: int, columns: Columns
) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[int, str]]:
    """Where the cells of the sound lines begin and end.

    Returns:
        The cells' first and behind-the-last positions, both [columns, B], which lines these are, counted from 0,
        and the other lines with what is wrong with them.
    """
    width, separator = len(columns.file_names), ord(columns.separator)
    # Tabs and line ends are the only bytes below 11 in sound text: one comparison instead of two.
    body = buffer[PAD : PAD + size]
    is_mark = body < _NEWLINE + 1
    marks = np.flatnonzero(is_mark if separator == _TAB else is_mark | (body == separator)) + PAD
    kinds = buffer[marks]
    line_of_odd = np.empty(0, np.int64)
    if (other := (kinds != separator) & (kinds != _NEWLINE)).any():
        line_of_odd = np.cumsum(kinds == _NEWLINE)[kinds < _TAB]
        marks, kinds = marks[~other], kinds[~other]
    last = np.flatnonzero(kinds == _NEWLINE)  # each line's last mark
    counts = np.diff(last, prepend=-1)
    bad = {int(line): "holds a control character" for line in np.unique(line_of_odd)}
    good = counts == width
    for line in np.flatnonzero(~good).tolist():
        bad[line] = f"{counts[line]} columns instead of {width}"
    good[list(bad)] = False
    lines = np.flatnonzero(good)
    if len(lines) == len(last):
        ends = marks.reshape(-1, width).T
    else:
        ends = marks[last[lines] - np.arange(width - 1, -1, -1)[:, None]]
    starts = np.empty_like(ends, order="C")
    starts[1:] = ends[:-1] + 1
    line_starts = np.concatenate(([PAD], marks[last[:-1]] + 1))
    starts[0] = line_starts[lines]
    ends = np.ascontiguousarray(ends)
    ends[-1] -= (buffer[ends[-1] - 1] == _RETURN) & (ends[-1] > starts[-1])
    if columns.order:
        used = [columns.order.index(name) for name in columns.names]
        starts, ends = starts[used], ends[used]
    return starts, ends, lines, bad


def _explain(
    bad: dict[int, str],
    lines: np.ndarray,
    reason: Callable[[str], str],
    buffer: np.ndarray,
    starts: np.ndarray,
    ends: np.ndarray,
    chosen: np.ndarray,
) -> None:
    """Note for each of the lines what is wrong, of the start of the cell's text."""
    for line, start, end in zip(lines.tolist(), starts[chosen].tolist(), ends[chosen].tolist()):
        bad[line] = reason(buffer[start : min(end, start + SHOWN)].tobytes().decode("utf-8", "replace"))


def cell_keys(
    buffer: np.ndarray, starts: np.ndarray, ends: np.ndarray, seed: str, checked: bool = False
) -> tuple[np.ndarray, np.ndarray | None]:
    """The keys of cells [B] in a buffer with PAD at both ends, uint64 [B], and their checks if asked for."""
    if not (library := _library()):
        cells = words_of(buffer), starts, ends, seed
        return keys_at(*cells), checks_at(*cells) if checked else None
    keys, words = np.empty(len(starts), np.uint64), seed_words(seed)
    checks = np.zeros(len(starts), np.uint32) if checked else None
    begins, stops = np.ascontiguousarray(starts, np.int64), np.ascontiguousarray(ends, np.int64)
    library.CellKeys(
        pointer(buffer), ctypes.c_int64(len(buffer)), pointer(begins), pointer(stops), ctypes.c_int64(len(keys)),
        pointer(words if len(words) else None), pointer(keys), pointer(checks),
    )  # fmt: skip
    return keys, checks


def keys_by_offsets(
    text: np.ndarray, offsets: np.ndarray, seed: str, checked: bool
) -> tuple[np.ndarray, np.ndarray | None] | None:
    """The same of cells one behind the other, int32 or int64 [B + 1], of compiled code alone."""
    if not (library := _library()):
        return None
    keys, words = np.empty(len(offsets) - 1, np.uint64), seed_words(seed)
    checks = np.zeros(len(keys), np.uint32) if checked else None
    library.OffsetKeys(
        pointer(text), ctypes.c_int64(len(text)), pointer(offsets), int(offsets.itemsize == 8),
        ctypes.c_int64(len(keys)), pointer(words if len(words) else None), pointer(keys), pointer(checks),
    )  # fmt: skip
    return keys, checks


def cell_numbers(
    buffer: np.ndarray, starts: np.ndarray, ends: np.ndarray, decimal: str = ".", thousands: str = ""
) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of such cells as float32, nan for empty ones, and which cells hold what is no number."""
    if not (library := _library()):
        return _written_numbers(buffer, starts, ends, decimal, thousands)
    values, wrong = np.empty(len(starts), np.float32), np.empty(len(starts), np.uint8)
    begins, stops = np.ascontiguousarray(starts, np.int64), np.ascontiguousarray(ends, np.int64)
    odd = library.CellNumbers(
        pointer(buffer), pointer(begins), pointer(stops), ctypes.c_int64(len(values)), ord(decimal),
        ord(thousands or "\0"), pointer(values), pointer(wrong),
    )  # fmt: skip
    if odd:  # NumPy has the last word
        places = np.flatnonzero(wrong)
        values[places], wrong[places] = _written_numbers(buffer, starts[places], ends[places], decimal, thousands)
    return values, wrong.astype(bool)


def _written_numbers(
    buffer: np.ndarray, starts: np.ndarray, ends: np.ndarray, decimal: str, thousands: str
) -> tuple[np.ndarray, np.ndarray]:
    if decimal != "." or thousands:
        cells = [buffer[start:end].tobytes() for start, end in zip(starts.tolist(), ends.tolist())]
        cells = [with_point(cell, decimal.encode(), thousands.encode()) for cell in cells]
        stops = np.cumsum([PAD, *map(len, cells)])
        buffer, starts, ends = np.frombuffer(bytes(PAD) + b"".join(cells) + bytes(PAD), np.uint8), stops[:-1], stops[1:]
    return _numbers(buffer, words_of(buffer), starts, ends)


def with_point(cell: bytes, decimal: bytes, thousands: bytes) -> bytes:
    """A number with a point and nothing between thousands, of one with other signs; what is no number stays none.

    Signs between thousands stand in groups of three digits, so that 1.5 is not taken for 15 where a point is one.
    """
    whole, mark, rest = cell.partition(decimal)
    if thousands and thousands in whole:
        sign = whole[: whole[:1] in (b"+", b"-")]
        groups = whole[len(sign) :].split(thousands)
        sizes = [len(group) for group in groups]
        if not (all(group.isdigit() for group in groups) and 1 <= sizes[0] <= 3 and set(sizes[1:]) == {3}):
            return b"?"
        whole = sign + b"".join(groups)
    if b"." in whole + rest:
        return b"?"
    return whole + b"." + rest if mark else whole


def _numbers(
    buffer: np.ndarray, words: np.ndarray, starts: np.ndarray, ends: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The cells' numbers as float32, nan for empty ones, and which cells hold what is no number."""
    sizes = ends - starts
    negative = (buffer[starts] == _MINUS) & (sizes > 1)
    digits = sizes - negative
    # The 8 bytes that end the cell; those before its first digit are replaced by "0".
    missing = (8 * (8 - np.clip(digits, 1, 8))).astype(np.uint64)
    word = words[ends - 8] >> missing << missing | _ZEROS & ~(np.uint64(0xFFFFFFFFFFFFFFFF) << missing)
    word ^= _ZEROS  # each byte is now its digit, or above 9
    odd = ((word + np.uint64(0x7676767676767676) | word) & np.uint64(0x8080808080808080)) != 0
    odd = (odd | (digits > 8)) & (sizes > 0)
    # Digits to pairs, pairs to fours, fours to one number.
    word = word * np.uint64(10) + (word >> np.uint64(8)) & np.uint64(0x00FF00FF00FF00FF)
    word = word * np.uint64(100) + (word >> np.uint64(16)) & np.uint64(0x0000FFFF0000FFFF)
    word = word * np.uint64(10000) + (word >> np.uint64(32)) & np.uint64(0x00000000FFFFFFFF)
    values = word.astype(np.float32)
    numbers = np.where(negative, 0 - values, values)  # 0 - 0 is 0, where -0 would have other bits
    numbers[sizes == 0] = np.nan
    wrong = np.zeros(len(starts), bool)
    for index in np.flatnonzero(odd).tolist():  # fractions, exponents, more than 8 digits, and what is no number
        text = buffer[starts[index] : ends[index]].tobytes()
        value = float(text) if NUMBER.fullmatch(text.decode("latin-1")) else math.nan
        wrong[index] = not abs(value) <= _LARGEST
        numbers[index] = 0.0 if wrong[index] else np.float32(value) + np.float32(0)
    return numbers, wrong
