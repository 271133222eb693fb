"""The options of a run, from where they are said: default < saved beside the checkpoint < YAML < flag.

A program's options are a frozen dataclass of specs (src/options.py lists them all). Nothing is read at import.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml

from src.base.errors import InputError
from src.base.sealed import check_text
from src.model_utils.options import NOT_NEGATIVE, Option, one_of, option, options_of, values_of
from src.model_utils.parsing import checked_values, parse_flags, read_yaml

SAVED_OPTIONS = "dlrm.yaml"  # beside a checkpoint
YAML_OF_DEVICE = {"Ascend": "npu_config.yaml", "GPU": "gpu_config.yaml", "CPU": "cpu_config.yaml"}
Program = TypeVar("Program")


@dataclass(frozen=True)
class YamlSpec:
    """Where options come from beside the command line."""

    config_path: str = option(
        "", "YAML file of options; without it npu_, gpu_ or cpu_config.yaml by device, and none for preprocessing"
    )


@dataclass(frozen=True)
class DeviceSpec:
    """What graphs run on."""

    device_target: str = option("Ascend", "device", one_of(YAML_OF_DEVICE))
    device_id: int = option(0, "number of the Ascend or GPU card", NOT_NEGATIVE, free=True)

    def __post_init__(self) -> None:
        if self.device_target == "CPU" and self.device_id:
            raise InputError(f"device_id {self.device_id} has no effect with device_target CPU: drop it")

    def check_ranks(self) -> None:
        """Refuse a card's number for several ranks.

        Raises:
            InputError: there is one.
        """
        if self.device_id:
            raise InputError(f"device_id {self.device_id} has no effect with several ranks, which share out the cards")


class Programs:
    """All programs, by name.

    Args:
        programs: each one's frozen dataclass of specs.
        usage: of those that take more than options.
        yaml_folder: where the devices' YAML files lie.
    """

    def __init__(self, programs: Mapping[str, type], usage: Mapping[str, str], yaml_folder: Path):
        self.programs, self.usage, self.yaml_folder = dict(programs), dict(usage), yaml_folder

    def all_options(self) -> dict[str, Option]:
        """The options of any program, by name."""
        return {name: one for program in self.programs.values() for name, one in options_of(program).items()}

    def takers(self) -> dict[str, list[str]]:
        """The programs that take each option."""
        found: dict[str, list[str]] = {}
        for program, kind in self.programs.items():
            for name in options_of(kind):
                found.setdefault(name, []).append(program)
        return found

    def resolve(self, program: type[Program], argv: Sequence[str]) -> Program:
        """The options of a run: the defaults, under the YAML file's, under the flags.

        Args:
            program: one of the programs.
            argv: the command line without the program's name.

        Raises:
            InputError: an unknown or repeated option, a value of the wrong type or outside its rule, an unreadable
                YAML.
        """
        name = next(name for name, kind in self.programs.items() if kind is program)
        options = options_of(program)
        flags = parse_flags(name, self.usage.get(name), options, argv, self.takers())
        return self._specs(program, options, flags, "the command line")

    def resolve_values(self, program: type[Program], given: Mapping[str, Any], where: str) -> Program:
        """The options of a run from Python, as `resolve` has those of a command line.

        Args:
            program: one of the programs.
            given: options of any program by name, of which this one takes its own.
            where: names in errors what gave them.

        Raises:
            InputError: as of `resolve`.
        """
        values = checked_values(given, self.all_options(), f"{where}: ")
        options = options_of(program)
        return self._specs(program, options, {name: values[name] for name in values if name in options}, where)

    def _specs(
        self, program: type[Program], options: Mapping[str, Option], flags: Mapping[str, Any], where: str
    ) -> Program:
        path = self._yaml_of(options, flags)
        values: dict[str, Any] = {}
        from_yaml = read_yaml(path, self.all_options()) if path else {}
        if "checkpoint_path" in options:
            values |= self._saved_network(options, from_yaml | dict(flags))
        values |= from_yaml
        values = {one: value for one, value in (values | dict(flags)).items() if one in options}
        try:
            specs = {
                held.name: cast(Any, held.type)(
                    **{one: values[one] for one in values if options[one].spec == held.name}
                )
                for held in dataclasses.fields(program)  # type: ignore[arg-type]
            }
            return program(**specs)
        except InputError as error:
            raise InputError(f"{error} (options from {path} and {where})" if path else str(error)) from None

    def _yaml_of(self, options: Mapping[str, Option], flags: Mapping[str, Any]) -> Path | None:
        if flags.get("config_path"):
            return Path(flags["config_path"])
        if not {"config_path", "device_target"} <= set(options):
            return None
        return self.yaml_folder / YAML_OF_DEVICE[flags.get("device_target", options["device_target"].default)]

    def _saved_network(self, options: Mapping[str, Option], given: Mapping[str, Any]) -> dict[str, Any]:
        """The network's shape as train.py saved it beside a checkpoint; nothing where there is no such file."""
        named = Path(given.get("checkpoint_path", options["checkpoint_path"].default))
        path = named / SAVED_OPTIONS if named.is_dir() else named.with_name(SAVED_OPTIONS)
        if path.is_file():
            check_text(path, "copy it anew from where train.py wrote it")
        saved = read_yaml(path, self.all_options()) if path.is_file() else {}
        return {name: value for name, value in saved.items() if name in options and options[name].metadata["network"]}


def to_yaml(*specs: Any) -> str:
    """The options of some specs, as YAML that `--config_path` takes again."""
    return yaml.safe_dump({name: value for name, value in values_of(*specs).items() if name != "config_path"},
                          sort_keys=False)  # fmt: skip
