"""A training run from beginning to end: prepare, go on or begin, train, finish.

In a Python program, with callbacks of one's own:

    from src.run import train
    from src.training.options import DataSpec, OptimizationSpec
    from src.training.prepare import start

    result = train(DataSpec("data/dataset"), optimization=OptimizationSpec(lr=0.1), runtime=start(), callbacks=[...])
"""

import os
import resource
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore.train import Callback, Model

from src.base.errors import InputError
from src.base.logs import MetricsFile
from src.base.stops import held_back
from src.callback import (
    BestSoFar,
    EpochCallBack,
    EvalCallBack,
    FirstStepCallBack,
    LossCallBack,
    ResumeCallBack,
    StepCallBack,
    TrainingClock,
)
from src.checkpoints import checkpoint, run_folder
from src.dataset import TrainingDataset
from src.dlrm import DLRM
from src.metrics.monitored import MONITORED, Metrics
from src.model_utils.options import values_of
from src.network.compiled import operators_for
from src.network.embedding import initial_values, make_tables
from src.network.options import NetworkSpec
from src.ranks.placement import has_all_to_all
from src.report.content import data_content, evaluation_content
from src.report.files import RunReport, Scored, forget, machine
from src.report.learned import learned
from src.training import resume
from src.training.evaluation import evaluate
from src.training.options import DataSpec, EvaluationSpec, KeptSpec, OptimizationSpec, ScheduleSpec, steps_between
from src.training.prepare import Prepared, Runtime, Specs, prepare
from src.training.step import TrainStep


@dataclass(frozen=True)
class TrainingResult:
    """What a run gave: its best evaluation (None without any), throughput, and the process's largest memory."""

    best: Metrics | None
    best_step: int
    steps: int
    samples_per_s: float
    peak_memory_mb: float
    checkpoint: Path


def train(
    data: DataSpec,
    network: NetworkSpec = NetworkSpec(),
    optimization: OptimizationSpec = OptimizationSpec(),
    schedule: ScheduleSpec = ScheduleSpec(),
    evaluation: EvaluationSpec = EvaluationSpec(),
    kept: KeptSpec = KeptSpec(),
    runtime: Runtime = Runtime(),
    callbacks: Sequence[Callback] = (),
) -> TrainingResult:
    """Train a network on a data folder: a fresh one, or that of a run that was stopped, which then goes on.

    Args:
        data, network, optimization, schedule, evaluation, kept: what to do; the options of the same names.
        runtime: from `start`; each of several ranks calls this with the same specs.
        callbacks: MindSpore's or one's own, called behind this repository's.

    Raises:
        InputError: too few rows, a checkpoint or a stopped run with other options in the way, or a loss that is not
            finite.
    """
    prepared = prepare(Specs(data, network, optimization, schedule, evaluation, kept, runtime))
    with run_folder.Run(Path(kept.ckpt_path), prepared.folder, prepared.specs.saved(), overwrite=kept.overwrite,
                        resume=kept.resume, ranks=runtime.ranks) as run:  # fmt: skip
        state = stopped_state(prepared, run)
        training = begin(prepared, run, state)
        with training.metrics_file:
            if state:
                go_on(training, state)
            losses, ended = fit(training, callbacks)
            result = finish(training, losses)
    training.metrics_file.write(
        "end", steps=result.steps, samples_per_s=result.samples_per_s, peak_memory_mb=result.peak_memory_mb,
        best_step=result.best_step, **(_why_ended(training.best) if ended else {}),
    )  # fmt: skip
    return result


def stopped_state(prepared: Prepared, run: run_folder.Run) -> resume.State | None:
    """The state of the training that was stopped where this run works, if any.

    Raises:
        InputError: ranks differ in what they find, the state is damaged, or it had another batch.
    """
    fields, rows, ranks = prepared.folder.manifest.fields, prepared.widths.packed_rows, prepared.specs.runtime.ranks
    progress = run.progress()
    manifest_crc = zlib.crc32(repr((fields, rows)).encode()) >> 1
    ranks.agree("what they train on and go on from", {
        "the tables' checksum": manifest_crc, "the saved step": progress["step"] if progress else -1})  # fmt: skip
    if not progress:
        return None
    if progress["batch_size"] != prepared.batch_size:
        raise InputError(
            f"{run.path} holds a training that was stopped, with {progress['batch_size']} samples a step over its "
            f"ranks, and {ranks.size} ranks make that {prepared.batch_size}: go on with a number of ranks that divides "
            f"it, or start afresh with --resume=False"
        )
    return resume.State(run, progress, fields, rows, ranks)


