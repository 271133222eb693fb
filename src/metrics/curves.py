"""How scores spread and how well they are calibrated: reliability bins, histograms, ROC and precision-recall curves."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from src.metrics.binary import (
    Weights,
    average_precision,
    brier,
    calibration,
    normalised_entropy,
    scores_of,
    summed_groups,
)

BINS = 15
CURVE_POINTS = 200


@dataclass(frozen=True)
class Reliability:
    """Rows in bins of about equal numbers by their score; bins without rows are left out.

    Attributes:
        rows, score, label: of each bin, how many rows, or the sum of their weights where they have some, and the means
            of their scores and labels.
    """

    rows: np.ndarray
    score: np.ndarray
    label: np.ndarray

    def error(self) -> float:
        """The expected calibration error: the mean over rows of how far their bin's mean score and label lie apart."""
        return float(np.sum(self.rows * np.abs(self.score - self.label)) / np.sum(self.rows))


def reliability(labels: np.ndarray, scores: np.ndarray, bins: int = BINS, weights: Weights = None) -> Reliability:
    """Bins between quantiles of the scores; equal scores stay together, so ties may make bins larger, or fewer."""
    scores = scores.astype(np.float64)
    edges = np.percentile(scores, np.linspace(0, 1, bins + 1)[1:-1] * 100)
    place = np.searchsorted(edges, scores)
    rows = np.bincount(place, weights, bins)
    used, each = rows > 0, 1.0 if weights is None else weights.astype(np.float64)
    score, label = (np.bincount(place, values * each, bins)[used] / rows[used] for values in (scores, labels))
    return Reliability(rows[used], score, label)


def quality(labels: np.ndarray, logits: np.ndarray, weights: Weights = None) -> dict[str, float]:
    """Metrics beside accuracy, AUC and logloss, by their names in the logs."""
    scores = scores_of(logits)
    return {
        "normalised_entropy": normalised_entropy(labels, logits, weights),
        "calibration": calibration(labels, scores, weights),
        "ece": reliability(labels, scores, weights=weights).error(),
        "average_precision": average_precision(labels, logits, weights),
        "brier": brier(labels, scores, weights),
    }


def histogram(labels: np.ndarray, scores: np.ndarray, bins: int = 40, weights: Weights = None) -> dict[str, list[Any]]:
    """Shares of the clicks, and of the other rows, whose score lies in each of `bins` even parts of 0 to 1."""
    found: dict[str, list[Any]] = {"edges": np.linspace(0, 1, bins + 1).tolist()}
    for name, chosen in (("click", labels > 0.5), ("other", labels <= 0.5)):
        own = None if weights is None else weights[chosen].astype(np.float64)
        counts = np.histogram(scores[chosen], bins, (0, 1), weights=own)[0]
        found[name] = (counts / (counts.sum() or 1)).tolist()
    return found


def curves(
    labels: np.ndarray, scores: np.ndarray, points: int = CURVE_POINTS, weights: Weights = None
) -> dict[str, list[list[float]]]:
    """The ROC curve, (share of others, share of clicks), and the precision-recall curve, (recall, precision).

    At most about `points` each, spread evenly along the curve, the ends included. Each is empty where labels that it
    needs do not occur.
    """
    groups, ends = summed_groups(labels, scores, np.argsort(-scores), weights)
    clicks = np.cumsum(groups)
    clicks, ends = clicks[ends > 0], ends[ends > 0]
    others = np.maximum(ends - clicks, 0)  # which rounding of weights may make less than none
    roc: list[list[float]] = []
    if clicks[-1] and others[-1]:
        x, y = (np.append(0, counts) / counts[-1] for counts in (others, clicks))
        roc = _thinned(x, y, x + y, points)
    precision_recall = _thinned(clicks / clicks[-1], clicks / ends, clicks / clicks[-1], points) if clicks[-1] else []
    return {"roc": roc, "precision_recall": precision_recall}


def _thinned(x: np.ndarray, y: np.ndarray, along: np.ndarray, points: int) -> list[list[float]]:
    """Those points where `along`, which never falls, first passes each of some even steps."""
    kept = np.searchsorted(along, np.linspace(along[0], along[-1], points))
    kept = np.unique(np.append(kept, len(along) - 1))
    return np.stack([x[kept], y[kept]], 1).tolist()
