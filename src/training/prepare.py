"""What a training run works on, before anything is made: what it is to do, its rows, and its plan over the ranks."""

from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass

import numpy as np

from src.base.errors import InputError
from src.base.logs import open_logs
from src.checkpoints import run_folder
from src.data.manifest import DataFolder, Manifest, dense_dim_of, find, has_fields
from src.dataset import RowBatches, batches_of, sample
from src.dlrm import activation_values, mlp_values
from src.metrics.labels import one_label, sorted_by_label
from src.metrics.monitored import MONITORED
from src.model_utils.config import DeviceSpec
from src.model_utils.device_target import check_products, set_device, start_ranks
from src.network.compiled import operators_for
from src.network.mixed_dims import Widths, widths_of
from src.network.options import ComputeSpec, NetworkSpec
from src.network.stock import update_values
from src.ranks.group import ONE_RANK, Ranks
from src.ranks.options import ParallelSpec
from src.ranks.placement import Placement, place, plan, plan_lines, received_values
from src.ranks.transport import uses_ucx
from src.training.options import DataSpec, EvaluationSpec, KeptSpec, OptimizationSpec, ScheduleSpec
from src.training.schedule import rate_factors

_DISK_MB_S = 200  # of a plan
_LABELS_LOOKED_AT = 1 << 16


@dataclass(frozen=True)
class Runtime:
    """What a run is computed on: the device, how, and the processes that train together, of which this is one."""

    device: DeviceSpec = DeviceSpec("CPU")
    compute: ComputeSpec = ComputeSpec()
    parallel: ParallelSpec = ParallelSpec()
    ranks: Ranks = ONE_RANK


@dataclass(frozen=True)
class Specs:
    """What a run is to do."""

    data: DataSpec
    network: NetworkSpec
    optimization: OptimizationSpec
    schedule: ScheduleSpec
    evaluation: EvaluationSpec
    kept: KeptSpec
    runtime: Runtime

    @property
    def options(self) -> tuple[object, ...]:
        """The specs whose options are kept beside the checkpoint."""
        own = [spec for spec in vars(self).values() if not isinstance(spec, Runtime)]
        return (self.runtime.device, self.runtime.parallel, self.runtime.compute, *own)

    def saved(self) -> run_folder.RunOptions:
        """These options as they are kept."""
        return run_folder.RunOptions.of(*self.options)


def start(
    device: DeviceSpec | None = None, compute: ComputeSpec | None = None, parallel: ParallelSpec | None = None
) -> Runtime:
    """Set MindSpore up for a device, by default the CPU, and join the processes of a run.

    Raises:
        InputError: there is no such device, or this process was started as one of several where it should not, or not.
    """
    device, compute, parallel = device or DeviceSpec("CPU"), compute or ComputeSpec(), parallel or ParallelSpec()
    set_device(device.device_target, device.device_id)
    check_products(compute.compute_dtype)
    return Runtime(device, compute, parallel, Ranks(*start_ranks(parallel.parallel_mode)))


@dataclass(frozen=True)
class Prepared:
    """What a run works on, before anything is made.

    Attributes:
        specs: what to do.
        folder: the data.
        batches: training rows; batch_size is that of all ranks, a multiple of their number.
        part: name of the rows that are evaluated, "" for none; eval_batches has them.
        widths, placement: of the tables.
        factors: of the learning rates, one a step of the whole training.
    """

    specs: Specs
    folder: DataFolder
    batches: RowBatches
    batch_size: int
    part: str
    eval_batches: RowBatches | None
    widths: Widths
    placement: Placement
    factors: np.ndarray

    @property
    def dense_dim(self) -> int:
        """How many numeric inputs the network takes."""
        return dense_dim_of(self.folder.manifest)

    @property
    def has_fields(self) -> bool:
        """Whether the network takes fields."""
        return has_fields(self.folder.manifest)

    @property
    def steps(self) -> int:
        """Of the whole training."""
        return len(self.factors)

    def batch(self, number: int) -> list[np.ndarray]:
        """The columns of a step's batch, from 0, of all ranks."""
        again, ranks = copy(self.batches), self.specs.runtime.ranks
        again.go_to(number)
        own = next(iter(again))
        return [ranks.gather(np.ascontiguousarray(column)).reshape(-1, column.shape[1]) for column in own]


