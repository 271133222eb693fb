"""A vocabulary that grows: what is counted of each value, and who gets which row when new training rows come.

A growth takes the training rows of some new files, a day's for instance. A value keeps its row. One without a row gets
one when it occurred `min_count` times in all training rows so far: the lowest free row, else the next behind the last.
They are served in the order of the training rows in which they got so far, so that rows that come in one growth or in
several give the same ids. Growths are numbered from 1; 0 is the first fit.

A row becomes free when its value was in none of the last `forget_after` growths, or where `max_rows_per_field` leaves
no room for it, as others are more frequent. Its key becomes one that no text has, until the row is dealt anew. What was
forgotten is counted from 0 when it comes again; what had to make room waits with its count.

Legend: R rows of a table from id 1 on, W values that wait, K distinct values of new rows, O places of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from src.rows.keys import free_keys, is_free

if TYPE_CHECKING:
    from src.data.vocabulary import Vocabulary

OF_ROWS, OF_WAITING = ("counts", "first", "seen", "since"), ("keys", "counts", "first", "seen")
Places = tuple[np.ndarray, np.ndarray]  # keys, uint64, and a place of each in the order of the rows, int64
_NO_ROW = 0  # the id for unseen values
_BEFORE = -1  # the place of a value that occurred often enough before


@dataclass(frozen=True)
class Waiting:
    """Values that have no row.

    Attributes:
        keys: rising, [W] uint64.
        counts: how often each occurred, [W] int64.
        first, seen: the growth in which it first came, and the last one so far, [W] int32.
    """

    keys: np.ndarray
    counts: np.ndarray
    first: np.ndarray
    seen: np.ndarray

    @classmethod
    def since_fit(cls, keys: np.ndarray, counts: np.ndarray) -> "Waiting":
        """Those that the first fit left, of rising keys."""
        zeros = np.zeros(len(keys), np.int32)
        return cls(keys, counts, zeros, zeros)


@dataclass(frozen=True)
class TableCounts:
    """What is counted of a table's rows.

    Attributes:
        counts, first, seen: as of `Waiting`, [R]; 0 of a free row.
        since: the growth since which a row belongs to its value, or is free, [R] int32.
        waiting: values without a row.
    """

    counts: np.ndarray
    first: np.ndarray
    seen: np.ndarray
    since: np.ndarray
    waiting: Waiting

    @classmethod
    def since_fit(cls, counts: np.ndarray, waiting: Waiting) -> "TableCounts":
        """Of the first fit."""
        zeros = np.zeros(len(counts), np.int32)
        return cls(counts, zeros, zeros, zeros, waiting)

    @classmethod
    def of(cls, arrays: Sequence[np.ndarray]) -> "TableCounts":
        """Of the arrays of OF_ROWS, and behind them those of OF_WAITING."""
        counts, first, seen, since, *waiting = arrays
        return cls(counts, first, seen, since, Waiting(*waiting))


@dataclass(frozen=True)
class Found:
    """What new training rows hold of a table.

    Attributes:
        keys: their distinct values, [K] uint64.
        counts: how often each occurs, [K] int64.
        late_keys, late_places: the first places, in the order of the rows, of values that have no row: `min_count` of
            them at least where there are as many, [O] uint64 and int64.
    """

    keys: np.ndarray
    counts: np.ndarray
    late_keys: np.ndarray
    late_places: np.ndarray


@dataclass(frozen=True)
class Rule:
    """How a table grows.

    Attributes:
        number: of the growth.
        least: occurrences that a value needs for a row.
        forget_after: growths without a value after which it is forgotten; 0 for never.
        most_rows: rows, the one for unseen values among them, that are not free at most; 0 for no bound.
    """

    number: int
    least: int
    forget_after: int = 0
    most_rows: int = 0


@dataclass(frozen=True)
class Watched:
    """A vocabulary that is to grow.

    Attributes:
        vocabulary: what it holds so far.
        least: how often a value of each field must occur for a row.
        sha256: its file's checksum.
    """

    vocabulary: "Vocabulary"
    least: tuple[int, ...]
    sha256: str

    def plan(self) -> dict[str, Any]:
        """What decides the places, in JSON's types."""
        return {"vocabulary": self.sha256, "least": self.least}

    def first_places(self, field: int, keys: np.ndarray, rows: np.ndarray) -> Places:
        """The first rows of each value of a field that has no row in its table, as many as it may need for one.

        Args:
            field: its number.
            keys: of its values, [V] uint64, in the order of the rows.
            rows: each one's row, [V].

        Returns:
            Keys and their rows, [O] each, in the order of the rows.
        """
        import pandas as pd  # late: what training reads of a folder's counts needs none

        codes, distinct = pd.factorize(keys)
        is_late = self.vocabulary.ids_of(field, distinct) == _NO_ROW
        late = np.flatnonzero(is_late[codes])
        kept = late[_first_of_each(codes[late], self.least[field])]
        return keys[kept], rows[kept].astype(np.int64)