@dataclass
class Training:
    """A training that has begun.

    Attributes:
        prepared: what it works on.
        run: where it leaves its files.
        begun: how far it was when this process began.
        step: the training step, around the network.
        best: the network that is kept so far.
        metrics_file: its log, which may be a whole report.
    """

    prepared: Prepared
    run: run_folder.Run
    begun: resume.Progress
    step: TrainStep
    best: BestSoFar
    metrics_file: MetricsFile

    @property
    def model(self) -> DLRM:
        """The network."""
        return self.step.model

    def save_network(self, at_step: int) -> None:
        """Write the network of a step as the one to keep."""
        path, fields = self.run.best(at_step), self.prepared.folder.manifest.fields
        ranks = self.prepared.specs.runtime.ranks
        self.step.with_average(lambda: checkpoint.save(self.model, fields, path, ranks))

    def save_state(self, at_step: int) -> None:
        """Write all that going on behind a step needs."""
        done = replace(self.begun, step=at_step)
        if self.best.chooses:
            done = replace(done, best=self.best.metrics, best_step=self.best.step, waited=self.best.waited)
        if isinstance(self.metrics_file, RunReport):
            self.metrics_file.save("unfinished")
        resume.save(self.run, self.step, self.prepared.folder.manifest.fields, done, self.prepared.specs.runtime.ranks)

    def evaluate(self) -> Metrics:
        """Metrics of the network as it is."""
        specs, batches = self.prepared.specs, self.prepared.eval_batches or ()
        size, monitor = specs.evaluation.eval_batch_size, specs.evaluation.monitor
        return self.step.with_average(lambda: evaluate(self.model, batches, size, specs.runtime.ranks, monitor))


def begin(prepared: Prepared, run: run_folder.Run, state: resume.State | None) -> Training:
    """Make the network, with the tables of a state if there is one, and the step that trains it."""
    specs, seed = prepared.specs, prepared.specs.data.seed
    compute, device, ranks = specs.runtime.compute, specs.runtime.device.device_target, specs.runtime.ranks
    begun = state.progress if state else resume.Progress(f"{datetime.now():%Y-%m-%dT%H:%M:%S}", prepared.batch_size)
    tables, exchange = make_tables(
        prepared.placement,
        ranks.rank,
        specs.network.emb_dim,
        state.tables() if state else initial_values(prepared.folder.manifest.table_rows, seed),
        operators_for(device, compute.cpu_kernels, specs.optimization.rules),
        has_all_to_all(device),
    )
    dtype = getattr(ms, compute.compute_dtype)
    model = DLRM(len(prepared.folder.manifest.inputs), tables, specs.network, dtype, seed, prepared.widths)
    factors = None if np.all(prepared.factors == 1) else prepared.factors
    scale = specs.optimization.loss_scale if compute.compute_dtype == "float16" else 1.0
    average_from = _average_from(prepared.steps, specs.schedule.average_share)
    step = TrainStep(model, specs.optimization, factors, average_from, scale, seed, exchange)
    evaluation = specs.evaluation
    best = BestSoFar(
        prepared.part, evaluation.monitor, evaluation.early_stopping, begun.best, begun.best_step, begun.waited
    )
    return Training(prepared, run, begun, step, best, _metrics_file(prepared, run, begun, step))


def go_on(training: Training, state: resume.State) -> None:
    """Give the step all the other values of a state, and begin behind it."""
    begun = training.begun
    state.restore(training.step)
    print(f"going on from step {begun.step} of {training.prepared.steps}, which {training.run.path} holds", flush=True)
    training.metrics_file.write("resume", step=begun.step)


def fit(training: Training, callbacks: Sequence[Callback]) -> tuple[LossCallBack, bool]:
    """Do the steps that are left, by MindSpore's own loop; what counted them, and whether early_stopping ended them."""
    prepared, step = training.prepared, training.step
    kept, schedule, evaluation = prepared.specs.kept, prepared.specs.schedule, prepared.specs.evaluation
    first, of_epoch = training.begun.step, len(prepared.batches)
    loss_log, eval_log = kept.loss_file_name, kept.eval_file_name
    if prepared.specs.runtime.ranks.rank:  # one of several ranks writes files
        loss_log = eval_log = os.devnull
    clock, metrics_file = TrainingClock(), training.metrics_file
    losses = LossCallBack(loss_log, metrics_file, kept.log_steps, prepared.batch_size, clock)
    used = [
        ResumeCallBack(first, schedule.epochs, training.save_state, steps_between(kept.save_steps, of_epoch), clock)
    ]
    if schedule.reset_tables_each_epoch:
        fill = partial(initial_values, prepared.folder.manifest.table_rows, prepared.specs.data.seed)
        used.append(EpochCallBack(lambda epoch: step.reset_tables(fill(epoch))))
    used.append(losses)
    evaluations = None
    if prepared.part:
        eval_steps = steps_between(evaluation.eval_steps, of_epoch)
        evaluations = EvalCallBack(
            training.evaluate, training.save_network, training.best, eval_log, metrics_file, eval_steps, clock
        )
        used.append(evaluations)
    prepared.batches.go_to(first)
    sign = prepared.specs.runtime.ranks.sign  # of a step alone: what callbacks do is work of this rank's own
    with held_back() as first_step_done:
        Model(step).train(
            schedule.epochs, TrainingDataset(prepared.batches),
            [FirstStepCallBack(first_step_done), StepCallBack(ended=sign.end_step), *used, *callbacks,
             StepCallBack(begins=sign.begin_step)],
            dataset_sink_mode=False, initial_epoch=first // of_epoch,
        )  # fmt: skip
    return losses, evaluations is not None and evaluations.ended


