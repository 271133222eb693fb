"""What a network computes by MindSpore's own operators, on Ascend, GPU and CPU.

Legend: as in src/network/operators.py.
"""

from collections.abc import Sequence
from typing import Any

import mindspore as ms
from mindspore import Tensor, nn, ops

from src.network.dropout import Dropout
from src.network.operators import Operators
from src.network.pair_dots import PairDots


class StockOperators(Operators):
    """MindSpore's own operators."""

    def linear(self, relu: bool, pad: bool, input_gradient: bool, bias: bool, compute_dtype=ms.float32) -> nn.Cell:
        return StockLinear(relu, bias, compute_dtype)

    def dropped_linear(self, dropout: Dropout, pad: bool, input_gradient: bool, compute_dtype=ms.float32) -> nn.Cell:
        return StockDroppedLinear(dropout, compute_dtype)

    def pair_dots(self, fields: int, width: int, self_interaction: bool) -> nn.Cell:
        return StockPairDots(fields, width, self_interaction)

    def cross_entropy(self) -> nn.Cell:
        return StockCrossEntropy()

    def lookup(self) -> nn.Cell:
        return StockLookup()

    def next_step(self, lengths: Sequence[int]) -> nn.Cell:
        return StockNextStep(lengths)

    def average(self) -> nn.Cell:
        return StockAverage()

    def table_update(self, rule: Any, weight_decay: float, width: int, across: bool = False) -> nn.Cell:
        return StockTableUpdate(rule, weight_decay, width)

    def dense_update(self, rule: Any, weight_decay: float, decays: Sequence[bool]) -> nn.Cell:
        return StockDenseUpdate(rule, weight_decay, decays)


class StockLinear(nn.Cell):
    """x W^T + b, or max(x W^T + b, 0); see `Operators.linear`."""

    def __init__(self, relu: bool, bias: bool, compute_dtype=ms.float32):
        super().__init__()
        self.matmul = ops.MatMul(transpose_b=True)
        self.bias_add = ops.BiasAdd() if bias else None
        self.relu = ops.ReLU() if relu else None
        self.compute_dtype = compute_dtype
        self.half = compute_dtype != ms.float32

    def construct(self, x, weight, bias):
        if self.half:
            product = self.matmul(x.to(self.compute_dtype), weight.to(self.compute_dtype))
            product = product.to(ms.float32)
        else:
            product = self.matmul(x, weight)
        total = product if self.bias_add is None else self.bias_add(product, bias)
        return total if self.relu is None else self.relu(total)


class StockDroppedLinear(nn.Cell):
    """A layer with ReLU and dropout behind it; see `Operators.dropped_linear`."""

    def __init__(self, dropout: Dropout, compute_dtype=ms.float32):
        super().__init__()
        self.linear, self.dropout = StockLinear(True, True, compute_dtype), dropout

    def construct(self, x, weight, bias, step):
        return self.dropout(self.linear(x, weight, bias), step)


class StockPairDots(nn.Cell):
    """Products of all pairs behind the bottom MLP's output; see `Operators.pair_dots`."""

    def __init__(self, fields: int, width: int, self_interaction: bool):
        super().__init__()
        self.width, self.pair_dots = width, PairDots(fields + 1, self_interaction)

    def construct(self, bottom, vectors):
        stacked = ops.concat((bottom.reshape(-1, 1, self.width), vectors), 1)  # [B, F + 1, D]
        return ops.concat((bottom, self.pair_dots(stacked)), 1)


class StockCrossEntropy(nn.Cell):
    """Mean sigmoid cross entropy; see `Operators.cross_entropy`.

    The gradient is written out as (sigmoid(logit) - label) / B: three operators where the stock one takes eleven.
    """

    def __init__(self):
        super().__init__()
        self.mean_loss = nn.BCEWithLogitsLoss(reduction="mean")

    def construct(self, logits, labels):
        return self.mean_loss(logits, labels)

    def bprop(self, logits, labels, out, dout):
        return (ops.sigmoid(logits) - labels) * (dout / logits.shape[0]), ops.zeros_like(labels)


class StockLookup(nn.Cell):
    """Rows and vectors of ids; see `Operators.lookup`."""

    def __init__(self):
        super().__init__()
        self.gather = ops.Gather()

    def construct(self, table, ids, starts):
        rows = ids + starts
        return rows, self.gather(table, rows, 0)


