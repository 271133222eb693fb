"""How an option is declared: once, in the frozen spec of the concern that it belongs to.

    @dataclass(frozen=True)
    class ScheduleSpec:
        epochs: int = option(1, "passes over the training rows", POSITIVE)

The annotation is its type: bool, int, float, str, tuple[int, ...], or one of these and Literal words. What ties options
of one spec together stands in its __post_init__, as an InputError; what ties specs together, in the program's options
(src/options.py). Specs stand in the wing that reads them, so that choices come from the place that implements them, and
import no MindSpore, so that a mistake on the command line does not wait for it.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from src.base.errors import InputError

LANGUAGES = ("en", "zh")  # of pages for people


class Rule(NamedTuple):
    """What a value must be, and the same in words that follow "it"."""

    holds: Callable[[Any], bool]
    words: str


POSITIVE = Rule(lambda value: math.isfinite(value) and value > 0, "must be a finite number above 0")
NOT_NEGATIVE = Rule(lambda value: math.isfinite(value) and value >= 0, "must be 0 or more")
BELOW_ONE = Rule(lambda value: 0 <= value < 1, "must be 0 or more, and below 1")
FRACTION = Rule(lambda value: 0 <= value <= 1, "must lie between 0 and 1")
NOT_EMPTY = Rule(lambda value: value != "", "must not be empty")
SIZES = Rule(lambda value: len(value) > 0 and min(value) > 0, "must be a list of sizes above 0, such as [512,256,16]")
SCALE = Rule(lambda value: value == "dynamic" or POSITIVE.holds(value), "must be a finite number above 0, or dynamic")
STEPS = Rule(lambda value: value == "epoch" or value >= 0, "must be 0 or more, or epoch")


def one_of(choices: Iterable[str]) -> Rule:
    """One of these words."""
    words = tuple(choices)
    return Rule(lambda value: value in words, "must be one of " + ", ".join(words))


def matching(pattern: str, words: str) -> Rule:
    """Text that a pattern describes whole."""
    return Rule(lambda value: bool(re.fullmatch(pattern, value)), words)


def option(
    default: Any, text: str, rule: Rule | None = None, *, free: bool = False, told: bool = True,
    network: bool = False, aliases: Sequence[str] = (),
) -> Any:  # fmt: skip
    """A field of a spec.

    Args:
        default: the value unless YAML or a flag says otherwise.
        text: help.
        rule: what the value must be.
        free: whether a stopped training may go on with another value: it changes neither the network's shape nor which
            rows a step takes, and the run says so.
        told: whether a run that goes on with another value says so; of what is free.
        network: whether it is part of the network's shape, which is read from beside a checkpoint.
        aliases: other names of the flag.
    """
    about = {"help": text, "rule": rule, "free": free, "told": told, "network": network, "aliases": tuple(aliases)}
    return field(default=default, metadata=about)


@dataclass(frozen=True)
class Option:
    """An option of a program, as its spec declares it.

    Attributes:
        name, kind, default: of the field.
        spec: name of the program's field that holds the spec.
        subject: what the spec is about, in a sentence.
        metadata: from `option`.
    """

    name: str
    kind: Any
    default: Any
    spec: str
    metadata: Any
    subject: str = ""

    @property
    def help(self) -> str:
        """What people read of it, its choices included."""
        rule = self.metadata["rule"]
        choices = f", {rule.words.removeprefix('must be ')}" if rule and "one of" in rule.words else ""
        return f"{self.metadata['help']}{choices}"


def options_of(program: type) -> dict[str, Option]:
    """The options of a program, a frozen dataclass whose fields are specs, by name.

    Raises:
        ValueError: two of its specs declare one name.
    """
    found: dict[str, Option] = {}
    for held in dataclasses.fields(program):
        spec: Any = held.type
        subject = " ".join((spec.__doc__ or "").partition("\n\n")[0].split())
        for one in dataclasses.fields(spec):
            if one.name in found:
                raise ValueError(f"{program.__name__} has the option {one.name} twice")
            found[one.name] = Option(one.name, one.type, one.default, held.name, one.metadata, subject)
    return found


def values_of(*specs: Any) -> dict[str, Any]:
    """The options of some specs by name, as YAML holds them."""
    return {
        name: list(value) if isinstance(value, tuple) else value for spec in specs for name, value in vars(spec).items()
    }


def free_names(*specs: Any) -> Iterator[str]:
    """Names of those options of some specs, or of their classes, that a stopped training may change."""
    return (one.name for spec in specs for one in dataclasses.fields(spec) if one.metadata["free"])


def untold_names(*specs: Any) -> Iterator[str]:
    """Names of those whose change is not told."""
    return (one.name for spec in specs for one in dataclasses.fields(spec) if not one.metadata["told"])


def is_default(spec: Any, name: str) -> bool:
    """Whether an option of a spec has its default."""
    return bool(getattr(spec, name) == next(one.default for one in dataclasses.fields(spec) if one.name == name))


def refuse_changed(spec: Any, names: Sequence[str], why: str) -> None:
    """Refuse options that have another value than their default, which has no effect here.

    Raises:
        InputError: one has; `why` says what it has no effect with, and what to do.
    """
    for name in names:
        if not is_default(spec, name):
            raise InputError(f"{name} {shown(getattr(spec, name))} has no effect {why}")


def shown(value: Any) -> str:
    """A value as a flag would have it."""
    return str(list(value)).replace(" ", "") if isinstance(value, tuple) else str(value)
