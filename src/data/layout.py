"""Which ids a row has, from which tables their vectors come, and what becomes of these.

A field has one id in a row, or a list of ids, up to so many, where its cells hold several values; PADDING stands behind
a shorter list. The vectors of a list are pooled to one, in which padding counts for nothing and an id that comes twice
counts twice; of an empty list it is all zeros. Fields may share a table.

Legend: B rows, F fields, L ids of a row, T tables, D width of a vector.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from src.rows.cells.lists import POOLS, CellLists
from src.rows.columns import Columns

PADDING = -1
Value = TypeVar("Value")


@dataclass(frozen=True)
class Layout:
    """The ids of a row, in the order of the fields.

    Attributes:
        tables: number of each field's table, [F]; tables are numbered in the order in which fields first name them.
        sizes: how many ids each field has, [F].
        pools: of lists.POOLS, what becomes of the vectors of each field's list, [F]; "" for a field of one value.
    """

    tables: tuple[int, ...]
    sizes: tuple[int, ...]
    pools: tuple[str, ...]

    def __post_init__(self) -> None:
        numbers = list(dict.fromkeys(self.tables))
        fields = zip(self.sizes, self.pools)
        if (
            not len(self.tables) == len(self.sizes) == len(self.pools)
            or numbers != list(range(len(numbers)))
            or not all(size == 1 if pool == "" else pool in POOLS and size >= 1 for size, pool in fields)
        ):
            raise TypeError(f"{self} is no layout of ids")

    @classmethod
    def plain(cls, fields: int) -> "Layout":
        """Of fields of one value with a table each."""
        return cls(tuple(range(fields)), (1,) * fields, ("",) * fields)

    @classmethod
    def of(cls, columns: Columns) -> "Layout":
        """Of the categorical columns of raw rows."""
        lists = {one.name: one for one in columns.lists}
        names = [dict(columns.shared).get(name, name) for name in columns.categorical]
        numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
        return cls(
            tuple(numbers[name] for name in names),
            tuple(lists[name].max_values if name in lists else 1 for name in columns.categorical),
            tuple(lists[name].pool if name in lists else "" for name in columns.categorical),
        )

    @classmethod
    def from_json(cls, content: Mapping[str, Sequence[Any]]) -> "Layout":
        """What `dataclasses.asdict` and JSON made of one."""
        return cls(**{name: tuple(values) for name, values in content.items()})

    def __add__(self, other: "Layout") -> "Layout":
        """The fields of another layout behind these, with tables of their own."""
        first = len(self.of_tables(self.tables))
        tables = (*self.tables, *(first + table for table in other.tables))
        return Layout(tables, self.sizes + other.sizes, self.pools + other.pools)

    @property
    def fields(self) -> int:
        """F."""
        return len(self.tables)

    @cached_property
    def ids(self) -> int:
        """L."""
        return sum(self.sizes)

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """The place of each field's first id, [F]."""
        return tuple(np.cumsum([0, *self.sizes[:-1]]).tolist()) if self.sizes else ()

    @cached_property
    def has_lists(self) -> bool:
        """Whether a field holds lists."""
        return any(self.pools)

    @cached_property
    def is_plain(self) -> bool:
        """Whether each field has one value and a table of its own."""
        return self == Layout.plain(self.fields)

    def of_ids(self, of_fields: Sequence[Value]) -> tuple[Value, ...]:
        """What fields have, [F], for each of a row's ids, [L]."""
        return tuple(one for one, size in zip(of_fields, self.sizes) for _ in range(size))

    def of_tables(self, of_fields: Sequence[Value]) -> tuple[Value, ...]:
        """What fields have, [F], for each table, [T]: that of the first field that uses it."""
        first = dict(reversed(list(zip(self.tables, of_fields))))
        return tuple(first[table] for table in range(len(first)))

    def of_fields(self, of_tables: Sequence[Value]) -> tuple[Value, ...]:
        """What tables have, [T], for each field, [F]."""
        return tuple(of_tables[table] for table in self.tables)

    @cached_property
    def uses(self) -> tuple[int, ...]:
        """How many of a row's ids are of each table, [T]."""
        return tuple(np.bincount(self.tables, self.sizes).astype(int).tolist()) if self.tables else ()

    def count(self, which: np.ndarray) -> np.ndarray:
        """How many of each field's ids, [F], are among those of rows [B, L] bool."""
        few = np.count_nonzero(which) < which.size // 16  # then a look at each is faster than a sum of all
        counts = np.bincount(np.flatnonzero(which) % self.ids, minlength=self.ids) if few else which.sum(axis=0)
        return np.add.reduceat(counts, self.starts) if self.has_lists else counts

    def leading(self, ids: np.ndarray, table_rows: Sequence[int]) -> np.ndarray:
        """One id for each field, [B, F], of ids [B, L] and rows of the fields' tables, [F].

        Of a list it is the lowest known one, which is the most frequent value; 0 where none is known, and the number
        behind the table's last for an empty list.
        """
        if not self.has_lists:
            return ids
        found = np.empty((len(ids), self.fields), ids.dtype)
        for field, (start, size, rows) in enumerate(zip(self.starts, self.sizes, table_rows)):
            own = ids[:, start : start + size]
            lowest = np.where(own > 0, own, rows).min(axis=1)
            found[:, field] = np.where((lowest == rows) & (own == 0).any(axis=1), 0, lowest)
        return found

    def pool(self, vectors: np.ndarray, ids: np.ndarray) -> np.ndarray:
        """Vectors of the fields, [B, F, D], of vectors [B, L, D] of ids [B, L]; those of padding may be anything."""
        if not self.has_lists:
            return vectors
        found = np.empty((len(vectors), self.fields, vectors.shape[2]), vectors.dtype)
        for field, (start, size, pool) in enumerate(zip(self.starts, self.sizes, self.pools)):
            own, there = vectors[:, start : start + size], ids[:, start : start + size] != PADDING
            found[:, field] = _pooled(own, there[:, :, None], pool) if pool else own[:, 0]
        return found


def padded(lists: CellLists, ids: np.ndarray, rarity: np.ndarray, most: int) -> np.ndarray:
    """Ids of lists [B, most] int32, in their order, with padding behind them.

    Args:
        lists: whose.
        ids: of their values, [V].
        rarity: of the values, [V]; of a longer list those with the highest are left out.
        most: ids of a list.
    """
    rows, places = lists.places()
    found = np.full((len(lists.counts), most), PADDING, np.int32)
    if len(rows) and places.max() >= most:
        kept = np.sort(np.lexsort((rarity, rows))[places < most])  # lexsort leaves the rows where they are
        rows, ids = rows[kept], ids[kept]
        places = CellLists(ids, np.minimum(lists.counts, most)).places()[1]
    found[rows, places] = ids
    return found


def _pooled(vectors: np.ndarray, there: np.ndarray, pool: str) -> np.ndarray:
    if pool == "max":
        found = np.where(there, vectors, -np.inf).max(1)
        return np.where(there.any(1), found, 0)
    total: np.ndarray = np.where(there, vectors, 0).sum(1)
    return total / np.maximum(there.sum(1), 1).astype(total.dtype) if pool == "mean" else total
