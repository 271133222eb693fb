"""Columns whose cells hold several values, and what a schema says of them and of shared tables.

Legend: B rows, V values of all rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from src.base.errors import InputError

POOLS = ("sum", "mean", "max")
_KEYS = ("name", "list", "max_values", "pool", "table")
MOST_VALUES = 1024


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
        checks: as of `Block`, of the values, [V] uint32; if asked for.
    """

    keys: np.ndarray
    counts: np.ndarray
    checks: np.ndarray | None = None

    def _chosen(self, values: np.ndarray, counts: np.ndarray) -> "CellLists":
        """Some of the values, and how many of each cell these are."""
        return CellLists(self.keys[values], counts, None if self.checks is None else self.checks[values])

    def of_rows(self, chosen: np.ndarray) -> "CellLists":
        """Those of the rows that are chosen, [B] bool."""
        return self._chosen(np.repeat(chosen, self.counts), self.counts[chosen])

    def filled(self) -> "CellLists":
        """Those without values that are as good as empty, whose key is 0."""
        kept = self.keys != 0
        rows, _ = self.places()
        return self._chosen(kept, np.bincount(rows[kept], minlength=len(self.counts)))

    def taken(self, rows: np.ndarray) -> "CellLists":
        """Those of some rows by number, in any order; none for -1."""
        counts = np.append(self.counts, 0)
        firsts = (np.cumsum(counts) - counts)[rows]
        places = CellLists(self.keys, counts[rows]).places()[1]
        return self._chosen(np.repeat(firsts, counts[rows]) + places, counts[rows])

    def dropped(self, most: int) -> int:
        """How many values there are beyond so many of each cell."""
        return int(np.maximum(self.counts - most, 0).sum())

    def places(self) -> tuple[np.ndarray, np.ndarray]:
        """The row of each value, and its place among those of its cell, both [V]."""
        rows = np.repeat(np.arange(len(self.counts)), self.counts)
        return rows, np.arange(len(rows)) - np.repeat(np.cumsum(self.counts) - self.counts, self.counts)


def joined_lists(parts: Sequence[CellLists]) -> CellLists:
    """Lists of rows one behind the other."""
    checks = [one.checks for one in parts if one.checks is not None]
    keys, counts = (np.concatenate([getattr(one, name) for one in parts]) for name in ("keys", "counts"))
    return CellLists(keys, counts, np.concatenate(checks) if checks else None)


def split_cells(buffer: np.ndarray, starts: np.ndarray, ends: np.ndarray, separator: str) -> tuple[np.ndarray, ...]:
    """Where the values of cells stand.

    Args:
        buffer: bytes.
        starts, ends: each cell's first byte, and the one behind it, [B]; those of cells that are not empty rise.
        separator: between values.

    Returns:
        The values' first and behind-the-last bytes, [V], and how many each cell holds, [B].
    """
    own = np.flatnonzero(starts < ends)
    count, starts, ends = len(starts), starts[own], ends[own]
    marks = np.flatnonzero(buffer == ord(separator)) if len(own) else np.empty(0, np.int64)
    cells = np.searchsorted(starts, marks, "right") - 1
    inside = (cells >= 0) & (marks < ends[np.maximum(cells, 0)]) if len(own) else marks < 0
    marks, cells = marks[inside], cells[inside]
    begins, stops = np.concatenate((starts, marks + 1)), np.concatenate((marks, ends))
    begins.sort(), stops.sort()
    rows = np.repeat(own, 1 + np.bincount(cells, minlength=len(own)))
    filled = begins < stops
    return begins[filled], stops[filled], np.bincount(rows[filled], minlength=count)


def list_columns(
    where: str, entries: Sequence[Any], separators: Sequence[str]
) -> tuple[tuple[str, ...], tuple[ListColumn, ...], tuple[tuple[str, str], ...]]:
    """What a schema's `categorical` names: all columns, those of lists, and those with the name of a table.

    Args:
        where: names the schema, for messages.
        entries: each a name, or a dictionary of a column's name and more of _KEYS.
        separators: signs that can't stand between values, since they stand between cells or around them.

    Raises:
        InputError: an entry is none, or its values are wrong or contradict each other.
    """
    names: list[str] = []
    lists: list[ListColumn] = []
    shared: list[tuple[str, str]] = []
    for entry in entries:
        if isinstance(entry, str):
            names.append(entry)
            continue
        name, table = entry.get("name"), entry.get("table")
        if set(entry) - set(_KEYS) or not isinstance(name, str) or not isinstance(table, str | None):
            raise InputError(
                f"{where}: categorical holds {entry!r}: it must be a name, or of the form {{name: tags, list: '|', "
                f"max_values: 8, pool: mean, table: item}}, of which all but the first may be left away"
            )
        names.append(name)
        if "list" in entry:
            lists.append(_list_column(where, entry, separators))
        elif unused := [key for key in ("max_values", "pool") if key in entry]:
            raise InputError(f"{where}: {unused[0]} of {name!r} has no effect without list: drop it or add list: '|'")
        if table is not None:
            shared.append((name, table))
    return tuple(names), tuple(lists), tuple(shared)


def _list_column(where: str, entry: dict[str, Any], separators: Sequence[str]) -> ListColumn:
    column = ListColumn(
        entry["name"], entry["list"], entry.get("max_values", ListColumn.max_values), entry.get("pool", ListColumn.pool)
    )
    where = f"{where}: column {column.name!r}"
    sign, most = column.separator, column.max_values
    if not isinstance(sign, str) or len(sign) != 1 or not " " <= sign <= "~" or sign.isalnum():
        raise InputError(f"{where}: list is {sign!r}: it must be the one sign between values, such as | or ;")
    if any(sign in other for other in separators):
        raise InputError(f"{where}: list is {sign!r}, which stands between cells or around them: write another sign")
    if not isinstance(most, int) or isinstance(most, bool) or not 1 <= most <= MOST_VALUES:
        raise InputError(f"{where}: max_values is {most!r}: it must be a whole number from 1 to {MOST_VALUES}")
    if column.pool not in POOLS:
        raise InputError(f"{where}: pool is {column.pool!r}: it must be one of {', '.join(POOLS)}")
    return column
