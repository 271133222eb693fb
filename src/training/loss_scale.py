"""The factor on the loss that keeps float16 gradients above 0, and what happens where they overflow under it.

Micikevicius et al. 2018 (arXiv 1710.03740, section 3.2). A step whose loss or gradients are not all finite changes no
value of the network and no state of its optimizers; it counts as a step for schedules and averages.
"""

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from src.network.primitives import PRIMITIVES, Primitives
from src.training.options import Scale

_FIRST, _LEAST, _WINDOW = 2.0**16, 1.0, 2000  # of a dynamic one


class LossScale(nn.Cell):
    """The factor, and the count of updates that were left out.

    Args:
        value: the factor, which then stays, or "dynamic": half of it behind a step that overflows, twice behind so
            many steps in a row that do not.
        primitives: of the device.
        first, window: of a dynamic one: the factor of the first step, and the steps in a row.

    Attributes:
        skipped: how many updates were left out, [1] int32.

    Inputs: applied, bool, whether this step's loss and gradients were finite; factor, which this step had. Outputs:
        what comes behind the change of the factor in place.
    """

    def __init__(
        self, value: Scale, primitives: Primitives = PRIMITIVES, first: float = _FIRST, window: int = _WINDOW
    ):  # fmt: skip
        super().__init__()
        self.skipped = _kept([0], ms.int32, "skipped_updates")
        self.dynamic, self.window = value == "dynamic", window
        if self.dynamic:
            self.scale = _kept([first], ms.float32, "loss_scale")
            self.steps_in_a_row = _kept([0], ms.int32, "steps_at_loss_scale")
        else:
            self.constant = Tensor(value, ms.float32)
        self.write, self.add, self.each = primitives.write(), primitives.add(), ops.HyperMap()

    @property
    def values(self) -> tuple[Parameter, ...]:
        """What goes from step to step."""
        return (self.skipped, self.scale, self.steps_in_a_row) if self.dynamic else (self.skipped,)

    def factor(self):
        """On the loss of the next step, a scalar."""
        return self.scale.reshape(()) if self.dynamic else self.constant

    def all_finite(self, values):
        """Whether no value of a tuple of tensors is infinite or not a number, bool."""
        return ops.isfinite(ops.concat(self.each(self.flat, values))).all()

    def flat(self, value):
        """One tensor's values, side by side."""
        return value.reshape(-1)

    def construct(self, applied, factor):
        done = self.add(self.skipped, 1 - applied.to(ms.int32).reshape(1))
        if not self.dynamic:
            return done
        steps = ops.where(applied, self.steps_in_a_row + 1, ops.zeros_like(self.steps_in_a_row))
        grows = steps >= self.window
        factor = factor.reshape(1)
        lower = ops.maximum(factor / 2, _LEAST)
        scale = ops.where(applied, ops.where(grows, factor * 2, factor), lower)
        done = ops.depend(done, self.write(self.scale, scale))
        return ops.depend(done, self.write(self.steps_in_a_row, ops.where(grows, ops.zeros_like(steps), steps)))


def _kept(value, dtype, name: str) -> Parameter:
    return Parameter(Tensor(np.array(value), dtype), name=name, requires_grad=False)
