"""Train DLRM: `python train.py --dataset_path=./data/dataset --device_target=CPU`."""

if __name__ == "__main__":
    from src.base.stops import end_at_once

    end_at_once()

from collections.abc import Sequence
from pathlib import Path

from src.base.errors import run
from src.data.manifest import find
from src.model_utils.moxing_adapter import job
from src.options import TrainOptions, resolve


def main(argv: Sequence[str]) -> None:
    """Train as the command line says, and print what came of it."""
    options = resolve(TrainOptions, argv)
    if options.parallel.plan_only:
        from src.training.prepare import Runtime, print_plan

        print_plan(options.data, options.network, options.optimization, options.schedule, options.evaluation,
                   Runtime(options.device, options.compute, options.parallel), options.kept)  # fmt: skip
        return
    kept = options.kept
    with job(options.modelarts, options.data.dataset_path, Path(kept.ckpt_path), kept.results):
        # A mistake is found before the ranks meet, and one on the command line before MindSpore is imported.
        folder = find(options.data.dataset_path)
        if options.parallel.parallel_mode == "none":  # else rank 0 decides for all
            options.check_place(folder)
        from src.base.logs import speed
        from src.run import train
        from src.training.prepare import start, training_folder

        training_folder(options.data)
        runtime = start(options.device, options.compute, options.parallel)
        result = train(options.data, options.network, options.optimization, options.schedule, options.evaluation,
                       kept, runtime)  # fmt: skip
    wall = result.wall_samples_per_s
    with_all = f" ({wall:.0f} with evaluations and saves)" if wall > 0 else ""
    print(f"{result.steps} steps, {speed(result.samples_per_s)}{with_all}, peak memory {result.peak_memory_mb:.0f} MB")
    if result.best:
        print(f"best evaluation, at step {result.best_step}: {result.best}")
    if options.kept.report:
        print(f"report: {result.checkpoint.with_name('report.html')}")
    print(f"checkpoint: {result.checkpoint}")


if __name__ == "__main__":
    run(main, goes_on=True)
