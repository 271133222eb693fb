"""A schema file: what the columns of one's own raw files are, and how their cells are read.

label: clicked                  # required, 0 or 1 unless the lines below say otherwise
dense: [price, age]             # numeric columns
categorical: [site, device]     # columns of any text, or as below; of both lists, one may be left away
header: true                    # each file begins with a line of names; default false
columns: [id, clicked, price, age, site, device]   # without header, where the order is not label, weight,
                                                    # dense, categorical, or other columns stand between
separator: ","                  # default tab; or several signs, such as "::"
encoding: gb18030               # of the text; default utf-8
quote: '"'                      # cells may stand between such signs (RFC 4180); "" for none; the default is a quotation
                                # mark, and none where tabs or several signs separate
comment: "#"                    # lines that begin with it are no rows; default none
positive: ["1", "1.0", "True"]  # labels of clicks; other labels are none, but for an empty one, which is refused
negative: ["-1"]                # labels of the others; with positive too, any other label is refused
missing: ["\\N", "NULL", "nan"] # cells that are as good as empty ones
decimal: ","                    # the sign in numbers; default a point
thousands: "."                  # the sign between groups of three digits; default none
weight: paid                    # column of the rows' weights, numbers of 0 or more; default none
dense:                          # an entry may be a column of points in time, which gives hour of the day, weekday and
  - price                       # age in days since a day
  - {name: hour, as: timestamp, format: "%y%m%d%H", since: 2014-10-21}
categorical:                    # an entry may be a column whose cells hold several values, or one that shares a table
  - site
  - {name: tags, list: "|", max_values: 8, pool: mean}   # up to so many values (16), pooled by sum (the default), mean
  - {name: seen, list: ";", table: item}                 # or max
  - {name: item}                                         # columns of one table have one vocabulary; a column's own
                                                         # table has the column's name

The format is iso (2014-10-21 13:00:00, or a part of that; the default), seconds or milliseconds (since 1970), or one of
Python's strptime. Times without a zone are taken for UTC.
"""

import difflib
import os
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from src.base.errors import InputError
from src.rows.cells.lists import list_columns
from src.rows.columns import QUOTE, Columns, Timestamp
from src.rows.text import UTF8, encoding_named

UNKNOWN = "???"  # stands where a guess found no label
_KEYS: dict[str, Any] = {
    "label": str, "dense": list, "categorical": list, "header": bool, "columns": list, "separator": str,
    "encoding": str, "quote": str, "comment": str, "positive": list, "negative": list, "missing": list, "decimal": str,
    "thousands": str, "weight": str,
}  # fmt: skip
_TEXTS = ("positive", "negative", "missing")
_SIGNS = ("separator", "quote", "comment", "decimal", "thousands")
_MAY_BE_NONE = ("quote", "comment", "thousands")
_LONGEST_SEPARATOR = 8
_OF_TIMESTAMP = ("name", "as", "format", "since")


def load_schema(path: Path) -> Columns:
    """The columns that a schema file describes.

    Raises:
        InputError: no file or not a schema, an unknown key, or columns that contradict each other.
    """
    content = _content_of(path)
    if content.get("label") == UNKNOWN:
        raise InputError(
            f"schema {path}: label is still {UNKNOWN}, as --guess_schema left it: name its column there, and take that "
            f"from dense and categorical"
        )
    if not content.get("label"):
        raise InputError(f"schema {path} has no label: name at least one column")
    if not content.get("dense") and not content.get("categorical"):
        raise InputError(f"schema {path} has neither dense nor categorical: name at least one column")
    _check_signs(path, content)
    encoding = encoding_named(content.get("encoding", UTF8))
    if not encoding:
        raise InputError(
            f"schema {path}: encoding is {content['encoding']!r}, of which Python reads no files: it must be one "
            f"such as utf-8, gb18030 or latin-1"
        )
    dense, timestamps = _dense(path, content.get("dense", []))
    separator = content.get("separator", "\t")
    quotes = Columns((), (), separator=separator, quote=content.get("quote")).quotes
    # Within quotes the sign between cells may stand between values.
    around = [content.get("quote", QUOTE), *([] if quotes else [separator])]
    categorical, lists, shared = list_columns(f"schema {path}", content.get("categorical", []), around)
    given: dict[str, Any] = {key: tuple(map(str, content.get(key, ()))) for key in _TEXTS}
    given |= {key: content[key] for key in _SIGNS if key in content}
    columns = Columns(
        dense, categorical, content["label"], tuple(content.get("columns", ())),
        header=content.get("header", False), encoding=encoding, timestamps=timestamps, lists=lists, shared=shared,
        weight=content.get("weight", ""), **given,
    )  # fmt: skip
    plain = [entry for entry in content.get("dense", ()) if isinstance(entry, str)]
    for name in columns.read_names:
        if columns.read_names.count(name) > 1 or plain.count(name) > 1 or columns.file_names.count(name) != 1:
            among = "label, weight, dense and categorical" if columns.weight else "label, dense and categorical"
            raise InputError(f"schema {path}: column {name!r} must stand once among {among}, once in columns")
    if repeated := [name for name in columns.dense if columns.dense.count(name) > 1]:
        raise InputError(f"schema {path}: {repeated[0]!r} is one of the numbers of a timestamp: rename that column")
    if columns.header and columns.order:
        raise InputError(f"schema {path}: columns has no effect with header true, which names them: drop one")
    if both := set(columns.positive) & set(columns.negative):
        raise InputError(f"schema {path}: {min(both)!r} is both positive and negative: drop it from one of them")
    return columns


