"""The values of numeric columns: summed up in fixed memory, and what is learned from the sums.

A summary is exact for up to MOST_VALUES distinct values. Of more, neighbours are taken together in groups of about as
many rows, which moves a value's rank by at most 1 / MOST_VALUES of the rows each time.

Legend: B rows, K buckets.
"""

from collections.abc import Sequence

import numpy as np

from src.data.compiled.key_tables import summed

MOST_VALUES = 65_536
Scale = tuple[float, float]  # mean and deviation
Summary = tuple[np.ndarray, np.ndarray]  # distinct values, float32, rising, and how often each occurs, int64


def summarise(numbers: np.ndarray) -> Summary:
    """The values of some rows of a column, [B] float32; nan, an empty cell, is none."""
    import pandas as pd  # late: the names of the transforms, which rest on this file, are known without it

    codes, values = pd.factorize(numbers)  # -1 for nan
    return merge([(values, np.bincount(codes[codes >= 0], minlength=len(values)))])


def merge(parts: Sequence[Summary]) -> Summary:
    """One column's summary over several parts of the rows."""
    values, counts = summed(*(np.concatenate(arrays) for arrays in zip(*parts)))
    if len(values) <= MOST_VALUES:
        return values, counts
    ends = np.cumsum(counts)
    groups = ((ends - counts / 2) * (MOST_VALUES / ends[-1])).astype(np.int64)
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    totals = np.add.reduceat(counts, starts)
    middles = ends[starts] - counts[starts] + totals / 2
    return values[np.searchsorted(ends, middles)], totals


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


def count_scale(counts: np.ndarray, rows: int) -> Scale:
    """Mean and deviation, over the rows, of the logarithm of 1 + the count of a field's id.

    Args:
        counts: of the ids from 1 on; id 0 is taken for a category that does not occur.
        rows: how many there are, those with id 0 included.
    """
    logs = np.log1p(np.concatenate([[0], counts]))
    return mean_and_deviation(logs, np.concatenate([[rows - counts.sum()], counts]))


def count_scores(counts: np.ndarray, scale: Scale) -> np.ndarray:
    """The logarithm of 1 + its count for each id of a field, from 0 on, standardised by a scale, float32.

    Args:
        counts: of the ids from 1 on.
        scale: from `count_scale`.
    """
    mean, deviation = scale
    return ((np.log1p(np.concatenate([[0], counts])) - mean) / deviation).astype(np.float32)


def mean_and_deviation(values: np.ndarray, weights: np.ndarray) -> Scale:
    """Mean and standard deviation of values that occur so often.

    Values that are all alike have the deviation 1, so that they become 0.
    """
    values, weights = values[weights > 0].astype(np.float64), weights[weights > 0]
    if not len(values) or values.min() == values.max():
        return (float(values[0]) if len(values) else 0.0), 1.0
    mean = np.average(values, weights=weights)
    return float(mean), float(np.sqrt(np.average((values - mean) ** 2, weights=weights)))
