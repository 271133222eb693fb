"""The number of a training step, and what changes with it."""

from collections.abc import Sequence

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn

from src.network.operators import Operators
from src.network.stock import STOCK


class StepCounter(nn.Cell):
    """Counts steps; called once at the beginning of each, and `end`, if `counts_last`, at its end.

    Args:
        series: factors by step, [steps] each; the last one of a series serves all later steps.
        operators: what computes it.

    Outputs: the number of steps before this one, [1] int32, and this step's factor of each series, [1] float32.
    """

    def __init__(self, series: Sequence[np.ndarray], operators: Operators = STOCK):
        super().__init__()
        self.series = tuple(Tensor(np.asarray(factors, np.float32)) for factors in series)
        self.steps_done = Parameter(Tensor([0], ms.int32), name="steps_done", requires_grad=False)
        self.counts_last, self.add, self.one = operators.counts_last, operators.primitives.add(), Tensor([1], ms.int32)
        self.next_step = operators.next_step([len(factors) for factors in series])

    def end(self):
        """Count the step; gives what comes after that."""
        return self.add(self.steps_done, self.one)

    def construct(self):
        return self.next_step(self.steps_done, *self.series)
