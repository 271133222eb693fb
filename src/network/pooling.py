"""The vectors of a list's values as one: their sum, mean or maximum.

The gradient of a sum goes to each value, that of a mean by the share that the value has in it, and that of a maximum,
number by number, to the value that has it, the first one of equal ones. So a value that comes twice in a list gets
twice the gradient of a sum or mean. Padding gets none, whatever its vector is.

Legend: B batch, F fields, L ids of a row, D width of a vector, M ids of a list.
"""

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.ops.auto_generate import SumExt

from src.data.layout import Layout
from src.network.primitives import Primitives

_LOWEST = float(np.finfo(np.float32).min)


class Pooling(nn.Cell):
    """Vectors of all ids to those of the fields.

    Args:
        layout: of the ids; a field holds lists.
        primitives: of the device.

    Inputs: vectors [B, L, D]; present [B, L, 1] float32, 0 for padding, as `present` gives it.
    Outputs: vectors [B, F, D].
    """

    def __init__(self, layout: Layout, primitives: Primitives):
        super().__init__(auto_prefix=False)
        # Runs of fields of one value, and lists: first and behind-the-last id, first and behind-the-last field, pool.
        runs: list[tuple[int, int, int, int, str]] = []
        for field, (start, size, pool) in enumerate(zip(layout.starts, layout.sizes, layout.pools)):
            if runs and not pool and not runs[-1][-1]:
                runs[-1] = (runs[-1][0], start + 1, runs[-1][2], field + 1, "")
            else:
                runs.append((start, start + size, field, field + 1, pool))
        self.runs = tuple(runs)
        sizes = [last - first for first, last, *_ in runs]
        self.places = tuple(Tensor(np.arange(size, dtype=np.float32)[None, :, None]) for size in sizes)
        self.of_ids = primitives.parts(sizes, 1)
        # A tensor's own methods come to the same operators by some ten graphs each, all of which MindSpore compiles.
        self.largest, self.least = ops.ArgMaxWithValue(1, True), ops.ArgMinWithValue(1, True)
        self.total = SumExt()
        self.of_fields = primitives.parts([end - field for _, _, field, end, _ in runs], 1)

    def present(self, ids):
        """1 for each of ids [B, L] and 0 for padding, [B, L, 1] float32."""
        return (ids >= 0).to(ms.float32).unsqueeze(-1)

    def construct(self, vectors, present):
        parts, there = self.of_ids(vectors), self.of_ids(present)
        found: tuple = ()
        for number in range(len(self.runs)):
            part, pool = parts[number], self.runs[number][-1]
            if pool != "":
                part = self.pooled(part, there[number], pool)
            found = (*found, part)
        return found[0] if len(self.runs) == 1 else ops.concat(found, 1)

    def pooled(self, vectors, present, pool):
        """One list's vectors [B, M, D] as one, [B, 1, D]."""
        if pool == "max":
            _, largest = self.largest(ops.where(present > 0, vectors, _LOWEST))
            return ops.where(self.largest(present)[1] > 0, largest, 0.0)
        total = self.total(ops.where(present > 0, vectors, 0.0), 1, True)
        return total / self.count(present) if pool == "mean" else total

    def count(self, present):
        """How many values each list has, at least 1, [B, 1, 1]."""
        return ops.maximum(self.total(present, 1, True), 1.0)

    def bprop(self, vectors, present, out, dout):
        own, there = self.of_ids(vectors), self.of_ids(present)
        pooled, gradients = self.of_fields(out), self.of_fields(dout)
        found: tuple = ()
        for number in range(len(self.runs)):
            pool, share = self.runs[number][-1], there[number]
            part = gradients[number]
            if pool != "":
                if pool == "max":
                    places = self.places[number]
                    largest = ops.logical_and(own[number] == pooled[number], share > 0)
                    place = ops.where(largest, places, float(places.shape[1]))
                    share = ops.logical_and(largest, place == self.least(place)[1]).to(ms.float32)
                elif pool == "mean":
                    share = share / self.count(share)
                part = part * share
            found = (*found, part)
        gradient = found[0] if len(self.runs) == 1 else ops.concat(found, 1)
        return gradient, ops.zeros_like(present)
