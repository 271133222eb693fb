"""Train DLRM: `python train.py --dataset_path=./data/dataset --device_target=CPU`."""

from collections.abc import Sequence
from pathlib import Path

from src.base.errors import InputError, run
from src.data.manifest import find
from src.model_utils.config import FREE_OPTIONS, SAVED_OPTIONS, Config, resolve

_OPTIMIZATION = (
    "optimizer", "mlp_optimizer", "table_weight_decay", "mlp_weight_decay", "dropout", "label_smoothing",
)  # fmt: skip


def main(argv: Sequence[str]) -> None:
    """Train as the command line says, and print what came of it."""
    config = resolve("train", argv)
    # Imported here, so that a mistake on the command line does not wait for MindSpore.
    import mindspore as ms

    from src.model_utils.device_target import set_device, start_ranks
    from src.network import cpu_kernels
    from src.ranks.group import Ranks
    from src.ranks.placement import has_all_to_all
    from src.run import print_plan, train
    from src.training.run_folder import RunOptions

    data = find(config.dataset_path)
    if data.named_part not in (None, "train"):
        raise InputError(
            f"dataset_path {config.dataset_path} is the {data.named_part} part: train.py trains on the train "
            f"part, so give {data.path} or {data.path / 'train'}"
        )
    if config.plan_only:
        print_plan(data, config.parallel_mode, config.ranks, config.batch_size, config.optimizer, config.device_target,
                   config.device_memory_mb, **config.network())  # fmt: skip
        return
    set_device(config.device_target, config.device_id)
    ranks = Ranks(*start_ranks(config.parallel_mode))
    result = train(
        data,
        Path(config.ckpt_path),
        epochs=config.epochs,
        batch_size=config.batch_size,
        seed=config.seed,
        shuffle=config.shuffle,
        do_eval=config.do_eval,
        eval_steps=config.eval_steps,
        eval_batch_size=config.eval_batch_size,
        log_steps=config.log_steps,
        loss_file_name=config.loss_file_name,
        eval_file_name=config.eval_file_name,
        metrics_file_name=config.metrics_file_name,
        emb_dim=config.emb_dim,
        network=config.network() | {"compute_dtype": getattr(ms, config.compute_dtype)},
        optimization={
            "learning_rate": config.lr,
            "table_learning_rate": config.table_lr or config.lr,
            **{name: getattr(config, name) for name in _OPTIMIZATION},
            "loss_scale": config.loss_scale if config.compute_dtype == "float16" else 1.0,
        },
        schedule={
            "schedule": config.lr_schedule,
            "warmup_steps": config.warmup_steps,
            "decay_steps": config.decay_steps,
            "decay_share": config.decay_share,
            "cycles": config.epochs if config.restart_lr_each_epoch else 1,
            "end_factor": config.lr_end_factor,
            "power": config.lr_power,
        },
        parallel_mode=config.parallel_mode,
        ranks=ranks,
        all_to_all=has_all_to_all(config.device_target),
        kernels=cpu_kernels.load() if config.device_target == "CPU" and config.cpu_kernels else None,
        options=RunOptions(SAVED_OPTIONS, config.to_yaml("train"), FREE_OPTIONS, Config().to_yaml("train")),
        overwrite=config.overwrite,
        resume_stopped=config.resume,
        save_steps=config.save_steps,
        reset_tables_each_epoch=config.reset_tables_each_epoch,
        early_stopping=config.early_stopping,
        average_share=config.average_share,
        report=config.report,
        importance_rows=config.importance_rows,
    )
    print(f"{result.steps} steps, {result.samples_per_s:.0f} samples/s, peak memory {result.peak_memory_mb:.0f} MB")
    if result.best:
        print(f"best evaluation, at step {result.best_step}: {result.best.as_dict()}")
    if config.report:
        print(f"report: {result.checkpoint.with_name('report.html')}")
    print(f"checkpoint: {result.checkpoint}")


if __name__ == "__main__":
    run(main)
