"""The options of every program: which specs it takes, and the rules that tie these together.

Each option stands once in its spec: src/network/options.py, src/training/options.py and so on. Only a program's main
touches what stands here; everything below takes the specs, or plain arguments.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.checkpoints.place import trains_on
from src.checkpoints.run_options import RunOptions
from src.data.manifest import DataFolder
from src.days.options import DaySpec
from src.doctor.options import DoctorSpec
from src.engines.options import EngineSpec
from src.export.options import ExportSpec, ResultSpec, RowsSpec
from src.model_utils.config import DeviceSpec, Program, Programs, YamlSpec
from src.model_utils.moxing_adapter import ModelArtsSpec
from src.network.options import ComputeSpec, NetworkSpec
from src.preprocessing.options import PreprocessingSpec, RawSpec, SyntheticSpec
from src.publishing.options import PublishSpec
from src.ranks.options import ParallelSpec, SharingSpec
from src.report.event_files import check_libraries
from src.report.options import CompareSpec
from src.training.options import (
    DataSpec,
    EvaluationSpec,
    KeptSpec,
    OptimizationSpec,
    ScheduleSpec,
    ScoreLogSpec,
    ScoreSpec,
)

# Said to who starts export.py as several ranks.
NEEDS_NO_RANKS = (
    "export.py was started as one of several ranks, and needs none: one process takes the tables out of all parts of a "
    "checkpoint piece by piece, in a memory that does not grow with them: start python export.py by itself"
)


@dataclass(frozen=True)
class TrainOptions:
    """Of train.py."""

    yaml: YamlSpec
    modelarts: ModelArtsSpec
    device: DeviceSpec
    parallel: ParallelSpec
    compute: ComputeSpec
    data: DataSpec
    network: NetworkSpec
    optimization: OptimizationSpec
    schedule: ScheduleSpec
    evaluation: EvaluationSpec
    kept: KeptSpec

    def __post_init__(self) -> None:
        self.compute.check_device(self.device.device_target)
        self.optimization.check_network(self.network)
        self.optimization.check_compute(self.compute.compute_dtype, self.device.device_target)
        self.kept.check_evaluation(self.evaluation.do_eval)
        if self.kept.tensorboard:
            check_libraries(self.kept.tensorboard)
        if self.parallel.parallel_mode != "none":
            self.device.check_ranks()

    def check_place(self, data: DataFolder) -> None:
        """See, without MindSpore, that a training on these data may leave its checkpoint where it is to go.

        Raises:
            InputError: a checkpoint is there that it may neither replace nor go on from, or is this very training's.
        """
        of_run = RunOptions.of(self.device, self.parallel, self.compute, self.data, self.network, self.optimization,
                               self.schedule, self.evaluation, self.kept)  # fmt: skip
        trains_on(Path(self.kept.ckpt_path), of_run, self.kept.overwrite, self.kept.resume, data.manifest)


@dataclass(frozen=True)
class EvalOptions:
    """Of eval.py."""

    yaml: YamlSpec
    modelarts: ModelArtsSpec
    device: DeviceSpec
    parallel: SharingSpec
    compute: ComputeSpec
    network: NetworkSpec
    score: ScoreSpec
    logs: ScoreLogSpec

    def __post_init__(self) -> None:
        self.compute.check_device(self.device.device_target)


@dataclass(frozen=True)
class ExportOptions:
    """Of export.py."""

    yaml: YamlSpec
    modelarts: ModelArtsSpec
    device: DeviceSpec
    network: NetworkSpec
    export: ExportSpec
    publishing: PublishSpec

    def __post_init__(self) -> None:
        self.export.check_device(self.device.device_target)
        self.publishing.check_export(self.export)

    @property
    def results(self) -> list[Path]:
        """What a job leaves."""
        own = self.publishing
        return [Path(own.publish), own.key_path] if own.publish else [Path(self.export.export_path)]


@dataclass(frozen=True)
class TableAccuracyOptions:
    """Of src/table_accuracy.py."""

    yaml: YamlSpec
    device: DeviceSpec
    network: NetworkSpec
    score: ScoreSpec


@dataclass(frozen=True)
class PreprocessOptions:
    """Of preprocess.py."""

    rows: RowsSpec


@dataclass(frozen=True)
class PostprocessOptions:
    """Of postprocess.py."""

    result: ResultSpec
    logs: ScoreLogSpec


@dataclass(frozen=True)
class PreprocessDataOptions:
    """Of src/preprocess_data.py."""

    yaml: YamlSpec
    raw: RawSpec
    preprocessing: PreprocessingSpec
    engine: EngineSpec


@dataclass(frozen=True)
class SyntheticOptions:
    """Of src/synthetic.py."""

    synthetic: SyntheticSpec


@dataclass(frozen=True)
class ReportOptions:
    """Of python -m src.report."""

    compare: CompareSpec


@dataclass(frozen=True)
class DoctorOptions:
    """Of python -m src.doctor."""

    network: NetworkSpec
    doctor: DoctorSpec


@dataclass(frozen=True)
class DaysOptions:
    """Of python -m src.days, beside those that it hands on to the other programs."""

    day: DaySpec


PROGRAMS = Programs(
    {
        "train": TrainOptions,
        "eval": EvalOptions,
        "export": ExportOptions,
        "preprocess": PreprocessOptions,
        "postprocess": PostprocessOptions,
        "preprocess_data": PreprocessDataOptions,
        "synthetic": SyntheticOptions,
        "table_accuracy": TableAccuracyOptions,
        "report": ReportOptions,
        "doctor": DoctorOptions,
        "days": DaysOptions,
    },
    {
        "report": "python -m src.report RUN_A [RUN_B ...] [--OPTION=VALUE]; a RUN is a checkpoint folder, or the "
        "report in it; of one alone its page is written anew",
        "doctor": "python -m src.doctor --checkpoint=MODEL (--dataset_path=FOLDER | --data_path=FILE) [--OPTION=VALUE]",
    },
    Path(__file__).parents[1],
)


def resolve(program: type[Program], argv: Sequence[str]) -> Program:
    """The options of a program's run: default < saved beside the checkpoint < YAML < flag.

    Args:
        program: one of the classes above.
        argv: the command line without the program's name.

    Raises:
        InputError: an unknown or repeated option, a value of the wrong type or outside its rule, an unreadable YAML.
    """
    return PROGRAMS.resolve(program, argv)


def resolve_values(program: type[Program], given: Mapping[str, Any], where: str) -> Program:
    """The options of a run from Python: of `given`, which may hold options of all programs, this one takes its own.

    Args:
        program: one of the classes above.
        given: values by name, in place of flags.
        where: names in errors what gave them.

    Raises:
        InputError: as of `resolve`.
    """
    return PROGRAMS.resolve_values(program, given, where)
