"""How far AUC and logloss would differ on other rows of the same kind: intervals from resampled rows.

In a resample each row comes a number of times, drawn from the Poisson distribution of mean 1, which stands for drawing
as many rows as there are with replacement (Chamandy et al. 2012, "Estimating uncertainty for massive data streams").
Rows are sorted by their scores once. 200 resamples of 10,000 rows take some 0.02 s. Above 1.3 million rows there are
fewer, down to 20, so that the time stops growing until 13 million rows; intervals of few resamples are coarse.
"""

import math
from dataclasses import dataclass

import numpy as np

from src.metrics.binary import Weights, auc, logloss, row_losses, tie_starts

RESAMPLES, FEWEST = 200, 20
_DRAWN_ROWS = 1 << 28
_LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A value of all rows, and between which values 95 of 100 resamples lie."""

    value: float
    low: float
    high: float


def _poisson_table() -> np.ndarray:
    """How often a row comes, for each value of two random bytes."""
    chances = [np.exp(-1) / math.factorial(count) for count in range(8)]  # 9 in a million come more often
    return np.searchsorted(np.cumsum(chances)[:-1], (np.arange(1 << 16) + 0.5) / (1 << 16)).astype(np.uint8)


class _Ranked:
    """Labels and logits, prepared so that a resample costs neither a sort nor large new arrays.

    Attributes:
        order: of the rows by their logits.
        places: of the clicks in that order.
        low, high: for each click, how many rows score lower, and how many score lower or the same.
    """

    def __init__(self, labels: np.ndarray, logits: np.ndarray, weights: Weights = None):
        self.order = np.argsort(logits)
        clicks = labels[self.order] > 0.5
        self.others = (~clicks).astype(np.uint8)
        self.places = np.flatnonzero(clicks)
        starts = tie_starts(logits[self.order])
        group = np.searchsorted(starts, self.places, "right")
        self.low, self.high = starts[group - 1], np.append(starts, len(labels))[group]
        self.losses = row_losses(labels, logits)[self.order]
        self.weights = None if weights is None else weights[self.order].astype(np.float64)
        self._below = np.zeros(len(labels) + 1, np.int64 if weights is None else np.float64)
        self._weights = np.empty(len(labels))

    def figures(self, counts: np.ndarray) -> tuple[float, float]:
        """AUC, nan if all drawn labels are the same, and logloss of rows [B] that come so many times."""
        counts = counts[self.order]
        if self.weights is not None:
            counts = counts * self.weights
        below = self._below
        np.cumsum(counts * self.others, dtype=below.dtype, out=below[1:])
        clicks = counts[self.places].astype(np.float64)
        pairs = float(clicks.sum()) * float(below[-1])
        wins = float(np.dot(clicks, below[self.low] + below[self.high])) / 2
        np.copyto(self._weights, counts)
        total = float(self._weights.sum())
        mean = float(np.dot(self._weights, self.losses)) / total if total else np.nan
        return wins / pairs if pairs else np.nan, mean


def resamples_for(rows: int) -> int:
    """How many resamples are drawn of so many rows."""
    return max(FEWEST, min(RESAMPLES, _DRAWN_ROWS // max(rows, 1)))


def _resampled(sets: list[_Ranked], rows: int, resamples: int, seed: int) -> np.ndarray:
    """AUC and logloss of each resample, the same rows for all sets, [resamples, sets, 2]."""
    rng, table = np.random.default_rng(seed), _poisson_table()
    found = np.empty((resamples, len(sets), 2))
    for number in range(resamples):
        counts = table[rng.integers(0, 1 << 16, rows, np.uint16)]
        found[number] = [one.figures(counts) for one in sets]
    return found


def _interval(value: float, drawn: np.ndarray) -> Interval:
    known = drawn[~np.isnan(drawn)]
    if not len(known):
        return Interval(value, np.nan, np.nan)
    low, high = np.quantile(known, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return Interval(value, float(low), float(high))


def intervals(
    labels: np.ndarray, logits: np.ndarray, resamples: int = 0, seed: int = 1, weights: Weights = None
) -> dict[str, Interval]:
    """Intervals of "auc" and "logloss" of labels [B] and logits [B].

    Args:
        labels, logits: of all rows.
        resamples: how many; 0 for `resamples_for`.
        seed: of the drawing.
        weights: of all rows, if they have some, which stay with them.
    """
    ranked = [_Ranked(labels, logits, weights)]
    drawn = _resampled(ranked, len(labels), resamples or resamples_for(len(labels)), seed)[:, 0]
    values = auc(labels, logits, weights), logloss(labels, logits, weights)
    return {name: _interval(values[place], drawn[:, place]) for place, name in enumerate(("auc", "logloss"))}


def differences(
    labels: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    resamples: int = 0,
    seed: int = 1,
    weights: Weights = None,
) -> dict[str, Interval]:
    """How much "auc" and "logloss" of the second logits lie above the first's, on the same rows in each resample."""
    ranked = [_Ranked(labels, first, weights), _Ranked(labels, second, weights)]
    drawn = _resampled(ranked, len(labels), resamples or resamples_for(len(labels)), seed)
    apart = drawn[:, 1] - drawn[:, 0]
    values = [metric(labels, second, weights) - metric(labels, first, weights) for metric in (auc, logloss)]
    return {name: _interval(values[place], apart[:, place]) for place, name in enumerate(("auc", "logloss"))}
