"""The options of a day, and what each program gets of them."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from src.base.errors import InputError
from src.base.files import whole_file
from src.days.model_folder import ModelFolder
from src.days.options import DaySpec
from src.model_utils.config import YAML_OF_DEVICE
from src.model_utils.options import Option, options_of
from src.model_utils.parsing import parse_flags, read_yaml
from src.options import (
    PROGRAMS,
    DaysOptions,
    EvalOptions,
    ExportOptions,
    PreprocessDataOptions,
    TrainOptions,
    resolve_values,
)
from src.preprocessing.options import BOUND, LEARNED, OF_GROWTH, OF_TRAINING

Values = dict[str, Any]
_NAME = "days"
_USAGE = "python -m src.days MODEL NEW_FILES [--OPTION=VALUE]"
# What follows from the day, or has no place in it: the last rows of a day are held out.
_TAKEN = {
    "data_path", "dataset_path", "output_path", "overwrite", "ckpt_path", "checkpoint_path", "export_path",
    "vocab_path", "grow", "from_checkpoint", "delta_from", "apply_delta", "guess_schema", "valid_path", "test_path",
    "split", "vocab_scope", "do_eval", "loss_file_name", "eval_file_name", "metrics_file_name",
}  # fmt: skip
_NOT_HERE = ("modelarts", "parallel")
_OF_LATER = (*OF_GROWTH, "new_rows")
_OF_DEVICE = ("device", "compute")


def known_options() -> dict[str, Option]:
    """What the command line takes: the loop's own options, and those of the programs that do not follow from it."""
    programs = (PreprocessDataOptions, ExportOptions, TrainOptions, DaysOptions)
    found = {name: one for program in programs for name, one in options_of(program).items()}
    return {name: one for name, one in found.items() if name not in _TAKEN and one.spec not in _NOT_HERE}


def flags_of(argv: Sequence[str]) -> Values:
    """The values that a command line gives.

    Raises:
        InputError: an unknown or repeated option, or a value of the wrong type or outside its rule.
    """
    return parse_flags(_NAME, _USAGE, known_options(), argv, PROGRAMS.takers())


def first_options(flags: Mapping[str, Any]) -> Values:
    """The options of a model's first day: those of a YAML file, by default the device's, below the flags.

    Raises:
        InputError: it is no YAML file of options, or has one that a day can't have.
    """
    device = str(flags.get("device_target", options_of(TrainOptions)["device_target"].default))
    path = Path(flags.get("config_path") or PROGRAMS.yaml_folder / YAML_OF_DEVICE[device])
    found = read_yaml(path, PROGRAMS.all_options()) | dict(flags)
    if wrong := sorted(found.keys() & _TAKEN):
        raise InputError(f"{path}: {wrong[0]} follows from the day: drop it")
    found.pop("config_path", None)
    return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}


