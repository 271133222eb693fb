"""What a stopped training needs to go on as if it had never been stopped.

    checkpoint/unfinished/state-1000.ckpt    the network after the 1000th step, a checkpoint like any other
    checkpoint/unfinished/rest-1000.ckpt     what else the next step depends on: the optimizer's states, the count of
                                             steps, averages; older versions have it in the file above
    checkpoint/unfinished/progress.json      which states there are, and how far the run came; it makes them valid

Like a checkpoint both may have several parts. A state is finite, always. The order of the rows follows from the seed
and the step alone.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from dataclasses import fields as fields_of
from typing import Any

import numpy as np
from mindspore import Tensor

from src.base.errors import InputError
from src.base.events import happens
from src.base.files import flush, link_or_copy
from src.base.npz import Arrays
from src.checkpoints import checkpoint, run_folder
from src.metrics.monitored import Metrics
from src.network.embedding import Fill
from src.ranks.group import Ranks
from src.ranks.replicas import TOLERANCE, keep_equal
from src.training.step import TrainStep

_COUNT = "steps_done"


@dataclass(frozen=True)
class Progress:
    """How far a run came.

    Attributes:
        run: its name in the metrics file.
        step: steps done.
        batch_size: samples of a step over all ranks.
        ranks: how many; 0 where an older version did not say so.
        best, best_step: metrics and step of the network that is kept so far.
        waited: evaluations since then.
        rates: lr and table_lr, as the options have them.
        times_back: how often the run went back to an earlier state, each time with smaller rates.
        steps_before: steps of earlier trainings that the optimizer's states, of tables and of MLPs, have behind them.
        begun_with: what the report says of a training that began with another one's network.
        average_from: the first step behind which weights are averaged; None for none, or where an older version did
            not say so.
    """

    run: str
    batch_size: int
    step: int = 0
    best: Metrics | None = None
    best_step: int = 0
    waited: int = 0
    rates: Sequence[float] = ()
    times_back: int = 0
    ranks: int = 0
    average_from: int | None = None
    steps_before: Sequence[int] = (0, 0)
    begun_with: dict[str, Any] | None = None

    @classmethod
    def of(cls, content: dict[str, Any]) -> "Progress":
        """What a progress file holds, of a version that knew fewer fields or more.

        Raises:
            InputError: it lacks what has no default.
        """
        try:
            return cls(**{one.name: content[one.name] for one in fields_of(cls) if one.name in content})
        except TypeError as error:
            raise InputError(
                f"the stopped training can't go on, as {run_folder.PROGRESS} is damaged ({error}): start afresh with "
                f"--resume=False"
            ) from None


def save(
    run: run_folder.Run, step: TrainStep, names: Sequence[str], progress: Progress, kept_step: int, ranks: Ranks
) -> None:
    """Write a rank's part of the state, and make it the one to go on from.

    Where the network that is kept is that of the same step, its file serves for both.

    Args:
        run: whose.
        step: holds the values, which are known to be finite.
        names: of the tables.
        progress: of the run.
        kept_step: step of the network that is kept so far, 0 for none.
        ranks: of the run.

    Raises:
        OSError: the disk is full; it names the file.
        RuntimeError: ranks hold different values of what they all have, by more than sums in another order make.
    """
    happens("a state is to be saved")
    replicas = step.other_values() | (step.row_values() if step.tables.replicated else {})
    if apart := keep_equal(replicas, ranks, step.operators.primitives.write_rows()):
        name, share = max(apart.items(), key=lambda one: one[1])
        print(
            f"{'warning: ' if share > TOLERANCE else ''}step {progress.step}: ranks differed in {len(apart)} of "
            f"{len(replicas)} parameters, most in {name}, by {share:.1e} of its largest value; all take rank 0's",
            flush=True,
        )
    common = {name: value.asnumpy() for name, value in step.other_values().items()}
    network = {value.name: common.pop(value.name) for value in step.model.mlp_parameters()}
    rows: Arrays = {}
    states: Arrays = {}
    for name, parameter in step.row_values().items():
        target = rows if parameter is step.tables.table else states
        target |= checkpoint.rows_of(step.tables, f"{name}.", parameter.asnumpy(), names)
    if kept_step == progress.step and step.average is None:
        checkpoint.for_each_part(lambda _: _link(run, kept_step, ranks.rank), step.tables, ranks)
    else:
        checkpoint.write_part(run.state(progress.step), network, rows, step.tables, ranks)
    if common or len(step.row_values()) > 1:
        checkpoint.write_part(run.rest(progress.step), common, states, step.tables, ranks)
    run.commit(asdict(progress), progress.step, kept_step)


def values_of(step: TrainStep, names: Sequence[str]) -> Arrays:
    """All values of a step that change, those with a row for each row of the tables by field."""
    found = {name: value.asnumpy() for name, value in step.other_values().items()}
    for name, value in step.row_values().items():
        found |= checkpoint.rows_of(step.tables, f"{name}.", value.asnumpy(), names)
    return found


def _link(run: run_folder.Run, step: int, part: int) -> None:
    target = checkpoint.part_of(run.state(step), part)
    link_or_copy(checkpoint.part_of(run.best(step), part), target)
    flush(target)


class State:
    """The state of a training that was stopped.

    Args:
        run: the run that goes on.
        content: of its progress file.
        names, table_rows: of the tables.
        ranks: of the run that goes on.

    Raises:
        InputError: the state is damaged.
    """

    def __init__(
        self, run: run_folder.Run, content: dict[str, Any], names: Sequence[str], table_rows: Sequence[int],
        ranks: Ranks,
    ):  # fmt: skip
        self.progress = Progress.of(content)
        try:
            # Each rank compares the checksums of some parts.
            checked = range(ranks.rank, 1 << 16, ranks.size)
            step = self.progress.step
            self.network = self.rest = checkpoint.Parts(run.state(step), names, table_rows, checked)
            if run.rest(step).is_file():
                self.rest = checkpoint.Parts(run.rest(step), names, table_rows, checked)
        except InputError as error:
            raise InputError(f"the stopped training can't go on ({error}); start afresh with --resume=False") from None

    def tables(self) -> Fill:
        """What fills the tables' pieces with their values."""
        return self.network.fill(checkpoint.TABLE)

    def restore(self, step: TrainStep, tables_too: bool = False) -> None:
        """Give a step all its values, in their places; those of the tables only if asked, else they have them."""
        tables = step.tables
        for name, parameter in step.row_values().items():
            if parameter is not tables.table:
                tables.refill(parameter, self.rest.fill(f"{name}."))
            elif tables_too:
                tables.refill(parameter, self.tables())
        of_network = {value.name for value in step.model.mlp_parameters()}
        for name, parameter in step.other_values().items():
            saved = self.network if name in of_network else self.rest
            if name in step.may_lack and name not in saved.shapes():
                continue
            if name == _COUNT and name not in saved.shapes():  # the stopped run had nothing to count for
                values = np.array([self.progress.step], np.int32)
            else:
                values = saved.value(name, parameter.shape)
            parameter.set_data(Tensor.from_numpy(values))
