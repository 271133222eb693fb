"""Several training steps in one launch, so that a device does not wait for Python between them.

Legend: B batch, K steps of a launch.
"""

from typing import Any

from mindspore import Tensor, nn, ops

from src.training.step import TrainStep

_COLUMNS = 3  # dense, ids, labels


class SunkSteps(nn.Cell):
    """Takes a batch a call as `TrainStep` does, but does the steps of K calls at once, in one graph.

    MindSpore 2.10 compiles for kernels that are launched one by one (jit_level O0 and O1), so that no loop of steps
    is left that runs on the device alone; what a graph of K steps saves is K - 1 returns to Python, and the wait for a
    batch's copy. The steps are the same to the last bit.

    A call gives the loss as a `SunkLoss`. Whoever reads one before the K-th call lets the steps that wait be done
    then, one by one: reading the loss of the last call is thus what makes all values those behind its step.

    Args:
        step: a step.
        count: K.

    Inputs: dense [B, N] float32, ids [B, L] int32, labels [B, 1] float32 of 0 and 1.
    Outputs: the mean loss of the batch before the update.

    Raises:
        ValueError: the operators of the step change values in places of which a graph of several steps has copies.
    """

    def __init__(self, step: TrainStep, count: int):
        super().__init__(auto_prefix=False)
        if not step.operators.follow_one_another:
            raise ValueError("compiled operators can't do several steps in a graph: give stock ones")
        self.step, self.count = step, count
        self.waiting: list[tuple[tuple[Tensor, ...], SunkLoss]] = []
        self.is_compiled = False

    def construct(self, *columns):
        losses: tuple = ()
        for place in range(self.count):
            dense, ids, labels = columns[place * _COLUMNS : (place + 1) * _COLUMNS]
            if place > 0:
                dense = ops.depend(dense, losses[-1])  # behind the updates of the step before
            losses = (*losses, self.step(dense, ids, labels))
        return losses

    def __call__(self, *batch: Tensor) -> "SunkLoss":
        loss = SunkLoss(self)
        self.waiting.append((batch, loss))
        if not self.is_compiled:  # both graphs in the first call, whose time counts as that of compiling
            self.catch_up()
            self.compile(*(batch * self.count))
            self.is_compiled = True
        elif len(self.waiting) == self.count:
            waiting, self.waiting = self.waiting, []
            outputs = super().__call__(*(column for columns, _ in waiting for column in columns))
            for (_, one), output in zip(waiting, outputs):
                one.output = output
        return loss

    def catch_up(self) -> None:
        """Do the steps that wait, one by one."""
        waiting, self.waiting = self.waiting, []
        for batch, loss in waiting:
            loss.output = self.step(*batch)


class SunkLoss:
    """The loss of a step that may not be done yet."""

    def __init__(self, steps: SunkSteps):
        self.steps = steps
        self.output: Tensor | None = None

    def asnumpy(self) -> Any:
        """The loss as an array; lets the step be done if it waits."""
        if self.output is None:
            self.steps.catch_up()
        assert self.output is not None
        return self.output.asnumpy()

    def __float__(self) -> float:
        return float(self.asnumpy())

    def __str__(self) -> str:
        return str(self.asnumpy())


def sunk(step: TrainStep, count: int) -> TrainStep | SunkSteps:
    """A step, or what does so many of its steps at once."""
    return step if count == 1 else SunkSteps(step, count)
