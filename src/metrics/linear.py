"""A quick linear model to hold a network against: logistic regression on numbers and hashed one-hot categories.

Legend: B rows, N numeric inputs, L ids of a row.
"""

import contextlib
import importlib
from collections.abc import Sequence

import numpy as np

from src.base.errors import InputError
from src.metrics.binary import Weights, logloss, mean

_BUCKETS = 1 << 18
_FURTHEST = 5.0  # deviations from the mean, so that no single number moves the weights
_STRENGTHS = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)  # of the regularisation
_STEPS, _MOST_PASSES = 500_000, 20  # a few seconds at most, whatever the rows
_BLOCK_ROWS = 1 << 13


def import_libraries() -> None:
    """Import what a `LinearModel` needs, if it is installed: 50 MB, which a training should have before its end.

    So a run that has enough memory in its middle has enough for what follows it.
    """
    with contextlib.suppress(ImportError):
        importlib.import_module("sklearn.linear_model")


class LinearModel:
    """Logistic regression by averaged SGD; the last fifth of its rows chooses how strongly it is regularised.

    Args:
        dense: numeric inputs [B, N].
        ids: each table's own [B, L], negative ones for what is not there.
        labels: [B] of 0 and 1.
        fields: the number of each id's field, [L]; unless given, each is of its own.
        weights: [B], if rows have some.

    Raises:
        InputError: scikit-learn is not installed, or there are too few rows of a label.
    """

    def __init__(
        self, dense: np.ndarray, ids: np.ndarray, labels: np.ndarray, fields: Sequence[int] = (),
        weights: Weights = None,
    ):  # fmt: skip
        try:
            from sklearn.linear_model import SGDClassifier  # late: it takes a second, and not everyone has it
        except ImportError:
            raise InputError("scikit-learn is not installed: pip install scikit-learn") from None
        fitted = len(labels) * 4 // 5
        if min(len(np.unique(labels[:fitted])), len(np.unique(labels[fitted:]))) < 2:
            raise InputError("too few of its training rows have one of the labels")
        self.fields = np.array(fields or range(ids.shape[1]))
        self.mean, self.deviation = dense.mean(0, dtype=np.float64), dense.std(0, dtype=np.float64) + 1e-6
        features, clicks = self._features(dense, ids), labels > 0.5
        if weights is not None:  # of mean 1, so that they say nothing of how far a step goes
            weights = weights.astype(np.float64) / (mean(weights) or 1)
            if not weights[fitted:].any():
                raise InputError("too few of its training rows have a weight above 0")

        def fit(strength: float, rows: int) -> SGDClassifier:
            passes = min(_MOST_PASSES, max(1, _STEPS // rows))
            model = SGDClassifier(
                loss="log_loss", alpha=strength, max_iter=passes, tol=None, average=True, random_state=1
            )
            own = None if weights is None else weights[:rows]
            return model.fit(_first(features, rows), clicks[:rows], sample_weight=own)

        def loss(strength: float) -> float:
            self.model = fit(strength, fitted)
            held_out = None if weights is None else weights[fitted:]
            return logloss(clicks[fitted:], self.logits(dense[fitted:], ids[fitted:]), held_out)

        self.model = fit(min(_STRENGTHS, key=loss), len(labels))

    def logits(self, dense: np.ndarray, ids: np.ndarray) -> np.ndarray:
        """Logits [B] of rows dense [B, N], ids [B, L]."""
        blocks = [slice(low, low + _BLOCK_ROWS) for low in range(0, len(ids), _BLOCK_ROWS)]
        return np.concatenate([self.model.decision_function(self._features(dense[one], ids[one])) for one in blocks])

    def _features(self, dense: np.ndarray, ids: np.ndarray):
        """A sparse matrix [B, N + buckets]; column by column, for it is the largest thing at the end of a training."""
        from scipy.sparse import csr_matrix

        rows, inputs = dense.shape
        values = np.empty((rows, inputs + ids.shape[1]), np.float32)
        columns = np.empty(values.shape, np.int32)
        for place in range(inputs):
            numbers = (dense[:, place].astype(np.float64) - self.mean[place]) / self.deviation[place]
            values[:, place], columns[:, place] = np.clip(numbers, -_FURTHEST, _FURTHEST), place
        for place, field in enumerate(self.fields.tolist(), inputs):
            own = ids[:, place - inputs]
            hashed = (own.astype(np.int64) * len(self.fields) + field) * 0x9E3779B1 % (2**31 - 1)
            values[:, place], columns[:, place] = own >= 0, inputs + hashed % _BUCKETS
        ends = np.arange(0, values.size + 1, values.shape[1], np.int32)
        return csr_matrix((values.ravel(), columns.ravel(), ends), shape=(rows, inputs + _BUCKETS))


def _first(matrix, rows: int):
    """The first rows of a sparse matrix, in its own memory."""
    end = matrix.indptr[rows]
    parts = matrix.data[:end], matrix.indices[:end], matrix.indptr[: rows + 1]
    return type(matrix)(parts, shape=(rows, matrix.shape[1]))
