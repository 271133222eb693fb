"""A training run: a fresh network, one or more epochs, evaluations on the way, and the best checkpoint kept."""

import resource
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import mindspore as ms
from mindspore.train import Callback, Model

from src import checkpoint
from src.callback import EvalCallBack, LossCallBack, MetricsFile, TrainingClock
from src.dataset import RowBatches, training_dataset
from src.dlrm import DLRM
from src.embedding import EmbeddingTables, initial_rows
from src.errors import InputError
from src.evaluation import evaluate
from src.manifest import DataFolder
from src.metrics import Metrics
from src.train_step import TrainStep


@dataclass(frozen=True)
class TrainingResult:
    """What a run gave: its best evaluation (None without any), throughput, and the process's largest memory."""

    best: Metrics | None
    best_step: int
    steps: int
    samples_per_s: float
    peak_memory_mb: float
    checkpoint: Path


def evaluation_part(data: DataFolder) -> str:
    """The part that is evaluated while training: validation rows, or test rows where the split has no others.

    Raises:
        InputError: the data folder has neither.
    """
    for part in ("valid", "test"):
        if part in data.manifest.parts:
            return part
    raise InputError(
        f"data folder {data.path} has neither validation nor test rows: preprocess at least 7 rows, or give "
        f"--do_eval=False"
    )


def batches_of(data: DataFolder, part: str, batch_size: int, **options: Any) -> RowBatches:
    """The rows of a part of a data folder in batches; options as for RowBatches."""
    shards, shard_rows = data.shards(part)
    return RowBatches(
        shards, sum(shard_rows), len(data.manifest.dense), len(data.manifest.categorical), batch_size, **options
    )


def train(
    data: DataFolder,
    ckpt_path: Path,
    *,
    epochs: int,
    batch_size: int,
    lr: float,
    seed: int,
    shuffle: bool,
    loss_scale: float,
    do_eval: bool,
    eval_steps: int,
    eval_batch_size: int,
    log_steps: int,
    loss_file_name: str,
    eval_file_name: str,
    metrics_file_name: str,
    emb_dim: int,
    network: dict[str, Any],
    callbacks: Sequence[Callback] = (),
) -> TrainingResult:
    """Train a fresh network on a data folder.

    Args:
        data: the data.
        ckpt_path: folder of the checkpoint, which `checkpoint.start_folder` has made.
        network: arguments of DLRM but the columns, tables and seed.
        callbacks: called beside this module's own.
        The other arguments are the options of the same names.
    """
    manifest = data.manifest
    batches = batches_of(data, "train", batch_size, shuffle=shuffle, drop_last=True, seed=seed)
    if not len(batches):
        raise InputError(f"batch_size is {batch_size}, but there are only {batches.rows} training rows: lower it")
    eval_batches = batches_of(data, evaluation_part(data), eval_batch_size) if do_eval else ()
    tables = EmbeddingTables(manifest.table_rows, initial_rows(manifest.table_rows, emb_dim, seed))
    model = DLRM(len(manifest.dense), tables, seed=seed, **network)
    scale = loss_scale if network["compute_dtype"] == ms.float16 else 1.0
    step = TrainStep(model, lr, scale)

    def save() -> None:
        checkpoint.save(model, manifest.categorical, ckpt_path / checkpoint.CHECKPOINT)

    metrics_file = MetricsFile(metrics_file_name, f"{datetime.now():%Y-%m-%dT%H:%M:%S}")
    clock = TrainingClock()
    loss_callback = LossCallBack(loss_file_name, metrics_file, log_steps, batch_size, clock)
    eval_callback = EvalCallBack(
        lambda: evaluate(model, eval_batches, eval_batch_size), save, eval_file_name, metrics_file, eval_steps, clock
    )
    used = [loss_callback, *([eval_callback] if do_eval else []), *callbacks]
    Model(step).train(epochs, training_dataset(batches), callbacks=used, dataset_sink_mode=False)
    if not do_eval:
        save()
    steps = len(batches) * epochs
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    result = TrainingResult(
        eval_callback.best,
        eval_callback.best_step,
        steps,
        loss_callback.mean_samples_per_s(steps),
        peak_mb,
        ckpt_path / checkpoint.CHECKPOINT,
    )
    metrics_file.write(
        "end", steps=steps, samples_per_s=result.samples_per_s, peak_memory_mb=peak_mb, best_step=result.best_step
    )
    return result
