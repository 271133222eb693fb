"""Metrics of parts of the rows: those with some value of a field, and those with and without an unseen category.

Legend: B rows, F fields.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from src.data.vocabulary import UNSEEN
from src.metrics.binary import Weights, mean, row_losses, scores_of, sorted_auc

TOP = 8
_FEW_ROWS = 50


@dataclass(frozen=True)
class Slice:
    """Some rows: how many, the means of their labels and scores, AUC (nan for one label), and logloss, by weight
    where rows have some."""

    rows: int
    label_mean: float
    score_mean: float
    auc: float
    logloss: float

    def as_dict(self) -> dict[str, Any]:
        """By name."""
        return asdict(self)


class Sliced:
    """Labels [B] and logits [B], sorted once, of which any rows can be measured.

    Args:
        labels, logits: of all rows.
        weights: likewise, if they have some.
    """

    def __init__(self, labels: np.ndarray, logits: np.ndarray, weights: Weights = None):
        self.order = np.argsort(logits)
        self._labels, self._logits = labels[self.order], logits[self.order]
        self._scores, self._losses = scores_of(self._logits), row_losses(self._labels, self._logits)
        self._weights = None if weights is None else weights[self.order].astype(np.float64)

    def _of_groups(self, groups: np.ndarray, number: int) -> list[Slice]:
        """The rows of each group from 0 to below number, by each row's group [B], in the order of the scores."""
        places = np.argsort(groups.astype(np.uint8), kind="stable")  # so that they stay in that order
        counts = np.bincount(groups, minlength=number)[:number]
        return [self._slice(chosen) for chosen in np.split(places, np.cumsum(counts))[:number]]

    def _slice(self, places: np.ndarray) -> Slice:
        """The rows at these rising places in the order of the scores."""
        weights = None if self._weights is None else self._weights[places]
        if not len(places) or (weights is not None and not weights.any()):
            return Slice(len(places), math.nan, math.nan, math.nan, math.nan)
        labels = self._labels[places]
        label, score, loss = (mean(one, weights) for one in (labels, self._scores[places], self._losses[places]))
        return Slice(len(places), label, score, sorted_auc(labels, self._logits[places], weights), loss)

    def by_value(self, ids: np.ndarray, top: int = TOP) -> dict[int, Slice]:
        """The rows of each of a field's most frequent ids [B], the one with most rows first."""
        values, ordered = _numbered(ids[self.order])
        counts = np.bincount(ordered)
        most = np.argsort(-counts, kind="stable")[: min(top, np.count_nonzero(counts))]
        group_of = np.full(len(counts), len(most), np.uint8)
        group_of[most] = np.arange(len(most))
        return dict(zip(values[most].tolist(), self._of_groups(group_of[ordered], len(most))))

    def by_label_rate(self, ids: np.ndarray, groups: int = 5) -> list[Slice]:
        """The rows in groups of about equal size by how often their id of a field [B] is clicked, from rare to often.

        Rates are those of these rows, so ids with fewer than 50 of them, whose rates are chance, are left out.
        """
        _, ordered = _numbered(ids[self.order])
        each = 1.0 if self._weights is None else self._weights
        counts, clicks = np.bincount(ordered), np.bincount(ordered, self._labels * each)
        weights = counts if self._weights is None else np.bincount(ordered, self._weights)
        values = np.flatnonzero((counts >= _FEW_ROWS) & (weights > 0))
        values = values[np.argsort(clicks[values] / weights[values], kind="stable")]
        middle = np.cumsum(counts[values]) - counts[values] / 2
        group_of = np.full(len(counts), groups, np.uint8)
        group_of[values] = middle * groups / max(1, counts[values].sum())
        return [one for one in self._of_groups(group_of[ordered], groups) if one.rows]

    def unseen(self, ids: np.ndarray) -> tuple[Slice, Slice]:
        """The rows with, and those without, an unseen value in a field's ids [B]."""
        without, having = 1, 0
        found = self._of_groups(np.where(ids[self.order] == UNSEEN, np.uint8(having), np.uint8(without)), 2)
        return found[having], found[without]


def _numbered(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values that rise, all ids among them, and the place of each id [B] there; no more values than there are rows.

    So what is counted of each takes memory by the rows, not by a table's, of which the largest have millions.
    """
    if (most := int(ids.max(initial=0))) < len(ids):
        return np.arange(most + 1), ids
    values, places = np.unique(ids, return_inverse=True)
    return values, places


def field_slices(
    labels: np.ndarray, logits: np.ndarray, ids: np.ndarray, names: Sequence[str], weights: Weights = None
) -> list[dict[str, Any]]:
    """For each field: its share of unseen ids, and metrics with and without one, by value, and by label rate.

    Args:
        labels, logits: [B].
        ids: [B, F].
        names: of the fields.
        weights: [B], if rows have some.
    """
    sliced, found = Sliced(labels, logits, weights), []
    for name, column in zip(names, ids.T):
        unseen, seen = sliced.unseen(column)
        found.append({
            "field": name,
            "unseen_share": unseen.rows / len(labels),
            "unseen": unseen.as_dict(),
            "seen": seen.as_dict(),
            "by_value": [{"id": value, **one.as_dict()} for value, one in sliced.by_value(column).items()],
            "by_label_rate": [one.as_dict() for one in sliced.by_label_rate(column)],
        })  # fmt: skip
    return found
