"""The processes of a run that work together, outside of compiled graphs."""

import numpy as np
from mindspore import Tensor, ops


class Ranks:
    """The ranks of a run, as one of them sees them.

    Args:
        rank: the number of this process, from 0.
        size: how many there are.
    """

    def __init__(self, rank: int = 0, size: int = 1):
        self.rank, self.size = rank, size
        self._all_gather = ops.AllGather() if size > 1 else None

    def gather(self, values: np.ndarray) -> np.ndarray:
        """Values of one shape and type from each rank, one behind the other, [size, ...]."""
        if self._all_gather is None:
            return values[None]
        return self._all_gather(Tensor(values[None])).asnumpy()

    def barrier(self) -> None:
        """Wait until all ranks are here."""
        self.gather(np.zeros(1, np.float32))


ONE_RANK = Ranks()
