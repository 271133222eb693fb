"""What a network computes by MindSpore's own operators, on Ascend, GPU and CPU.

Legend: as in src/network/operators.py.
"""

from collections.abc import Sequence
from typing import Any

import mindspore as ms
from mindspore import nn, ops

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

    def table_update(self, rule: Any, weight_decay: float, width: int) -> nn.Cell:
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
            product = self.matmul(x.astype(self.compute_dtype), weight.astype(self.compute_dtype))
            product = product.astype(ms.float32)
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

    def construct(self, logits, labels):
        return ops.binary_cross_entropy_with_logits(logits, labels, reduction="mean")

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

    def construct(self, steps_done, *series):
        step = ops.assign_add(steps_done, 1) - 1
        found: tuple = (step,)
        for index in range(len(self.lasts)):
            found = (*found, ops.gather(series[index], ops.minimum(step, self.lasts[index]), 0))
        return found


class StockAverage(nn.Cell):
    """The running mean of values; see `Operators.average`."""

    def __init__(self):
        super().__init__()
        self.assign_add = ops.AssignAdd()

    def construct(self, step, first_step, done, values, means):
        counted = (step - first_step + 1).astype(ms.float32)
        share = (counted > 0).astype(ms.float32) / ops.maximum(counted, 1)
        changed: tuple = ()
        for index in range(len(means)):
            change = (done[index] - means[index]) * share
            changed = (*changed, self.assign_add(means[index], change))
        return changed


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
        self.gather, self.sum_groups, self.unique = ops.Gather(), ops.UnsortedSegmentSum(), ops.Unique()
        self.scatter_add, self.scatter_update = ops.ScatterAdd(), ops.ScatterUpdate()

    def construct(self, table, rows, gradients, rate, states):
        rows = rows.reshape(-1)  # [U]
        gradients = gradients.reshape(-1, self.width)
        if self.adds_up:
            return self.scatter_add(table, rows, -self.change(gradients, rate, ())[0])
        group = self.unique(rows)[1]
        gradients = self.gather(self.sum_groups(gradients, group, rows.shape[0]), group, 0)
        values = self.gather(table, rows, 0)
        if self.weight_decay != 0:
            gradients = gradients + self.weight_decay * values
        old: tuple = ()
        for index in range(self.states):
            old = (*old, self.gather(states[index], rows, 0))
        change, new = self.change(gradients, rate, old)
        values = values - change
        for index in range(self.states):
            values = ops.depend(values, self.scatter_update(states[index], rows, new[index]))
        return self.scatter_update(table, rows, values)


class StockDenseUpdate(nn.Cell):
    """Updates whole values; see `Operators.dense_update`."""

    def __init__(self, rule: Any, weight_decay: float, decays: Sequence[bool]):
        super().__init__()
        self.change, self.states = rule.change, len(rule.states)
        self.decays = tuple(weight_decay if one else 0.0 for one in decays)
        self.assign, self.assign_sub = ops.Assign(), ops.AssignSub()

    def construct(self, rate, decay_rate, values, gradients, states):
        done: tuple = ()
        for index in range(len(values)):
            old: tuple = ()
            for state in range(self.states):
                old = (*old, states[state][index])
            change, new = self.change(gradients[index], rate, old)
            for state in range(self.states):
                change = ops.depend(change, self.assign(states[state][index], new[state]))
            if self.decays[index] != 0:
                change = change + decay_rate * self.decays[index] * values[index]
            done = (*done, self.assign_sub(values[index], change))
        return done


STOCK = StockOperators()
