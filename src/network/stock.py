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
from src.network.primitives import Primitives


class StockOperators(Operators):
    """MindSpore's own operators, by the primitives of GPU and CPU, or those that a subclass has."""

    def linear(self, relu: bool, pad: bool, input_gradient: bool, bias: bool, compute_dtype=ms.float32) -> nn.Cell:
        return self.stock_linear(relu, bias, compute_dtype)

    def dropped_linear(self, dropout: Dropout, pad: bool, input_gradient: bool, compute_dtype=ms.float32) -> nn.Cell:
        return StockDroppedLinear(self.stock_linear(True, True, compute_dtype), dropout)

    def stock_linear(self, relu: bool, bias: bool, compute_dtype) -> nn.Cell:
        """A layer by MindSpore's operators."""
        return StockLinear(relu, bias, compute_dtype)

    def pair_dots(self, fields: int, width: int, self_interaction: bool) -> nn.Cell:
        return StockPairDots(fields, width, self_interaction, self.primitives)

    def cross_entropy(self) -> nn.Cell:
        return StockCrossEntropy()

    def weighted_cross_entropy(self) -> nn.Cell:
        return StockWeightedCrossEntropy()

    def lookup(self) -> nn.Cell:
        return StockLookup(self.primitives)

    def next_step(self, lengths: Sequence[int]) -> nn.Cell:
        return StockNextStep(lengths, self.primitives)

    def average(self) -> nn.Cell:
        return StockAverage(self.primitives)

    def table_update(self, rule: Any, weight_decay: float, shape: tuple[int, int], across: bool = False) -> nn.Cell:
        return StockTableUpdate(rule, weight_decay, shape, self.primitives)

    def dense_update(self, rule: Any, weight_decay: float, decays: Sequence[bool], followed: bool) -> nn.Cell:
        return StockDenseUpdate(rule, weight_decay, decays, followed, self.primitives)


class StockLinear(nn.Cell):
    """x W^T + b, or max(x W^T + b, 0); see `Operators.linear`.

    What it does is chosen when it is made: a choice in `construct` would be three graphs for MindSpore to compile, and
    three more of its gradient, for each layer.
    """

    def __init__(self, relu: bool, bias: bool, compute_dtype=ms.float32):
        super().__init__()
        product = ops.MatMul(transpose_b=True)
        self.product = product if compute_dtype == ms.float32 else HalfProduct(compute_dtype, product)
        self.bias_add = ops.BiasAdd() if bias else _first
        self.relu = ops.ReLU() if relu else same

    def construct(self, x, weight, bias):
        return self.relu(self.bias_add(self.product(x, weight), bias))


class HalfProduct(nn.Cell):
    """x W^T, computed in another type than float32, which goes in and comes out."""

    def __init__(self, compute_dtype, product: Any):
        super().__init__()
        self.product, self.compute_dtype = product, compute_dtype

    def construct(self, x, weight):
        return self.product(x.to(self.compute_dtype), weight.to(self.compute_dtype)).to(ms.float32)


def same(x):
    """What stands for a ReLU where there is none."""
    return x


def _first(x, _):
    return x


class StockDroppedLinear(nn.Cell):
    """A layer with ReLU and dropout behind it; see `Operators.dropped_linear`."""

    def __init__(self, linear: nn.Cell, dropout: Dropout):
        super().__init__()
        self.linear, self.dropout = linear, dropout

    def construct(self, x, weight, bias, step):
        return self.dropout(self.linear(x, weight, bias), step)


class StockPairDots(nn.Cell):
    """Products of all pairs behind the bottom MLP's output; see `Operators.pair_dots`.

    The gradient is written out, since MindSpore's own sums that of the bottom MLP's output, which is used twice, by an
    operator that has no aclnn kernel.
    """

    def __init__(self, fields: int, width: int, self_interaction: bool, primitives: Primitives):
        super().__init__()
        self.width, self.pair_dots = width, PairDots(fields + 1, self_interaction, primitives)
        self.outputs = primitives.parts((width, self.pair_dots.pairs), 1)
        self.inputs = primitives.parts((1, fields), 1)

    def stacked(self, bottom, vectors):
        """All vectors, [B, F + 1, D]."""
        return ops.concat((bottom.reshape(-1, 1, self.width), vectors), 1)

    def construct(self, bottom, vectors):
        return ops.concat((bottom, self.pair_dots(self.stacked(bottom, vectors))), 1)

    def bprop(self, bottom, vectors, out, dout):
        own, pairs = self.outputs(dout)
        first, others = self.inputs(self.pair_dots.gradient(self.stacked(bottom, vectors), pairs))
        return own + first.reshape(-1, self.width), others


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


class StockWeightedCrossEntropy(nn.Cell):
    """Weighted mean of the same; see `Operators.weighted_cross_entropy`."""

    def __init__(self):
        super().__init__()
        self.mean_loss = ops.BCEWithLogitsLoss("mean")

    def construct(self, logits, labels, weights):
        return self.mean_loss(logits, labels, weights, ops.ones_like(logits))

    def bprop(self, logits, labels, weights, out, dout):
        gradient = (ops.sigmoid(logits) - labels) * weights * (dout / logits.shape[0])
        return gradient, ops.zeros_like(labels), ops.zeros_like(weights)


class StockLookup(nn.Cell):
    """Rows and vectors of ids; see `Operators.lookup`."""

    def __init__(self, primitives: Primitives):
        super().__init__()
        self.look_up = primitives.look_up()

    def construct(self, table, ids, starts):
        rows = ids + starts
        return rows, self.look_up(table, rows)


