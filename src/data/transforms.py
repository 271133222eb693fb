"""Numeric transforms: what becomes of the numbers in the raw rows, by the names of the option numeric_transform.

A new one is a class here, and a line in TRANSFORMS at the end; the encoder's file holds its name and what it learned.

Legend: B rows, N numeric columns, P points of a curve.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from src.data.numeric import Summary, mean_and_deviation

MOST_QUANTILES = 1_000


class Transform(ABC):
    """What becomes of numbers; unless a class says otherwise, it learns nothing and an empty cell becomes 0.

    Attributes:
        keeps: names of the arrays that are learned from each column's values, under which the encoder keeps them.
        empty: what an empty cell becomes.
        tells_negative: whether negative numbers become other values than 0.
    """

    keeps: tuple[str, ...] = ()
    empty: float = 0.0
    tells_negative: bool = True

    @property
    def learns(self) -> bool:
        """Whether the values of the training rows are needed."""
        return bool(self.keeps)

    def learn(self, summary: Summary) -> tuple[np.ndarray, ...]:
        """The arrays that `keeps` names, of one column; of any shape."""
        return ()

    @abstractmethod
    def apply(self, numbers: np.ndarray, learned: Sequence[tuple[np.ndarray, ...]]) -> np.ndarray:
        """What becomes of numbers [B, N] float32, of the same shape; where one is nan, an empty cell, it is not used.

        Args:
            numbers: finite, or nan.
            learned: what `learn` returned for each of the columns; empty for a transform that learns nothing.
        """

    def __call__(self, numbers: np.ndarray, learned: Sequence[tuple[np.ndarray, ...]]) -> np.ndarray:
        """The network's inputs [B, N] float32, empty cells among them."""
        inputs = np.where(np.isnan(numbers), np.float32(self.empty), self.apply(numbers, learned))
        return np.ascontiguousarray(inputs, np.float32)


class Log(Transform):
    """log(x + 1), and 0 for negative numbers."""

    tells_negative = False

    def apply(self, numbers: np.ndarray, learned: Sequence[tuple[np.ndarray, ...]]) -> np.ndarray:
        return _log_of(numbers)


class StandardLog(Transform):
    """The same, standardised to mean 0 and deviation 1 over the training rows that have a number.

    It keeps each column's mean and deviation, [2] float32.
    """

    keeps = ("log_scales",)
    tells_negative = False

    def learn(self, summary: Summary) -> tuple[np.ndarray, ...]:
        values, counts = summary
        return (np.array(mean_and_deviation(_log_of(values), counts), np.float32),)

    def apply(self, numbers: np.ndarray, learned: Sequence[tuple[np.ndarray, ...]]) -> np.ndarray:
        means, deviations = np.stack([scale for (scale,) in learned], axis=1)
        logs: np.ndarray = (_log_of(numbers) - means) / deviations
        return logs


class Quantile(Transform):
    """The share of smaller numbers among the training rows, standardised to mean 0 and deviation 1 over them.

    It keeps each column's curve from number to share, [2, P] float32, P up to MOST_QUANTILES. A share counts half of
    the rows with the number itself; between the points lie straight lines.
    """

    keeps = ("quantiles",)

    def learn(self, summary: Summary) -> tuple[np.ndarray, ...]:
        values, counts = summary
        if not len(values):
            return (np.zeros((2, 1), np.float32),)
        ends = np.cumsum(counts)
        shares = (ends - counts / 2) / ends[-1]
        kept = np.arange(len(values))
        if len(values) > MOST_QUANTILES:
            kept = np.searchsorted(ends, np.linspace(0, ends[-1], MOST_QUANTILES // 3))
            # And the values beside each, for the curve jumps at one that many rows have.
            kept = np.unique(np.clip(np.concatenate([kept - 1, kept, kept + 1]), 0, len(values) - 1))
        mean, deviation = mean_and_deviation(np.interp(values, values[kept], shares[kept]), counts)
        return (np.stack([values[kept], (shares[kept] - mean) / deviation]).astype(np.float32),)

    def apply(self, numbers: np.ndarray, learned: Sequence[tuple[np.ndarray, ...]]) -> np.ndarray:
        curves = [curve for (curve,) in learned]
        shares = [np.interp(column, *curve) for column, curve in zip(numbers.T, curves)]
        return np.stack(shares, axis=1).astype(np.float32)


class SignedLog(Transform):
    """log(x + 1), and -log(1 - x) for negative numbers."""

    def apply(self, numbers: np.ndarray, learned: Sequence[tuple[np.ndarray, ...]]) -> np.ndarray:
        return np.copysign(np.log1p(np.abs(numbers)), numbers)


def _log_of(numbers: np.ndarray) -> np.ndarray:
    logs: np.ndarray = np.log(np.fmax(numbers, np.float32(0)) + np.float32(1))
    return logs


TRANSFORMS: dict[str, Transform] = {
    "log": Log(),
    "standard_log": StandardLog(),
    "quantile": Quantile(),
    "signed_log": SignedLog(),
}
