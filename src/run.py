"""A training run: one or more epochs, evaluations on the way, and the best checkpoint kept."""

import contextlib
import os
import resource
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from mindspore.train import Callback, Model

from src.base.errors import InputError
from src.base.logs import MetricsFile, open_logs
from src.base.stops import held_back
from src.callback import (
    EpochCallBack,
    EvalCallBack,
    FirstStepCallBack,
    LossCallBack,
    ResumeCallBack,
    TrainingClock,
)
from src.data.manifest import DataFolder
from src.dataset import TrainingDataset, batches_of
from src.dlrm import DLRM, mlp_values
from src.metrics.binary import Metrics
from src.network.cpu_kernels import Kernels
from src.network.embedding import initial_values, make_tables
from src.network.mixed_dims import Widths, widths_of
from src.ranks.group import ONE_RANK, Ranks
from src.ranks.placement import place, plan, plan_lines
from src.report.content import data_content, evaluation_content
from src.report.files import RunReport, forget, machine
from src.training import checkpoint, resume, run_folder
from src.training.evaluation import evaluate
from src.training.optimizers import state_values
from src.training.schedule import rate_factors
from src.training.step import TrainStep

_PARTS_OF_AN_EPOCH = 10  # an evaluation, and a save of what going on needs, ends each


@dataclass(frozen=True)
class TrainingResult:
    """What a run gave: its best evaluation (None without any), throughput, and the process's largest memory."""

    best: Metrics | None
    best_step: int
    steps: int
    samples_per_s: float
    peak_memory_mb: float
    checkpoint: Path


def evaluation_part(data: DataFolder, early_stopping: int = 0) -> str:
    """The part that is evaluated while training: validation rows, or test rows where the split has no others.

    Raises:
        InputError: the data folder has neither, or only test rows, which must not end the training.
    """
    for part in ("valid", "test"):
        if part in data.manifest.parts:
            if part == "test" and early_stopping:
                raise InputError(
                    f"early_stopping {early_stopping} needs validation rows, and data folder {data.path} has only test "
                    f"rows: preprocess with a valid_fraction above 0, or drop it"
                )
            return part
    raise InputError(
        f"data folder {data.path} has neither validation nor test rows: preprocess at least 7 rows, or give "
        f"--do_eval=False"
    )


def print_plan(
    data: DataFolder, parallel_mode: str, ranks: int, batch_size: int, optimizer: str, device: str, memory_mb: int,
    **network: Any,
) -> None:  # fmt: skip
    """Print what each rank would hold and send.

    Args:
        data: the data.
        device: CPU, GPU or Ascend.
        memory_mb: what a device has, 0 if that is not to be compared.
        network: as for `mlp_values`, but the columns; and mixed_dims.
        The other arguments are the options of the same names.

    Raises:
        InputError: a rank would need more memory than a device has.
    """
    rows, width = data.manifest.table_rows, network["bottom_mlp"][-1] * network["towers"]
    widths = _widths(rows, width, network.pop("mixed_dims", 0.0))
    placement = place(widths.packed_rows, parallel_mode, ranks)
    values = mlp_values(len(data.manifest.inputs), len(rows), **network) + widths.projection_values
    planned = plan(placement, batch_size, width, values, state_values(optimizer, width), device)
    print("\n".join(plan_lines(placement, planned, optimizer, batch_size)))
    if memory_mb and max(planned.memory_mb) > memory_mb:
        raise InputError(
            f"a device's {memory_mb} MB can't hold the {max(planned.memory_mb):.0f} MB of a rank: give more ranks with "
            f"parallel_mode hybrid, or an optimizer that keeps less"
        )


def _widths(table_rows: Sequence[int], emb_dim: int, mixed_dims: float) -> Widths:
    widths = widths_of(table_rows, emb_dim, mixed_dims)
    if mixed_dims and not widths.projections:
        raise InputError(
            f"mixed_dims {mixed_dims} has no effect: the tables, of {min(table_rows)} to {max(table_rows)} rows, all "
            f"get the full width; give a higher one or drop it"
        )
    return widths