def _first_of_each(codes: np.ndarray, most: int) -> np.ndarray:
    """The first places, up to so many, of each code in an array of them, rising."""
    order = np.argsort(codes, kind="stable")
    begins = np.flatnonzero(np.diff(codes[order], prepend=-1))
    ranks = np.arange(len(codes)) - np.repeat(begins, np.diff(begins, append=len(codes)))
    return np.sort(order[ranks < most])


def merge_places(parts: Sequence[Places], most: int) -> Places:
    """Keys and places of several parts of the rows, the first places of each key, up to so many."""
    import pandas as pd  # late, as above

    keys, places = (np.concatenate(arrays) for arrays in zip(*parts))
    order = np.argsort(places, kind="stable")
    keys, places = keys[order], places[order]
    kept = _first_of_each(pd.factorize(keys)[0], most)
    return keys[kept], places[kept]


def grow(
    keys: np.ndarray, old: TableCounts, found: Found, ids: np.ndarray, rule: Rule
) -> tuple[np.ndarray, TableCounts]:
    """A table's keys, in the order of their ids, and what is counted of them, behind a growth.

    Args:
        keys: before it, [R] uint64.
        old: what was counted.
        found: in the new rows.
        ids: of its keys, [K].
        rule: how.
    """
    has_row = ids != _NO_ROW
    counts, seen = old.counts.copy(), old.seen.copy()
    counts[ids[has_row] - 1] += found.counts[has_row]
    seen[ids[has_row] - 1] = rule.number
    table = replace(old, counts=counts, seen=seen)
    waiting, places, before = _counted_without(old.waiting, found, ~has_row, rule)
    if rule.forget_after:
        table = _freed(table, ~is_free(keys) & (rule.number - seen >= rule.forget_after), rule)
        keys = np.where(table.counts > 0, keys, free_keys(np.arange(len(keys))))
        kept = rule.number - waiting.seen < rule.forget_after
        waiting, places, before = _chosen(waiting, kept), places[kept], before[kept]
    comes = waiting.counts >= rule.least
    if rule.most_rows:
        stays, comes = _most_frequent(table, waiting, places, comes, rule.most_rows - 1)
        out = ~stays & (table.counts > 0)
        left = Waiting(keys[out], table.counts[out], table.first[out], table.seen[out])
        table = _freed(table, out, rule)
        keys = np.where(table.counts > 0, keys, free_keys(np.arange(len(keys))))
    else:
        left = _chosen(waiting, np.zeros(0, np.intp))
    # Who occurred often enough before these rows is served first, the most frequent one before others.
    order = np.lexsort((waiting.keys, np.where(places == _BEFORE, -before, 0), places))
    order = order[comes[order]]
    keys, table = _dealt(keys, table, _chosen(waiting, order), rule)
    return keys, replace(table, waiting=_joined(_chosen(waiting, ~comes), left))


