"""Calibration of scores: a temperature and a bias, learned on validation rows, in the network's last layer.

score = sigmoid(logit / temperature + bias). The last layer is linear, so its weights divided by the temperature and its
bias shifted give these scores in any exported form, by the operators that are there anyway.
"""

from dataclasses import dataclass
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Tensor

from src.base.errors import InputError
from src.checkpoints import checkpoint
from src.data.manifest import DataFolder
from src.dataset import batches_of
from src.dlrm import DLRM
from src.metrics.binary import logloss, scores_of
from src.network.compiled import operators_for
from src.network.options import NetworkSpec
from src.training.evaluation import finite_score

PART = "valid"
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
        for tower in model.towers:
            weight, bias = list(tower.top.get_parameters())[-2:]
            weight.set_data(Tensor((weight.asnumpy() / self.temperature).astype(np.float32)))
            bias.set_data(Tensor((bias.asnumpy() / self.temperature + self.bias).astype(np.float32)))


def fit(labels: np.ndarray, logits: np.ndarray) -> Calibration:
    """The temperature and bias with the least logloss of labels [B] and logits [B], by Newton's method.

    Raises:
        InputError: there is no such least logloss, or it would turn the order of the scores round.
    """
    if len(np.unique(labels)) < 2 or logits.min() == logits.max():
        raise InputError(f"{len(labels)} {PART} rows of one label or of one score can't calibrate: give more rows")
    values = logits.astype(np.float64)
    inputs = np.stack([values, np.ones(len(values))], 1)
    slope_and_bias = np.array([1.0, 0.0])
    loss = logloss(labels, inputs @ slope_and_bias)
    for _ in range(_STEPS):
        scores = scores_of(inputs @ slope_and_bias)
        gradient = inputs.T @ (scores - labels) / len(labels)
        curvature = (inputs * (scores * (1 - scores))[:, None]).T @ inputs / len(labels)
        try:
            step = np.linalg.solve(curvature, gradient)
        except np.linalg.LinAlgError:
            break
        size = 1.0  # halved until the loss falls, for a whole step may go too far
        while size > 1e-9 and logloss(labels, inputs @ (slope_and_bias - size * step)) > loss:
            size /= 2
        slope_and_bias = slope_and_bias - size * step
        loss = logloss(labels, inputs @ slope_and_bias)
        if np.abs(step).max() < 1e-10:
            break
    slope, bias = map(float, slope_and_bias)
    clicks = labels > 0.5
    if values[clicks].min() > values[~clicks].max() or not 1e-6 < slope < 1e6:
        raise InputError(
            f"{len(labels)} {PART} rows give a calibration with a slope of {slope:.3g}: their scores tell nothing or "
            f"everything about their labels; export without --calibrate"
        )
    return Calibration(1 / slope, bias, len(labels), logloss(labels, logits), loss)


def learned(path: Path, data: DataFolder, batch_size: int, network: NetworkSpec) -> Calibration:
    """The calibration of a checkpoint by the validation rows of a data folder.

    Args:
        path: the checkpoint.
        data: the folder, coded by the vocabulary that the checkpoint was trained with.
        batch_size: rows at once.
        network: its shape.

    Raises:
        InputError: another part is named, there are no validation rows, or another vocabulary coded them.
    """
    if data.named_part not in (None, PART):
        raise InputError(
            f"calibrate learns from validation rows, and {data.named_part} is another part: give "
            f"--dataset_path={data.path}"
        )
    if PART not in data.manifest.parts:
        raise InputError(f"data folder {data.path} has no validation rows to calibrate with: preprocess it with some")
    checkpoint.check_encoder(path, data)
    operators = operators_for(ms.get_context("device_target"), False)
    model = checkpoint.load(path, data.manifest, network, operators)
    return fit(*finite_score(model, batches_of(data, PART, batch_size), batch_size))
