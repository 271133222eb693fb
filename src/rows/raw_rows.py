"""Raw rows that a program has in its hands, as lines, a file or a DataFrame, parsed as those of training were."""

import contextlib
import itertools
import math
import numbers
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from pandas.api import types

from src.base.errors import InputError
from src.rows.block import Block, Span, categories_among
from src.rows.cells.column import lists_of
from src.rows.cells.lists import CellLists, ListColumn
from src.rows.cells.times import UNITS, bounded, numbers_of, of_texts, seconds_of
from src.rows.columns import Columns, Example, Timestamp
from src.rows.keys import keys_of
from src.rows.lines import with_point
from src.rows.parsing import cells_of, names_in, parse
from src.rows.raw_files import find_raws, misfit
from src.rows.reader import RawInput
from src.rows.text import BYTE_ORDER_MARK, NUMBER, encoding_named, utf8
from src.rows.unpacking import file_and_member, members_of

_LARGEST = float(np.finfo(np.float32).max)
_REMEDY = "scorer.read_csv(path) reads a file as training did"
_SIGNS, _ENDS = "".join(map(chr, range(9))), "\t\n"  # of bad lines; and what ends a cell or a line without quotes


def lines_of(lines: Iterable[str | bytes], columns: Columns) -> list[bytes]:
    """Lines of text, or of bytes in the columns' encoding, as UTF-8 without line ends and byte order mark.

    Raises:
        InputError: one is no line, or an open file gives other text than stands in it.
    """
    encoding = columns.encoding
    opened = getattr(lines, "encoding", None)  # of an open text file
    if opened and encoding_named(opened) != encoding:
        raise InputError(f"the file of lines was opened as {opened}, its encoding is {encoding}: open it with 'rb'")
    texts = []
    for number, line in enumerate(lines, 1):
        if not isinstance(line, str | bytes):
            raise InputError(f"line {number} is {line!r}: give lines of text or bytes")
        try:
            text = utf8(line, encoding)
        except InputError as error:
            raise InputError(f"line {number}: {error}") from None
        texts.append(text.removesuffix(b"\n"))
        if b"\n" in texts[-1] and not (columns.quotes and columns.quotes.encode() in texts[-1]):
            raise InputError(f"line {number} holds a line end within: give lines one by one")
    newlines = getattr(lines, "newlines", None) or ()  # which Python has translated
    if "\r" in (newlines if isinstance(newlines, tuple) else (newlines,)):
        raise InputError("the file of lines has a line end within a line: open it with 'rb'")
    return [text.removeprefix(BYTE_ORDER_MARK) if number == 0 else text for number, text in enumerate(texts)]


def block_of_lines(texts: Sequence[bytes], columns: Columns) -> Block:
    """Rows of lines without line ends; with a header among the columns, the first line is one.

    Raises:
        InputError: a line can't be used; the message has its number, from 1.
    """
    text, columns, first = _whole_text(texts, columns)
    return _good(parse(text, columns, first), columns)


def _whole_text(texts: Sequence[bytes], columns: Columns) -> tuple[bytes, Columns, int]:
    """The text behind the header, if there is one, the columns in its order, and the number of the first line."""
    text = b"".join(line + b"\n" for line in texts)
    taken = lines = 0
    if columns.header:
        names, taken, lines = names_in(text, columns)
        if missing := [name for name in columns.read_names if names.count(name) != 1]:
            raise InputError(f"line 1 is no header with column {missing[0]!r}: begin with the names of the columns")
        columns = replace(columns, order=names)
    text = text[taken:]
    if len(columns.file_names) > 1:  # else a blank line is a row
        text = text.rstrip(b"\r\n") + b"\n" * bool(text.strip(b"\r\n"))
    return text, columns, 1 + lines


def categories_of_lines(texts: Sequence[bytes], columns: Columns) -> list[list[str]]:
    """The text of the categorical columns' cells of such lines; odd lines are passed over."""
    text, columns, _ = _whole_text(texts, columns)
    return categories_among(cells_of(text, columns)[0], columns)


