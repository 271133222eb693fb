"""A column's cells as labels, numbers, points in time and keys.

Legend: B rows.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from src.rows.cells.coded import CodedKeys
from src.rows.cells.lists import CellLists, ListColumn, split_cells
from src.rows.cells.reasons import SHOWN, label_reason
from src.rows.cells.times import of_texts
from src.rows.columns import Columns, Timestamp
from src.rows.keys import PAD, keys_of
from src.rows.lines import cell_keys, cell_numbers, with_point
from src.rows.text import is_utf8, number_text

Wrong = np.ndarray  # [B], which cells hold what they must not


class Column(ABC):
    """The cells of a column, of any form of file."""

    @abstractmethod
    def keys(self, columns: Columns) -> tuple[np.ndarray, np.ndarray | None]:
        """Of categories, uint64 [B]; 0 for an empty cell, and for one that is as good as empty. And checks if asked,
        None where no key is hashed."""

    def coded(self, columns: Columns) -> CodedKeys | None:
        """The same as places among distinct keys, of a column that is kept so."""
        return None

    @abstractmethod
    def numbers(self, columns: Columns) -> tuple[np.ndarray, Wrong]:
        """Float32 [B], nan for an empty cell."""

    @abstractmethod
    def times(self, timestamp: Timestamp, columns: Columns) -> tuple[np.ndarray, Wrong]:
        """Seconds since 1970, float64 [B], nan for an empty cell."""

    @abstractmethod
    def labels(self, columns: Columns) -> tuple[np.ndarray, Wrong]:
        """Uint8 [B], 0 or 1."""

    @abstractmethod
    def texts(self, rows: Sequence[int] | None = None) -> list[str]:
        """The text of all cells, or of some rows."""

    def lists(self, column: ListColumn, columns: Columns) -> CellLists:
        """The values of categories in cells that hold several."""
        return lists_of([cell.split(column.separator) for cell in self.texts()], columns)

    def list_texts(self, column: ListColumn) -> list[str]:
        """The text of cells that hold several values, with the column's sign between them."""
        return self.texts()

    @abstractmethod
    def odd(self) -> Wrong | None:
        """Which cells hold what no text could, a control character or no UTF-8; None where there is none."""

    def number_text(self, text: str, columns: Columns) -> str:
        """The text of a number as `text.number_text` has it."""
        return number_text(text)

    def label_reason(self, row: int, columns: Columns) -> str:
        """What is wrong with the label of a row."""
        return label_reason(columns, self.texts([row])[0][:SHOWN])


def lists_of(cells: Sequence[Sequence[str]], columns: Columns) -> CellLists:
    """Lists of the texts of values, of which empty ones, and those that are as good as empty, are none."""
    counts = np.array([len(cell) for cell in cells], np.int64)
    keys, checks = TextColumn.of([value.encode() for cell in cells for value in cell]).keys(columns)
    return CellLists(keys, counts, checks).filled()


class TextColumn(Column):
    """Cells of text.

    Args:
        buffer: bytes, with PAD before and behind what is a cell.
        starts, ends: each cell's first byte, and the one behind it, int64 [B].
        checked: whether the cells are known to be text.
    """

    def __init__(self, buffer: np.ndarray, starts: np.ndarray, ends: np.ndarray, checked: bool = False):
        self.checked = checked
        self.buffer, self.starts, self.ends = buffer, np.ascontiguousarray(starts), np.ascontiguousarray(ends)

    @classmethod
    def of(cls, texts: Sequence[bytes]) -> "TextColumn":
        """A column of such cells."""
        ends = np.cumsum([PAD, *map(len, texts)])
        buffer = np.frombuffer(bytes(PAD) + b"".join(texts) + bytes(PAD), np.uint8)
        return cls(buffer, ends[:-1], ends[1:])

    def keys(self, columns: Columns) -> tuple[np.ndarray, np.ndarray | None]:
        keys, checks = self._cell_keys(columns.key_seed, columns.checked)
        if columns.missing:
            empty = np.isin(keys, keys_of(columns.missing, columns.key_seed))
            keys[empty] = 0
            if checks is not None:
                checks[empty] = 0
        return keys, checks

    def lists(self, column: ListColumn, columns: Columns) -> CellLists:
        starts, ends, counts = split_cells(self.buffer, self.starts, self.ends, column.separator)
        keys, checks = TextColumn(self.buffer, starts, ends).keys(columns)
        return CellLists(keys, counts, checks).filled()

    def _cell_keys(self, seed: str, checked: bool) -> tuple[np.ndarray, np.ndarray | None]:
        return cell_keys(self.buffer, self.starts, self.ends, seed, checked)

    @cached_property
    def _plain_keys(self) -> np.ndarray:
        return self._cell_keys("", False)[0]

    def _among(self, rows: np.ndarray, texts: Sequence[str]) -> np.ndarray:
        """Which of some rows' cells are one of the texts."""
        keys, _ = cell_keys(self.buffer, self.starts[rows], self.ends[rows], "")
        return np.isin(keys, keys_of(texts))

    def numbers(self, columns: Columns) -> tuple[np.ndarray, Wrong]:
        values, wrong = cell_numbers(self.buffer, self.starts, self.ends, columns.decimal, columns.thousands)
        if columns.missing and wrong.any():
            rows = np.flatnonzero(wrong)
            empty = rows[self._among(rows, columns.missing)]
            values[empty], wrong[empty] = np.nan, False
        return values, wrong

    def times(self, timestamp: Timestamp, columns: Columns) -> tuple[np.ndarray, Wrong]:
        empty = self.starts == self.ends
        if columns.missing:
            empty |= self._among(np.arange(len(empty)), columns.missing)
        seconds = np.full(len(empty), np.nan)
        filled = np.flatnonzero(~empty)
        seconds[filled] = of_texts(self.texts(filled.tolist()), timestamp.form)
        return seconds, np.isnan(seconds) & ~empty

    def labels(self, columns: Columns) -> tuple[np.ndarray, Wrong]:
        if not (columns.positive or columns.negative):
            labels = self.buffer[self.starts] - np.uint8(ord("0"))
            return labels, (self.ends - self.starts != 1) | (labels > 1)
        keys = self._plain_keys
        clicks, others = (np.isin(keys, keys_of(texts)) for texts in (columns.positive, columns.negative))
        empty = keys == 0
        if columns.missing:
            empty |= np.isin(keys, keys_of(columns.missing)) & ~clicks & ~others
        if not columns.negative:
            return clicks.astype(np.uint8), empty & ~clicks
        if not columns.positive:
            return (~others).astype(np.uint8), empty & ~others
        return clicks.astype(np.uint8), ~(clicks | others)

    def odd(self) -> Wrong | None:
        if self.checked:
            return None
        text = self.buffer[PAD:-PAD]
        if is_utf8(text.tobytes()) and not (text < ord("\t")).any():
            return None
        cells = (self.buffer[start:end] for start, end in zip(self.starts.tolist(), self.ends.tolist()))
        return np.array([not is_utf8(cell.tobytes()) or bool((cell < ord("\t")).any()) for cell in cells], bool)

    def number_text(self, text: str, columns: Columns) -> str:
        return number_text(with_point(text.encode(), columns.decimal.encode(), columns.thousands.encode()).decode())

    def texts(self, rows: Sequence[int] | None = None) -> list[str]:
        starts, ends = (self.starts, self.ends) if rows is None else (self.starts[rows], self.ends[rows])
        data = self.buffer.tobytes() if rows is None or len(rows) > 1 else self.buffer
        return [bytes(data[start:end]).decode("utf-8", "replace") for start, end in zip(starts.tolist(), ends.tolist())]
