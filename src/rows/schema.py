"""A schema file: what the columns of one's own raw files are.

label: clicked                  # required, 0 or 1
dense: [price, age]             # required: numeric columns
categorical: [site, device]     # required: columns of any text
header: true                    # each file begins with a line of names; default false
columns: [id, clicked, price, age, site, device]   # without header, where the order is not label, dense,
                                                    # categorical, or other columns stand between
separator: ","                  # default tab; cells can't be quoted
encoding: gb18030               # of the text; default utf-8
"""

from pathlib import Path
from typing import Any

import yaml

from src.base.errors import InputError
from src.rows.columns import Columns
from src.rows.text import UTF8, encoding_named

_KEYS = {
    "label": str, "dense": list, "categorical": list, "header": bool, "columns": list, "separator": str, "encoding": str
}  # fmt: skip
_REQUIRED = ("label", "dense", "categorical")


def load_schema(path: Path) -> Columns:
    """The columns that a schema file describes.

    Raises:
        InputError: not a schema, an unknown key, or columns that contradict each other.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"schema {path} is not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise InputError(f"schema {path} must hold lines of the form key: value, of the keys {', '.join(_KEYS)}")
    for key, value in content.items():
        _check(path, key, value)
    for key in _REQUIRED:
        if not content.get(key):
            raise InputError(f"schema {path} has no {key}: name at least one column")
    separator = content.get("separator", "\t")
    if len(separator) != 1 or not (separator == "\t" or " " <= separator <= "~") or separator.isalnum():
        raise InputError(f"schema {path}: separator is {separator!r}: it must be a tab or one sign such as , ; or |")
    encoding = encoding_named(content.get("encoding", UTF8))
    if not encoding:
        raise InputError(
            f"schema {path}: encoding is {content['encoding']!r}, of which Python reads no files: it must be one "
            f"such as utf-8, gb18030 or latin-1"
        )
    columns = Columns(
        tuple(content["dense"]), tuple(content["categorical"]), content["label"], tuple(content.get("columns", ())),
        separator, content.get("header", False), encoding,
    )  # fmt: skip
    for name in columns.names:
        if columns.names.count(name) > 1 or columns.file_names.count(name) != 1:
            raise InputError(
                f"schema {path}: column {name!r} must stand once among label, dense and categorical, once in columns"
            )
    if columns.header and columns.order:
        raise InputError(f"schema {path}: columns has no effect with header true, which names them: drop one")
    return columns


def _check(path: Path, key: Any, value: Any) -> None:
    if key not in _KEYS:
        raise InputError(f"schema {path}: unknown key {key!r}: the keys are {', '.join(_KEYS)}")
    if not isinstance(value, _KEYS[key]):
        raise InputError(f"schema {path}: {key} is {value!r}: it must be a {_KEYS[key].__name__}")
    if isinstance(value, list) and not all(isinstance(name, str) for name in value):
        raise InputError(f"schema {path}: {key} is {value!r}: names must be text, if need be in quotes")
