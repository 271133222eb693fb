"""Optimizers: row-sparse for the embedding tables, and their dense twins for the MLPs.

A table's update costs what its looked-up rows cost, whatever the number of rows: the gradient exists only for the
vectors of the batch, and only the rows they came from change, in place. A row that is looked up several times in a
batch gets one update by the sum g of its gradients, as if the gradient were dense. With w the row and r the rate:

    sgd              w -= r g
    adagrad          s += g^2;          w -= r g / (sqrt(s) + e)          Duchi et al. 2011
    rowwise_adagrad  s += mean(g^2);    w -= r g / (sqrt(s) + e)          one s a row; MLPs use adagrad
    adam             m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2;      Kingma and Ba 2015, with the corrections
                     w -= r' m / (sqrt(v) + e)                            in r', as at the end of its section 2

Adam is lazy on the tables: m and v of a row change only in steps that look the row up. Weight decay adds to the
gradient of a row, but takes a share r d of the MLPs' weights, apart from their gradients (Loshchilov and Hutter 2019).

Legend: B batch, F fields, D width of a vector, R rows of all tables.
"""

from collections.abc import Sequence

import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from src.network.cpu_kernels import Kernels

RULES = ("sgd", "adagrad", "rowwise_adagrad", "adam")
_KERNELS = {"sgd": "SGD", "adagrad": "Adagrad", "rowwise_adagrad": "RowwiseAdagrad", "adam": "Adam"}
_STATES = {"sgd": (), "adagrad": ("sum",), "rowwise_adagrad": ("sum",), "adam": ("mean", "square")}
_EPSILON = {"sgd": 0.0, "adagrad": 1e-10, "rowwise_adagrad": 1e-10, "adam": 1e-8}
_BETA1, _BETA2 = 0.9, 0.999
_CORRECTED_STEPS = 20_000  # from then on Adam's correction is 1 in float32


def adam_corrections(steps: int = _CORRECTED_STEPS) -> np.ndarray:
    """sqrt(1 - b2^t) / (1 - b1^t) for t = 1, 2, ..., [steps] float64; the last one serves all later steps."""
    step = np.arange(1, steps + 1)
    return np.sqrt(1 - _BETA2**step) / (1 - _BETA1**step)


def _constants(rule: str, weight_decay: float = 0.0) -> Tensor:
    """As the compiled operators take them."""
    values = (_EPSILON[rule], weight_decay, _BETA1, 1 - _BETA1, _BETA2, 1 - _BETA2)
    return Tensor(np.array(values, np.float32))


def _check(rule: str) -> None:
    if rule not in RULES:
        raise ValueError(f"optimizer is {rule!r}; it is one of {', '.join(RULES)}")


def state_values(rule: str, emb_dim: int) -> int:
    """Values that the optimizer keeps for a row of the tables."""
    return len(_STATES[rule]) * (1 if rule == "rowwise_adagrad" else emb_dim)


