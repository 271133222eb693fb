"""Exact metrics of a binary classifier over all rows, in NumPy."""

import math
from dataclasses import asdict, dataclass

import numpy as np


@dataclass(frozen=True)
class Metrics:
    """Accuracy at a score of 0.5, area under the ROC curve, and mean cross entropy in nats."""

    acc: float
    auc: float
    logloss: float

    def as_dict(self) -> dict[str, float]:
        """The metrics by their names in the logs."""
        return asdict(self)


def auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """The area under the ROC curve: the share of (click, no click) pairs that are ranked right, a tie counting half.

    Args:
        labels: [B] of 0 and 1.
        scores: [B], or any values in their order, such as logits.

    Returns:
        The area, or nan if all labels are the same.
    """
    order = np.argsort(scores)
    ordered, clicks = scores[order], labels[order].astype(np.int64)
    ties = np.flatnonzero(np.diff(ordered, prepend=np.nan) != 0)  # where each group of equal scores begins
    group_clicks = np.add.reduceat(clicks, ties)
    group_others = np.diff(ties, append=len(clicks)) - group_clicks
    pairs = int(group_clicks.sum()) * int(group_others.sum())
    if pairs == 0:
        return math.nan
    below = np.cumsum(group_others) - group_others
    # Python's whole numbers: full Criteo's test part has 2e12 pairs, counted twice for the halves.
    return int(np.sum(group_clicks * (2 * below + group_others))) / (2 * pairs)


def logloss(labels: np.ndarray, logits: np.ndarray) -> float:
    """Mean sigmoid cross entropy, from logits so that no score rounds to 0 or 1."""
    logits = logits.astype(np.float64)
    return float(np.mean(np.logaddexp(0.0, logits) - labels * logits))


def accuracy(labels: np.ndarray, logits: np.ndarray) -> float:
    """Share of rows whose logit is above 0 exactly where the label is 1."""
    return float(np.mean((logits > 0) == (labels > 0.5)))


def binary_metrics(labels: np.ndarray, logits: np.ndarray) -> Metrics:
    """All metrics of labels [B] and logits [B].

    Raises:
        ValueError: no rows, or a logit that is not finite.
    """
    if not len(labels) or not np.isfinite(logits).all():
        raise ValueError(f"{len(labels)} rows, {np.sum(~np.isfinite(logits))} of whose logits are not finite")
    return Metrics(accuracy(labels, logits), auc(labels, logits), logloss(labels, logits))