def _rounded_up(batch_size: int, ranks: int) -> int:
    """The next multiple of the number of ranks, so that each has as many samples as the others."""
    rounded = -(-batch_size // ranks) * ranks
    if rounded != batch_size:
        print(f"batch_size is rounded up to {rounded}, a multiple of the {ranks} ranks", flush=True)
    return rounded


def _stopped(
    run: run_folder.Run, fields: Sequence[str], table_rows: Sequence[int], ranks: Ranks, batch_size: int
) -> resume.State | None:
    """The state of the training that was stopped where this run works, if any."""
    progress = run.progress()
    manifest_crc = zlib.crc32(repr((fields, table_rows)).encode()) >> 1
    ranks.agree("what they train on and go on from", {
        "the tables' checksum": manifest_crc, "the saved step": progress["step"] if progress else -1})  # fmt: skip
    if not progress:
        return None
    if progress["batch_size"] != batch_size:
        raise InputError(
            f"{run.path} holds a training that was stopped, with {progress['batch_size']} samples a step over its "
            f"ranks, and {ranks.size} ranks make that {batch_size}: go on with a number of ranks that divides it, or "
            f"start afresh with --resume=False"
        )
    return resume.State(run, progress, fields, table_rows, ranks)


def _average_from(steps: int, share: float) -> int | None:
    """The first step of a share of all steps at their end, one at least; None for no share."""
    return steps - max(1, round(share * steps)) if share else None


def _why_ended(evaluations: EvalCallBack) -> dict[str, str]:
    """Why a training ended before its steps were done, in the log and as the metrics file has it; empty if not."""
    if not evaluations.ended:
        return {}
    why = f"early_stopping: no higher AUC in {evaluations.waited} evaluations"
    print(why, flush=True)
    return {"ended_by": why}


def _report(
    metrics_file: MetricsFile, run: run_folder.Run, step: TrainStep, factors: np.ndarray, ranks: Ranks,
    facts: dict[str, Any],
) -> RunReport:  # fmt: skip
    """The report of a run, which takes the place of its metrics file."""
    mlp_rate, table_rate = (float(rate.asnumpy()) for rate in (step.learning_rate, step.table_learning_rate))
    return RunReport(
        str(metrics_file.path), metrics_file.run, run.path, facts | {"machine": machine() | {"ranks": ranks.size}},
        lambda at: (mlp_rate * float(factors[at - 1]), table_rate * float(factors[at - 1])), ranks.rank == 0,
    )  # fmt: skip


def train(  # noqa: PLR0915
    data: DataFolder,
    ckpt_path: Path,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    shuffle: bool,
    do_eval: bool,
    eval_steps: int,
    eval_batch_size: int,
    log_steps: int,
    loss_file_name: str,
    eval_file_name: str,
    metrics_file_name: str,
    emb_dim: int,
    network: dict[str, Any],
    optimization: dict[str, Any],
    schedule: dict[str, Any],
    options: run_folder.RunOptions,
    parallel_mode: str = "none",
    ranks: Ranks = ONE_RANK,
    all_to_all: bool = False,
    kernels: Kernels | None = None,
    overwrite: bool = False,
    resume_stopped: bool = True,
    save_steps: int = 0,
    reset_tables_each_epoch: bool = False,
    early_stopping: int = 0,
    average_share: float = 0.0,
    report: bool = False,
    importance_rows: int = 0,
    callbacks: Sequence[Callback] = (),
) -> TrainingResult:
    """Train a network on a data folder: a fresh one, or that of a run that was stopped, which then goes on.

    Args:
        data: the data.
        ckpt_path: folder of the checkpoint, the same for all ranks.
        batch_size: samples of a step over all ranks; rounded up to a multiple of their number.
        network: arguments of DLRM but the columns, tables, widths and seed; and mixed_dims, 0 unless given.
        optimization: arguments of TrainStep but the model and the factors.
        schedule: arguments of rate_factors but the steps.
        options: are kept beside the checkpoint.
        ranks: that train together; each calls this with the same arguments but for its number.
        all_to_all: whether the device has this operation.
        kernels: the compiled operators, if they are to be used.
        resume_stopped: the option resume.
        callbacks: called beside this module's own.
        The other arguments are the options of the same names.

    Raises:
        InputError: too few rows, a checkpoint or a stopped run with other options in the way, or a loss that is not
            finite.
    """
    batch_size = _rounded_up(batch_size, ranks.size)
    batches = batches_of(
        data, "train", batch_size, shuffle=shuffle, drop_last=True, seed=seed, rank=ranks.rank, ranks=ranks.size
    )
    if not len(batches):
        raise InputError(f"batch_size is {batch_size}, but there are only {batches.rows} training rows: lower it")
    part = evaluation_part(data, early_stopping) if do_eval else ""
    eval_batches: Any = batches_of(data, part, eval_batch_size) if do_eval else ()
    if part == "test":
        print("no validation rows: test rows are evaluated, and choose nothing; the last network is kept", flush=True)
    if ranks.rank:
        loss_file_name = eval_file_name = metrics_file_name = os.devnull
    open_logs(loss_file_name, metrics_file_name, *([eval_file_name] if do_eval else []))
    fields, rows = data.manifest.fields, data.manifest.table_rows
    network = dict(network)
    widths = _widths(rows, emb_dim, network.pop("mixed_dims", 0.0))
    placement = place(widths.packed_rows, parallel_mode, ranks.size)
    with (
        run_folder.Run(ckpt_path, data, options, overwrite=overwrite, resume=resume_stopped, ranks=ranks) as run,
        contextlib.ExitStack() as ending,
    ):
        state = _stopped(run, fields, widths.packed_rows, ranks, batch_size)
        begin = state.progress if state else resume.Progress(f"{datetime.now():%Y-%m-%dT%H:%M:%S}", batch_size)
        fill = state.tables() if state else initial_values(rows, seed)
        tables, exchange = make_tables(placement, ranks.rank, emb_dim, fill, kernels, all_to_all)
        model = DLRM(len(data.manifest.inputs), tables, seed=seed, widths=widths, **network)
        steps = epochs * len(batches)
        factors = rate_factors(steps=steps, **schedule)
        step = TrainStep(model, **optimization, factors=None if np.all(factors == 1) else factors, exchange=exchange,
                         seed=seed, average_from=_average_from(steps, average_share))  # fmt: skip
        metrics_file, clock = MetricsFile(metrics_file_name, begin.run), TrainingClock()
        run_report = None
        if report:
            metrics_file = run_report = ending.enter_context(
                _report(metrics_file, run, step, factors, ranks, {
                    "steps": steps, "options": yaml.safe_load(options.text), "data": data_content(data)})
            )  # fmt: skip
            run_report.go_on_from(begin.step)
        else:
            forget(run.path)
        if state:
            state.restore(step)
            print(f"going on from step {begin.step} of {steps}, which {run.path} holds", flush=True)
            metrics_file.write("resume", step=begin.step)

        def save_network(at_step: int) -> None:
            step.with_average(lambda: checkpoint.save(model, fields, run.best(at_step), ranks))

        def save_state(at_step: int) -> None:
            done = replace(begin, step=at_step)
            if part == "valid":
                done = replace(done, best=evaluations.best, best_step=evaluations.best_step,
                               waited=evaluations.waited)  # fmt: skip
            if run_report:
                run_report.save("unfinished")
            resume.save(run, step, fields, done, ranks)

        steps_of_part = max(1, len(batches) // _PARTS_OF_AN_EPOCH)
        losses = LossCallBack(loss_file_name, metrics_file, log_steps, batch_size, clock)
        evaluations = EvalCallBack(
            lambda: step.with_average(lambda: evaluate(model, eval_batches, eval_batch_size, ranks)), save_network,
            part, eval_file_name, metrics_file, eval_steps or steps_of_part, clock, begin.best, begin.best_step,
            early_stopping, begin.waited,
        )  # fmt: skip
        going_on = ResumeCallBack(begin.step, epochs, save_state, save_steps or steps_of_part, clock)
        resets = EpochCallBack(lambda epoch: step.reset_tables(initial_values(rows, seed, epoch)))
        used = [going_on, *([resets] if reset_tables_each_epoch else []), losses, *([evaluations] if do_eval else [])]
        batches.go_to(begin.step)
        with held_back() as first_step_done:
            Model(step).train(
                epochs, TrainingDataset(batches), [FirstStepCallBack(first_step_done), *used, *callbacks],
                dataset_sink_mode=False, initial_epoch=begin.step // len(batches),
            )  # fmt: skip
        kept_step = evaluations.best_step
        if not do_eval:
            kept_step = losses.steps
            save_network(kept_step)
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        if run_report:
            if do_eval and (kept_step != losses.steps or average_share):  # what is kept, not what is at hand
                checkpoint.restore(model, run.best(kept_step), fields)
            scored, content = evaluation_content(
                model, data, part, eval_batches, eval_batch_size, ranks, importance_rows=importance_rows, seed=seed
            ) if do_eval else (None, {})  # fmt: skip
            run_report.finish({
                "steps": losses.steps, "kept_step": kept_step, "samples_per_s": losses.mean_samples_per_s,
                "peak_memory_mb": peak_mb, "kept_for": "best AUC" if part == "valid" else "the last one",
            }, scored, content)  # fmt: skip
        path = run.finish(kept_step)
    result = TrainingResult(evaluations.best, evaluations.best_step, losses.steps, losses.mean_samples_per_s,
                            peak_mb, path)  # fmt: skip
    metrics_file.write("end", steps=result.steps, samples_per_s=result.samples_per_s,
                       peak_memory_mb=result.peak_memory_mb, best_step=result.best_step,
                       **_why_ended(evaluations))  # fmt: skip
    return result