class TableOptimizer(nn.Cell):
    """Updates the looked-up rows of a table.

    Args:
        table: [R, D].
        rule: one of RULES.
        weight_decay: times the row, added to the gradient of a row that is looked up.
        kernels: the compiled operators, if they are to be used.

    Inputs:
        rows: [B, F] int32; the same row at several places of one field at most, for the kernels share out fields.
        gradients: [B, F, D] with respect to the looked-up vectors.
        rate: scalar.

    Raises:
        ValueError: an unknown rule.
    """

    def __init__(self, table: Parameter, rule: str = "sgd", weight_decay: float = 0.0, kernels: Kernels | None = None):
        super().__init__()
        _check(rule)
        rows, self.width = table.shape
        self.table, self.rule, self.weight_decay = table, rule, weight_decay
        width = 1 if rule == "rowwise_adagrad" else self.width
        # Of zeros that take no memory until they are written to; no keyword arguments, as in embedding.py.
        self.states = tuple(Parameter(Tensor.from_numpy(np.zeros((rows, width), np.float32))) for _ in _STATES[rule])
        for state, name in zip(self.states, _STATES[rule]):
            state.name, state.requires_grad = f"tables.{name}", False
        self.constants = _constants(rule, weight_decay)
        self.epsilon, self.keep1, self.keep2 = _EPSILON[rule], _BETA1, _BETA2
        self.add1, self.add2 = 1 - _BETA1, 1 - _BETA2  # in the graph they would be differences in float32
        self.kernel = kernels.table_update(_KERNELS[rule]) if kernels else None
        self.gather, self.sum_groups, self.unique = ops.Gather(), ops.UnsortedSegmentSum(), ops.Unique()
        self.scatter_add, self.scatter_update = ops.ScatterAdd(), ops.ScatterUpdate()

    def construct(self, rows, gradients, rate):
        if self.kernel is not None:
            return self.kernel(self.table, rows, gradients, rate, self.constants, *self.states)
        rows = rows.reshape(-1)
        gradients = gradients.reshape(-1, self.width)
        if self.rule == "sgd" and self.weight_decay == 0:
            return self.scatter_add(self.table, rows, gradients * -rate)
        # Every place gets the sum over all places of its row, so writing the row several times writes the same.
        # Shapes stay fixed: of the distinct rows only their numbers at the places are used.
        group = self.unique(rows)[1]
        gradients = self.gather(self.sum_groups(gradients, group, rows.shape[0]), group, 0)
        values = self.gather(self.table, rows, 0)
        if self.weight_decay != 0:
            gradients = gradients + self.weight_decay * values
        if self.rule == "sgd":
            values = values - rate * gradients
        elif self.rule == "adam":
            mean = self.keep1 * self.gather(self.states[0], rows, 0) + self.add1 * gradients
            square = self.keep2 * self.gather(self.states[1], rows, 0) + self.add2 * gradients * gradients
            mean = ops.depend(mean, self.scatter_update(self.states[0], rows, mean))
            square = ops.depend(square, self.scatter_update(self.states[1], rows, square))
            values = values - rate * mean / (ops.sqrt(square) + self.epsilon)
        else:
            squares = gradients * gradients
            if self.rule == "rowwise_adagrad":
                squares = squares.mean(1, keep_dims=True)
            total = self.gather(self.states[0], rows, 0) + squares
            total = ops.depend(total, self.scatter_update(self.states[0], rows, total))
            values = values - rate * gradients / (ops.sqrt(total) + self.epsilon)
        return self.scatter_update(self.table, rows, values)


class DenseOptimizer(nn.Cell):
    """Updates whole parameters. MindSpore's own `nn.SGD` keeps two more copies of every value, and is slower.

    Args:
        parameters: what is updated.
        rule: one of RULES; rowwise_adagrad is adagrad here.
        kernels: the compiled operators, if they are to be used.
        weight_decay: d, of matrices; vectors, which are biases, have none.

    Inputs: gradients, one for each parameter; rate, scalar; decay_rate, the same without Adam's correction, if there is
        weight decay.

    Raises:
        ValueError: an unknown rule.
    """

    def __init__(
        self, parameters: Sequence[Parameter], rule: str = "sgd", kernels: Kernels | None = None,
        weight_decay: float = 0.0,
    ):  # fmt: skip
        super().__init__()
        _check(rule)
        self.decays = tuple(weight_decay if len(value.shape) == 2 else 0.0 for value in parameters)
        self.rule = "adagrad" if rule == "rowwise_adagrad" else rule
        self.values = tuple(parameters)
        states = [
            [
                Parameter(Tensor(np.zeros(value.shape, np.float32)), name=f"{value.name}.{name}", requires_grad=False)
                for value in parameters
            ]
            for name in _STATES[self.rule]
        ]
        self.first, self.second = (tuple(states[i]) if i < len(states) else () for i in range(2))
        self.constants = _constants(rule, weight_decay)
        self.epsilon, self.keep1, self.keep2 = _EPSILON[rule], _BETA1, _BETA2
        self.add1, self.add2 = 1 - _BETA1, 1 - _BETA2  # in the graph they would be differences in float32
        self.kernel = kernels.dense_update(_KERNELS[self.rule]) if kernels else None
        self.assign, self.assign_add, self.assign_sub = ops.Assign(), ops.AssignAdd(), ops.AssignSub()

    def construct(self, gradients, rate, decay_rate=None):
        if self.kernel is not None:
            decay_rate = rate if decay_rate is None else decay_rate
            return self.kernel(rate, decay_rate, self.constants, *self.values, *gradients, *self.first, *self.second)
        done: tuple = ()
        for index in range(len(self.values)):
            gradient = gradients[index]
            change = gradient
            if self.rule == "adagrad":
                total = self.assign_add(self.first[index], gradient * gradient)
                change = gradient / (ops.sqrt(total) + self.epsilon)
            elif self.rule == "adam":
                mean = self.keep1 * self.first[index] + self.add1 * gradient
                square = self.keep2 * self.second[index] + self.add2 * gradient * gradient
                mean = self.assign(self.first[index], mean)
                square = self.assign(self.second[index], square)
                change = mean / (ops.sqrt(square) + self.epsilon)
            change = rate * change
            if self.decays[index] != 0:
                change = change + decay_rate * self.decays[index] * self.values[index]
            done = (*done, self.assign_sub(self.values[index], change))
        return done
