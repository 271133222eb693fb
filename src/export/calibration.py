"""Calibration of scores: a temperature and a bias, learned on other rows than the network, in its last layer.

score = sigmoid(logit / temperature + bias). The last layer is linear, so its weights divided by the temperature and its
bias shifted give these scores in any exported form, by the operators that are there anyway.
"""

from dataclasses import dataclass
from pathlib import Path

import mindspore as ms
import numpy as np

from src.base.errors import InputError
from src.checkpoints.checkpoint import check_encoder
from src.checkpoints.stored import open_stored
from src.data.manifest import DataFolder
from src.dataset import batches_of
from src.dlrm import DLRM
from src.metrics.binary import Weights, logloss, scores_of
from src.network.compiled import operators_for
from src.network.options import NetworkSpec
from src.training.evaluation import finite_score

_STEPS = 100


@dataclass(frozen=True)
class Calibration:
    """What turns a logit into a calibrated one: logit / temperature + bias.

    Attributes:
        rows: that it was learned on.
        before, after: their logloss without and with it.
    """

    temperature: float
    bias: float
    rows: int
    before: float
    after: float

    def put_into(self, model: DLRM) -> None:
        """Change the last layer of a network, in each tower, so that its logits are calibrated."""
        model.change_logits(1 / self.temperature, self.bias)


def fit(labels: np.ndarray, logits: np.ndarray, weights: Weights = None, *, part: str = "valid") -> Calibration:
    """The temperature and bias with the least logloss of labels [B] and logits [B], by Newton's method.

    Rows count by their weights [B], if they have some; part is their name.

    Raises:
        InputError: there is no such least logloss, or it would turn the order of the scores round.
    """
    rows = len(labels)
    if weights is not None:  # rows that count nothing tell nothing, not even that there are both labels
        labels, logits, weights = labels[weights > 0], logits[weights > 0], weights[weights > 0]
    if len(np.unique(labels)) < 2 or logits.min() == logits.max():
        raise InputError(f"{len(labels)} {part} rows of one label or of one score can't calibrate: give more rows")
    values = logits.astype(np.float64)
    each = np.full(len(labels), 1 / len(labels)) if weights is None else weights / weights.sum(dtype=np.float64)
    inputs = np.stack([values, np.ones(len(values))], 1)
    slope_and_bias = np.array([1.0, 0.0])
    loss = logloss(labels, inputs @ slope_and_bias, weights)
    for _ in range(_STEPS):
        scores = scores_of(inputs @ slope_and_bias)
        gradient = inputs.T @ ((scores - labels) * each)
        curvature = (inputs * (scores * (1 - scores) * each)[:, None]).T @ inputs
        try:
            step = np.linalg.solve(curvature, gradient)
        except np.linalg.LinAlgError:
            break
        size = 1.0  # halved until the loss falls, for a whole step may go too far
        while size > 1e-9 and logloss(labels, inputs @ (slope_and_bias - size * step), weights) > loss:
            size /= 2
        slope_and_bias = slope_and_bias - size * step
        loss = logloss(labels, inputs @ slope_and_bias, weights)
        if np.abs(step).max() < 1e-10:
            break
    slope, bias = map(float, slope_and_bias)
    clicks = labels > 0.5
    if values[clicks].min() > values[~clicks].max() or not 1e-6 < slope < 1e6:
        raise InputError(
            f"{len(labels)} {part} rows give a calibration with a slope of {slope:.3g}: their scores tell nothing or "
            f"everything about their labels; export without --calibrate"
        )
    return Calibration(1 / slope, bias, rows, logloss(labels, logits, weights), loss)


def learned(path: Path, data: DataFolder, batch_size: int, network: NetworkSpec) -> Calibration:
    """The calibration of a checkpoint by the named part of a data folder.

    Args:
        path: the checkpoint.
        data: the folder, coded by the vocabulary that the checkpoint was trained with.
        batch_size: rows at once.
        network: its shape.

    Raises:
        InputError: another vocabulary coded these rows, or they can't calibrate.
    """
    part = data.part_to_score()
    check_encoder(path, data)
    operators = operators_for(ms.get_context("device_target"), False)
    model = open_stored(path, data.manifest, network, operators)
    return fit(*finite_score(model, batches_of(data, part, batch_size), batch_size), part=part)
