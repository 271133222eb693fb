"""The metrics by name, and which of their values are better: what picks the best network, ends a training, compares.

A metric of one's own is an entry of MONITORED; docs/extending.md shows one.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from src.metrics.binary import Weights, accuracy, auc, logloss, normalised_entropy


@dataclass(frozen=True)
class Monitored:
    """A metric that can choose.

    Attributes:
        of: its value for labels [B] and logits [B], and weights [B] where rows have some; nan where these rows have
            none.
        rises: whether a higher value is better.
        shown: as people read it.
    """

    of: Callable[..., float]
    rises: bool
    shown: str

    @property
    def knows_one_label(self) -> bool:
        """Whether rows that all have one label have a value."""
        return not math.isnan(self.of(np.ones(2), np.zeros(2)))

    def value(self, labels: np.ndarray, logits: np.ndarray, weights: Weights = None) -> float:
        """The metric of rows, by weight if they have some."""
        return self.of(labels, logits) if weights is None else self.of(labels, logits, weights)

    def worse_by(self, value: float, other: float) -> float:
        """How far a value is worse than another one; below 0 where it is better."""
        return other - value if self.rises else value - other

    def is_better(self, value: float, best: float) -> bool:
        """Whether a value takes the best one's place; nan, which is neither better nor worse, does."""
        return math.isnan(value) or math.isnan(best) or self.worse_by(value, best) < 0


MONITORED = {
    "acc": Monitored(accuracy, True, "accuracy"),
    "auc": Monitored(auc, True, "AUC"),
    "logloss": Monitored(logloss, False, "logloss"),
    "normalised_entropy": Monitored(normalised_entropy, False, "normalised entropy"),
}
LOGGED = ("acc", "auc", "logloss")  # of every evaluation, as the public original has them
Metrics = dict[str, float]  # by name


def measured(labels: np.ndarray, logits: np.ndarray, weights: Weights = None, *, monitor: str = "auc") -> Metrics:
    """The metrics that every evaluation logs, and the monitored one, of labels [B] and logits [B], by weights [B].

    Raises:
        ValueError: no rows, or a logit that is not finite.
    """
    if not len(labels) or not np.isfinite(logits).all():
        raise ValueError(f"{len(labels)} rows, {np.sum(~np.isfinite(logits))} of whose logits are not finite")
    return {name: MONITORED[name].value(labels, logits, weights) for name in dict.fromkeys((*LOGGED, monitor))}


@dataclass
class BestSoFar:
    """The network that is kept, and what chose it.

    Attributes:
        part: name of the rows that are evaluated. Only validation rows choose: with others the last network is kept.
        monitor: name of the metric that chooses.
        patience: evaluations in a row without a better value behind which the training ends, 0 for any number.
        metrics, step: of the network that is kept; None and 0 before the first one.
        waited: evaluations since then.
    """

    part: str
    monitor: str = "auc"
    patience: int = 0
    metrics: Metrics | None = None
    step: int = 0
    waited: int = 0

    @property
    def chooses(self) -> bool:
        """Whether the best network is kept, and not the last one."""
        return self.part == "valid"

    @property
    def is_over(self) -> bool:
        """Whether there was no better one for too long."""
        return bool(self.patience) and self.waited >= self.patience

    def takes(self, metrics: Metrics, step: int) -> bool:
        """Whether a network is to be kept as the best one; remembers its metrics and step if so."""
        if self.chooses and self.metrics and not self._is_better(metrics):
            self.waited += 1
            return False
        self.metrics, self.step, self.waited = metrics, step, 0
        return self.chooses

    def _is_better(self, metrics: Metrics) -> bool:
        before = (self.metrics or {}).get(self.monitor, math.nan)  # an older version may not have measured it
        return MONITORED[self.monitor].is_better(metrics[self.monitor], before)