def _counted_without(
    old: Waiting, found: Found, late: np.ndarray, rule: Rule
) -> tuple[Waiting, np.ndarray, np.ndarray]:
    """All values without a row, those of new rows among them.

    And the place in which each occurred often enough, [W], _BEFORE of one that did before, any place of one that did
    not; and how often each occurred before.
    """
    keys, places = np.unique(np.concatenate([old.keys, found.keys[late]]), return_inverse=True)
    was, comes = places[: len(old.keys)], places[len(old.keys) :]
    before = np.zeros(len(keys), np.int64)
    first, seen = np.full((2, len(keys)), rule.number, np.int32)
    before[was], first[was], seen[was] = old.counts, old.first, old.seen
    seen[comes] = rule.number
    counts = before.copy()
    counts[comes] += found.counts[late]
    order = np.lexsort((found.late_places, found.late_keys))
    late_keys, late_places = found.late_keys[order], np.append(found.late_places[order], 0)
    wanted = np.searchsorted(late_keys, keys) + rule.least - before - 1
    at = np.where(before >= rule.least, _BEFORE, late_places[np.clip(wanted, 0, len(late_keys))])
    return Waiting(keys, counts, first, seen), at, before


def _chosen(waiting: Waiting, chosen: np.ndarray) -> Waiting:
    return Waiting(*(getattr(waiting, name)[chosen] for name in OF_WAITING))


def _joined(one: Waiting, other: Waiting) -> Waiting:
    both = Waiting(*(np.concatenate([getattr(one, name), getattr(other, name)]) for name in OF_WAITING))
    return _chosen(both, np.argsort(both.keys)) if len(other.keys) else both


def _freed(table: TableCounts, which: np.ndarray, rule: Rule) -> TableCounts:
    """A table some rows of which, [R] bool, have become free."""
    counts, first, seen = (np.where(which, 0, array) for array in (table.counts, table.first, table.seen))
    return replace(table, counts=counts, first=first.astype(np.int32), seen=seen.astype(np.int32),
                   since=np.where(which, rule.number, table.since).astype(np.int32))  # fmt: skip


def _most_frequent(
    table: TableCounts, waiting: Waiting, places: np.ndarray, comes: np.ndarray, most: int
) -> tuple[np.ndarray, np.ndarray]:
    """Which rows stay, [R] bool, and which waiting values get one, [W] bool, where there is room for so many.

    These are the most frequent ones; of values as frequent, those that have a row come first, then who waited longest.
    """
    rows, new = np.flatnonzero(table.counts > 0), np.flatnonzero(comes)
    counts = np.concatenate([table.counts[rows], waiting.counts[new]])
    ranks = np.concatenate([np.full(len(rows), _BEFORE - 1), places[new]])
    kept = np.lexsort((ranks, -counts))[:most]
    stays, gets = np.zeros(len(table.counts), bool), np.zeros(len(comes), bool)
    stays[rows[kept[kept < len(rows)]]] = True
    gets[new[kept[kept >= len(rows)] - len(rows)]] = True
    return stays, gets


def _dealt(keys: np.ndarray, table: TableCounts, comes: Waiting, rule: Rule) -> tuple[np.ndarray, TableCounts]:
    """A table in which values, in their order, have got its free rows and more behind them."""
    rows = np.flatnonzero(is_free(keys))[: len(comes.keys)]
    rows = np.concatenate([rows, len(keys) + np.arange(len(comes.keys) - len(rows))])
    more = max(len(keys), int(rows.max(initial=-1)) + 1) - len(keys)

    def put(old: np.ndarray, new: np.ndarray | int) -> np.ndarray:
        grown = np.concatenate([old, np.zeros(more, old.dtype)])
        grown[rows] = new
        return grown

    return put(keys, comes.keys), replace(
        table, counts=put(table.counts, comes.counts), first=put(table.first, comes.first),
        seen=put(table.seen, comes.seen), since=put(table.since, rule.number),
    )  # fmt: skip
