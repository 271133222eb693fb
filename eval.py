"""Evaluate a checkpoint: `python eval.py --dataset_path=dataset/test --checkpoint_path=./checkpoint/dlrm.ckpt`."""

import time
from collections.abc import Sequence

from src.base.errors import run
from src.model_utils.config import resolve


def main(argv: Sequence[str]) -> None:
    """Evaluate as the command line says: the named part of the data, or else test."""
    config = resolve("eval", argv)
    # Imported here, so that a mistake on the command line does not wait for MindSpore.
    import mindspore as ms

    from src.base.logs import MetricsFile, append_line, evaluation_line, open_logs
    from src.data.manifest import find
    from src.dataset import batches_of
    from src.metrics.binary import binary_metrics
    from src.metrics.bootstrap import intervals
    from src.metrics.curves import quality
    from src.model_utils.device_target import set_device
    from src.network import cpu_kernels
    from src.training import checkpoint
    from src.training.evaluation import finite_score

    data = find(config.dataset_path)
    part = data.part_to_score()
    set_device(config.device_target, config.device_id)
    path = checkpoint.file_of(config.checkpoint_path)
    checkpoint.check_encoder(path, data)
    model = checkpoint.load(
        path,
        data.manifest.fields,
        data.manifest.table_rows,
        config.emb_dim,
        cpu_kernels.load() if config.device_target == "CPU" and config.cpu_kernels else None,
        dense_dim=len(data.manifest.inputs),
        **config.network(),
        compute_dtype=getattr(ms, config.compute_dtype),
    )
    batches = batches_of(data, part, config.eval_batch_size)
    open_logs(config.eval_file_name, config.metrics_file_name)
    begin = time.perf_counter()
    labels, logits = finite_score(model, batches, config.eval_batch_size)
    metrics = binary_metrics(labels, logits)
    seconds = time.perf_counter() - begin
    rows = data.manifest.parts[part].rows
    auc, more = intervals(labels, logits)["auc"], quality(labels, logits)
    append_line(config.eval_file_name, evaluation_line(metrics.as_dict(), seconds))
    MetricsFile(config.metrics_file_name, str(path)).write(
        "eval", part=part, rows=rows, **metrics.as_dict(), eval_s=seconds, auc_low=auc.low, auc_high=auc.high, **more
    )
    print(f"{part}: {rows} rows, {evaluation_line(metrics.as_dict(), seconds)}")
    shown = ", ".join(f"{name} {value:.4f}" for name, value in more.items())
    print(f"{part}: auc between {auc.low:.4f} and {auc.high:.4f} in 95 of 100 resamples, {shown}")


if __name__ == "__main__":
    run(main)