class StockNextStep(nn.Cell):
    """Counts a step, and finds its factors; see `Operators.next_step`."""

    def __init__(self, lengths: Sequence[int]):
        super().__init__()
        self.lasts = tuple(length - 1 for length in lengths)
        self.assign_add, self.gather, self.one = ops.AssignAdd(), ops.Gather(), Tensor([1], ms.int32)

    def construct(self, steps_done, *series):
        step = self.assign_add(steps_done, self.one) - 1
        found: tuple = (step,)
        for index in range(len(self.lasts)):
            found = (*found, self.gather(series[index], ops.minimum(step, self.lasts[index]), 0))
        return found


class StockAverage(nn.Cell):
    """The running mean of values; see `Operators.average`."""

    def __init__(self):
        super().__init__()
        self.assign_add, self.each = ops.AssignAdd(), ops.HyperMap()

    def construct(self, step, first_step, done, values, means):
        counted = (step - first_step + 1).to(ms.float32)
        share = (counted > 0).to(ms.float32) / ops.maximum(counted, 1)
        return self.each(ops.partial(self.update, share), done, means)

    def update(self, share, value, mean):
        """One value's mean."""
        return self.assign_add(mean, (value - mean) * share)


def _where(applied, new, old):
    """What becomes of a value: `new`, but `old` where updates are not applied; always `new` for None."""
    return new if applied is None else ops.where(applied, new, old)


class StockTableUpdate(nn.Cell):
    """Updates looked-up rows; see `Operators.table_update`.

    Every place gets the sum over all places of its row, so writing the row several times writes the same. Shapes stay
    fixed: of the distinct rows only their numbers at the places are used.
    """

    def __init__(self, rule: Any, weight_decay: float, width: int):
        super().__init__()
        self.change, self.weight_decay, self.width = rule.change, weight_decay, width
        self.states = len(rule.states)
        self.adds_up = self.states == 0 and weight_decay == 0  # so that places need not be brought together
        self.gather, self.sum_groups, self.unique = ops.Gather(), ops.ScatterNd(), ops.Unique()
        # Without the lock the documentation leaves open what rows that come several times get.
        self.scatter_add, self.scatter_update = ops.ScatterAdd(use_locking=True), ops.ScatterUpdate()

    def construct(self, table, rows, gradients, rate, states, applied=None):
        rows = rows.reshape(-1)  # [U]
        gradients = gradients.reshape(-1, self.width)
        if self.adds_up:
            change = -self.change(gradients, rate, ())[0]
            return self.scatter_add(table, rows, _where(applied, change, ops.zeros_like(change)))
        group = self.unique(rows)[1]
        sums = self.sum_groups(group.reshape(-1, 1), gradients, gradients.shape)
        gradients = self.gather(sums, group, 0)
        values = self.gather(table, rows, 0)
        if self.weight_decay != 0:
            gradients = gradients + self.weight_decay * values
        old: tuple = ()
        for index in range(self.states):
            old = (*old, self.gather(states[index], rows, 0))
        change, new = self.change(gradients, rate, old)
        values = _where(applied, values - change, values)
        for index in range(self.states):
            state = _where(applied, new[index], old[index])
            values = ops.depend(values, self.scatter_update(states[index], rows, state))
        return self.scatter_update(table, rows, values)


class StockDenseUpdate(nn.Cell):
    """Updates whole values; see `Operators.dense_update`.

    All by one call of a map: a loop would nest a call in a call for each value, of which MindSpore compiles 1,000.
    """

    def __init__(self, rule: Any, weight_decay: float, decays: Sequence[bool]):
        super().__init__()
        self.change, self.states = rule.change, len(rule.states)
        self.decays = tuple(weight_decay if one else 0.0 for one in decays)
        self.assign, self.assign_sub, self.each = ops.Assign(), ops.AssignSub(), ops.HyperMap()

    def construct(self, rate, decay_rate, values, gradients, states, applied=None):
        update = ops.partial(self.update, rate, decay_rate, applied)
        return self.each(update, self.decays, values, gradients, *states)

    def update(self, rate, decay_rate, applied, decay, value, gradient, *states):
        """One value."""
        change, new = self.change(gradient, rate, states)
        if decay != 0:
            change = change + decay_rate * decay * value
        change = _where(applied, change, ops.zeros_like(change))
        for index in range(self.states):
            state = _where(applied, new[index], states[index])
            change = ops.depend(change, self.assign(states[index], state))
        return self.assign_sub(value, change)


STOCK = StockOperators()