def _good(block: Block, columns: Columns) -> Block:
    if block.bad:
        labelled = not columns.label and block.bad[0].reason.startswith(f"{len(columns.file_names) + 1} columns")
        other = misfit(block.bad, len(block.bad) / (len(block.bad) + len(block.labels)), columns) or "mend it"
        raise InputError(f"{block.bad[0]}: {'it has a label, so give has_labels=True' if labelled else other}")
    return block


def blocks_of_file(path: Path, columns: Columns) -> Iterator[Block]:
    """Rows of a raw file, packed or not, some thousand at a time.

    Raises:
        InputError: there is no such file, or a line can't be used.
    """
    with _opened(path, columns) as (rows, spans):
        yield from _blocks(rows, spans)


@contextlib.contextmanager
def _opened(path: Path, columns: Columns) -> Iterator[tuple[RawInput, list[Span]]]:
    """The rows of a raw file, or of the files in a folder or an archive, a span for each file that has some."""
    if not file_and_member(path)[0].exists():
        raise InputError(f"there is no file {path}: name a raw file")
    with TemporaryDirectory() as folder:
        rows = RawInput([path] if path.is_file() and members_of(path) is None else find_raws(str(path), "the file"),
                        columns, Path(folder))  # fmt: skip
        spans = rows.spans(0, rows.rows, max(rows.rows, 1))
        yield rows, [replace(span, raw=span.raw or str(rows.raws[0])) for span in spans]


def _blocks(rows: RawInput, spans: Sequence[Span]) -> Iterator[Block]:
    return (_good(block, rows.columns[0]) for span in spans for block in rows.read(span))


def frame_of_file(path: Path, columns: Columns) -> pd.DataFrame:
    """The rows of a raw file as a DataFrame that `block_of_frame` takes for just these rows.

    Raises:
        InputError: as `blocks_of_file`.
    """
    with _opened(path, columns) as (rows, spans):
        blocks = list(_blocks(rows, spans))
        cells = [part for span in spans for part in span.cells(rows.columns_of(span))]
    values = np.concatenate([block.numbers for block in blocks]) if blocks else np.empty((0, len(columns.dense)))
    found: dict[str, Any] = {}
    if columns.label:
        found[columns.label] = np.concatenate([block.labels for block in blocks]) if blocks else np.empty(0, np.uint8)
    texts = [list(itertools.chain(*parts)) for parts in zip(*cells)] or [[] for _ in columns.names]
    stamps = [one.name for one in columns.timestamps]
    for name, column in zip(columns.names, texts):
        if name in columns.categorical:
            found[name] = pd.Series(column, dtype=object)
        elif name in stamps:
            found[name] = pd.to_datetime(pd.to_numeric(pd.Series(column, dtype=object)), unit="s")
        elif name in columns.numeric:
            found[name] = values[:, columns.dense.index(name)].astype(np.float64)
    return pd.DataFrame(found)


