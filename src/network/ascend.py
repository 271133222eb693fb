"""MindSpore's operators on Ascend: those that have aclnn kernels, which it maintains.

The older operators of `src/network/primitives.py` have aclop kernels there, which a card compiles at first use, if at
all. These here do the same; where the CPU has them too, tests hold them against each other.

What an operator that changes a value gives is not computed with: MindSpore would no longer know which parameter it is,
and make copies of all that are read before and behind it, of whole tables too.

Legend: as in src/network/operators.py.
"""

from collections.abc import Sequence
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, mint, nn, ops

from src.network.primitives import Parts, Primitives
from src.network.stock import HalfProduct, StockOperators, same


class AscendPrimitives(Primitives):
    """Those of Ascend."""

    values_of_groups = 1

    def take(self) -> Any:
        return _take

    def look_up(self) -> Any:
        return _LookUp(self)

    def parts(self, sizes: Sequence[int], axis: int) -> Any:
        return Parts(sizes, axis, plain=False)  # not by mint.split, whose views count as changes

    def add(self) -> Any:
        return _add

    def subtract(self) -> Any:
        return _subtract

    def write(self) -> Any:
        return _write

    def add_rows(self) -> Any:
        return _add_rows

    def write_rows(self) -> Any:
        return _write_rows

    def groups(self, rows: int) -> Any:
        return _Groups(rows, self)

    def group_sums(self) -> Any:
        return _group_sums

    def both(self) -> Any:
        return _both

    def differ(self) -> Any:
        return _differ

    def shifted(self, bits: int) -> Any:
        return _Shifted(bits, self)


def _take(values, places, axis):
    return mint.index_select(values, axis, places)


def _add(parameter, values):
    return parameter.add_(values)


def _subtract(parameter, values):
    return parameter.add_(values, alpha=-1)


def _write(parameter, values):
    return parameter.copy_(values)


def _add_rows(table, rows, values):
    return table.index_add_(0, rows, values)  # one by one, so that rows that repeat add up


def _write_rows(table, rows, values):
    return table.index_copy_(0, rows, values)


def _group_sums(groups, values):
    return mint.index_add(mint.zeros(values.shape, dtype=ms.float32), 0, groups, values)


def _both(x, y):
    return mint.bitwise_and(x, y)


def _differ(x, y):
    return mint.bitwise_xor(x, y)


class _LookUp(nn.Cell):
    """Not by `embedding`, which counts as changing its table."""

    def __init__(self, primitives: Primitives):
        super().__init__()
        self.take = primitives.take()

    def construct(self, table, rows):
        return self.take(table, rows.reshape(-1), 0).reshape((*rows.shape, table.shape[1]))


class _Groups(nn.Cell):
    """A group's number is one of its places: that which stays of all that are written to the row's own number.

    Shapes are fixed so, where MindSpore's `unique` has others for each batch, and nothing is sorted.
    """

    def __init__(self, rows: int, primitives: Primitives):
        super().__init__()
        # Not a state: a step writes before it reads. Zeros take no memory here, as in TableOptimizer.
        self.place_of_row = Parameter(Tensor.from_numpy(np.zeros(rows, np.int32)))
        self.place_of_row.name, self.place_of_row.requires_grad = "tables.place_of_row", False
        self.write_rows, self.take = primitives.write_rows(), primitives.take()

    def construct(self, rows):
        self.write_rows(self.place_of_row, rows, ops.arange(0, rows.shape[0], dtype=ms.int32))
        return self.take(self.place_of_row, rows, 0)


class _Shifted(nn.Cell):
    """Without an operator that shifts: the upper bits alone are divided, which is exact in float32 too."""

    def __init__(self, bits: int, primitives: Primitives):
        super().__init__()
        self.both, self.size = primitives.both(), 2**bits
        self.upper, self.mask = Tensor(-(2**bits), ms.int32), Tensor(2 ** (32 - bits) - 1, ms.int32)

    def construct(self, x):
        return self.both(self.both(x, self.upper) // self.size, self.mask)


class AscendOperators(StockOperators):
    """MindSpore's own operators on Ascend.

    Args:
        primitives: of the device.
    """

    def __init__(self, primitives: Primitives):
        self.primitives = primitives

    def stock_linear(self, relu: bool, bias: bool, compute_dtype) -> nn.Cell:
        return AscendLinear(relu, bias, compute_dtype)


class AscendLinear(nn.Cell):
    """See `Operators.linear`; in float32 one operator does product and bias. Chosen when made, as `StockLinear`."""

    def __init__(self, relu: bool, bias: bool, compute_dtype=ms.float32):
        super().__init__()
        self.half = HalfProduct(compute_dtype, ops.dense)
        products = (_dense, _dense_alone) if compute_dtype == ms.float32 else (self.half_dense, self.half_alone)
        self.product = products[0 if bias else 1]
        self.relu = ops.ReLU() if relu else same

    def half_dense(self, x, weight, bias):
        return self.half(x, weight) + bias

    def half_alone(self, x, weight, _):
        return self.half(x, weight)

    def construct(self, x, weight, bias):
        return self.relu(self.product(x, weight, bias))


def _dense(x, weight, bias):
    return ops.dense(x, weight, bias)


def _dense_alone(x, weight, _):
    return ops.dense(x, weight)


ASCEND = AscendOperators(AscendPrimitives())
