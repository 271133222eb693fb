"""Ascend's operators on a CPU, which has all of them but a few: for these, its own."""

from src.network.ascend import AscendOperators, AscendPrimitives
from src.network.primitives import PRIMITIVES


class OnCpu(AscendPrimitives):
    """Those that select or change rows, and one of bits, are the CPU's."""

    def take(self):
        return PRIMITIVES.take()

    def add_rows(self):
        return PRIMITIVES.add_rows()

    def write_rows(self):
        return PRIMITIVES.write_rows()

    def group_sums(self):
        return PRIMITIVES.group_sums()

    def differ(self):
        return PRIMITIVES.differ()


ASCEND_ON_CPU = AscendOperators(OnCpu())
