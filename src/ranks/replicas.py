"""Values that all ranks hold, which must stay the same: that they do, and what is done where sums made them differ.

Every rank computes its replicas by itself. A device that adds the same numbers in another order each time, as GPU and
Ascend may, makes their last bits differ, and nothing would ever bring them together again.
"""

import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from mindspore import Parameter, Tensor

from src.ranks.group import Ranks

TOLERANCE = 0.01  # of a parameter's largest magnitude, above which it is told as a warning
_CHUNK_ROWS = 1 << 16


def keep_equal(values: Mapping[str, Parameter], ranks: Ranks, write_rows: Callable[..., Any]) -> dict[str, float]:
    """See that all ranks hold the same bits; where sums in another order made them differ, all take rank 0's.

    Small differences grow over many steps, so no bound tells rounding from a rank that went astray: that is for whoever
    sees the result to tell. Counts have no rounding.

    Args:
        values: what all ranks hold, by name, in one order.
        ranks: of the run.
        write_rows: (parameter, rows [n] int32, values [n, ...]) writes these rows, by the name that the device has for
            it.

    Returns:
        The largest difference of each parameter that was taken from rank 0, relative to its largest magnitude.

    Raises:
        RuntimeError: whole numbers differ, or a difference is not finite.
    """
    if ranks.size == 1:
        return {}
    digests = np.array([_digest(value.asnumpy()) for value in values.values()], np.uint32).view(np.int32)
    found = ranks.gather(digests)
    names = [name for name, differ in zip(values, (found != found[0]).any(0)) if differ]
    return {name: _take_over(name, values[name], ranks, write_rows) for name in names}


def _digest(values: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(values).data.cast("B"))


def _take_over(name: str, value: Parameter, ranks: Ranks, write_rows: Callable[..., Any]) -> float:
    """Write rank 0's values to a parameter in place, and return how far ranks were apart."""
    own = value.asnumpy().copy()
    apart, largest, worst = 0.0, 0.0, 0
    for low in range(0, len(own), _CHUNK_ROWS):
        part = own[low : low + _CHUNK_ROWS]
        of_all = ranks.gather(part)
        differences = np.abs(of_all.astype(np.float64) - of_all[0]).reshape(ranks.size, -1).max(1)
        if not differences.max() <= apart:  # also where one is not a number
            apart, worst = float(differences.max()), int(differences.argmax())
        largest = max(largest, float(np.abs(of_all[0]).max()))
        if _digest(part) != _digest(of_all[0]):
            rows = np.arange(low, low + len(part), dtype=np.int32)
            write_rows(value, Tensor.from_numpy(rows), Tensor.from_numpy(of_all[0].copy()))
    if np.issubdtype(own.dtype, np.integer) or not np.isfinite(apart):
        raise RuntimeError(
            f"rank {worst} holds other values of {name} than rank 0, by up to {apart:.3g} where the largest is "
            f"{largest:.3g}, which sums in another order can't make"
        )
    return apart / largest if largest else 0.0
