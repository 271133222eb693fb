"""A training run from beginning to end: prepare, go on or begin, train, finish.

In a Python program, with callbacks of one's own:

    from src.run import train
    from src.training.options import DataSpec, OptimizationSpec
    from src.training.prepare import start

    result = train(DataSpec("data/dataset"), optimization=OptimizationSpec(lr=0.1), runtime=start(), callbacks=[...])
"""

import os
import resource
import time
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
from src.base.finite import NotFinite
from src.base.logs import phase
from src.base.workers import give_back_memory
from src.callback import (
    EpochCallBack,
    EvalCallBack,
    LossCallBack,
    ResumeCallBack,
    SaveTimes,
    StepCallBack,
    TrainingClock,
)
from src.checkpoints import checkpoint, run_folder
from src.dataset import TrainingDataset
from src.dlrm import DLRM
from src.metrics.linear import import_libraries
from src.metrics.monitored import MONITORED, BestSoFar, Metrics
from src.network.compiled import operators_for
from src.network.embedding import initial_values, make_tables
from src.network.options import NetworkSpec
from src.ranks.placement import has_all_to_all
from src.ranks.transport import exchange_of
from src.report.content import evaluation_content
from src.report.files import RunReport, Scored
from src.report.learned import learned
from src.report.run_log import log_of_run
from src.training import resume
from src.training.averaging import first_averaged
from src.training.options import DataSpec, EvaluationSpec, KeptSpec, OptimizationSpec, ScheduleSpec, steps_between
from src.training.prepare import Prepared, Runtime, Specs, prepare
from src.training.step import TrainStep
from src.training.training import Training, going_on
from src.training.warm_start import WarmStart


@dataclass(frozen=True)
class TrainingResult:
    """What a run gave: its best evaluation (None without any), throughput without and with the time of evaluations and
    saves, and the process's largest memory."""

    best: Metrics | None
    best_step: int
    steps: int
    samples_per_s: float
    wall_samples_per_s: float
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
    began = time.perf_counter()
    prepared = prepare(Specs(data, network, optimization, schedule, evaluation, kept, runtime))
    warm = WarmStart.of(prepared)
    with run_folder.Run(Path(kept.ckpt_path), prepared.folder, prepared.specs.saved(), overwrite=kept.overwrite,
                        resume=kept.resume, ranks=runtime.ranks, keep_states=kept.keep_states) as run:  # fmt: skip
        state = stopped_state(prepared, run)
        training = begin(prepared, run, state, warm)
        with training.metrics_file:
            if state:
                training.go_on(state)
            losses, ended = fit(training, callbacks)
            with phase("making the report of the network that is kept"):
                result = finish(training, losses, began)
    training.metrics_file.write(
        "end", steps=result.steps, samples_per_s=result.samples_per_s, wall_samples_per_s=result.wall_samples_per_s,
        peak_memory_mb=result.peak_memory_mb, best_step=result.best_step,
        **(_why_ended(training.best) if ended else {}),
    )  # fmt: skip
    return result


def stopped_state(prepared: Prepared, run: run_folder.Run) -> resume.State | None:
    """The state of the training that was stopped where this run works, if any.

    Raises:
        InputError: ranks differ in what they find, the state is damaged, or it had another batch.
    """
    tables, rows, ranks = prepared.folder.manifest.tables, prepared.widths.packed_rows, prepared.specs.runtime.ranks
    progress = run.progress()
    manifest_crc = zlib.crc32(repr((tables, rows)).encode()) >> 1
    ranks.agree("what they train on and go on from", {
        "the tables' checksum": manifest_crc, "the saved step": progress["step"] if progress else -1})  # fmt: skip
    if not progress:
        return None
    stopped = resume.Progress.of(progress)
    if stopped.batch_size != prepared.batch_size:
        raise InputError(
            f"{run.path} holds a training that was stopped, with {stopped.batch_size} samples a step over its "
            f"ranks, and {ranks.size} ranks make that {prepared.batch_size}: go on with a number of ranks that divides "
            f"it, or start afresh with --resume=False"
        )
    if stopped.step > prepared.steps:
        raise InputError(
            f"{run.path} holds a training that was stopped behind step {stopped.step}, and "
            f"epochs {prepared.specs.schedule.epochs} are {prepared.steps} steps: give more --epochs, or start afresh "
            f"with --resume=False"
        )
    return resume.State(run, progress, tables, rows, ranks)


