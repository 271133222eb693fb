"""Dropout (Srivastava et al. 2014) whose choices follow from seed, layer, step and place alone.

Whether a value is dropped says a hash of its place, so a training that was stopped goes on with the same choices, and
several ranks make those that one process does: the place counts the samples of all ranks. The mixing is lowbias32, by
Chris Wellons (https://nullprogram.com/blog/2018/07/31/). kernels/dropout.h has the same.

Legend: b samples of a rank, O outputs of a layer.
"""

from collections.abc import Sequence

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from src.network.primitives import PRIMITIVES, Primitives

_BITS = 24  # of a hash, that are compared
_FIRST, _SECOND = (int(np.array(value, np.uint32).view(np.int32)) for value in (0x7FEB352D, 0x846CA68B))


class Dropout(nn.Cell):
    """Makes each value 0 with probability `rate`, and divides the others by 1 - rate.

    Args:
        rate: 0 <= rate < 1.
        seed: numbers that tell this layer of this run from all others.
        rank: the number of this process, from 0; all have as many samples.
        primitives: of the device.

    Attributes:
        key, limit, scale: what the seed gives; hashes below it are dropped; 1 / (1 - rate).

    Inputs: x [b, O], step [1] int32. Outputs: [b, O].
    """

    def __init__(self, rate: float, seed: Sequence[int], rank: int = 0, primitives: Primitives = PRIMITIVES):
        super().__init__()
        self.key = int(np.random.SeedSequence([3, *seed]).generate_state(1).view(np.int32)[0])
        self.limit, self.scale, self.rank = round(rate * 2**_BITS), 1 / (1 - rate), rank
        self.both, self.differ = primitives.both(), primitives.differ()
        self.by_16, self.by_15 = primitives.shifted(16), primitives.shifted(15)
        self.factors = [Tensor(value, ms.int32) for value in (_FIRST, _SECOND)]
        self.layer_key, self.kept_bits = Tensor([self.key], ms.int32), Tensor(2**_BITS - 1, ms.int32)

    def mix(self, x):
        """A number of 32 bits for each of x, int32."""
        x = self.differ(x, self.by_16(x)) * self.factors[0]
        x = self.differ(x, self.by_15(x)) * self.factors[1]
        return self.differ(x, self.by_16(x))

    def construct(self, x, step):
        samples, outputs = x.shape
        first = self.rank * samples * outputs + 2**31
        first = first % 2**32 - 2**31  # places are numbers of 32 bits, which begin anew behind the last one
        places = (ops.arange(0, samples * outputs, dtype=ms.int32) + first).reshape(samples, outputs)
        hashes = self.mix(self.differ(places, self.mix(self.differ(step, self.layer_key))))
        kept = self.both(hashes, self.kept_bits) >= self.limit
        return x * (kept.to(ms.float32) * self.scale)
