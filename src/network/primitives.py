"""MindSpore's operators that go by one name on GPU and CPU and by another on Ascend, by what they do.

`Primitives` has those of GPU and CPU; `src/network/ascend.py` those of Ascend. Each method gives what a graph calls.

Legend: U places of a batch that look rows up, D width of a row, R rows of a table.
"""

from collections.abc import Sequence
from typing import Any

import mindspore as ms
from mindspore import Tensor, nn, ops
from mindspore.ops.auto_generate import SplitWithSize


class Primitives:
    """MindSpore's own on GPU and CPU.

    Attributes:
        values_of_groups: of 4 bytes, that `groups` keeps for each row of the tables.
    """

    values_of_groups = 0

    def take(self) -> Any:
        """(values, places [n] int32, axis) to these places of the axis."""
        return ops.Gather()

    def look_up(self) -> Any:
        """(table [R, D], rows [...] int32) to the rows, [..., D]; no gradient is asked for."""
        return _LookUp()

    def parts(self, sizes: Sequence[int], axis: int) -> Any:
        """(values) to a tuple of slices of so many places each, which together are all of the axis."""
        return Parts(sizes, axis, plain=True)

    def add(self) -> Any:
        """(parameter, values) to what comes after the parameter's change in place."""
        return ops.AssignAdd()

    def subtract(self) -> Any:
        """As `add`, the other way."""
        return ops.AssignSub()

    def write(self) -> Any:
        """(parameter, values) to what comes after the parameter got them."""
        return ops.Assign()

    def add_rows(self) -> Any:
        """(table [R, D], rows [U] int32, values [U, D]) to what comes after; values of a row that repeats add up."""
        # Without the lock the documentation leaves open what rows that come several times get.
        return ops.ScatterAdd(use_locking=True)

    def write_rows(self) -> Any:
        """As `add_rows`, for rows that get the values; the same ones at all places where a row repeats."""
        return ops.ScatterUpdate()

    def groups(self, rows: int) -> Any:
        """(rows [U] int32) to a number below U for each place, [U] int32, the same where the row is the same.

        Args:
            rows: R.
        """
        return _Groups()

    def group_sums(self) -> Any:
        """(groups [U], values [U, D]) to the sum of each group's values in the row of its number, [U, D]."""
        return _GroupSums()

    def both(self) -> Any:
        """(x, y) int32 to their bits in common."""
        return ops.BitwiseAnd()

    def differ(self) -> Any:
        """(x, y) int32 to the bits in which they differ."""
        return ops.BitwiseXor()

    def shifted(self, bits: int) -> Any:
        """(x) int32 to its bits so many places to the right, zeros before them."""
        return _Shifted(bits)


class _LookUp(nn.Cell):
    def __init__(self):
        super().__init__()
        self.gather = ops.Gather()

    def construct(self, table, rows):
        return self.gather(table, rows, 0)


class Parts(nn.Cell):
    """Slices of an axis, by the operator that MindSpore's gradient of a concatenation has too.

    Args:
        sizes, axis: as for `Primitives.parts`.
        plain: whether sizes that are all the same are left to the plainer Split, which exported graphs can hold.
    """

    def __init__(self, sizes: Sequence[int], axis: int, plain: bool):
        super().__init__()
        self.sizes, self.axis, self.split = tuple(sizes), axis, SplitWithSize()
        self.plain = plain and len(set(sizes)) == 1

    def construct(self, values):
        if self.plain:
            return ops.split(values, self.sizes[0], self.axis)
        return self.split(values, self.sizes, self.axis)


class _Groups(nn.Cell):
    def __init__(self):
        super().__init__()
        self.unique = ops.Unique()

    def construct(self, rows):
        return self.unique(rows)[1]


class _GroupSums(nn.Cell):
    def __init__(self):
        super().__init__()
        self.scatter = ops.ScatterNd()

    def construct(self, groups, values):
        return self.scatter(groups.reshape(-1, 1), values, values.shape)


class _Shifted(nn.Cell):
    def __init__(self, bits: int):
        super().__init__()
        self.shift, self.both = ops.RightShift(), ops.BitwiseAnd()
        self.bits = Tensor(bits, ms.int32)
        self.mask = Tensor(2 ** (32 - bits) - 1, ms.int32)  # takes away the sign, which the shift repeats

    def construct(self, x):
        return self.both(self.shift(x, self.bits), self.mask)


PRIMITIVES = Primitives()
