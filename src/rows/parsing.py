"""Text to blocks, whatever its cells need: what stands in plain lines goes by `lines.py`, all else by `cells/`."""

from dataclasses import replace

import numpy as np

from src.rows import lines
from src.rows.block import BadRow, Block
from src.rows.cells.assembling import block_of, no_weights, texts_of
from src.rows.cells.finding import Found, find_cells
from src.rows.cells.reasons import cells_reason, not_utf8
from src.rows.columns import Columns
from src.rows.text import is_utf8


def parse(text: bytes, columns: Columns, first_line: int = 1) -> Block:
    """Rows of whole text; arguments as for `lines.parse`."""
    if _is_plain(text, columns):
        return lines.parse(text, columns, first_line)
    if columns.weight and _is_plain(text, with_number := columns.with_weight_as_number()):
        block = lines.parse(text, with_number, first_line)
        numbers, weights = block.numbers[:, :-1], block.numbers[:, -1]
        if not block.bad and not no_weights(weights).any():  # else cells have the last word
            return replace(block, numbers=np.ascontiguousarray(numbers), weights=np.ascontiguousarray(weights))
    return parse_rows(text, columns, first_line)[0]


def _is_plain(text: bytes, columns: Columns) -> bool:
    return columns.plain and not columns.comment and not (columns.quotes and columns.quotes.encode() in text)


def parse_rows(text: bytes, columns: Columns, first_line: int, last: bool = True) -> tuple[Block, int, int]:
    """The rows of a text, the last of which may go on unless nothing follows; how many bytes and lines they take."""
    found = find_cells(text, columns, last)
    width = len(columns.file_names)
    wrong = {row: cells_reason(count, width) for row, count in _others(found, width)}
    if not is_utf8(text):
        odd = (row for row in range(len(found.counts)) if not is_utf8(_text_of(text, found, row)))
        wrong |= dict.fromkeys(odd, not_utf8(columns))
    good = np.delete(np.arange(len(found.counts)), list(wrong))
    places = first_line + found.lines[:-1]
    block = block_of(found.columns(good), columns, places[good], lambda row: _text_of(text, found, int(good[row])))
    block.bad += [BadRow(int(places[row]), reason, _text_of(text, found, row)) for row, reason in wrong.items()]
    block.bad.sort(key=lambda row: row.line)
    return block, int(found.begins[-1]), int(found.lines[-1])


def cells_of(text: bytes, columns: Columns, last: bool = True) -> tuple[list[list[str]], int, int]:
    """The same of the text of cells, of each of `columns.names`: see `Span.cells`."""
    if _is_plain(text, columns):
        return _plain_cells(text, columns), len(text), text.count(b"\n")
    found = find_cells(text, columns, last)
    good = np.flatnonzero(found.counts == len(columns.file_names))
    if not is_utf8(text):
        good = np.array([row for row in good if is_utf8(_text_of(text, found, row))], np.int64)
    return texts_of(found.columns(good), columns), int(found.begins[-1]), int(found.lines[-1])


def names_in(text: bytes, columns: Columns) -> tuple[tuple[str, ...], int, int]:
    """The cells of a text's first row, which names columns; how many bytes and lines it takes, with those before it."""
    one = replace(Columns((), ("",), "", separator=columns.separator, quote=columns.quote), comment=columns.comment)
    found = find_cells(text, one, used=False)
    if not len(found.counts):
        return (), len(text), text.count(b"\n")
    end, count = int(found.begins[1]), int(found.counts[0])
    if count < 1:  # it has no cells, but something is wrong with it
        return (_text_of(text, found, 0).decode("utf-8", "replace"),), end, int(found.lines[1])
    cells = find_cells(text[:end], replace(one, categorical=tuple(map(str, range(count)))))
    return tuple(column.texts()[0] for column in cells.columns(np.zeros(1, np.int64))), end, int(found.lines[1])


def _others(found: Found, width: int) -> list[tuple[int, int]]:
    """Rows of another number of cells, and that number."""
    rows = np.flatnonzero(found.counts != width)
    return list(zip(rows.tolist(), found.counts[rows].tolist()))


def _text_of(text: bytes, found: Found, row: int) -> bytes:
    return text[found.begins[row] : found.begins[row + 1]].rstrip(b"\r\n")


def _plain_cells(text: bytes, columns: Columns) -> list[list[str]]:
    in_file = columns.file_names
    places = [in_file.index(name) for name in columns.names]
    rows = []
    for line in text.removesuffix(b"\n").split(b"\n"):
        try:
            cells = line.removesuffix(b"\r").decode().split(columns.separator)
        except UnicodeDecodeError:
            continue
        if len(cells) == len(in_file):
            rows.append([cells[place] for place in places])
    return [list(column) for column in zip(*rows)] or [[] for _ in places]
