"""Values that are not finite: finding them, and the error that says that a training diverged."""

from collections.abc import Mapping

import numpy as np

from src.base.errors import InputError

_ROWS = 1 << 16


class NotFinite(InputError):
    """A training diverged.

    Args:
        what: is not finite, such as "the loss is nan".
        step: behind which, if it is known.
    """

    def __init__(self, what: str, step: int | None = None):
        where = "" if step is None else f" at step {step}"
        super().__init__(f"{what}{where}: training diverged; try a smaller --lr")
        self.what, self.step = what, step


def first_not_finite(values: Mapping[str, np.ndarray]) -> str:
    """The name of the first array with a value that is not finite; "" if there is none."""
    return next((name for name, value in values.items() if not is_finite(value)), "")


def is_finite(values: np.ndarray) -> bool:
    """Whether all values are finite; in parts, as the answers for a large table would take a quarter of its memory."""
    if values.dtype.kind != "f":
        return True
    if not values.ndim:
        return bool(np.isfinite(values))
    return all(bool(np.isfinite(values[low : low + _ROWS]).all()) for low in range(0, len(values), _ROWS))
