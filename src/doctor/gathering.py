"""What is kept of rows in one pass over them, in bounded memory: counts, some rows by chance, and hashes of rows.

The hashes are those of the rows with the smallest ones, whichever part these are in: so the parts of a data folder keep
the same rows' hashes, and what share of one stands in another can be told (bottom-k sketches; Cohen and Kaplan 2007).

Legend: B rows, S rows kept, N numeric inputs, L ids of a row, F categorical columns.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

MOST_ROWS = 50_000  # kept
MOST_HASHES = 1 << 20
_SEED = 1
_MIXED = np.uint64(0xD6E8FEB86659FD93)


@dataclass(frozen=True)
class Gathered:
    """Rows.

    Attributes:
        rows, clicks: how many there are.
        dense, ids, labels: of those that are kept, in their order: [S, N] float32, [S, L] int32, [S] float32.
        weights: how much each of these counts, [S] float64; None if each counts once.
        label_mean: share of clicks among all rows, by weight; 0 where nothing counts.
        effective: as many rows of weight 1 would tell a mean as surely (Kish 1965, "Survey Sampling").
        numbers, keys: the same rows' numbers as they are written, [S, columns], nan for empty cells, and keys [F, S];
            none of rows that were coded before.
        hashes, times: distinct hashes of rows without their labels, rising, and how many rows have each.
        bound: up to which hash all are there.
    """

    rows: int
    clicks: int
    dense: np.ndarray
    ids: np.ndarray
    labels: np.ndarray
    weights: np.ndarray | None
    label_mean: float
    effective: float
    numbers: np.ndarray
    keys: np.ndarray
    hashes: np.ndarray
    times: np.ndarray
    bound: np.uint64

    @property
    def of_labels(self) -> tuple[float, float]:
        """How many clicks, and how many other rows, are kept; as many of weight 1 as tell a mean as surely."""
        clicks = self.labels > 0.5
        if self.weights is None:
            return float(clicks.sum()), float(np.sum(~clicks))
        return effective_rows(self.weights[clicks]), effective_rows(self.weights[~clicks])

    def within(self, bound: np.uint64) -> "tuple[np.ndarray, np.ndarray]":
        """Hashes up to a bound, and how many rows have each."""
        kept = self.hashes <= bound
        return self.hashes[kept], self.times[kept]


class Gathering:
    """Gathers rows block by block.

    Args:
        most_rows, most_hashes: that are kept.
    """

    def __init__(self, most_rows: int = MOST_ROWS, most_hashes: int = MOST_HASHES):
        self.most_rows, self.most_hashes = most_rows, most_hashes
        self.rows = self.clicks = 0
        self._sums = np.zeros(3)  # of weights, those of clicks, and their squares
        self._weighted = False
        self._rng = np.random.default_rng(_SEED)
        self._kept: list[tuple[np.ndarray, ...]] = []  # of each block: priority, number, and what rows hold
        self._waiting, self._below = 0, np.inf
        self._hashes, self._times = np.empty(0, np.uint64), np.empty(0, np.int64)
        self._new_hashes: list[np.ndarray] = []
        self._bound = np.uint64(np.iinfo(np.uint64).max)

    def add(
        self, dense: np.ndarray, ids: np.ndarray, labels: np.ndarray, numbers: np.ndarray | None = None,
        keys: np.ndarray | None = None, weights: np.ndarray | None = None,
    ) -> None:  # fmt: skip
        """Add rows dense [B, N], ids [B, L] and labels [B]; of raw ones also numbers [B, columns] and keys [F, B]; and
        weights [B], of all rows or of none."""
        if not len(labels):
            return
        priority = self._rng.random(len(labels))
        chosen = np.flatnonzero(priority < self._below)
        nothing = np.empty((len(labels), 0))
        self._weighted = weights is not None
        each = np.ones(len(labels)) if weights is None else weights.astype(np.float64)
        raw = nothing if numbers is None else numbers, nothing if keys is None else keys.T
        columns = dense, ids, labels, each, *raw
        self._kept.append((priority[chosen], self.rows + chosen, *(column[chosen] for column in columns)))
        self._waiting += len(chosen)
        if self._waiting > 2 * self.most_rows:
            self._thin()
        hashes = hashes_of(dense, ids)
        self._new_hashes.append(hashes[hashes <= self._bound])
        if sum(map(len, self._new_hashes)) > self.most_hashes:
            self._merge()
        self.rows += len(labels)
        self.clicks += int(np.count_nonzero(labels))
        self._sums += each.sum(), each[labels > 0].sum(), np.dot(each, each)

    def _thin(self) -> None:
        """Leave those of the kept rows with the smallest priorities."""
        columns = [np.concatenate(column) for column in zip(*self._kept)]
        if len(columns[0]) > self.most_rows:
            smallest = np.argpartition(columns[0], self.most_rows)[: self.most_rows]
            columns = [column[smallest] for column in columns]
            self._below = float(columns[0].max())
        self._kept, self._waiting = [tuple(columns)], len(columns[0])

    def _merge(self) -> None:
        """Count the new hashes, and leave the smallest ones."""
        new, times = np.unique(np.concatenate([self._hashes[:0], *self._new_hashes]), return_counts=True)
        hashes, places = np.unique(np.concatenate([self._hashes, new]), return_inverse=True)
        counts = np.zeros(len(hashes), np.int64)
        np.add.at(counts, places, np.concatenate([self._times, times]))
        if len(hashes) > self.most_hashes:
            self._bound = hashes[self.most_hashes - 1]
        self._hashes, self._times = hashes[: self.most_hashes], counts[: self.most_hashes]
        self._new_hashes = []

    def end(self) -> Gathered | None:
        """What was gathered; None of no rows."""
        if not self.rows:
            return None
        self._thin()
        self._merge()
        _, numbers, *columns = self._kept[0]
        order = np.argsort(numbers)
        dense, ids, labels, weights, raw, keys = (column[order] for column in columns)
        all_weight, of_clicks, squares = self._sums.tolist()
        return Gathered(
            self.rows, self.clicks, dense, ids, labels.astype(np.float32), weights if self._weighted else None,
            of_clicks / all_weight if all_weight else 0.0, all_weight**2 / squares if squares else 0.0, raw, keys.T,
            self._hashes, self._times, self._bound,
        )  # fmt: skip


def gathered(batches: Iterable[tuple[np.ndarray, ...]]) -> Gathered | None:
    """Batches of dense, ids, labels [B, 1], and weights [B, 1] if rows have some; None of no rows."""
    gathering = Gathering()
    for dense, ids, labels, *weights in batches:
        gathering.add(dense, ids, labels[:, 0], weights=weights[0][:, 0] if weights else None)
    return gathering.end()


def effective_rows(weights: np.ndarray) -> float:
    """As many rows of weight 1 tell a mean as surely as rows of these weights [B]."""
    squares = float(np.dot(weights, weights))
    return float(weights.sum()) ** 2 / squares if squares else 0.0


def hashes_of(dense: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """A hash [B] uint64 of each row, of its bits."""
    words = np.concatenate([np.ascontiguousarray(part).view(np.uint32) for part in (dense, ids)], axis=1)
    factors = np.random.default_rng(_SEED).integers(0, 2**63, words.shape[1], np.uint64) * np.uint64(2) + np.uint64(1)
    hashes = np.zeros(len(words), np.uint64)
    for column, factor in zip(words.T, factors):  # a column at a time, which takes the least memory
        hashes = (hashes ^ column) * factor
        hashes ^= hashes >> np.uint64(29)
    hashes *= _MIXED
    mixed: np.ndarray = hashes ^ hashes >> np.uint64(32)
    return mixed
