"""The mean of weights over the last steps of a training (Polyak and Juditsky 1992; Izmailov et al. 2018)."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from src.network.cpu_kernels import Kernels

Result = TypeVar("Result")


class WeightAverage(nn.Cell):
    """The mean of parameters' values, over those after each step from one on.

    Args:
        parameters: what is averaged.
        first: the number, from 0, of the first step that counts.
        kernels: the compiled operators, if they are to be used.

    Attributes:
        means: zeros before that step.

    Inputs: step [1] int32, the number of this one; done, what DenseOptimizer gave for the same parameters in it.
    """

    def __init__(self, parameters: Sequence[Parameter], first: int, kernels: Kernels | None = None):
        super().__init__()
        self.values, self.first = tuple(parameters), first
        self.means = tuple(
            Parameter(Tensor(np.zeros(value.shape, np.float32)), name=f"average.{value.name}", requires_grad=False)
            for value in parameters
        )
        self.first_step = Tensor([first], ms.int32)
        self.kernel = kernels.average() if kernels else None
        self.assign_add = ops.AssignAdd()

    def construct(self, step, done):
        if self.kernel is not None:
            return self.kernel(step, self.first_step, done, *self.values, *self.means)
        counted = (step - self.first_step + 1).astype(ms.float32)
        share = (counted > 0).astype(ms.float32) / ops.maximum(counted, 1)
        changed: tuple = ()
        for index in range(len(self.means)):
            change = (done[index] - self.means[index]) * share
            changed = (*changed, self.assign_add(self.means[index], change))
        return changed

    def instead(self, work: Callable[[], Result]) -> Result:
        """The result of some work that finds the means in the parameters' places."""
        own = [value.asnumpy().copy() for value in self.values]
        try:
            for value, mean in zip(self.values, self.means):
                value.set_data(Tensor(mean.asnumpy().copy()))
            return work()
        finally:
            for value, kept in zip(self.values, own):
                value.set_data(Tensor(kept))
