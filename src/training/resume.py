"""What a stopped training needs to go on as if it had never been stopped.

    checkpoint/unfinished/state-1000.ckpt    every value that the step after the 1000th depends on
    checkpoint/unfinished/progress.json      which state that is, and how far the run came; it makes the state valid

The state is a checkpoint with the optimizer's states and the count of steps beside the network's values, and like a
checkpoint it may have several parts. The order of the rows follows from the seed and the step alone.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mindspore import Tensor

from src.base.errors import InputError
from src.base.events import happens
from src.base.npz import Arrays
from src.checkpoints import checkpoint, run_folder
from src.metrics.monitored import Metrics
from src.network.embedding import Fill, joint_rows
from src.ranks.group import Ranks
from src.ranks.replicas import keep_equal
from src.training.step import TrainStep


@dataclass(frozen=True)
class Progress:
    """How far a run came.

    Attributes:
        run: its name in the metrics file.
        step: steps done.
        batch_size: samples of a step over all ranks.
        best, best_step: metrics and step of the network that is kept so far.
        waited: evaluations since then.
    """

    run: str
    batch_size: int
    step: int = 0
    best: Metrics | None = None
    best_step: int = 0
    waited: int = 0


def save(run: run_folder.Run, step: TrainStep, fields: Sequence[str], progress: Progress, ranks: Ranks) -> None:
    """Write a rank's part of the state, and make it the one to go on from.

    Raises:
        OSError: the disk is full; it names the file.
        RuntimeError: ranks hold different values of what they all have, by more than rounding.
    """
    happens("a state is to be saved")
    replicas = step.other_values() | (step.row_values() if step.tables.replicated else {})
    if apart := keep_equal(replicas, ranks):
        name, share = max(apart.items(), key=lambda one: one[1])
        print(
            f"step {progress.step}: ranks differed by rounding in {len(apart)} of {len(replicas)} parameters, most in "
            f"{name}, by {share:.1e} of its largest value; all take rank 0's",
            flush=True,
        )
    common = {name: parameter.asnumpy() for name, parameter in step.other_values().items()}
    rows: Arrays = {}
    for name, parameter in step.row_values().items():
        rows |= checkpoint.rows_of(step.tables, f"{name}.", parameter.asnumpy(), fields)
    checkpoint.write_part(run.state(progress.step), common, rows, step.tables, ranks)
    run.commit(asdict(progress), progress.step, progress.best_step)


class State:
    """The state of a training that was stopped.

    Args:
        run: the run that goes on.
        content: of its progress file.
        fields, table_rows: names of the categorical columns, and rows of their tables.
        ranks: of the run that goes on.

    Raises:
        InputError: the state is damaged.
    """

    def __init__(
        self, run: run_folder.Run, content: dict[str, Any], fields: Sequence[str], table_rows: Sequence[int],
        ranks: Ranks,
    ):  # fmt: skip
        try:
            self.progress = Progress(**content)
        except TypeError as error:
            raise InputError(f"the stopped training can't go on ({error}); start afresh with --resume=False") from None
        try:
            # Each rank compares the checksums of some parts.
            checked = range(ranks.rank, 1 << 16, ranks.size)
            self.parts = checkpoint.Parts(run.state(self.progress.step), fields, table_rows, checked)
        except InputError as error:
            raise InputError(f"the stopped training can't go on ({error}); start afresh with --resume=False") from None

    def tables(self) -> Fill:
        """What fills the tables' pieces with their values."""
        return self.parts.fill(checkpoint.TABLE)

    def restore(self, step: TrainStep) -> None:
        """Give a step, made with tables that `tables` filled, all the other values."""
        tables = step.tables
        for name, parameter in step.row_values().items():
            if parameter is not tables.table:
                values = joint_rows(tables.pieces, parameter.shape[1], self.parts.fill(f"{name}."), tables.spare)
                parameter.set_data(Tensor.from_numpy(values))
        for name, parameter in step.other_values().items():
            parameter.set_data(Tensor.from_numpy(self.parts.value(name, parameter.shape)))