def _content_of(path: Path) -> dict[str, Any]:
    """What stands in a schema file, each key known and of its type."""
    if not path.is_file():
        beside = os.listdir(path.parent) if path.parent.is_dir() else []
        alike = difflib.get_close_matches(path.name, beside, 1)
        raise InputError(
            f"schema {path} is not a file: {f'is it {path.with_name(alike[0])}?' if alike else 'check the name'}"
        )
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"schema {path} is not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise InputError(f"schema {path} must hold lines of the form key: value, of the keys {', '.join(_KEYS)}")
    for key, value in content.items():
        _check(path, key, value)
    return content


def _check(path: Path, key: Any, value: Any) -> None:
    if key not in _KEYS:
        raise InputError(f"schema {path}: unknown key {key!r}: the keys are {', '.join(_KEYS)}")
    if not isinstance(value, _KEYS[key]):
        raise InputError(f"schema {path}: {key} is {value!r}: it must be a {_KEYS[key].__name__}")
    if key in _TEXTS:
        if odd := [one for one in value if isinstance(one, bool) or not isinstance(one, str | int)]:
            raise InputError(
                f"schema {path}: {key} holds {odd[0]!r}: it must be text, in quotes, as it stands in cells"
            )
    elif _KEYS[key] is list:
        names = [one for one in value if not (key in ("dense", "categorical") and isinstance(one, dict))]
        if not all(isinstance(name, str) for name in names):
            raise InputError(f"schema {path}: {key} is {value!r}: names must be text, if need be in quotes")


def _check_signs(path: Path, content: dict[str, Any]) -> None:
    separator = content.get("separator", "\t")
    prints = all(" " <= sign <= "~" and not sign.isalnum() for sign in separator)
    if not (separator == "\t" or (prints and 1 <= len(separator) <= _LONGEST_SEPARATOR)):
        raise InputError(
            f"schema {path}: separator is {separator!r}: it must be a tab or signs such as , ; | or ::, "
            f"{_LONGEST_SEPARATOR} at most"
        )
    for key in _SIGNS[1:]:
        sign = content.get(key, "." if key == "decimal" else "")
        if not (sign == "" and key in _MAY_BE_NONE) and (len(sign) != 1 or not " " <= sign <= "~" or sign.isalnum()):
            raise InputError(
                f"schema {path}: {key} is {sign!r}: it must be one sign that prints, and no letter or digit"
            )
    if content.get("thousands") == content.get("decimal", "."):
        raise InputError(f"schema {path}: thousands and decimal are both {content['thousands']!r}: change one")
    for key in ("quote", "comment"):
        if content.get(key) and content[key] == separator:
            raise InputError(f"schema {path}: {key} and separator are both {separator!r}: change one")
        if content.get(key) and content[key] in separator:
            raise InputError(f"schema {path}: {key} {content[key]!r} stands in separator {separator!r}: change one")


def _dense(path: Path, entries: list[Any]) -> tuple[tuple[str, ...], tuple[Timestamp, ...]]:
    """The numeric columns, with the numbers of timestamps in their place, and these."""
    names: list[str] = []
    timestamps = []
    for entry in entries:
        if isinstance(entry, str):
            names.append(entry)
            continue
        if set(entry) - set(_OF_TIMESTAMP) or entry.get("as") != "timestamp" or not isinstance(entry.get("name"), str):
            raise InputError(
                f"schema {path}: dense holds {entry!r}: it must be a name, or of the form {{name: hour, as: timestamp, "
                f"format: iso, since: 2014-10-21}}, of which the last two may be left away"
            )
        timestamp = Timestamp(entry["name"], str(entry.get("format", "iso")), str(entry.get("since", "1970-01-01")))
        try:
            datetime.strptime(timestamp.since, "%Y-%m-%d")
        except ValueError:
            raise InputError(
                f"schema {path}: since is {timestamp.since!r}: it must be a day such as 2014-10-21"
            ) from None
        timestamps.append(timestamp)
        names += timestamp.numbers
    return tuple(names), tuple(timestamps)
