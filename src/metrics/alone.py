"""How well one column alone tells the label, as columns do that are made of it, or are known only after the click.

Legend: B rows.
"""

import numpy as np

from src.metrics.binary import auc

LEAK, LEAST_ROWS = 0.95, 100  # an AUC that no honest column of a click log has; rows below which chance may have it


def alone_of_number(labels: np.ndarray, values: np.ndarray) -> float:
    """The AUC, at least 0.5, of a column's values [B] as scores, on the second half of the rows; nan for one label."""
    half = len(labels) // 2
    return _either_way(labels[half:], values[half:].astype(np.float64))


def alone_of_category(labels: np.ndarray, codes: np.ndarray) -> float:
    """The same of a column of categories, as any codes [B]: scores are click rates among the first half of the rows."""
    half = len(labels) // 2
    values, places = np.unique(codes, return_inverse=True)
    rows = np.bincount(places[:half], minlength=len(values))
    clicks = np.bincount(places[:half], labels[:half], minlength=len(values))
    rates = (clicks + np.mean(labels, dtype=np.float64)) / (rows + 1)
    return _either_way(labels[half:], rates[places[half:]])


def _either_way(labels: np.ndarray, scores: np.ndarray) -> float:
    area = auc(labels, scores)
    return max(area, 1 - area)