def prepare(specs: Specs) -> Prepared:
    """Find the rows, see that there are enough, and open the logs.

    Raises:
        InputError: there are not; OSError: a log can't be written.
    """
    data, evaluation, kept, ranks = specs.data, specs.evaluation, specs.kept, specs.runtime.ranks
    folder = training_folder(data)
    if data.unseen_share and (folder.manifest.options.get("hash_rows") or not folder.manifest.categorical):
        raise InputError(
            f"unseen_share {data.unseen_share} has no effect where no value is unseen, as with hash_rows: drop it"
        )
    batch_size = _rounded_up(data.batch_size, ranks.size)
    batches = batches_of(
        folder, "train", batch_size, shuffle=data.shuffle, drop_last=True, seed=data.seed, rank=ranks.rank,
        ranks=ranks.size, unseen_share=data.unseen_share,
    )  # fmt: skip
    if not specs.optimization.dropout:  # which follows from a sample's place in the batch
        batches.deal()
    if not len(batches):
        raise InputError(f"batch_size is {batch_size}, but there are only {batches.rows} training rows: lower it")
    part = evaluation_part(folder, evaluation.early_stopping) if evaluation.do_eval else ""
    if part == "test":
        print("no validation rows: test rows are evaluated, and choose nothing; the last network is kept", flush=True)
    if ranks.rank == 0:
        for line in about_rows(folder.manifest):
            print(line, flush=True)
        for line in _about_labels(folder, batches, part, evaluation.monitor):
            print(f"warning: {line}", flush=True)
        open_logs(kept.loss_file_name, kept.metrics_file_name, *([kept.eval_file_name] if part else []))
    widths = _widths(folder, specs.network)
    if ranks.rank == 0 and evaluation.early_stopping:
        _tell_what_may_not_begin(specs.schedule, len(batches))
    return Prepared(
        specs,
        folder,
        batches,
        batch_size,
        part,
        batches_of(folder, part, evaluation.eval_batch_size) if part else None,
        widths,
        place(widths.packed_rows, specs.runtime.parallel.parallel_mode, ranks.size, folder.manifest.layout.uses),
        _factors(specs.schedule, len(batches)),
    )


def about_rows(manifest: Manifest) -> Iterator[str]:
    """What is to be known of how rows count."""
    if manifest.weight:
        yield f"weighted by column {manifest.weight}: the loss and all metrics are weighted means"
    if one := manifest.negatives:
        yield (
            f"{one.kept} of {one.rows} training rows without a click are kept: the loss of training is of these rows, "
            f"and scores are of all, with logits {one.shift:+.4f}"
        )


def _about_labels(folder: DataFolder, batches: RowBatches, part: str, monitor: str) -> Iterator[str]:
    """What labels say before anything is trained, where they are in the way of it."""
    parts, remedy = folder.manifest.parts, "if raw rows are sorted by label, shuffle their lines and preprocess again"
    if one := one_label(parts["train"].label_mean, parts["train"].rows, "train"):
        yield f"{one}, so there is nothing to learn; {remedy}"
    elif one := sorted_by_label(sample(batches.source, _LABELS_LOOKED_AT)[2]):
        yield f"{one}; the last rows validate and test; {remedy}"
    if part and (one := one_label(parts[part].label_mean, parts[part].rows, part)):
        chosen = "" if part == "test" or MONITORED[monitor].knows_one_label else (
            f", and the last network is kept, as {MONITORED[monitor].shown} can't choose"
        )  # fmt: skip
        yield f"{one}, so they have no AUC{chosen}; {remedy}"


def training_folder(data: DataSpec) -> DataFolder:
    """The data folder whose train part is to train.

    Raises:
        InputError: there is none, another part of it is named, or it has no rows to train on.
    """
    folder = find(data.dataset_path)
    if folder.named_part not in (None, "train"):
        raise InputError(
            f"dataset_path {data.dataset_path} is the {folder.named_part} part: train.py trains on the train "
            f"part, so give {folder.path} or {folder.path / 'train'}"
        )
    if "train" not in folder.manifest.parts:
        raise InputError(
            f"dataset_path {data.dataset_path} has no training rows, only {', '.join(folder.manifest.parts)}: rows "
            f"that were coded with --vocab_path are for tests; preprocess without it to train"
        )
    return folder


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


def _widths(folder: DataFolder, network: NetworkSpec) -> Widths:
    rows = folder.manifest.rows_of_tables
    widths = widths_of(rows, network)
    if network.mixed_dims and not widths.projections:
        raise InputError(
            f"mixed_dims {network.mixed_dims} has no effect: the tables, of {min(rows)} to {max(rows)} rows, all "
            f"get the full width; give a higher one or drop it"
        )
    return widths


def _tell_what_may_not_begin(schedule: ScheduleSpec, steps_of_epoch: int) -> None:
    """Say what stands at the end of a training that early_stopping may end before."""
    steps = schedule.epochs * steps_of_epoch
    decay_share = 0.0 if schedule.restart_lr_each_epoch else schedule.decay_share
    shares = {"the decay of the rates": decay_share, "the averaging of weights": schedule.average_share}
    begins = [f"{what} begins behind step {round((1 - share) * steps)}" for what, share in shares.items() if share]
    if begins:
        print(f"early_stopping may end the training before: {', '.join(begins)} of {steps}", flush=True)


