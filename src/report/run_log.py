"""The log for machines of a training run, with all that hears the same."""

import os
from pathlib import Path

from src.base.logs import MetricsFile
from src.model_utils.options import values_of
from src.report.content import data_content
from src.report.event_files import EventFiles
from src.report.files import RunReport, forget, machine
from src.training.prepare import Prepared
from src.training.resume import Progress
from src.training.step import TrainStep


def log_of_run(prepared: Prepared, folder: Path, begun: Progress, step: TrainStep) -> MetricsFile:
    """The run's log for machines, or the report that takes its place; and what follows it.

    Args:
        prepared: what the run works on.
        folder: where it does.
        begun: how far it has come.
        step: what it repeats.
    """
    specs, ranks, factors = prepared.specs, prepared.specs.runtime.ranks, prepared.factors
    path, options = os.devnull if ranks.rank else specs.kept.metrics_file_name, values_of(*specs.options)

    def rates(at: int) -> tuple[float, float]:
        factor = float(factors[at - 1])
        return factor * float(step.learning_rate.asnumpy()), factor * float(step.table_learning_rate.asnumpy())

    if specs.kept.report:
        facts = {
            "steps": prepared.steps,
            "options": options,
            "language": specs.kept.language,
            "data": data_content(prepared.folder),
            "machine": machine() | {"ranks": ranks.size},
        }
        report = RunReport(path, begun.run, folder, facts, rates, ranks.rank == 0)
        report.go_on_from(begun.step)
    else:
        forget(folder)
    metrics_file = report if specs.kept.report else MetricsFile(path, begun.run)
    if specs.kept.tensorboard and not ranks.rank:
        metrics_file.followers.append(EventFiles(specs.kept.tensorboard, begun.run, options, rates, begun.step))
    return metrics_file
