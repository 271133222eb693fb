"""Score rows and measure the scores."""

from collections.abc import Iterable

import numpy as np
from mindspore import Tensor, nn

from src.cpu_kernels import Branch
from src.dataset import Batch
from src.dlrm import DLRM
from src.errors import InputError
from src.metrics import Metrics, binary_metrics


class Scorer(nn.Cell):
    """A network for scoring, which with the compiled operators needs a branch to be fast.

    Inputs and outputs: as for `DLRM`.
    """

    def __init__(self, model: DLRM):
        super().__init__(auto_prefix=False)
        self.model = model
        self.branch = Branch() if model.kernels else None

    def construct(self, dense, ids):
        logits = self.model(dense, ids)
        return logits if self.branch is None else self.branch(logits)


def score(scorer: nn.Cell, batches: Iterable[Batch], batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels [B] and logits [B] of all rows.

    A last batch that is not full is filled up with zeros and cut again, so that one compiled graph serves all.

    Args:
        scorer: a DLRM, or its Scorer, which is faster on the CPU.
        batches: rows, at most batch_size at a time.
        batch_size: rows that the graph is compiled for.
    """
    all_labels, all_logits = [], []
    scorer.set_train(False)
    for dense, ids, labels in batches:
        rows = len(labels)
        if rows < batch_size:
            dense, ids = (np.pad(column, ((0, batch_size - rows), (0, 0))) for column in (dense, ids))
        all_logits.append(scorer(Tensor(dense), Tensor(ids)).asnumpy()[:rows, 0])
        all_labels.append(labels[:, 0])
    return np.concatenate(all_labels), np.concatenate(all_logits)


def evaluate(scorer: nn.Cell, batches: Iterable[Batch], batch_size: int) -> Metrics:
    """Accuracy, AUC and logloss over all rows; arguments as for `score`.

    Raises:
        InputError: a logit is not finite, so the network's values are not.
    """
    labels, logits = score(scorer, batches, batch_size)
    if wrong := int(np.sum(~np.isfinite(logits))):
        raise InputError(
            f"{wrong} of {len(logits)} logits are not finite: training diverged; train again with a smaller --lr"
        )
    return binary_metrics(labels, logits)
