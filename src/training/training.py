"""A training that has begun: it evaluates, saves, and goes back when it diverged."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NoReturn

import numpy as np
from mindspore import Tensor

from src.base.errors import InputError
from src.base.finite import NotFinite, first_not_finite
from src.base.logs import MetricsFile
from src.base.npz import Arrays, save_arrays
from src.checkpoints import checkpoint, run_folder
from src.dlrm import DLRM
from src.metrics.monitored import BestSoFar, Metrics
from src.network.embedding import initial_values
from src.training import resume
from src.training.evaluation import evaluate
from src.training.prepare import Prepared
from src.training.step import TrainStep
from src.training.warm_start import WarmStart

MOST_TIMES_BACK = 8
_LESS = 0.1  # of the larger rate, each time


@dataclass
class Training:
    """A training that has begun.

    Attributes:
        prepared: what it works on.
        run: where it leaves its files.
        begun: how far it was when this process began, or went back.
        step: the training step, around the network.
        best: the network that is kept so far.
        metrics_file: its log, which may be a whole report.
        saved_step: of the last state that is saved; 0 for none.
        finite_step: the last one behind which all values were seen to be finite.
        is_alone: whether nothing but the step changes values, so that they need be looked at once behind a step.
        initial: the values of the step at its begin, but for what has a row for each row of the tables.
        warm: what it began with, if not with nothing.
    """

    prepared: Prepared
    run: run_folder.Run
    begun: resume.Progress
    step: TrainStep
    best: BestSoFar
    metrics_file: MetricsFile
    saved_step: int = 0
    finite_step: int = -1
    is_alone: bool = False
    initial: Arrays = field(default_factory=dict)
    warm: WarmStart | None = None

    def __post_init__(self) -> None:
        if self.prepared.specs.kept.on_nonfinite == "back":
            self.initial = {name: value.asnumpy().copy() for name, value in self.step.other_values().items()}
        self.set_rates()

    @property
    def model(self) -> DLRM:
        """The network."""
        return self.step.model

    @property
    def rates(self) -> tuple[float, float]:
        """Of MLPs and tables: those of the options, less what the times back took from them."""
        rates = self._given_rates
        for _ in range(self.begun.times_back):
            rates = _lower(rates)
        return rates

    @property
    def _given_rates(self) -> tuple[float, float]:
        optimization = self.prepared.specs.optimization
        return optimization.lr, optimization.table_lr or optimization.lr

    def _flags(self, rates: Sequence[float]) -> list[str]:
        """The options that make rates of those that were given: the ones that are others."""
        names = ["lr", "table_lr"] if self.prepared.specs.optimization.table_lr else ["lr"]
        return [f"{name}={one:g}" for name, one, given in zip(names, rates, self._given_rates) if one != given]

    def _words(self, rates: Sequence[float]) -> str:
        return " and ".join(self._flags(rates)).replace("=", " ")

    def set_rates(self) -> None:
        """Give the step its rates."""
        for parameter, rate in zip((self.step.learning_rate, self.step.table_learning_rate), self.rates):
            parameter.set_data(Tensor(np.array(rate, np.float32)))

    def begin_tables(self, epoch: int = 0) -> None:
        """Let tables and their optimizer begin anew, as the training began, with other initial values in each epoch."""
        fill = initial_values(self.prepared.folder.manifest.rows_of_tables, self.prepared.specs.data.seed, epoch)
        self.step.reset_tables(fill)
        if self.warm:
            self.warm.restore_tables(self.step, fill)

    def go_on(self, state: resume.State) -> None:
        """Give the step all the other values of a state, and begin behind it; log and report say what has changed."""
        begun, run = self.begun, self.run
        state.restore(self.step)
        run.keep_options()
        changes, ranks = list(run.changes), self.prepared.specs.runtime.ranks.size
        if begun.ranks and begun.ranks != ranks:
            changes.append(f"{ranks} ranks instead of {begun.ranks}")
        if times := begun.times_back:
            changes.append(f"{self._words(self.rates)} since it went back {times} time{'s' if times > 1 else ''}")
        words = f", with {', '.join(changes)}" if changes else ""
        print(f"going on from step {begun.step} of {self.prepared.steps}, which {run.path} holds{words}", flush=True)
        self.metrics_file.write("resume", step=begun.step, changes=changes)

    def save_network(self, at_step: int) -> None:
        """Write the network of a step as the one to keep."""
        path, tables = self.run.best(at_step), self.prepared.folder.manifest.tables
        ranks = self.prepared.specs.runtime.ranks
        self.check_finite(at_step)
        self.step.with_average(lambda: checkpoint.save(self.model, tables, path, ranks, checked=True))
        self.run.remove_other_bests(at_step)

    def save_state(self, at_step: int, kept_step: int | None = None) -> None:
        """Write all that going on behind a step needs; the network that is kept is the best one unless given."""
        if at_step == self.saved_step:
            return
        self.check_finite(at_step)
        average = self.step.average
        done = replace(self.begun, step=at_step, ranks=self.prepared.specs.runtime.ranks.size,
                       average_from=average.first if average else None)  # fmt: skip
        if self.best.chooses:
            done = replace(done, best=self.best.metrics, best_step=self.best.step, waited=self.best.waited)
        self.metrics_file.save("unfinished")
        tables, ranks = self.prepared.folder.manifest.tables, self.prepared.specs.runtime.ranks
        resume.save(self.run, self.step, tables, done, done.best_step if kept_step is None else kept_step, ranks)
        self.saved_step = at_step

    def check_finite(self, at_step: int) -> None:
        """See that all values are finite behind a step; MindSpore's ReLU hides those that are not from the loss.

        Raises:
            NotFinite: one is not.
        """
        if self.is_alone and self.finite_step == at_step:
            return
        checkpoint.check_finite(self._values(), self.prepared.specs.runtime.ranks, at_step)
        self.finite_step = at_step

    def _values(self) -> Arrays:
        return resume.values_of(self.step, self.prepared.folder.manifest.tables)

    def evaluate(self, at_step: int) -> Metrics:
        """Metrics of the network as it is behind a step."""
        self.check_finite(at_step)
        specs, batches = self.prepared.specs, self.prepared.eval_batches or ()
        size, monitor = specs.evaluation.eval_batch_size, specs.evaluation.monitor
        try:
            return self.step.with_average(lambda: evaluate(self.model, batches, size, specs.runtime.ranks, monitor))
        except NotFinite as error:
            raise NotFinite(error.what, at_step) from None

    def go_back(self, found: NotFinite) -> None:
        """Go on from the last finite state with smaller rates, where the options allow that.

        Raises:
            InputError: they do not, or it was done too often; the line says what was found, and the remedy.
        """
        specs, step = self.prepared.specs, found.step or 0
        facts = self._facts(step)
        goes_back = specs.kept.on_nonfinite == "back" and self.begun.times_back < MOST_TIMES_BACK
        times = {"times_back": self.begun.times_back + 1, "rates": self.begun.rates} if goes_back else {}
        # Who stops leaves as many states as can be to the user, who has seen what became of them.
        content = self.run.retreat(sum(self.rates), times, self.begun.step, stops=not goes_back)
        to = content["step"] if content else 0
        if not goes_back:
            self._stop(found, facts, to, content and content.get(run_folder.FAILED_AGAIN))
        rates = _lower(self.rates)
        words = self._words(rates)
        self.metrics_file.write("back", step=step, to=to, why=f"{found.what} at step {step}", rates=words, lr=rates[0])
        self._take(content)
        where = f"step {to}" if to else "the beginning"
        print(f"{found.what} at step {step}: going back to {where} with {words}; {facts}", flush=True)

    def _take(self, content: dict | None) -> None:
        """Put the values of a state, or those of the beginning, in their places."""
        ranks, times_back = self.prepared.specs.runtime.ranks, self.begun.times_back + 1
        if content:
            packed, tables = self.prepared.widths.packed_rows, self.prepared.folder.manifest.tables
            state = resume.State(self.run, content, tables, packed, ranks)
            state.restore(self.step, tables_too=True)
            self.begun = state.progress
        else:
            self.begin_tables()
            for name, value in self.step.other_values().items():
                value.set_data(Tensor(self.initial[name].copy()))
            if self.warm:
                self.warm.restore_mlps(self.step)
            begun = self.begun
            self.begun = resume.Progress(
                begun.run, begun.batch_size, rates=begun.rates, times_back=times_back, steps_before=begun.steps_before,
                begun_with=begun.begun_with,
            )  # fmt: skip
        self.saved_step, self.finite_step = self.begun.step, -1
        self.best.metrics, self.best.step, self.best.waited = self.begun.best, self.begun.best_step, self.begun.waited
        self.set_rates()

    def _facts(self, step: int) -> str:
        """Of a training that diverged, in words: the first value that is not finite, and where the batch is kept."""
        name, ranks = first_not_finite(self._values()), self.prepared.specs.runtime.ranks
        elsewhere = np.flatnonzero(ranks.gather(np.array([bool(name)], np.int32)))
        value = f"the first value that is not finite is in {name}" if name else "all values are still finite"
        if not name and len(elsewhere):
            value = f"values that are not finite are on rank {elsewhere[0]}"
        return f"{value}; {self._keep_batch(step)}" if step else value

    def _keep_batch(self, step: int) -> str:
        """Write a step's batch beside the log of the loss, and say where it is; a full disk does not hide the rest."""
        logs = Path(self.prepared.specs.kept.loss_file_name)
        path = logs.with_name(f"{logs.stem}.nonfinite-{step}.npz")
        columns = self.prepared.batch(step - 1)
        try:
            if self.prepared.specs.runtime.ranks.rank == 0:
                save_arrays(path, dict(zip(self.prepared.batches.source.columns, columns)))
        except OSError as error:
            return f"the step's batch is not kept, as {path} can't be written ({error.strerror or error})"
        return f"the step's batch is in {path}"

    def _stop(self, found: NotFinite, facts: str, to: int, failed_again: object) -> NoReturn:
        """Raise the error that says what was found, and how to go on, or begin anew where that has failed before."""
        flags = " ".join(f"--{flag}" for flag in self._flags(_lower(self.rates)))
        often = f", after it went back {self.begun.times_back} times" if self.begun.times_back else ""
        goes_on = f"goes on from step {to}, the last finite state" if to else "begins anew, as there is no finite state"
        if failed_again:
            which = "comes of one that diverged" if failed_again == run_folder.COMES_OF_ONE else "diverged"
            goes_on += f", which {which} at a larger rate too: with --resume=False as well it begins anew"
        raise InputError(f"{found}{often}: the same command with {flags} {goes_on}; {facts}") from None


def _lower(rates: tuple[float, float]) -> tuple[float, float]:
    """Rates with which to try again: the larger one as much less as it takes, the other one no larger than that."""
    most = _LESS * max(rates)
    return min(rates[0], most), min(rates[1], most)


def going_on(progress: resume.Progress, rates: Sequence[float]) -> resume.Progress:
    """The progress of a run that goes on with these rates: new ones are taken as they are given."""
    times_back = progress.times_back if list(progress.rates) == list(rates) else 0
    return replace(progress, rates=list(rates), times_back=times_back)
