"""Values that are not finite: finding them, and the error that says that a training diverged."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from src.base.errors import InputError

_ROWS = 1 << 16
# Steps in a row that change nothing, each of other rows: above what a falling loss scale takes, which begins at 2^16.
_MOST_OVERFLOWS = 50
_MOST_LAST = 4  # of them where a state is saved, or a run ends: a scale that grows again falls by less
LOOKS_EVERY = _MOST_OVERFLOWS  # steps at most, so that twice as many in a row are not missed
LAST_STEPS = 2 * _MOST_LAST  # of a run, which are looked at one by one


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


class Overflows:
    """Whether losses are finite, and under a loss scale whether updates are made: a step that overflows there, in its
    loss or its gradients, changes nothing, which may be so now and then, but not in many steps in a row.

    Args:
        skipped: gives the number of updates that were left out so far, in steps of an earlier part of the run too.
            None: there is no loss scale, and no loss may be anything but finite.

    Attributes:
        in_a_row: how many of the last steps changed nothing, at least. Of steps that were looked at together, of which
            some did, it has those whose loss is not finite.
    """

    def __init__(self, skipped: Callable[[], int] | None = None):
        self._skipped, self._before = skipped, skipped() if skipped else 0
        self.in_a_row, self._last_loss = 0, 0.0

    def look(self, losses: Sequence[tuple[int, float]]) -> None:
        """Count on with the losses of the steps since the last look, all of them; each comes with its step.

        Raises:
            NotFinite: one is not, or under a loss scale too many steps in a row changed nothing.
        """
        skipped = self._skipped() if self._skipped and losses else self._before
        all_skipped, self._before = skipped - self._before == len(losses), skipped
        for step, loss in losses:
            self.in_a_row = self.in_a_row + 1 if all_skipped or not math.isfinite(loss) else 0
            self._last_loss = loss
            if self.in_a_row > (_MOST_OVERFLOWS if self._skipped else 0):
                before = f", as in {self.in_a_row - 1} steps before" if self._skipped else ""
                raise NotFinite(f"{self._what()}{before}", step)

    @property
    def is_sound(self) -> bool:
        """Whether the last steps changed something, as far as that is known, so that it can be gone on from here."""
        return math.isfinite(self._last_loss) and self.in_a_row <= _MOST_LAST

    def check_end(self, step: int) -> None:
        """See that a run which ends behind a step has been a training.

        Raises:
            NotFinite: its last updates were left out, or all of them.
        """
        if self._skipped and step and self._before >= step:
            raise NotFinite(f"{self._what()}, as in all steps before", step)
        if not self.is_sound:
            raise NotFinite(f"{self._what()}, as in the {self.in_a_row - 1} steps before the last one", step)

    def _what(self) -> str:
        if not math.isfinite(self._last_loss):
            return f"the loss is {self._last_loss}"
        return "gradients overflow under the loss scale, which falls only where it is dynamic"
