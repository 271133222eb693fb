"""The number of a training step, and what changes with it."""

from collections.abc import Sequence

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from src.network.cpu_kernels import Kernels


class StepCounter(nn.Cell):
    """Counts steps; called once in each.

    Args:
        series: factors by step, [steps] each; the last one of a series serves all later steps.
        kernels: the compiled operators, if they are to be used.

    Outputs: the number of steps before this one, [1] int32, and this step's factor of each series, [1] float32.
    """

    def __init__(self, series: Sequence[np.ndarray], kernels: Kernels | None = None):
        super().__init__()
        self.series = tuple(Tensor(np.asarray(factors, np.float32)) for factors in series)
        self.lasts = tuple(len(factors) - 1 for factors in series)
        self.steps_done = Parameter(Tensor([0], ms.int32), name="steps_done", requires_grad=False)
        self.kernel = kernels.next_step(len(self.series)) if kernels else None

    def construct(self):
        if self.kernel is not None:
            return self.kernel(self.steps_done, *self.series)
        step = ops.assign_add(self.steps_done, 1) - 1
        found: tuple = (step,)
        for index in range(len(self.series)):
            found = (*found, ops.gather(self.series[index], ops.minimum(step, self.lasts[index]), 0))
        return found
