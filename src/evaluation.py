"""Score rows and measure the scores."""

from collections.abc import Iterable

import numpy as np
from mindspore import Tensor

from src.dataset import Batch
from src.dlrm import DLRM
from src.errors import InputError
from src.metrics import Metrics, binary_metrics


def score(model: DLRM, batches: Iterable[Batch], batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels [B] and logits [B] of all rows.

    A last batch that is not full is filled up with zeros and cut again, so that one compiled graph serves all.

    Args:
        model: the network.
        batches: rows, at most batch_size at a time.
        batch_size: rows that the graph is compiled for.
    """
    all_labels, all_logits = [], []
    model.set_train(False)
    for dense, ids, labels in batches:
        rows = len(labels)
        if rows < batch_size:
            dense, ids = (np.pad(column, ((0, batch_size - rows), (0, 0))) for column in (dense, ids))
        all_logits.append(model(Tensor(dense), Tensor(ids)).asnumpy()[:rows, 0])
        all_labels.append(labels[:, 0])
    return np.concatenate(all_labels), np.concatenate(all_logits)


def evaluate(model: DLRM, batches: Iterable[Batch], batch_size: int) -> Metrics:
    """Accuracy, AUC and logloss over all rows; arguments as for `score`.

    Raises:
        InputError: a logit is not finite, so the network's values are not.
    """
    labels, logits = score(model, batches, batch_size)
    if wrong := int(np.sum(~np.isfinite(logits))):
        raise InputError(
            f"{wrong} of {len(logits)} logits are not finite: training diverged; train again with a smaller --lr"
        )
    return binary_metrics(labels, logits)