def block_of_frame(frame: pd.DataFrame, columns: Columns, examples: Sequence[Example] = ()) -> Block:
    """Rows of a DataFrame with a column of each name; others are passed over.

    Numeric columns hold numbers, or text as in the raw rows; missing ones are nan, None or "". Categorical columns
    hold text, "" for an empty cell, as in the raw rows: "0042" is another category than "42". Whole numbers are taken
    where training had nothing else, and missing values where training had nothing but empty cells that pandas takes for
    missing. Columns of lists hold lists or arrays of such values, or text as in the raw rows.

    Args:
        frame: the rows.
        columns: the columns of the raw rows.
        examples: what the categorical columns' values looked like in training.

    Raises:
        InputError: a column is missing or there twice, or holds what it must not; the message names column and row.
    """
    if not isinstance(frame, pd.DataFrame):
        raise InputError(f"{type(frame).__name__} is no DataFrame: scorer.read_csv(path) reads one from a file, and "
                         f"scorer.score_lines takes lines of text")  # fmt: skip
    names = (*columns.numeric, *columns.categorical)
    if missing := [name for name in names if name not in frame.columns]:
        raise InputError(f"the DataFrame has no column {missing[0]!r}: it needs {len(missing)} more of the model's")
    if twice := [name for name in names if not isinstance(frame[name], pd.Series)]:
        raise InputError(f"the DataFrame has column {twice[0]!r} more than once: drop one of them")
    known, none = dict(zip(columns.categorical, examples)), _SIGNS if columns.quotes else _SIGNS + _ENDS
    stamps = {one.name: one for one in columns.timestamps}
    values: dict[str, np.ndarray] = {}
    keys, lists = np.zeros((len(columns.categorical), len(frame)), np.uint64), dict[int, CellLists]()
    of_lists = {one.name: one for one in columns.lists}
    refused: dict[str, str] = {}
    for name in names:
        try:
            if name in stamps:
                values[name] = _times(frame[name], stamps[name], columns)
            elif name in columns.numeric:
                values[name] = _numbers(frame[name], columns)[:, None]
            elif name in of_lists:
                cells = _cells_of_lists(frame[name], of_lists[name], known.get(name), none)
                lists[columns.categorical.index(name)] = lists_of(cells, columns)
            else:
                texts = _texts(frame[name], known.get(name), none)
                texts = ["" if text in columns.missing else text for text in texts]
                keys[columns.categorical.index(name)] = keys_of(texts, columns.key_seed)
        except InputError as error:
            refused[name] = str(error)
    if refused:
        others = list(refused)[1:]
        more = f". Nor can {len(others)} more columns be matched: {', '.join(map(repr, others))}" if others else ""
        raise InputError(next(iter(refused.values())) + more)
    parts = [np.empty((len(frame), 0), np.float32), *(values[name] for name in columns.numeric)]
    inputs, labels = np.concatenate(parts, axis=1), np.zeros(len(frame), np.uint8)
    return Block(labels, inputs, keys, key_seed=columns.key_seed, lists=lists)


def categories_of_frame(frame: pd.DataFrame, columns: Columns) -> list[list[str]]:
    """The text of the categorical columns' cells, or of the values in cells of lists, of such a DataFrame."""
    of_lists = {one.name: one for one in columns.lists}
    return [
        [str(value) for cell in frame[name] for value in _values(cell, of_lists[name])]
        if name in of_lists
        else [str(cell) for cell in frame[name]]
        for name in columns.categorical
    ]  # fmt: skip


def _values(cell: Any, column: ListColumn) -> Sequence[Any]:
    """The values in a cell; a missing one, or a single one, stands for itself."""
    if isinstance(cell, str):
        return cell.split(column.separator)
    return list(cell) if isinstance(cell, list | tuple | np.ndarray) else [cell]


def _cells_of_lists(column: pd.Series, one: ListColumn, example: Example | None, refused: str) -> list[list[str]]:
    """The categories in each cell of a column of lists as text."""
    cells = [_values(cell, one) for cell in column.tolist()]
    counts = [len(cell) for cell in cells]
    flat = pd.Series([value for cell in cells for value in cell], column.index.repeat(counts), object, column.name)
    texts = iter(_texts(flat, example, refused))
    return [list(itertools.islice(texts, count)) for count in counts]


def _times(column: pd.Series, timestamp: Timestamp, columns: Columns) -> np.ndarray:
    """The three numbers of a column of points in time, [B, 3]; text is read as that of the raw rows."""
    if types.is_datetime64_any_dtype(column.dtype):
        naive = column.dt.tz_convert(None) if column.dt.tz is not None else column
        seconds = seconds_of(naive.to_numpy("datetime64[us]"))
    elif types.is_numeric_dtype(column.dtype) and timestamp.form in UNITS:
        seconds = column.to_numpy(np.float64, na_value=np.nan) * UNITS[timestamp.form]
    else:
        cells = ["" if pd.isna(value) or value in columns.missing else value for value in column.tolist()]
        empty = np.array([cell == "" for cell in cells], bool)
        seconds = np.full(len(cells), np.nan)
        seconds[~empty] = of_texts([str(cell) for cell in cells if cell != ""], timestamp.form)
        if len(wrong := np.flatnonzero(np.isnan(seconds) & ~empty)):
            row = int(wrong[0])
            raise InputError(
                f"{_place(column, row, cells[row])}, no point in time of the form {timestamp.form}: mend it"
            )
    return numbers_of(bounded(seconds), timestamp)