@dataclass(frozen=True)
class Recipe:
    """The options of a day.

    Attributes:
        model: whose first day's options hold for all days.
        kept: these.
        given: the options of this day alone, which go before them.
        first: whether it is the first one.
        spec: the loop's own options.
    """

    model: ModelFolder
    kept: Values
    given: Values
    first: bool
    spec: DaySpec

    @classmethod
    def of(cls, model: ModelFolder, flags: Values, first: bool) -> "Recipe":
        """Of a command line's flags, on the first day or a later one.

        Raises:
            InputError: there is no YAML file of a name, or it has an option that no day can have.
        """
        if first:
            kept = first_options(flags)
            return cls(model, kept, {}, True, _spec_of(kept))
        kept = read_yaml(model.options, PROGRAMS.all_options())
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in flags.items()}
        return cls(model, kept, plain, False, _spec_of(kept | plain))

    @property
    def values(self) -> Values:
        """All of them."""
        return self.kept | self.given

    def keep(self) -> None:
        """On the first day, leave what holds for all days in the model's folder."""
        if not self.first:
            return
        kept = {name: value for name, value in self.kept.items() if name not in ("schema", "retry")}
        self.model.schema.unlink(missing_ok=True)  # of a first day that was thrown away
        if schema := self.kept.get("schema"):
            if not Path(schema).is_file():
                raise InputError(f"schema {schema} is not a file: name a YAML file")
            shutil.copyfile(schema, self.model.schema)
        with whole_file(self.model.options) as file:
            file.write(b"# Options of all days, as the first one had them.\n" + yaml.safe_dump(kept).encode())

    def check(self, folder: Path, earlier: Path | None) -> None:
        """Find mistakes in options before anything is done, of a day in that folder.

        Raises:
            InputError: there is one.
        """
        for name in self.given:
            if name in ("config_path", "schema"):
                raise InputError(f"{name} is the first day's, which holds for all: drop it, or begin another model")
        self.prepares("rows", folder / "dataset", earlier)
        self.trains(folder / "dataset", folder, earlier)
        self.exports(folder / "checkpoint", folder / "dataset", folder / "export")
        if self.spec.delta and self.values.get("table_placement") != "host":
            raise InputError(
                "delta needs exports with their tables in a file: give --table_placement=host from the first day"
            )

    def _without(self, names: Sequence[str], values: Values | None = None) -> Values:
        return {name: value for name, value in (self.values if values is None else values).items() if name not in names}

    def _schema(self) -> Values:
        return {"schema": str(self.model.schema)} if self.model.schema.is_file() else {"schema": ""}

    def codes(self, data_path: str, output: Path, earlier: Path) -> PreprocessDataOptions:
        """How an earlier model, of that checkpoint folder, codes a day's rows."""
        own = {"data_path": data_path, "output_path": str(output), "vocab_path": str(earlier)} | self._schema()
        values = self._without((*LEARNED, *_OF_LATER, *OF_TRAINING))
        return resolve_values(PreprocessDataOptions, values | own, _NAME)

    def prepares(self, data_path: str, output: Path, earlier: Path | None) -> PreprocessDataOptions:
        """How a day's rows become its data folder, grown from an earlier model's, if there is one."""
        own = {"data_path": data_path, "output_path": str(output)} | self._schema()
        if not earlier:
            return resolve_values(PreprocessDataOptions, self._without(_OF_LATER) | own, _NAME)
        own["vocab_path"] = str(earlier)
        learned = [name for name in LEARNED if name != BOUND]
        return resolve_values(
            PreprocessDataOptions, self._without(learned, self.kept) | self.given | own | {"grow": True}, _NAME
        )

    def trains(self, dataset: Path, folder: Path, earlier: Path | None) -> TrainOptions:
        """How a day's training goes, from an earlier model's checkpoint folder, if there is one."""
        own = {
            "config_path": str(self.model.options), "dataset_path": str(dataset),
            "ckpt_path": str(folder / "checkpoint"), "loss_file_name": str(folder / "loss.log"),
            "eval_file_name": str(folder / "auc.log"),
            "metrics_file_name": str(folder / "metrics.jsonl"),
        }  # fmt: skip
        if not earlier:
            return resolve_values(TrainOptions, self._without(_OF_LATER) | own, _NAME)
        own |= {"from_checkpoint": str(earlier)}
        return resolve_values(TrainOptions, self.values | {"epochs": self.spec.day_epochs} | own, _NAME)

    def evaluates(self, checkpoint: Path) -> EvalOptions:
        """How a checkpoint, whose shape stands beside it, is evaluated."""
        return resolve_values(EvalOptions, self._of_device(EvalOptions, "score", checkpoint), _NAME)

    def exports(self, checkpoint: Path, dataset: Path, place: Path, earlier: Path | None = None) -> ExportOptions:
        """How a checkpoint is exported; what it changed since an earlier export, if there is one."""
        own = self._of_device(ExportOptions, "export", checkpoint)
        own |= {"dataset_path": str(dataset), "export_path": str(place)}
        return resolve_values(ExportOptions, own | ({"delta_from": str(earlier)} if earlier else {}), _NAME)

    def _of_device(self, program: type, spec: str, checkpoint: Path) -> Values:
        takes = {name for name, one in options_of(program).items() if one.spec in (*_OF_DEVICE, spec)}
        own = {"config_path": str(self.model.options), "checkpoint_path": str(checkpoint)}
        return {name: value for name, value in self.values.items() if name in takes} | own


def _spec_of(values: Values) -> DaySpec:
    return resolve_values(DaysOptions, values, _NAME).day
