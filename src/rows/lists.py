"""Columns whose cells hold several values.

Legend: B rows, V values of all rows.
"""

from dataclasses import dataclass

import numpy as np

POOLS = ("sum", "mean", "max")


@dataclass(frozen=True)
class ListColumn:
    """How a categorical column's cells hold several values.

    Attributes:
        name: of the column.
        separator: the sign between the values of a cell of text. Nothing between two signs is no value.
        max_values: how many of a cell's values are kept: those that were most frequent in training, or the first ones
            where categories are hashed.
        pool: of POOLS, what becomes of the vectors of a cell's values.
    """

    name: str
    separator: str
    max_values: int = 16
    pool: str = "sum"


@dataclass
class CellLists:
    """The values in the cells of a column.

    Attributes:
        keys: of all values, [V] uint64, those of a cell side by side, in the order of the rows.
        counts: how many each cell holds, [B].
    """

    keys: np.ndarray
    counts: np.ndarray

    def of_rows(self, chosen: np.ndarray) -> "CellLists":
        """Those of the rows that are chosen, [B] bool."""
        return CellLists(self.keys[np.repeat(chosen, self.counts)], self.counts[chosen])

    def dropped(self, most: int) -> int:
        """How many values there are beyond so many of each cell."""
        return int(np.maximum(self.counts - most, 0).sum())

    def places(self) -> tuple[np.ndarray, np.ndarray]:
        """The row of each value, and its place among those of its cell, both [V]."""
        rows = np.repeat(np.arange(len(self.counts)), self.counts)
        return rows, np.arange(len(rows)) - np.repeat(np.cumsum(self.counts) - self.counts, self.counts)


def split_cells(buffer: np.ndarray, starts: np.ndarray, ends: np.ndarray, separator: str) -> tuple[np.ndarray, ...]:
    """Where the values of cells stand.

    Args:
        buffer: bytes.
        starts, ends: each cell's first byte, and the one behind it, [B], in rising order.
        separator: between values.

    Returns:
        The values' first and behind-the-last bytes, [V], and how many each cell holds, [B].
    """
    marks = np.flatnonzero(buffer == ord(separator))
    cells = np.searchsorted(starts, marks, "right") - 1
    inside = (cells >= 0) & (marks < ends[cells]) if len(starts) else np.zeros(len(marks), bool)
    marks, cells = marks[inside], cells[inside]
    begins, stops = np.concatenate((starts, marks + 1)), np.concatenate((marks, ends))
    begins.sort(), stops.sort()
    rows = np.repeat(np.arange(len(starts)), 1 + np.bincount(cells, minlength=len(starts)))
    filled = begins < stops
    return begins[filled], stops[filled], np.bincount(rows[filled], minlength=len(starts))


def joined(parts: list[CellLists]) -> CellLists:
    """Lists of rows one behind the other."""
    return CellLists(np.concatenate([one.keys for one in parts]), np.concatenate([one.counts for one in parts]))