def _numbers(column: pd.Series, columns: Columns) -> np.ndarray:
    """The numbers of a column, float32, nan for missing ones."""
    kind = column.dtype
    if types.is_bool_dtype(kind) or types.is_complex_dtype(kind) or not types.is_numeric_dtype(kind):
        cells = enumerate(column.tolist())
        values = np.array([_number(column, row, value, columns) for row, value in cells], np.float64)
    else:
        values = column.to_numpy(np.float64, na_value=np.nan)
    if wrong := np.flatnonzero(np.abs(values) > _LARGEST).tolist():
        raise InputError(f"{_place(column, wrong[0], values[wrong[0]])}: give a number")
    return values.astype(np.float32) + np.float32(0)  # which makes 0 of -0, as the parser does


def _number(column: pd.Series, row: int, value: Any, columns: Columns) -> float:
    """The number that a cell holds, be it as text."""
    if isinstance(value, str):
        cell = value.encode("utf-8", "replace")
        value = with_point(cell, columns.decimal.encode(), columns.thousands.encode()).decode("utf-8", "replace")
        if not NUMBER.fullmatch(value):
            value = "" if cell.decode() in columns.missing else cell.decode()
    if value == "" or _is_missing(value):
        return math.nan
    of_number = isinstance(value, numbers.Real | Decimal) and not isinstance(value, bool | np.bool_)
    if of_number or (isinstance(value, str) and NUMBER.fullmatch(value) is not None):
        with contextlib.suppress(OverflowError):  # of a whole number beyond all others
            return float(value)
    raise InputError(f"{_place(column, row, value)}, which is not a number: convert it")


def _texts(column: pd.Series, example: Example | None, refused: str) -> list[str]:
    """The categories of a column as text, "" for missing ones."""
    texts = []
    for row, value in enumerate(column.tolist()):
        if isinstance(value, str):
            texts.append(value)
        elif _is_missing(value):
            if example and example.like_missing:
                raise InputError(
                    f"{_place(column, row, value)}, and training had {example.like_missing!r}, which pandas takes "
                    f'for a missing value: give text, "" for an empty cell; {_REMEDY}'
                )
            texts.append("")
        elif isinstance(value, numbers.Integral) and not isinstance(value, bool | np.bool_):
            if example and example.not_whole:
                raise InputError(
                    f"{_place(column, row, value)}, a number, and training had text such as "
                    f"{example.not_whole!r}: give text as in the raw rows; {_REMEDY}"
                )
            texts.append(str(int(value)))
        else:
            such = f", such as {example.known[0]!r}" if example and example.known else ""
            raise InputError(
                f"{_place(column, row, value)}: give categories as text, as in the raw rows{such}; {_REMEDY}"
            )
    for row, text in enumerate(texts if _is_odd("".join(texts), refused) else ()):
        if _is_odd(text, refused):
            raise InputError(f"{_place(column, row, text)}, which no raw row can hold: give proper text")
    return texts


def _is_odd(text: str, refused: str) -> bool:
    """Whether it holds half a letter, or a sign that no cell of a file can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return any(sign in text for sign in refused)


def _is_missing(value: Any) -> bool:
    """Whether it is a missing number or text; a missing time (NaT) is of a column of times, which no model takes."""
    of_time = isinstance(value, np.datetime64 | np.timedelta64 | type(pd.NaT))
    return value is None or value is pd.NA or (types.is_scalar(value) and bool(pd.isna(value)) and not of_time)


def _place(column: pd.Series, row: int, value: Any) -> str:
    shown = str(value) if isinstance(value, numbers.Number) else repr(value)
    return f"column {column.name!r}, row {column.index[row]!r} is {shown[:60]}"