class StockNextStep(nn.Cell):
    """The number of a step, and its factors; see `Operators.next_step`.

    The step is counted at its end, since of parameters that are read before some change and behind it MindSpore may
    make copies, of whole tables too.
    """

    def __init__(self, lengths: Sequence[int], primitives: Primitives):
        super().__init__()
        self.lasts = tuple(length - 1 for length in lengths)
        self.take, self.nothing = primitives.take(), Tensor([0], ms.int32)

    def construct(self, steps_done, *series):
        found: tuple = (steps_done + self.nothing,)
        for index in range(len(self.lasts)):
            found = (*found, self.take(series[index], ops.minimum(steps_done, self.lasts[index]), 0))
        return found


class StockAverage(nn.Cell):
    """The running mean of values; see `Operators.average`."""

    def __init__(self, primitives: Primitives):
        super().__init__()
        self.add, self.each = primitives.add(), ops.HyperMap()

    def construct(self, step, first_step, done, values, means):
        counted = (step - first_step + 1).to(ms.float32)
        share = (counted > 0).to(ms.float32) / ops.maximum(counted, 1)
        return self.each(ops.partial(self.update, share), done, means)

    def update(self, share, value, mean):
        """One value's mean."""
        return self.add(mean, (value - mean) * share)


def _where(applied, new, old):
    """What becomes of a value: `new`, but `old` where updates are not applied; always `new` for None."""
    return new if applied is None else ops.where(applied, new, old)


def _adds_up(rule: Any, weight_decay: float) -> bool:
    """Whether gradients of a row that comes several times need not be brought together: each changes it alike."""
    return not rule.states and weight_decay == 0


def update_values(
    rule: Any, weight_decay: float, width: int, primitives: Primitives, may_skip: bool
) -> tuple[int, int]:
    """Values of 4 bytes that a `StockTableUpdate` keeps for each row of the table, and makes for each that it looks up.

    Args:
        rule, weight_decay, primitives: as for it.
        width: of a row.
        may_skip: whether an update is left out where a gradient is not finite.
    """
    if _adds_up(rule, weight_decay):
        return 0, 3 * width * may_skip  # changes, the zeros that stand in for them, and what is added
    # Sums of gradients, these at all places, values, and what becomes of them; states.
    return primitives.values_of_groups, 4 * width + rule.state_values(width)


class StockTableUpdate(nn.Cell):
    """Updates looked-up rows; see `Operators.table_update`.

    Every place gets the sum over all places of its row, so writing the row several times writes the same. Shapes stay
    fixed: of the distinct rows only their numbers at the places are used.
    """

    def __init__(self, rule: Any, weight_decay: float, shape: tuple[int, int], primitives: Primitives):
        super().__init__()
        self.change, self.weight_decay, (_, self.width) = rule.change, weight_decay, shape
        self.states = len(rule.states)
        self.adds_up = _adds_up(rule, weight_decay)
        if self.adds_up:
            self.add_rows = primitives.add_rows()
        else:
            self.groups, self.group_sums = primitives.groups(shape[0]), primitives.group_sums()
            self.look_up, self.write_rows = primitives.look_up(), primitives.write_rows()

    def construct(self, table, rows, gradients, rate, states, applied=None):
        rows = rows.reshape(-1)  # [U]
        gradients = gradients.reshape(-1, self.width)
        if self.adds_up:
            change = -self.change(gradients, rate, ())[0]
            return self.add_rows(table, rows, _where(applied, change, ops.zeros_like(change)))
        values = self.look_up(table, rows)
        old: tuple = ()
        for index in range(self.states):
            old = (*old, self.look_up(states[index], rows))
        groups = self.groups(rows)
        gradients = self.look_up(self.group_sums(groups, gradients), groups)
        if self.weight_decay != 0:
            gradients = gradients + self.weight_decay * values
        change, new = self.change(gradients, rate, old)
        values = _where(applied, values - change, values)
        for index in range(self.states):
            state = _where(applied, new[index], old[index])
            values = ops.depend(values, self.write_rows(states[index], rows, state))
        return self.write_rows(table, rows, values)


class StockDenseUpdate(nn.Cell):
    """Updates whole values; see `Operators.dense_update`.

    All by one call of a map: a loop would nest a call in a call for each value, of which MindSpore compiles 1,000.
    """

    def __init__(
        self, rule: Any, weight_decay: float, decays: Sequence[bool], followed: bool, primitives: Primitives
    ):  # fmt: skip
        super().__init__()
        self.change, self.states, self.followed = rule.change, len(rule.states), followed
        self.decays = tuple(weight_decay if one else 0.0 for one in decays)
        self.write, self.subtract, self.each = primitives.write(), primitives.subtract(), ops.HyperMap()

    def construct(self, rate, decay_rate, values, gradients, states, applied=None):
        update = ops.partial(self.update, rate, decay_rate, applied)
        return self.each(update, self.decays, values, gradients, *states)

    def kept(self, applied, new, old):
        """What becomes of one value's states."""
        return self.each(ops.partial(_where, applied), new, old) if self.states != 0 else new

    def update(self, rate, decay_rate, applied, decay, value, gradient, *states):
        """One value."""
        change, new = self.change(gradient, rate, states)
        if decay != 0:
            change = change + decay_rate * decay * value
        if applied is not None:
            change, new = _where(applied, change, ops.zeros_like(change)), self.kept(applied, new, states)
        if self.states != 0:  # by a map, since a loop takes four graphs for each state of each value
            change = ops.depend(change, self.each(self.write, states, new))
        if not self.followed:
            return self.subtract(value, change)
        new = value - change
        return ops.depend(new, self.write(value, new))


STOCK = StockOperators()
