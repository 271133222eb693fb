"""What a row reader gives: the rows of files in spans, which are read apart from each other, as blocks.

Legend: B rows of a block, N numeric columns, F categorical fields.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from src.rows.cells.lists import CellLists
from src.rows.columns import Columns
from src.rows.text import number_text


@dataclass(frozen=True)
class BadRow:
    """A line that can't be used."""

    line: int
    reason: str
    text: bytes
    file: str = ""  # where there are several
    unit: str = "line"  # what the number counts: lines, or rows of a file that has no lines

    def __str__(self) -> str:
        return f"{self.file} {self.unit} {self.line}: {self.reason}".lstrip()


@dataclass
class Block:
    """Parsed rows in file order.

    Attributes:
        labels: [B] uint8, 0 or 1.
        numbers: [B, N] float32, nan for an empty cell; never -0, so that equal numbers have equal bits.
        keys: [F, B] uint64, 0 for an empty cell, and for one of a column of lists.
        bad: the lines left out, in file order.
        key_seed: of the keys, as in `Columns`.
        lines: [B] int64, number of each row's line in its file, from 1; empty where the rows stand in none.
        lists: the values of columns of lists, by the columns' numbers among F.
    """

    labels: np.ndarray
    numbers: np.ndarray
    keys: np.ndarray
    bad: list[BadRow] = field(default_factory=list)
    key_seed: str = ""
    lines: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    lists: dict[int, CellLists] = field(default_factory=dict)


@dataclass(frozen=True)
class Span(ABC):
    """A run of rows of a raw file; a form of files has a class of its own.

    Attributes:
        first_row: number of its first row among all rows of all files, from 0.
        rows: how many, bad ones among them.
        raw: the raw file as the user gave it, where there are several.
    """

    first_row: int
    rows: int
    raw: str = field(default="", kw_only=True)

    @abstractmethod
    def blocks(self, columns: Columns) -> Iterator[Block]:
        """The rows, in order, some thousand at a time."""

    @abstractmethod
    def cells(self, columns: Columns) -> Iterator[list[list[str]]]:
        """The text of the used columns' cells, in the order of `columns.names`, some thousand rows at a time.

        Rows that are none, such as lines with too few cells, are passed over; others may be bad.
        """


class RowFile(ABC):
    """The rows of a file; a form of files has a class of its own.

    Attributes:
        rows: how many, bad ones among them.
        columns: what they hold, in the order that the file itself gives, if it does.
    """

    rows: int
    columns: Columns

    @abstractmethod
    def spans(self, first_row: int, last_row: int, rows: int) -> Sequence[Span]:
        """Rows first_row up to, not including, last_row, in spans of `rows` rows, the last one shorter."""


def first_cells(spans: Sequence[Span], columns: Columns, most_bytes: int) -> list[list[str]]:
    """The text of the first rows' cells, of each of `columns.names`.

    As many rows as plain text of these columns would have in so many bytes, so that the same rows in another form give
    the same.
    """
    rows: list[tuple[str, ...]] = []
    left = most_bytes
    numbers = range(1 if columns.label else 0, len(columns.names) - len(columns.categorical))
    for cells in (cells for span in spans for cells in span.cells(columns)):
        for place in numbers:
            cells[place] = [number_text(cell) for cell in cells[place]]
        for row in zip(*cells):
            left -= sum(len(cell) if cell.isascii() else len(cell.encode()) for cell in row) + len(row)
            if left < 0:
                break
            rows.append(row)
        if left < 0:
            break
    return [list(column) for column in zip(*rows)] or [[] for _ in columns.names]


def first_categories(spans: Sequence[Span], columns: Columns, most_bytes: int) -> list[list[str]]:
    """The same of the categorical columns alone."""
    return categories_among(first_cells(spans, columns, most_bytes), columns)


def categories_among(cells: Sequence[list[str]], columns: Columns) -> list[list[str]]:
    """Of the cells of each of `columns.names`, those of the categorical columns, or the values in cells of lists."""
    found = list(cells[len(columns.names) - len(columns.categorical) :])
    for one in columns.lists:
        place = columns.categorical.index(one.name)
        found[place] = [value for cell in found[place] for value in cell.split(one.separator) if value]
    return found
