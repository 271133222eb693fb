"""The metrics by name, and which of their values are better: what picks the best network, ends a training, compares.

A metric of one's own is an entry of MONITORED; docs/extending.md shows one.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from src.metrics.binary import accuracy, auc, logloss, normalised_entropy


@dataclass(frozen=True)
class Monitored:
    """A metric that can choose.

    Attributes:
        of: its value for labels [B] and logits [B]; nan where these rows have none.
        rises: whether a higher value is better.
        shown: as people read it.
    """

    of: Callable[[np.ndarray, np.ndarray], float]
    rises: bool
    shown: str

    @property
    def knows_one_label(self) -> bool:
        """Whether rows that all have one label have a value."""
        return not math.isnan(self.of(np.ones(2), np.zeros(2)))

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


def measured(labels: np.ndarray, logits: np.ndarray, monitor: str = "auc") -> Metrics:
    """The metrics that every evaluation logs, and the monitored one, of labels [B] and logits [B].

    Raises:
        ValueError: no rows, or a logit that is not finite.
    """
    if not len(labels) or not np.isfinite(logits).all():
        raise ValueError(f"{len(labels)} rows, {np.sum(~np.isfinite(logits))} of whose logits are not finite")
    return {name: MONITORED[name].of(labels, logits) for name in dict.fromkeys((*LOGGED, monitor))}
