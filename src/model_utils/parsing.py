"""Flags and YAML files to checked values of options."""

import argparse
import difflib
import re
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, Union, get_args, get_origin

import yaml

from src.base.errors import InputError
from src.model_utils.options import Option

Options = Mapping[str, Option]
_UNIONS = (Union, types.UnionType)


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are InputErrors."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"command line: {message} (--help lists the options)")


def parse_flags(
    program: str, usage: str | None, options: Options, argv: Sequence[str], others: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """The values that a command line gives.

    Args:
        program, usage: for the help; unless given, usage is that of a program of nothing but options.
        options: that it takes.
        argv: without the program's name.
        others: the programs that take each option of any program, for who mistook the program.

    Raises:
        InputError: an unknown or repeated option, or a value of the wrong type or outside its rule.
    """
    parser = _Parser(
        prog=program,
        usage=usage or f"{program} [--OPTION=VALUE ...]",
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    groups = {
        one.subject: parser.add_argument_group(one.subject.rstrip(".")) for one in options.values()
    }  # a group a subject, in the order of the program's specs
    for name, one in options.items():
        more: dict[str, Any] = {"nargs": "?", "const": "true"} if bool in (one.kind, *get_args(one.kind)) else {}
        groups[one.subject].add_argument(
            f"--{name}",
            *(f"--{other}" for other in one.metadata["aliases"]),
            dest=name,
            action="append",
            metavar="VALUE",
            **more,
            help=f"{one.help} (default {_show(one.default)})".replace("%", "%%"),
        )
    given, unknown = parser.parse_known_args(list(argv))
    if unknown:
        word = unknown[0].split("=")[0].lstrip("-")
        advice = f": it is an option of {', '.join(others[word])}" if word in others else _nearest(word, options, "--")
        if not unknown[0].startswith("-"):
            advice = ": all are written --NAME=VALUE (--help lists them)"
        raise InputError(f"command line: {program} knows no option {unknown[0]!r}{advice}")
    values = {}
    for name, texts in vars(given).items():
        if len(texts) > 1:
            raise InputError(f"command line: --{name} is given {len(texts)} times: give it once")
        values[name] = checked(options[name], _from_text(options[name], texts[0]), "command line: --")
    return values


def _from_text(one: Option, text: str) -> Any:
    """A flag's text as YAML would read it, but for text options, which stay as typed."""
    if one.kind is str or not text:
        return text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


class _UniqueKeyLoader(yaml.SafeLoader):
    """PyYAML lets the last of two equal keys win; here that is an error."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise InputError(
                    f"{node.start_mark.name} line {key.start_mark.line + 1}: option {key.value!r} is "
                    f"given twice: keep one"
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path, options: Options) -> dict[str, Any]:
    """A YAML file's options, checked.

    Args:
        path: the file.
        options: of all programs, so that one file can serve them all.

    Raises:
        InputError: it is no YAML file of options, or a value is of the wrong type or outside its rule.
    """
    if not path.is_file():
        raise InputError(f"config_path {path} is not a file: name a YAML file of options")
    try:
        with path.open(encoding="utf-8") as file:
            content = yaml.load(file, Loader=_UniqueKeyLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid YAML: {error}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}: it must hold lines of the form option: value")
    if "config_path" in content:
        raise InputError(f"{path}: config_path names a YAML file and can't stand in one: drop it")
    return checked_values(content, options, f"{path}: ")


def checked_values(content: Mapping[Any, Any], options: Options, where: str) -> dict[str, Any]:
    """Values by option, in the options' types and within their rules; `where` opens the message of an error.

    Raises:
        InputError: an unknown option, or a value of the wrong type or outside its rule.
    """
    for name in content:
        if name not in options:
            raise InputError(f"{where}unknown option {name!r}{_nearest(str(name), options, '')}")
    return {name: checked(options[name], value, where) for name, value in content.items()}


def checked(one: Option, value: Any, where: str) -> Any:
    """The value in the option's type and within its rule; `where` opens the message of the error."""
    converted = _converted(value, one.kind)
    if converted is None:
        raise InputError(f"{where}{one.name} is {_show(value)}: it must be {_type_name(one.kind)}")
    rule = one.metadata["rule"]
    if rule and not rule.holds(converted):
        raise InputError(f"{where}{one.name} is {_show(converted)}: it {rule.words}")
    return converted


def _converted(value: Any, kind: Any) -> Any:
    """The value as `kind`, or None if it is of another type."""
    if get_origin(kind) in _UNIONS:
        found = [_converted(value, one) for one in get_args(kind)]
        return next((one for one in found if one is not None), None)
    if get_origin(kind) is Literal:
        return value if value in get_args(kind) else None
    if get_origin(kind) is tuple:
        if not isinstance(value, (list, tuple)):
            return None
        items = [_converted(item, get_args(kind)[0]) for item in value]
        return None if None in items else tuple(items)
    if kind is float:
        # PyYAML reads 1e-3 as text, since YAML 1.1 asks for a point in a number with an exponent.
        if isinstance(value, str) and re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", value):
            return float(value)
        if isinstance(value, str) and value.lower() in ("nan", "inf", "-inf"):
            return float(value)
        return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
    if kind is bool and value in (0, 1):
        return bool(value)
    if kind is int and isinstance(value, bool):
        return None
    return value if isinstance(value, kind) else None


def _type_name(kind: Any) -> str:
    if get_origin(kind) in _UNIONS:
        return " or ".join(_type_name(one) for one in get_args(kind))
    if get_origin(kind) is Literal:
        return " or ".join(get_args(kind))
    if get_origin(kind) is tuple:
        return "a list of whole numbers such as [512,256,16]"
    return {bool: "True or False", int: "a whole number", float: "a number", str: "text"}[kind]


def _show(value: Any) -> str:
    return str(list(value)).replace(" ", "") if isinstance(value, tuple) else repr(value)


def _nearest(word: str, options: Options, prefix: str) -> str:
    """Advice to who typed no option's name: those that begin with it, the one that looks like it,
    or the first whose help begins with it."""
    begun = [name for name in options if len(word) > 2 and name.startswith(f"{word}_")]
    close = [" or ".join(f"{prefix}{name}" for name in begun).removeprefix(prefix)] if 0 < len(begun) < 4 else []
    close += difflib.get_close_matches(word, list(options), 1, 0.7)
    words = re.sub(r"[_-]+", " ", word).lower()
    close += [name for name, one in options.items() if len(words) > 2 and one.help.lower().startswith(words)]
    return f"; did you mean {prefix}{close[0]}?" if close else " (--help lists the options)"