def begin(
    prepared: Prepared, run: run_folder.Run, state: resume.State | None, warm: WarmStart | None = None
) -> Training:
    """Make the network, with the tables of a state if there is one, or of what it begins with, and its step."""
    specs, seed = prepared.specs, prepared.specs.data.seed
    compute, device, ranks = specs.runtime.compute, specs.runtime.device.device_target, specs.runtime.ranks
    begun = state.progress if state else resume.Progress(f"{datetime.now():%Y-%m-%dT%H:%M:%S}", prepared.batch_size)
    begun = going_on(begun, (specs.optimization.lr, specs.optimization.table_lr))
    fill = state.tables() if state else initial_values(prepared.folder.manifest.rows_of_tables, seed)
    if warm and not state:
        begun = replace(begun, steps_before=warm.steps_before, begun_with=warm.facts())
        fill = warm.tables(fill)
    operators = operators_for(device, compute.cpu_kernels, specs.optimization.rules)
    tables, exchange = make_tables(
        prepared.placement, ranks.rank, specs.network.emb_dim, fill, operators, has_all_to_all(device),
        prepared.folder.manifest.layout,
        exchange_of(ranks, specs.runtime.parallel, device == "CPU", operators.ends_rows),
    )  # fmt: skip
    dtype = getattr(ms, compute.compute_dtype)
    model = DLRM(prepared.dense_dim, tables, specs.network, dtype, seed, prepared.widths, prepared.has_fields)
    corrects = specs.schedule.reset_tables_each_epoch and specs.optimization.rules[0].corrections
    reset_steps = len(prepared.batches) if corrects else 0
    manifest = prepared.folder.manifest
    if manifest.logit_shift:  # so that it begins, for the training rows, where it does without sampling
        model.change_logits(1, manifest.logit_shift)
    factors = None if np.all(prepared.factors == 1) and not reset_steps else prepared.factors
    scale = specs.optimization.loss_scale if compute.compute_dtype == "float16" else None
    average_from = first_averaged(prepared.steps, specs.schedule.average_share, begun.step, begun.average_from)
    step = TrainStep(
        model, specs.optimization, factors, average_from, scale, seed, exchange, reset_steps, begun.steps_before,
        bool(manifest.weight), manifest.logit_shift,
    )  # fmt: skip
    if warm and not state:
        warm.restore_tables(step)
        warm.restore_mlps(step)
        print(warm.line(), flush=True)
    evaluation = specs.evaluation
    best = BestSoFar(
        prepared.part, evaluation.monitor, evaluation.early_stopping, begun.best, begun.best_step, begun.waited
    )
    log = log_of_run(prepared, run.path, begun, step)
    return Training(prepared, run, begun, step, best, log, begun.step, warm=warm)


def fit(training: Training, callbacks: Sequence[Callback]) -> tuple[LossCallBack, bool]:
    """Do the steps that are left, again from an earlier state where they diverge and the options say so.

    Returns:
        What counted the steps, and whether early_stopping ended them.

    Raises:
        InputError: they diverged.
    """
    clock, ranks = TrainingClock(), training.prepared.specs.runtime.ranks
    training.is_alone = not ranks.gather(np.array([bool(callbacks)], np.int32)).any()
    while True:
        try:
            return _fit(training, callbacks, clock)
        except NotFinite as found:
            with clock.pause("going back"):
                training.go_back(found)


def _fit(training: Training, callbacks: Sequence[Callback], clock: TrainingClock) -> tuple[LossCallBack, bool]:
    """Do the steps that are left, by MindSpore's own loop."""
    prepared, step, best, metrics_file = training.prepared, training.step, training.best, training.metrics_file
    kept, schedule, ranks = prepared.specs.kept, prepared.specs.schedule, prepared.specs.runtime.ranks
    first, of_epoch = training.begun.step, len(prepared.batches)
    # One of several ranks writes files.
    loss_log, eval_log = (os.devnull if ranks.rank else name for name in (kept.loss_file_name, kept.eval_file_name))
    losses = LossCallBack(
        loss_log, metrics_file, kept.log_steps, prepared.batch_size, clock, first,
        None if step.scale is None else step.skipped_updates,
        partial(ranks.sign.work, compiles=False),
    )  # fmt: skip

    def save_state(done: int) -> None:
        losses.look()
        if losses.overflows.is_sound:  # else the network may be one that overflows wherever it is gone on from
            training.save_state(done)

    def evaluated() -> Metrics:
        losses.look()
        return training.evaluate(losses.steps)

    times = SaveTimes(kept.save_steps and steps_between(kept.save_steps, of_epoch), kept.save_minutes, ranks)
    used: list[Callback] = [ResumeCallBack(first, schedule.epochs, save_state, times, best, clock)]
    if schedule.reset_tables_each_epoch:
        used.append(EpochCallBack(training.begin_tables))
    used.append(losses)
    evaluations = None
    if prepared.part:
        eval_steps = steps_between(prepared.specs.evaluation.eval_steps, of_epoch)
        evaluations = EvalCallBack(evaluated, training.save_network, best, eval_log, metrics_file, eval_steps, clock)
        used.append(evaluations)
    if kept.compare_linear and prepared.part and ranks.rank == 0:
        import_libraries()
    prepared.batches.go_to(first)
    sign = ranks.sign  # of steps and the wait for them: what else callbacks do is work of this rank's own
    if first < prepared.steps and not best.is_over:
        try:
            Model(step).train(
                schedule.epochs, TrainingDataset(prepared.batches, clock.wait),
                [StepCallBack(ended=sign.end_step), *used, *callbacks, StepCallBack(begins=sign.begin_step)],
                dataset_sink_mode=False, initial_epoch=first // of_epoch,
            )  # fmt: skip
        finally:
            losses.close()
    elif evaluations and not best.chooses:  # the run was stopped behind its last step
        evaluations.evaluate_at_end(schedule.epochs, first)
    losses.look()
    losses.overflows.check_end(losses.steps)
    training.check_finite(losses.steps)
    return losses, best.is_over


