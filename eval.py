"""Evaluate a checkpoint: `python eval.py --dataset_path=dataset/test --checkpoint_path=./checkpoint/dlrm.ckpt`."""

if __name__ == "__main__":
    from src.base.stops import end_at_once

    end_at_once()

import math
from collections.abc import Sequence

from src.base.errors import run
from src.checkpoints.names import file_of, folder_of
from src.data.manifest import find
from src.model_utils.local_adapter import is_rank
from src.model_utils.moxing_adapter import job
from src.options import EvalOptions, resolve


def main(argv: Sequence[str]) -> None:
    """Evaluate as the command line says: the named part of the data, or else test."""
    options = resolve(EvalOptions, argv)
    score = options.score
    with job(options.modelarts, score.dataset_path, folder_of(score.checkpoint_path), options.logs.results):
        if options.modelarts.enable_modelarts:  # a checkpoint that only now is there has options beside it
            options = resolve(EvalOptions, argv)
        # That of a YAML file may be its training's, whose checkpoint one process evaluates as well.
        shares = is_rank() or any(word.startswith("--parallel_mode") for word in argv)
        evaluate(options, options.parallel.parallel_mode if shares else "none")


def evaluate(options: EvalOptions, parallel_mode: str) -> None:
    """Score the rows, by this process or as one of several ranks, and log and print their metrics."""
    score, logs = options.score, options.logs
    if parallel_mode != "none":
        options.device.check_ranks()
    data = find(score.dataset_path)
    part = data.part_to_score()
    path = file_of(score.checkpoint_path)
    # Imported here, so that a mistake does not wait for MindSpore.
    from src.base.logs import MetricsFile, append_line, evaluation_line, figure, open_logs, phase, warn
    from src.ranks.options import ParallelSpec
    from src.report.content import later_content
    from src.report.files import Scored, take_up
    from src.training.evaluation import evaluate_checkpoint
    from src.training.prepare import start

    runtime = start(options.device, options.compute, ParallelSpec(parallel_mode))
    with phase(f"scoring {part} rows"):
        found = evaluate_checkpoint(
            path, data, part, options.network, runtime, score.eval_batch_size,
            lambda: open_logs(logs.eval_file_name, logs.metrics_file_name),
        )  # fmt: skip
    if found is None:  # the first rank tells
        return
    line, auc = evaluation_line(found.metrics, found.seconds), found.auc
    append_line(logs.eval_file_name, line)
    MetricsFile(logs.metrics_file_name, str(path)).write(
        "eval", part=part, rows=found.rows, **found.metrics, **found.beside
    )
    take_up(path, later_content(data, part, Scored(*found.scores), found.intervals))
    if part == "train" and (one := data.manifest.negatives):
        print(f"{part}: {one.kept} of {one.rows} rows without a click are kept, and metrics are of these")
    print(f"{part}: {found.rows} rows{data.manifest.weighting}, {line}")
    if found.warning:
        warn(found.warning)
    shown = ", ".join(f"{name} {figure(value, 4)}" for name, value in found.more.items())
    between = f"auc between {figure(auc.low, 4)} and {figure(auc.high, 4)} in 95 of 100 resamples"
    print(f"{part}: {between if math.isfinite(auc.low) else 'auc not known'}, {shown}")


if __name__ == "__main__":
    run(main)
