"""What a row reader gives: the rows of files in spans, which are read apart from each other, as blocks.

Legend: B rows of a block, N numeric columns, F categorical fields.
"""

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from src.rows.cells.coded import CodedKeys
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
        keys: [F, B] uint64, 0 for an empty cell, and for one of a column of lists; without the columns of `coded`, for
            most of a file of columns would be memory that nothing is put into: `keys_of` gives a column's.
        bad: the lines left out, in file order.
        key_seed: of the keys, as in `Columns`.
        checks: [F, B] uint32, another hash of each category whose key is hashed, and 0 for others; if asked for and
            any is hashed.
        parts: [B] int8, number of the part that each row belongs to, if a column tells it: see `cells.split`.
        lines: [B] int64, number of each row's line in its file, from 1; empty where the rows stand in none.
        lists: the values of columns of lists, by the columns' numbers among F.
        weights: [B] float32, 0 or more, if a column gives them.
        coded: keys of columns that are kept as numbers of distinct values, by the columns' numbers among F, if asked
            for.
        left_out: how many rows without a click are left out of the block by chance, and the sum of their weights,
            which are 1 where rows have none.
    """

    labels: np.ndarray
    numbers: np.ndarray
    keys: np.ndarray
    bad: list[BadRow] = field(default_factory=list)
    key_seed: str = ""
    checks: np.ndarray | None = None
    lines: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    parts: np.ndarray | None = None
    lists: dict[int, CellLists] = field(default_factory=dict)
    weights: np.ndarray | None = None
    left_out: tuple[int, float] = (0, 0.0)
    coded: dict[int, CodedKeys] = field(default_factory=dict)

    @property
    def negative_sums(self) -> np.ndarray:
        """How many rows have no click, and the sum of their weights, as of `left_out`, float64 [2]."""
        others = self.labels == 0
        weight = others.sum() if self.weights is None else self.weights[others].sum(dtype=np.float64)
        return np.array([others.sum(), weight], np.float64)

    def keys_of(self, field: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Keys [B] of a column that is not in `coded`, by its number among F, and their checks if there are any."""
        place = field - sum(other < field for other in self.coded)
        return self.keys[place], None if self.checks is None else self.checks[place]

    def chosen(self, rows: np.ndarray) -> "Block":
        """Some of the rows, [B] bool, and no bad ones."""
        checks = None if self.checks is None else self.checks[:, rows]
        lists = {number: one.of_rows(rows) for number, one in self.lists.items()}
        return Block(
            self.labels[rows], self.numbers[rows], self.keys[:, rows], [], self.key_seed, checks, self.lines[rows],
            lists=lists, weights=None if self.weights is None else self.weights[rows],
            coded={number: one.of_rows(rows) for number, one in self.coded.items()},
        )  # fmt: skip


@dataclass(frozen=True)
class Span(ABC):
    """A run of rows of a raw file; a form of files has a class of its own.

    Attributes:
        first_row: number of its first row among all rows of all files, from 0.
        rows: how many, bad ones among them.
        raw: the raw file as the user gave it, where there are several.
        follows: whether it is best read by the process that has read what is before it.
    """

    first_row: int
    rows: int
    raw: str = field(default="", kw_only=True)
    follows: bool = field(default=False, kw_only=True)

    @abstractmethod
    def blocks(self, columns: Columns) -> Iterator[Block]:
        """The rows, in order, some thousand at a time."""

    def numbered(self, columns: Columns) -> Iterator[tuple[Block, np.ndarray]]:
        """The blocks, and the number of each of their rows among all rows of all files, from 0, int64 [B]."""
        done = self.first_row
        for block in self.blocks(columns):
            bad = np.array([row.line for row in block.bad], np.int64)
            yield block, done + np.arange(len(block.labels)) + np.searchsorted(bad, block.lines)
            done += len(block.labels) + len(bad)

    @abstractmethod
    def cells(self, columns: Columns) -> Iterator[list[list[str]]]:
        """The text of the used columns' cells, in the order of `columns.names`, some thousand rows at a time.

        Behind them the number of each row's part, as text, if a column tells it. Rows that are none, such as lines with
        too few cells, are passed over; others may be bad.
        """


@dataclass(frozen=True)
class PartSpan(Span):
    """Those rows of a span that belong to a part, which a column tells.

    Attributes:
        span: all rows.
        part: number of the part.
        with_bad: whether bad rows, which belong to none, are told here.
    """

    span: Span
    part: int
    with_bad: bool

    def blocks(self, columns: Columns) -> Iterator[Block]:
        return (block for block, _ in self.numbered(columns))

    def numbered(self, columns: Columns) -> Iterator[tuple[Block, np.ndarray]]:
        for block, numbers in self.span.numbered(columns):
            assert block.parts is not None, "the columns have a split"
            chosen = block.parts == self.part
            own = block.chosen(chosen)
            own.bad = block.bad if self.with_bad else []
            yield own, numbers[chosen]

    def cells(self, columns: Columns) -> Iterator[list[list[str]]]:
        for *cells, parts in self.span.cells(columns):
            own = [row for row, part in enumerate(parts) if part == str(self.part)]
            yield [[column[row] for row in own] for column in cells]


class RowFile(ABC):
    """The rows of a file; a form of files has a class of its own.

    Attributes:
        rows: how many, bad ones among them.
        columns: what they hold, in the order that the file itself gives, if it does.
        names: of all columns.
    """

    names: Sequence[str]
    rows: int
    columns: Columns

    @abstractmethod
    def spans(self, first_row: int, last_row: int, rows: int) -> Sequence[Span]:
        """Rows first_row up to, not including, last_row, in spans of `rows` rows, the last one shorter."""


def first_cells(
    spans: Sequence[Span], columns: Columns, most_bytes: int, most_rows: int = sys.maxsize
) -> list[list[str]]:
    """The text of the first rows' cells, of each of `columns.names`.

    As many rows as plain text of these columns would have in so many bytes, so that the same rows in another form give
    the same; but no more than `most_rows`.
    """
    rows: list[tuple[str, ...]] = []
    left = most_bytes
    numbers = range(1 if columns.label else 0, len(columns.names) - len(columns.categorical))
    for all_cells in (cells for span in spans for cells in span.cells(columns)):
        cells = [column[: most_rows - len(rows)] for column in all_cells]
        for place in numbers:
            cells[place] = [number_text(cell) for cell in cells[place]]
        for row in zip(*cells):
            left -= sum(len(cell) if cell.isascii() else len(cell.encode()) for cell in row) + len(row)
            if left < 0:
                break
            rows.append(row)
        if left < 0 or len(rows) == most_rows:
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
