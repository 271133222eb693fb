"""Exact metrics of a binary classifier over all rows, in NumPy."""

import math

import numpy as np

from src.metrics.labels import entropy

Weights = np.ndarray | None  # [B] of 0 or more, not all 0; None: every row counts once


def mean(values: np.ndarray, weights: Weights = None) -> float:
    """The mean of values [B] in float64, by weight."""
    if weights is None:
        return float(np.mean(values, dtype=np.float64))
    weights = weights.astype(np.float64)
    return float(np.dot(weights, values) / weights.sum())


def auc(labels: np.ndarray, scores: np.ndarray, weights: Weights = None) -> float:
    """The area under the ROC curve: the share of (click, no click) pairs that are ranked right, a tie counting half.

    Args:
        labels: [B] of 0 and 1.
        scores: [B], or any values in their order, such as logits.
        weights: a pair's weight is the product of its rows'.

    Returns:
        The area, or nan if all labels are the same.
    """
    order = np.argsort(scores)
    return sorted_auc(labels[order], scores[order], None if weights is None else weights[order])


def tie_starts(ordered: np.ndarray) -> np.ndarray:
    """Where each group of equal scores begins, of scores in rising or falling order."""
    return np.append(0, np.flatnonzero(ordered[1:] != ordered[:-1]) + 1)


def sorted_auc(labels: np.ndarray, ordered: np.ndarray, weights: Weights = None) -> float:
    """`auc` of rows in the rising order of their scores; nan if there are none."""
    if not len(labels):
        return math.nan
    clicks, ties = labels.astype(np.int64), tie_starts(ordered)
    if weights is not None:
        return _weighted_auc(clicks, ties, weights.astype(np.float64))
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


def _weighted_auc(clicks: np.ndarray, ties: np.ndarray, weights: np.ndarray) -> float:
    group_clicks, group_others = (np.add.reduceat(weights * chosen, ties) for chosen in (clicks, 1 - clicks))
    below = np.cumsum(group_others)
    pairs = float(group_clicks.sum()) * float(below[-1])
    return float(np.dot(group_clicks, below - group_others / 2)) / pairs if pairs else math.nan


def row_losses(labels: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Sigmoid cross entropy of each row [B] float64, from logits so that no score rounds to 0 or 1."""
    logits = logits.astype(np.float64)
    losses: np.ndarray = np.logaddexp(0.0, logits) - labels * logits
    return losses


def logloss(labels: np.ndarray, logits: np.ndarray, weights: Weights = None) -> float:
    """The mean of `row_losses`."""
    return mean(row_losses(labels, logits), weights)


def scores_of(logits: np.ndarray) -> np.ndarray:
    """Probabilities [B] float64 of logits [B]."""
    scores: np.ndarray = np.exp(-np.logaddexp(0.0, -logits.astype(np.float64)))
    return scores


def normalised_entropy(labels: np.ndarray, logits: np.ndarray, weights: Weights = None) -> float:
    """The logloss as a share of what the label mean alone has for every row; nan if all labels are the same.

    He et al. 2014, "Practical Lessons from Predicting Clicks on Ads at Facebook", section 3.
    """
    of_mean = entropy(mean(labels, weights))
    return logloss(labels, logits, weights) / of_mean if of_mean else math.nan


def calibration(labels: np.ndarray, scores: np.ndarray, weights: Weights = None) -> float:
    """The mean score as a multiple of the label mean; nan without clicks."""
    of_labels = mean(labels, weights)
    return mean(scores, weights) / of_labels if of_labels else math.nan


def brier(labels: np.ndarray, scores: np.ndarray, weights: Weights = None) -> float:
    """Mean squared difference of score and label."""
    return mean((scores.astype(np.float64) - labels) ** 2, weights)


def average_precision(labels: np.ndarray, scores: np.ndarray, weights: Weights = None) -> float:
    """The mean over clicks of the share of clicks among the rows that score as high; nan without clicks.

    This is the area under the precision-recall curve in steps, without interpolation.
    """
    order = np.argsort(-scores)
    group_clicks, rows = summed_groups(labels, scores, order, weights)
    of_clicks, reached = group_clicks.sum(), rows > 0  # none is reached by rows without a weight
    precision = np.cumsum(group_clicks)[reached] / rows[reached]
    return float(np.sum(group_clicks[reached] * precision)) / float(of_clicks) if of_clicks else math.nan


def summed_groups(
    labels: np.ndarray, scores: np.ndarray, order: np.ndarray, weights: Weights
) -> tuple[np.ndarray, np.ndarray]:
    """Clicks in each group of equal scores in an order of the rows, and rows up to the end of each; both by weight."""
    ties, clicks = tie_starts(scores[order]), labels[order].astype(np.int64)
    if weights is None:
        return np.add.reduceat(clicks, ties), np.append(ties[1:], len(scores))
    ordered = weights[order].astype(np.float64)
    return np.add.reduceat(ordered * clicks, ties), np.cumsum(np.add.reduceat(ordered, ties))


def accuracy(labels: np.ndarray, logits: np.ndarray, weights: Weights = None) -> float:
    """Share of rows whose logit is above 0 exactly where the label is 1."""
    return mean((logits > 0) == (labels > 0.5), weights)