def _rounded_up(batch_size: int, ranks: int) -> int:
    """The next multiple of the number of ranks, so that each has as many samples as the others."""
    rounded = -(-batch_size // ranks) * ranks
    if rounded != batch_size:
        print(f"batch_size is rounded up to {rounded}, a multiple of the {ranks} ranks", flush=True)
    return rounded


def _factors(schedule: ScheduleSpec, steps_of_epoch: int) -> np.ndarray:
    """Of the learning rates, [steps]."""
    return rate_factors(
        schedule.lr_schedule, schedule.epochs * steps_of_epoch, schedule.warmup_steps, schedule.decay_steps,
        schedule.lr_end_factor, schedule.lr_power, schedule.decay_share,
        schedule.epochs if schedule.restart_lr_each_epoch else 1,
    )  # fmt: skip


def print_plan(
    data: DataSpec, network: NetworkSpec, optimization: OptimizationSpec, schedule: ScheduleSpec,
    evaluation: EvaluationSpec, runtime: Runtime, kept: KeptSpec = KeptSpec(),
) -> None:  # fmt: skip
    """Print what each rank would hold and send, and what saves would write; of the runtime nothing is started.

    Raises:
        InputError: a rank would need more memory than a device has.
    """
    folder, parallel, device_target = training_folder(data), runtime.parallel, runtime.device.device_target
    inputs, width = dense_dim_of(folder.manifest), network.emb_dim
    fields = len(folder.manifest.fields) if has_fields(folder.manifest) else 0
    widths = _widths(folder, network)
    placement = place(widths.packed_rows, parallel.parallel_mode, parallel.ranks, folder.manifest.layout.uses)
    values = mlp_values(inputs, fields, network) + widths.projection_values
    rule = optimization.rules[0]
    states, row_values, update = rule.state_values(width), 0, 0
    if device_target != "CPU":  # whose compiled operators update row by row
        primitives = operators_for(device_target, False).primitives
        may_skip = runtime.compute.compute_dtype == "float16"
        row_values, update = update_values(rule, optimization.table_weight_decay, width, primitives, may_skip)
    mlp_states = len(optimization.rules[1].states)
    # Values and gradients of the MLPs, their optimizer's states, and the mean of their values.
    copies = 2 + mlp_states
    network_values = values * (copies + bool(schedule.average_share))
    batch = _rounded_up(data.batch_size, placement.ranks)
    more_ids = placement.ids - len(folder.manifest.fields)  # of lists, whose vectors are masked and pooled
    sample_values = activation_values(inputs, fields, network) + more_ids * (1 + 2 * width)
    sample_values += 4 * placement.ids * width if widths.projections else 0  # as packed, turned, projected, turned back
    of_step = 2 * batch // placement.ranks * sample_values  # and their gradients
    ucx = runtime.compute.cpu_kernels and uses_ucx(parallel, device_target)
    of_step += received_values(placement, batch, width, device_target, True, ucx)
    of_step += values if placement.ranks > 1 else 0  # the gradients of the MLPs, in one message
    of_step += batch * (placement.slots if parallel.parallel_mode == "hybrid" else placement.ids) * update
    of_evaluation = 0
    if evaluation.do_eval and set(folder.manifest.parts) & {"valid", "test"}:
        together = evaluation.eval_batch_size * placement.ranks  # each rank scores a batch at a time
        of_evaluation = evaluation.eval_batch_size * sample_values
        of_evaluation += received_values(placement, together, width, device_target, False, ucx)
    network_mb = 4 * (network_values + max(of_step, of_evaluation)) / 2**20
    wire_bytes = (4 if parallel.wire_dtype == "float32" else 2) if ucx else 0
    planned = plan(placement, batch, width, values, states + row_values, device_target, network_mb, wire_bytes)
    print("\n".join(plan_lines(placement, planned, optimization.optimizer, batch)))
    if placement.ranks > 1 and ucx:
        print("they send by UCX, on average no more than this: as if all rows of a table came equally often")
    larger = "a training step" if of_step > of_evaluation else "an evaluation, by --eval_batch_size"
    print(f"on each rank {network_mb:,.1f} MB of MLPs, their optimizer and the values of a batch, those of {larger}")
    best_mb = (sum(widths.packed_rows) * width + values) * 4 / 2**20
    state_mb = best_mb + (sum(widths.packed_rows) * states + values * mlp_states) * 4 / 2**20
    print(_plan_of_saves(best_mb, state_mb, kept))
    if parallel.device_memory_mb and max(planned.memory_mb) > parallel.device_memory_mb:
        raise InputError(
            f"a device's {parallel.device_memory_mb} MB can't hold the {max(planned.memory_mb):.0f} MB of a rank: give "
            f"more ranks with parallel_mode hybrid, an optimizer that keeps less, or smaller batches"
        )


def _plan_of_saves(best_mb: float, state_mb: float, kept: KeptSpec) -> str:
    """What saves would write, in words; while a network or state is written there is one more than is kept."""
    most_mb = (kept.keep_states + 1) * (state_mb + best_mb) + best_mb
    often = f"every {kept.save_minutes:g} minutes" if not kept.save_steps else f"save_steps {kept.save_steps}"
    return (
        f"saves: a state of {state_mb:,.1f} MB ({often}), a best network of {best_mb:,.1f} MB; at {_DISK_MB_S} MB/s "
        f"they take {state_mb / _DISK_MB_S:,.1f} and {best_mb / _DISK_MB_S:,.1f} s; up to {most_mb:,.0f} MB of disk "
        f"with keep_states {kept.keep_states}"
    )
