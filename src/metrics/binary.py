"""Exact metrics of a binary classifier over all rows, in NumPy."""

import math

import numpy as np

from src.metrics.labels import entropy


def auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """The area under the ROC curve: the share of (click, no click) pairs that are ranked right, a tie counting half.

    Args:
        labels: [B] of 0 and 1.
        scores: [B], or any values in their order, such as logits.

    Returns:
        The area, or nan if all labels are the same.
    """
    order = np.argsort(scores)
    return sorted_auc(labels[order], scores[order])


def tie_starts(ordered: np.ndarray) -> np.ndarray:
    """Where each group of equal scores begins, of scores in rising or falling order."""
    return np.append(0, np.flatnonzero(ordered[1:] != ordered[:-1]) + 1)


def sorted_auc(labels: np.ndarray, ordered: np.ndarray) -> float:
    """`auc` of rows in the rising order of their scores; nan if there are none."""
    if not len(labels):
        return math.nan
    clicks, ties = labels.astype(np.int64), tie_starts(ordered)
    if len(ties) == len(clicks):
        group_clicks, group_others = clicks, 1 - clicks
    else:
        group_clicks = np.add.reduceat(clicks, ties)
        group_others = np.append(ties[1:], len(clicks)) - ties - group_clicks
    below = np.cumsum(group_others)
    pairs = int(group_clicks.sum()) * int(below[-1])
    if pairs == 0:
        return math.nan
    below -= group_others
    # Python's whole numbers: full Criteo's test part has 2e12 pairs, counted twice for the halves.
    return int(np.dot(group_clicks, 2 * below + group_others)) / (2 * pairs)


def row_losses(labels: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Sigmoid cross entropy of each row [B] float64, from logits so that no score rounds to 0 or 1."""
    logits = logits.astype(np.float64)
    losses: np.ndarray = np.logaddexp(0.0, logits) - labels * logits
    return losses


def logloss(labels: np.ndarray, logits: np.ndarray) -> float:
    """The mean of `row_losses`."""
    return float(np.mean(row_losses(labels, logits)))


def scores_of(logits: np.ndarray) -> np.ndarray:
    """Probabilities [B] float64 of logits [B]."""
    scores: np.ndarray = np.exp(-np.logaddexp(0.0, -logits.astype(np.float64)))
    return scores


def normalised_entropy(labels: np.ndarray, logits: np.ndarray) -> float:
    """The logloss as a share of what the label mean alone has for every row; nan if all labels are the same.

    He et al. 2014, "Practical Lessons from Predicting Clicks on Ads at Facebook", section 3.
    """
    of_mean = entropy(float(np.mean(labels, dtype=np.float64)))
    return logloss(labels, logits) / of_mean if of_mean else math.nan


def calibration(labels: np.ndarray, scores: np.ndarray) -> float:
    """The mean score as a multiple of the label mean; nan without clicks."""
    mean = float(np.mean(labels, dtype=np.float64))
    return float(np.mean(scores, dtype=np.float64)) / mean if mean else math.nan


def brier(labels: np.ndarray, scores: np.ndarray) -> float:
    """Mean squared difference of score and label."""
    return float(np.mean((scores.astype(np.float64) - labels) ** 2))


def average_precision(labels: np.ndarray, scores: np.ndarray) -> float:
    """The mean over clicks of the share of clicks among the rows that score as high; nan without clicks.

    This is the area under the precision-recall curve in steps, without interpolation.
    """
    order = np.argsort(-scores)
    ties = tie_starts(scores[order])
    group_clicks = np.add.reduceat(labels[order].astype(np.int64), ties)
    precision = np.cumsum(group_clicks) / np.append(ties[1:], len(scores))
    clicks = int(group_clicks.sum())
    return float(np.sum(group_clicks * precision)) / clicks if clicks else math.nan


def accuracy(labels: np.ndarray, logits: np.ndarray) -> float:
    """Share of rows whose logit is above 0 exactly where the label is 1."""
    return float(np.mean((logits > 0) == (labels > 0.5)))
