"""Evaluate a checkpoint: `python eval.py --dataset_path=dataset/test --checkpoint_path=./checkpoint/dlrm.ckpt`."""

import math
import time
from collections.abc import Sequence

from src.base.errors import run
from src.checkpoints.names import file_of, folder_of
from src.data.manifest import find
from src.model_utils.moxing_adapter import job
from src.options import EvalOptions, resolve


def main(argv: Sequence[str]) -> None:
    """Evaluate as the command line says: the named part of the data, or else test."""
    options = resolve(EvalOptions, argv)
    score = options.score
    with job(options.modelarts, score.dataset_path, folder_of(score.checkpoint_path), options.logs.results):
        # Again, for a checkpoint that only now is there has options beside it.
        evaluate(resolve(EvalOptions, argv) if options.modelarts.enable_modelarts else options)


def evaluate(options: EvalOptions) -> None:
    """Score the rows, and log and print their metrics."""
    device, compute, score, logs = options.device, options.compute, options.score, options.logs
    data = find(score.dataset_path)
    part = data.part_to_score()
    path = file_of(score.checkpoint_path)
    # Imported here, so that a mistake does not wait for MindSpore.
    import mindspore as ms

    from src.base.logs import MetricsFile, append_line, evaluation_line, figure, open_logs, warn
    from src.checkpoints import checkpoint
    from src.data.known_values import unmatched_of, warning
    from src.dataset import batches_of
    from src.metrics.bootstrap import intervals
    from src.metrics.curves import quality
    from src.metrics.monitored import measured
    from src.model_utils.device_target import check_products, set_device
    from src.network.compiled import operators_for
    from src.training.evaluation import finite_score

    set_device(device.device_target, device.device_id)
    check_products(compute.compute_dtype)
    checkpoint.check_encoder(path, data)
    operators = operators_for(device.device_target, compute.cpu_kernels)
    model = checkpoint.load(path, data.manifest, options.network, operators, getattr(ms, compute.compute_dtype))
    batches = batches_of(data, part, score.eval_batch_size)
    open_logs(logs.eval_file_name, logs.metrics_file_name)
    begin = time.perf_counter()
    labels, logits, *others = finite_score(model, batches, score.eval_batch_size)
    weights = others[0] if others else None
    metrics = measured(labels, logits, weights)
    seconds = time.perf_counter() - begin
    rows = data.manifest.parts[part].rows
    auc, more = intervals(labels, logits, weights=weights)["auc"], quality(labels, logits, weights)
    append_line(logs.eval_file_name, evaluation_line(metrics, seconds))
    MetricsFile(logs.metrics_file_name, str(path)).write(
        "eval", part=part, rows=rows, **metrics, eval_s=seconds, auc_low=auc.low, auc_high=auc.high, **more
    )
    weighted = f" weighted by column {data.manifest.weight}" if data.manifest.weight else ""
    if part == "train" and (one := data.manifest.negatives):
        print(f"{part}: {one.kept} of {one.rows} rows without a click are kept, and metrics are of these")
    print(f"{part}: {rows} rows{weighted}, {evaluation_line(metrics, seconds)}")
    if found := unmatched_of(data.manifest, part, checkpoint.manifest_beside(path)):
        warn(warning(f"{part} rows", found))
    shown = ", ".join(f"{name} {figure(value, 4)}" for name, value in more.items())
    between = f"auc between {figure(auc.low, 4)} and {figure(auc.high, 4)} in 95 of 100 resamples"
    print(f"{part}: {between if math.isfinite(auc.low) else 'auc not known'}, {shown}")


if __name__ == "__main__":
    run(main)