def finish(training: Training, losses: LossCallBack, began: float) -> TrainingResult:
    """Write the report of the network that is kept, and put the run's files in their places.

    Args:
        training, losses: the run, and what counted its steps.
        began: when, by time.perf_counter.
    """
    ended, seconds = time.perf_counter(), {"start": losses.clock.start - began, **losses.clock.by_phase()}
    prepared, run, best = training.prepared, training.run, training.best
    kept_step = best.step
    if not best.chooses:
        kept_step = losses.steps
    if not prepared.part:
        training.save_network(kept_step)
    if prepared.specs.kept.keep_finished:
        training.save_state(losses.steps, kept_step)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    report = training.metrics_file
    give_back_memory()  # of the steps' batches, so that what follows takes no more than they did
    scored, content = _scored(training, losses, kept_step) if isinstance(report, RunReport) else (None, {})
    give_back_memory()
    beside = _beside_others(training, content.get("intervals", {}).get("auc"))
    if isinstance(report, RunReport):
        seconds["report"] = time.perf_counter() - ended
        report.finish(_facts(training, losses, kept_step, peak_mb) | {"seconds": seconds}, scored, content, beside)
    path = run.finish(kept_step, prepared.specs.kept.keep_finished)
    return TrainingResult(
        best.metrics, best.step, losses.steps, losses.mean_samples_per_s, losses.wall_samples_per_s, peak_mb, path
    )


def _beside_others(training: Training, interval: dict[str, float] | None) -> dict[str, Any] | None:
    """Say how the kept network does beside others, for the report; rank 0 does, and the other ranks wait for it."""
    prepared, metrics, specs = training.prepared, training.best.metrics, training.prepared.specs
    content: dict[str, Any] = {}

    def compare() -> None:
        if specs.runtime.ranks.rank == 0 and metrics and prepared.eval_batches:
            sources = (prepared.batches.source, prepared.eval_batches.source) if specs.kept.compare_linear else None
            one = learned(
                metrics, prepared.part, prepared.folder.manifest, specs.optimization.lr, sources,
                (interval["low"], interval["high"]) if interval else None,
            )  # fmt: skip
            content.update(one.content())
            print("\n".join(one.lines()), flush=True)
            training.metrics_file.write("learned", **content)

    specs.runtime.ranks.together(compare)
    return content or None


def _scored(training: Training, losses: LossCallBack, kept_step: int) -> tuple[Scored | None, dict[str, Any]]:
    """The kept network's scores, and what the report says of them; none without rows to evaluate."""
    prepared, specs = training.prepared, training.prepared.specs
    if not prepared.eval_batches:
        return None, {}
    if kept_step != losses.steps or specs.schedule.average_share:  # what is kept, not what is at hand
        checkpoint.restore(training.model, training.run.best(kept_step), prepared.folder.manifest.tables)
    return evaluation_content(
        training.model, prepared.folder, prepared.part, prepared.eval_batches, specs.runtime.ranks,
        importance_rows=specs.kept.importance_rows, seed=specs.data.seed,
    )  # fmt: skip


def _facts(training: Training, losses: LossCallBack, kept_step: int, peak_mb: float) -> dict[str, Any]:
    """What the report says of the training."""
    shown = MONITORED[training.prepared.specs.evaluation.monitor].shown
    return {
        "steps": losses.steps, "kept_step": kept_step, "samples_per_s": losses.mean_samples_per_s,
        "wall_samples_per_s": losses.wall_samples_per_s,
        "skipped_updates": training.step.skipped_updates(), "peak_memory_mb": peak_mb,
        "kept_for": f"best {shown}" if training.best.chooses else "the last one",
        **({"begun_with": training.begun.begun_with} if training.begun.begun_with else {}),
    }  # fmt: skip


def _why_ended(best: BestSoFar) -> dict[str, str]:
    """Why a training ended before its steps were done, in the log and as the metrics file has it."""
    one = MONITORED[best.monitor]
    why = f"early_stopping: no {'higher' if one.rises else 'lower'} {one.shown} in {best.waited} evaluations"
    print(why, flush=True)
    return {"ended_by": why}
