"""Raw rows that a program has in its hands, as lines of text or as a DataFrame, parsed as those of files are."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from src.base.errors import InputError
from src.data.lines import Block, Columns, keys_of, parse

_LARGEST = float(np.finfo(np.float32).max)


def block_of_lines(lines: Sequence[str], columns: Columns) -> Block:
    """Rows of lines of text, which may have line ends; with a header among the columns, the first line is one.

    Raises:
        InputError: a line can't be used; the message has its number, from 1.
    """
    texts = [line.removesuffix("\n") for line in lines]
    if wrong := next((number for number, text in enumerate(texts, 1) if "\n" in text), 0):
        raise InputError(f"line {wrong} holds a line end within: give lines one by one")
    first = 1
    if columns.header:
        names = tuple(texts[0].rstrip("\r").split(columns.separator)) if texts else ()
        if missing := [name for name in columns.names if names.count(name) != 1]:
            raise InputError(f"line 1 is no header with column {missing[0]!r}: begin with the names of the columns")
        columns, texts, first = replace(columns, order=names), texts[1:], 2
    block = parse("".join(text + "\n" for text in texts).encode(), columns, first)
    if block.bad:
        labelled = not columns.label and block.bad[0].reason.startswith(f"{len(columns.file_names) + 1} columns")
        raise InputError(f"{block.bad[0]}: {'it has a label, so give has_labels=True' if labelled else 'mend it'}")
    return block


def block_of_frame(frame: pd.DataFrame, columns: Columns) -> Block:
    """Rows of a DataFrame with a column of each name; others are passed over.

    Numeric columns hold numbers, missing ones nan; categorical columns hold text or whole numbers, missing ones None
    or nan. Text must be that of the raw rows: "0042" is another category than "42" or the number 42.

    Raises:
        InputError: a column is missing, or holds what it must not; the message names column and row.
    """
    if missing := [name for name in (*columns.dense, *columns.categorical) if name not in frame.columns]:
        raise InputError(f"the DataFrame has no column {missing[0]!r}: it needs {len(missing)} more of the model's")
    numbers = np.empty((len(frame), len(columns.dense)), np.float32)
    for index, name in enumerate(columns.dense):
        try:
            values = frame[name].to_numpy(np.float64, na_value=np.nan)
        except (TypeError, ValueError):
            raise InputError(f"column {name!r} of the DataFrame holds what is not a number: convert it") from None
        if wrong := np.flatnonzero(np.abs(values) > _LARGEST).tolist():
            raise InputError(f"column {name!r}, row {frame.index[wrong[0]]!r} is {values[wrong[0]]}: give a number")
        numbers[:, index] = values.astype(np.float32) + np.float32(0)  # which makes 0 of -0, as the parser does
    keys = np.stack([keys_of(_texts(frame[name])) for name in columns.categorical])
    return Block(np.zeros(len(frame), np.uint8), numbers, keys)


def _texts(column: pd.Series) -> list[str]:
    """The categories of a column as text, "" for missing ones."""
    if pd.api.types.is_integer_dtype(column.dtype):
        return ["" if value is pd.NA else str(value) for value in column.tolist()]
    texts = []
    for row, value in zip(column.index, column.tolist()):
        if value is None or pd.isna(value):
            texts.append("")
        elif isinstance(value, str):
            texts.append(value)
        elif isinstance(value, int) and not isinstance(value, bool):
            texts.append(str(value))
        else:
            raise InputError(
                f"column {column.name!r}, row {row!r} is {value!r}: give categories as text, as in the raw rows "
                f"(read_csv(..., dtype=str))"
            )
    return texts
