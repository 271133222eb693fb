"""The values of numeric columns: summed up in fixed memory, and what is learned from the sums.

A summary is exact for up to MOST_VALUES distinct values. Of more, neighbours are taken together in groups of about as
many rows, which moves a value's rank by at most 1 / MOST_VALUES of the rows each time.

Legend: B rows, P points of a curve, K buckets.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from src.data import vocabulary

MOST_VALUES = 65_536
MOST_QUANTILES = 1_000
Summary = tuple[np.ndarray, np.ndarray]  # distinct values, float32, rising, and how often each occurs, int64


def summarise(numbers: np.ndarray) -> Summary:
    """The values of some rows of a column, [B] float32; nan, an empty cell, is none."""
    codes, values = pd.factorize(numbers)  # -1 for nan
    return merge([(values, np.bincount(codes[codes >= 0], minlength=len(values)))])


def merge(parts: Sequence[Summary]) -> Summary:
    """One column's summary over several parts of the rows."""
    distinct, totals = vocabulary.merge(parts)
    order = np.argsort(distinct)
    values, counts = distinct[order], totals[order]
    if len(values) <= MOST_VALUES:
        return values, counts
    ends = np.cumsum(counts)
    groups = ((ends - counts / 2) * (MOST_VALUES / ends[-1])).astype(np.int64)
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    totals = np.add.reduceat(counts, starts)
    middles = ends[starts] - counts[starts] + totals / 2
    return values[np.searchsorted(ends, middles)], totals


def log_of(numbers: np.ndarray) -> np.ndarray:
    """log(x + 1), float32 of the same shape; 0 for negative numbers and nan."""
    logs: np.ndarray = np.log(np.fmax(numbers, np.float32(0)) + np.float32(1))
    return logs


def log_scale(summary: Summary) -> np.ndarray:
    """Mean and standard deviation of a column's logs, [2] float32."""
    values, counts = summary
    return np.array(_scale(log_of(values), counts), np.float32)


def quantile_curve(summary: Summary) -> np.ndarray:
    """Points of the curve from value to share of smaller values, [2, P] float32, P up to MOST_QUANTILES.

    The share counts half of the rows with the value itself. It is standardised to mean 0 and deviation 1 over the rows.
    """
    values, counts = summary
    if not len(values):
        return np.zeros((2, 1), np.float32)
    ends = np.cumsum(counts)
    shares = (ends - counts / 2) / ends[-1]
    kept = np.arange(len(values))
    if len(values) > MOST_QUANTILES:
        kept = np.searchsorted(ends, np.linspace(0, ends[-1], MOST_QUANTILES // 3))
        # And the values beside each, for the curve jumps at one that many rows have.
        kept = np.unique(np.clip(np.concatenate([kept - 1, kept, kept + 1]), 0, len(values) - 1))
    mean, deviation = _scale(np.interp(values, values[kept], shares[kept]), counts)
    return np.stack([values[kept], (shares[kept] - mean) / deviation]).astype(np.float32)


def bucket_edges(summary: Summary, buckets: int) -> np.ndarray:
    """The largest value of each of K buckets of about as many rows, but for the last bucket, which has no end.

    Returns:
        [K - 1] float32, rising, or fewer where a value alone has the rows of several buckets.
    """
    values, counts = summary
    if not len(values):
        return values
    ends = np.cumsum(counts)
    edges = np.unique(values[np.searchsorted(ends * buckets, ends[-1] * np.arange(1, buckets))])
    return edges[edges < values[-1]]


def count_scores(counts: np.ndarray, rows: int) -> np.ndarray:
    """The logarithm of 1 + its count for each id of a field, standardised over the rows, float32.

    Args:
        counts: of the ids from 1 on; id 0 is taken for a category that does not occur.
        rows: how many there are, those with id 0 included.
    """
    logs = np.log1p(np.concatenate([[0], counts]))
    mean, deviation = _scale(logs, np.concatenate([[rows - counts.sum()], counts]))
    return ((logs - mean) / deviation).astype(np.float32)


def _scale(values: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation; values that are all alike have the deviation 1, so that they become 0."""
    values, weights = values[weights > 0].astype(np.float64), weights[weights > 0]
    if not len(values) or values.min() == values.max():
        return (float(values[0]) if len(values) else 0.0), 1.0
    mean = np.average(values, weights=weights)
    return float(mean), float(np.sqrt(np.average((values - mean) ** 2, weights=weights)))
