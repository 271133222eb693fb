"""The processes of a run that work together, outside of compiled graphs."""

from collections.abc import Callable
from typing import Any

import numpy as np
from mindspore import Tensor, ops

from src.base.errors import AlreadyDone, InputError
from src.base.signs import SignOfLife

_ERROR_BYTES = 1000
_DONE = "done: "  # before the words of what is no error


class Ranks:
    """The ranks of a run, as one of them sees them.

    Args:
        rank: the number of this process, from 0.
        size: how many there are.
        sign: what this one says of itself to the launcher.
    """

    def __init__(self, rank: int = 0, size: int = 1, sign: SignOfLife | None = None):
        self.rank, self.size, self.sign = rank, size, sign or SignOfLife()
        self.messages: Any = None  # a ucx.Messages, once these ranks are connected by UCX
        self._all_gather = ops.AllGather() if size > 1 else None

    def gather(self, values: np.ndarray) -> np.ndarray:
        """Values of one shape and type from each rank, one behind the other, [size, ...]."""
        if self._all_gather is None:
            return values[None]
        return self._all_gather(Tensor(values[None])).asnumpy()

    def together(self, work: Callable[[], None]) -> None:
        """Do a rank's part of some work; an error of any rank ends all of them, so that none waits for it.

        Raises:
            InputError, OSError: this rank's own, or one that says what another's was, of the kind of an AlreadyDone.
        """
        error: Exception | None = None
        try:
            work()
        except (InputError, OSError) as own:
            error = own
        mark = _DONE if isinstance(error, AlreadyDone) else ""
        text = f"{mark}{error}".encode()[:_ERROR_BYTES].ljust(_ERROR_BYTES, b"\0") if error else bytes(_ERROR_BYTES)
        texts = self.gather(np.frombuffer(text, np.uint8).astype(np.int32))
        if error:
            raise error
        for rank, codes in enumerate(texts):
            if codes[0]:
                words = codes.astype(np.uint8).tobytes().rstrip(b"\0").decode("utf-8", "replace")
                if words.startswith(_DONE):
                    raise AlreadyDone(words.removeprefix(_DONE))
                raise InputError(f"rank {rank}: {words}")

    def agree(self, what: str, values: dict[str, int]) -> None:
        """See that all ranks have the same numbers, each below 2^31.

        Raises:
            InputError: they have not.
        """
        found = self.gather(np.array(list(values.values()), np.int32))
        for place, name in enumerate(values):
            if (numbers := found[:, place]).min() != numbers.max():
                raise InputError(
                    f"ranks differ in {what}: {name} is {', '.join(map(str, numbers))}; do all hosts see the same "
                    f"folders?"
                )


ONE_RANK = Ranks()
