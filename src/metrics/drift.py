"""How far rows have moved away from others: the population stability index of each column, and the label means.

The index (PSI) is the sum over bins of (q - p) ln(q / p), of the shares p of the old rows and q of the new ones, which
is Jeffreys' divergence. As a rule of thumb nothing has moved below 0.1, and much above 0.25 (Siddiqi 2006, "Credit Risk
Scorecards", chapter 9). Of B bins, N old rows and M new ones of one law, PSI / (1 / N + 1 / M) follows the chi-squared
distribution of B - 1 degrees of freedom (Yurdakul 2018, "Statistical Properties of Population Stability Index").

Legend: B rows.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from src.metrics.binary import Weights, mean

MUCH = 0.25
_QUANTILES, _TOP = 10, 20  # bins of a number; values of a category that have one each
_SMOOTHED = 0.5  # added to each bin's rows, so that an empty one has a logarithm
_ONE_IN_A_MILLION = 4.7534  # deviations of a normal variable


@dataclass(frozen=True)
class Moved:
    """How far a column has moved.

    Attributes:
        psi: the index.
        chance: what it exceeds in one of a million pairs of such samples of one law.
    """

    psi: float
    chance: float

    def beyond(self, most: float = MUCH) -> bool:
        """Whether it has moved further than this, and chance does not do so."""
        return self.psi >= most and self.psi > self.chance


@dataclass(frozen=True)
class ColumnRows:
    """The columns of some rows.

    Attributes:
        numbers: values [B] of each numeric column, by name; nan for an empty cell.
        categories: ids [B] of each field, by name; 0 for a value that is not known, as a vocabulary has it.
        labels: [B] of 0 and 1.
        weights: how much each row counts, [B]; None if each counts once.
    """

    numbers: Mapping[str, np.ndarray]
    categories: Mapping[str, np.ndarray]
    labels: np.ndarray
    weights: np.ndarray | None = None

    @property
    def counted(self) -> np.ndarray | None:
        """The weights, times what makes their sum as many rows of weight 1 as tell a share as surely (Kish 1965)."""
        if self.weights is None or not self.weights.any():
            return None
        return self.weights * (self.weights.sum() / np.dot(self.weights, self.weights))


@dataclass(frozen=True)
class Drift:
    """How far rows have moved away from others.

    Attributes:
        columns: of both kinds, by name.
        old_mean, new_mean: of the labels.
    """

    columns: dict[str, Moved]
    old_mean: float
    new_mean: float

    @property
    def odds(self) -> float:
        """The odds of a click, as a multiple of the old rows'; nan where rows have one label."""
        return odds_ratio(self.old_mean, self.new_mean)


def drift(old: ColumnRows, new: ColumnRows) -> Drift:
    """How far new rows have moved away from old ones, of the columns that both have; neither may be empty."""
    counted = old.counted, new.counted
    numbers = {name: moved_number(values, new.numbers[name], *counted) for name, values in old.numbers.items()
               if name in new.numbers}  # fmt: skip
    categories = {name: moved_category(ids, new.categories[name], *counted) for name, ids in old.categories.items()
                  if name in new.categories}  # fmt: skip
    return Drift(numbers | categories, *(mean(rows.labels, rows.counted) for rows in (old, new)))


def moved_number(old: np.ndarray, new: np.ndarray, old_weights: Weights = None, new_weights: Weights = None) -> Moved:
    """How far a numeric column has moved, of old [B] and new values, by weight: in bins between the old one's deciles.

    What lies below or above all old values, and empty cells, have bins of their own.
    """
    known = old[~np.isnan(old)]
    if not len(known):
        edges, low, high = np.zeros(0), math.inf, -math.inf
    else:
        low, high = float(known.min()), float(known.max())
        edges = np.unique(np.quantile(known, np.arange(1, _QUANTILES) / _QUANTILES, method="inverted_cdf"))

    def counts(values: np.ndarray, weights: Weights) -> np.ndarray:
        bins = np.searchsorted(edges, values) + 1
        bins = np.where(values < low, 0, np.where(values > high, len(edges) + 2, bins))
        return np.bincount(np.where(np.isnan(values), len(edges) + 3, bins), weights, len(edges) + 4)

    return moved(counts(old, old_weights), counts(new, new_weights))


def moved_category(old: np.ndarray, new: np.ndarray, old_weights: Weights = None, new_weights: Weights = None) -> Moved:
    """How far a field has moved, of old [B] and new ids, by weight: a bin for each frequent old one, and one for all
    others.

    Unknown values, 0, are among the others, where the old rows' rare ones are: where a vocabulary was learned from the
    old rows, these have none, and any later rows would seem to have moved.
    """
    values, counts = np.unique(old[old != 0], return_counts=True)
    top = np.sort(values[np.argsort(-counts, kind="stable")[:_TOP]])

    def counts_of(ids: np.ndarray, weights: Weights) -> np.ndarray:
        places = np.minimum(np.searchsorted(top, ids), max(len(top) - 1, 0))
        known = top[places] == ids if len(top) else np.zeros(len(ids), bool)
        return np.bincount(np.where(known, places, len(top)), weights, len(top) + 1)

    return moved(counts_of(old, old_weights), counts_of(new, new_weights))


def moved(old: np.ndarray, new: np.ndarray) -> Moved:
    """How far the shares of bins have moved, of the old and the new rows in each; bins that both lack count nothing."""
    used = (old + new) > 0
    bins = int(used.sum())
    p, q = ((rows[used] + _SMOOTHED) / (rows.sum() + _SMOOTHED * bins) for rows in (old, new))
    scale = 1 / max(old.sum(), 1) + 1 / max(new.sum(), 1)
    return Moved(float(np.sum((q - p) * np.log(q / p))), scale * _chi_squared(bins - 1))


def _chi_squared(freedom: int) -> float:
    """What a chi-squared variable exceeds once in a million (Wilson and Hilferty 1931), or up to 15 % more."""
    if freedom < 1:
        return 0.0
    spread = 2 / (9 * freedom)
    return freedom * (1 - spread + _ONE_IN_A_MILLION * math.sqrt(spread)) ** 3


def odds_ratio(old_mean: float, new_mean: float) -> float:
    """The odds of one mean as a multiple of another's; nan unless both lie between 0 and 1."""
    if not (0 < old_mean < 1 and 0 < new_mean < 1):
        return math.nan
    return new_mean / (1 - new_mean) * (1 - old_mean) / old_mean


def deviations_apart(old_mean: float, old_rows: float, new_mean: float, new_rows: float) -> float:
    """How many standard deviations two shares lie apart that would be one (the two-proportion z-test)."""
    both = (old_mean * old_rows + new_mean * new_rows) / (old_rows + new_rows)
    deviation = math.sqrt(both * (1 - both) * (1 / old_rows + 1 / new_rows))
    return abs(new_mean - old_mean) / deviation if deviation else 0.0
