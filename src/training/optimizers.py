"""Optimizers by the rules of training/rules.py: row-sparse for the embedding tables, dense twins for the MLPs.

A table's update costs what its looked-up rows cost, whatever the number of rows: the gradient exists only for the
vectors of the batch, and only the rows they came from change, in place. A row that is looked up several times in a
batch gets one update by the sum of its gradients, as if the gradient were dense.

A rule that keeps states is lazy on the tables: those of a row change only in steps that look the row up. Weight decay
adds to the gradient of a row, but takes a share r d of the MLPs' weights, apart from their gradients (Loshchilov and
Hutter 2019).

Legend: B batch, L ids of a sample, D width of a vector, R rows of all tables.
"""

from collections.abc import Sequence

import numpy as np
from mindspore import Parameter, Tensor, nn

from src.network.operators import Operators
from src.network.stock import STOCK
from src.training.rules import UpdateRule


class TableOptimizer(nn.Cell):
    """Updates the looked-up rows of a table.

    Args:
        table: [R, D].
        rule: how.
        weight_decay: times the row, added to the gradient of a row that is looked up.
        operators: what computes it.
        across: whether the same row may come in several columns of rows.

    Attributes:
        states: [R, D] each, or [R, 1] of a rowwise rule.

    Inputs:
        rows: [B, L] int32; the same row at several places of one column at most, unless `across`.
        gradients: [B, L, D] with respect to the looked-up vectors.
        rate: scalar.
        applied: bool; nothing changes where it is False. None, which compiled operators want, for True.
    """

    def __init__(
        self, table: Parameter, rule: UpdateRule, weight_decay: float = 0.0, operators: Operators = STOCK,
        across: bool = False,
    ):  # fmt: skip
        super().__init__()
        rows, width = table.shape
        state_width = 1 if rule.rowwise else width
        # Of zeros that take no memory until they are written to; no keyword arguments, as in embedding.py.
        self.states = tuple(
            Parameter(Tensor.from_numpy(np.zeros((rows, state_width), np.float32))) for _ in rule.states
        )
        for state, name in zip(self.states, rule.states):
            state.name, state.requires_grad = f"tables.{name}", False
        self.table, self.update = table, operators.table_update(rule, weight_decay, (rows, width), across)

    def construct(self, rows, gradients, rate, applied=None):
        more = () if applied is None else (applied,)
        return self.update(self.table, rows, gradients, rate, self.states, *more)


class DenseOptimizer(nn.Cell):
    """Updates whole parameters. MindSpore's own `nn.SGD` keeps two more copies of every value, and is slower.

    Args:
        parameters: what is updated.
        rule: how.
        operators: what computes it.
        weight_decay: d, of matrices; vectors, which are biases, and stacks of matrices have none.
        followed: whether an average of the new values follows.

    Attributes:
        values, states: the parameters; of each of the rule's states a tuple as long.

    Inputs: gradients, one for each parameter; rate, scalar; decay_rate, the same without the rule's corrections, if
        there is weight decay; applied, as for `TableOptimizer`.
    """

    def __init__(
        self, parameters: Sequence[Parameter], rule: UpdateRule, operators: Operators = STOCK,
        weight_decay: float = 0.0, followed: bool = False,
    ):  # fmt: skip
        super().__init__()
        self.values = tuple(parameters)
        self.states = tuple(
            tuple(
                Parameter(Tensor(np.zeros(value.shape, np.float32)), name=f"{value.name}.{name}", requires_grad=False)
                for value in parameters
            )
            for name in rule.states
        )
        decays = [len(value.shape) == 2 for value in parameters]
        self.update = operators.dense_update(rule, weight_decay, decays, followed)

    def construct(self, gradients, rate, decay_rate=None, applied=None):
        more = () if applied is None else (applied,)
        decay_rate = rate if decay_rate is None else decay_rate
        return self.update(rate, decay_rate, self.values, gradients, self.states, *more)
