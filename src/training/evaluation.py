"""Score rows and measure the scores."""

import contextlib
import itertools
from collections.abc import Iterable

import numpy as np
from mindspore import Tensor

from src.base.errors import InputError
from src.base.stops import held_back
from src.dataset import Batch
from src.dlrm import DLRM
from src.metrics.monitored import Metrics, measured
from src.ranks.group import ONE_RANK, Ranks


def score(
    model: DLRM, batches: Iterable[Batch], batch_size: int, ranks: Ranks = ONE_RANK
) -> tuple[np.ndarray, np.ndarray]:
    """Labels [B] and logits [B] of all rows, the same on every rank.

    A last batch that is not full is filled up with zeros and cut again, so that one compiled graph serves all. Ranks
    take the batches in turns, and go on together, for split tables need all of them: who has none left takes zeros.

    Args:
        model: the network.
        batches: rows, at most batch_size at a time, and the same on every rank.
        batch_size: rows that the graph is compiled for.
        ranks: that share the work.
    """
    all_labels, sizes = [], []
    own_logits: list[np.ndarray] = []
    model.set_train(False)
    remaining = iter(batches)
    while turn := list(itertools.islice(remaining, ranks.size)):
        sizes += [len(labels) for _, _, labels in turn]
        all_labels += [labels[:, 0] for _, _, labels in turn]
        dense, ids = turn[ranks.rank][:2] if ranks.rank < len(turn) else (column[:0] for column in turn[0][:2])
        if len(dense) < batch_size:
            dense, ids = (np.pad(column, ((0, batch_size - len(dense)), (0, 0))) for column in (dense, ids))
        first = not own_logits  # which may be compiled
        with held_back() if first else contextlib.nullcontext(), ranks.sign.work(compiles=first):
            own_logits.append(model(Tensor(dense), Tensor(ids)).asnumpy()[:, 0])
    by_rank = ranks.gather(np.stack(own_logits))  # [N, turns, batch_size]
    in_order = by_rank.swapaxes(0, 1).reshape(-1, batch_size)
    return np.concatenate(all_labels), np.concatenate([batch[:rows] for batch, rows in zip(in_order, sizes)])


def finite_score(
    model: DLRM, batches: Iterable[Batch], batch_size: int, ranks: Ranks = ONE_RANK
) -> tuple[np.ndarray, np.ndarray]:
    """As `score`, of a network that did not diverge.

    Raises:
        InputError: a logit is not finite, so the network's values are not.
    """
    labels, logits = score(model, batches, batch_size, ranks)
    if wrong := int(np.sum(~np.isfinite(logits))):
        raise InputError(
            f"{wrong} of {len(logits)} logits are not finite: training diverged; train again with a smaller --lr"
        )
    return labels, logits


def evaluate(
    model: DLRM, batches: Iterable[Batch], batch_size: int, ranks: Ranks = ONE_RANK, monitor: str = "auc"
) -> Metrics:
    """Accuracy, AUC, logloss and the monitored metric over all rows; arguments and errors as for `finite_score`."""
    return measured(*finite_score(model, batches, batch_size, ranks), monitor)
