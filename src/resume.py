"""What a stopped training needs to go on as if it had never been stopped: `checkpoint/unfinished/state.npz`.

It holds how far the run came and every value that its next step depends on: the network, the optimizer's states and
the count of steps. Tables and their states stand field by field, as in a checkpoint. The order of the rows follows
from the seed and the step alone. The file is there whole or not at all, whenever the run is killed.
"""

import json
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from mindspore import Tensor

from src.errors import InputError
from src.metrics import Metrics
from src.npz import save_large_arrays
from src.train_step import TrainStep

_PROGRESS = "progress"


@dataclass(frozen=True)
class Progress:
    """How far a run came.

    Attributes:
        run: its name in the metrics file.
        step: steps done.
        best, best_step: metrics and step of the network that is kept so far.
    """

    run: str
    step: int = 0
    best: Metrics | None = None
    best_step: int = 0


def save(path: Path, step: TrainStep, progress: Progress) -> None:
    """Write the state of a run to a file.

    Raises:
        OSError: the disk is full; it names the file.
    """
    table_rows = step.tables.table_rows
    arrays = {_PROGRESS: np.array(json.dumps(asdict(progress)))}
    for name, parameter in step.row_values().items():
        fields = np.split(parameter.asnumpy(), np.cumsum(table_rows)[:-1])
        arrays |= {f"{name}.{field}": values for field, values in enumerate(fields)}
    arrays |= {name: parameter.asnumpy() for name, parameter in step.other_values().items()}
    save_large_arrays(path, arrays)


class State:
    """A state file that `save` wrote.

    Args:
        path: the file.

    Raises:
        InputError: the file is damaged.
    """

    def __init__(self, path: Path):
        self.path = path
        progress = json.loads(str(self._read(_PROGRESS)))
        best = progress.pop("best")
        self.progress = Progress(**progress, best=Metrics(**best) if best else None)

    def table(self, table_rows: Sequence[int]) -> np.ndarray:
        """The tables' values, [R, D] float32."""
        return self._rows("tables", table_rows)

    def restore(self, step: TrainStep) -> None:
        """Give a step, made with the tables of `table`, all the other values."""
        for name, parameter in step.row_values().items():
            if parameter is not step.tables.table:
                parameter.set_data(Tensor.from_numpy(self._rows(name, step.tables.table_rows)))
        for name, parameter in step.other_values().items():
            parameter.set_data(Tensor.from_numpy(self._read(name)))

    def _rows(self, name: str, table_rows: Sequence[int]) -> np.ndarray:
        first = self._read(f"{name}.0")
        values = np.empty((sum(table_rows), *first.shape[1:]), first.dtype)
        del first
        for field, part in enumerate(np.split(values, np.cumsum(table_rows)[:-1])):
            part[:] = self._read(f"{name}.{field}")
        return values

    def _read(self, name: str) -> np.ndarray:
        try:
            with np.load(self.path) as arrays:
                return arrays[name]
        except (zipfile.BadZipFile, KeyError, ValueError, EOFError) as error:
            raise InputError(
                f"{self.path} is damaged ({error}), so the stopped training can't go on: start afresh with "
                f"--resume=False"
            ) from None
