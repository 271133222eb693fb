"""The mean of weights over the last steps of a training (Polyak and Juditsky 1992; Izmailov et al. 2018)."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn

from src.network.operators import Operators
from src.network.stock import STOCK

Result = TypeVar("Result")


class WeightAverage(nn.Cell):
    """The mean of parameters' values, over those after each step from one on.

    Args:
        parameters: what is averaged.
        first: the number, from 0, of the first step that counts.
        operators: what computes it.

    Attributes:
        means: zeros before that step.

    Inputs: step [1] int32, the number of this one; done, what DenseOptimizer gave for the same parameters in it.
    """

    def __init__(self, parameters: Sequence[Parameter], first: int, operators: Operators = STOCK):
        super().__init__()
        self.values, self.first = tuple(parameters), first
        self.means = tuple(
            Parameter(Tensor(np.zeros(value.shape, np.float32)), name=f"average.{value.name}", requires_grad=False)
            for value in parameters
        )
        self.first_step = Tensor([first], ms.int32)
        self.update = operators.average()

    def construct(self, step, done):
        return self.update(step, self.first_step, done, self.values, self.means)

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


def first_averaged(steps: int, share: float, done: int, before: int | None) -> int | None:
    """The first step of a share of all steps at their end, one at least; None for no share.

    Where other epochs move it behind the steps that are done, no mean of those from there on is left: one that has
    begun before, at a step, goes on, else it begins now.
    """
    if not share:
        return None
    first = steps - max(1, round(share * steps))
    if first >= done or before is None:
        return first
    return min(before, done)