def finish(training: Training, losses: LossCallBack) -> TrainingResult:
    """Write the report of the network that is kept, and put the run's files in their places."""
    prepared, run, best = training.prepared, training.run, training.best
    kept_step = best.step
    if not prepared.part:
        kept_step = losses.steps
        training.save_network(kept_step)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    beside = _beside_others(training)
    if isinstance(training.metrics_file, RunReport):
        _finish_report(training, training.metrics_file, losses, kept_step, peak_mb, beside)
    path = run.finish(kept_step)
    return TrainingResult(best.metrics, best.step, losses.steps, losses.mean_samples_per_s, peak_mb, path)


def _beside_others(training: Training) -> dict[str, Any] | None:
    """Say how the kept network does beside others, for the report; rank 0 does, and the other ranks wait for it."""
    prepared, metrics, specs = training.prepared, training.best.metrics, training.prepared.specs
    content: dict[str, Any] = {}

    def compare() -> None:
        if specs.runtime.ranks.rank == 0 and metrics and prepared.eval_batches:
            sources = (prepared.batches.source, prepared.eval_batches.source) if specs.kept.compare_linear else None
            one = learned(metrics, prepared.part, prepared.folder.manifest, specs.optimization.lr, sources)
            content.update(one.content())
            print("\n".join(one.lines()), flush=True)
            training.metrics_file.write("learned", **content)

    specs.runtime.ranks.together(compare)
    return content or None


def _finish_report(
    training: Training, report: RunReport, losses: LossCallBack, kept_step: int, peak_mb: float,
    beside: dict[str, Any] | None,
) -> None:  # fmt: skip
    prepared, specs = training.prepared, training.prepared.specs
    scored: Scored | None = None
    content: dict[str, Any] = {}
    if prepared.eval_batches:
        if kept_step != losses.steps or specs.schedule.average_share:  # what is kept, not what is at hand
            checkpoint.restore(training.model, training.run.best(kept_step), prepared.folder.manifest.fields)
        scored, content = evaluation_content(
            training.model, prepared.folder, prepared.part, prepared.eval_batches, specs.runtime.ranks,
            importance_rows=specs.kept.importance_rows, seed=specs.data.seed,
        )  # fmt: skip
    shown = MONITORED[specs.evaluation.monitor].shown
    report.finish({
        "steps": losses.steps, "kept_step": kept_step, "samples_per_s": losses.mean_samples_per_s,
        "peak_memory_mb": peak_mb, "kept_for": f"best {shown}" if training.best.chooses else "the last one",
    }, scored, content, beside)  # fmt: skip


def _metrics_file(prepared: Prepared, run: run_folder.Run, begun: resume.Progress, step: TrainStep) -> MetricsFile:
    """The run's log for machines, or the report that takes its place."""
    specs, ranks, factors = prepared.specs, prepared.specs.runtime.ranks, prepared.factors
    path = os.devnull if ranks.rank else specs.kept.metrics_file_name
    if not specs.kept.report:
        forget(run.path)
        return MetricsFile(path, begun.run)
    facts = {
        "steps": prepared.steps,
        "options": values_of(*specs.options),
        "data": data_content(prepared.folder),
        "machine": machine() | {"ranks": ranks.size},
    }
    mlp_rate, table_rate = (float(rate.asnumpy()) for rate in (step.learning_rate, step.table_learning_rate))
    report = RunReport(
        path, begun.run, run.path, facts,
        lambda at: (mlp_rate * float(factors[at - 1]), table_rate * float(factors[at - 1])), ranks.rank == 0,
    )  # fmt: skip
    report.go_on_from(begun.step)
    return report


def _why_ended(best: BestSoFar) -> dict[str, str]:
    """Why a training ended before its steps were done, in the log and as the metrics file has it."""
    one = MONITORED[best.monitor]
    why = f"early_stopping: no {'higher' if one.rises else 'lower'} {one.shown} in {best.waited} evaluations"
    print(why, flush=True)
    return {"ended_by": why}


def _average_from(steps: int, share: float) -> int | None:
    """The first step of a share of all steps at their end, one at least; None for no share."""
    return steps - max(1, round(share * steps)) if share else None
