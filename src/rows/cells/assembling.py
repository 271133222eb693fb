"""Columns of cells put together: to a block, and to text as plain rows would have it.

Legend: B rows, N numbers, F categorical columns.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from src.rows.block import BadRow, Block
from src.rows.cells.coded import CodedKeys
from src.rows.cells.column import Column
from src.rows.cells.lists import CellLists
from src.rows.cells.reasons import (
    CONTROL,
    SHOWN,
    cells_reason,
    not_utf8,
    number_reason,
    time_reason,
    weight_reason,
)  # fmt: skip
from src.rows.cells.split import IN_NO_PART, NO_PART
from src.rows.cells.times import numbers_of
from src.rows.columns import Columns, Timestamp
from src.rows.text import number_text

_MOST_WEIGHT = 1e30  # so that a batch's sum is within float32


def block_of(
    cells: Sequence[Column], columns: Columns, places: np.ndarray, text_of: Callable[[int], bytes], unit: str = "line"
) -> Block:
    """Rows of cells.

    Args:
        cells: of each of `columns.read_names`.
        columns: how they are read.
        places: number of each row's line, or row, in its file, [B].
        text_of: gives the text of a row, from 0, that is bad.
        unit: what the places number.
    """
    rows, left, bad = len(places), list(cells), dict[int, str]()
    odd = [found for found in (column.odd() for column in cells) if found is not None]

    def note(wrong: np.ndarray, reason: Callable[[int], str]) -> None:
        for row in np.flatnonzero(wrong).tolist():
            bad.setdefault(row, reason(row))

    for wrong in odd:
        note(wrong, lambda row: _odd_reason(text_of(row), columns))
    labels = np.zeros(rows, np.uint8)
    if columns.label:
        of_labels = left.pop(0)
        labels, wrong = of_labels.labels(columns)
        note(wrong, lambda row: of_labels.label_reason(row, columns))
    numbers, times = [np.empty((rows, 0), np.float32)], {one.name: one for one in columns.timestamps}
    for name in columns.numeric:
        column = left.pop(0)
        if one := times.get(name):
            seconds, wrong = column.times(one, columns)
            numbers.append(numbers_of(seconds, one))
        else:
            values, wrong = column.numbers(columns)
            numbers.append(values[:, None])
        note(wrong, partial(_reason, name, column, times))
    keys, checks, lists, coded = _categories(left, columns, rows)
    found, parts, weights = np.concatenate(numbers, axis=1), None, None
    if columns.weight:
        of_weights = cells[columns.read_names.index(columns.weight)]
        weights, wrong = _weights(of_weights, columns)
        note(wrong, lambda row: weight_reason(columns.weight, of_weights.texts([row])[0][:SHOWN]))
    if columns.split:
        of_parts = cells[columns.read_names.index(columns.split.column)]
        parts = columns.split.parts_of(of_parts, columns)
        note(parts == NO_PART, partial(_part_reason, columns.split.column, of_parts))
    block = Block(labels, found, keys, [], columns.key_seed, checks, places, parts, lists, weights, coded=coded)
    if not bad:
        return block
    good = np.ones(rows, bool)
    good[list(bad)] = False
    block = replace(block.chosen(good), parts=None if parts is None else parts[good])
    block.bad = [BadRow(int(places[row]), bad[row], text_of(row), unit=unit) for row in sorted(bad)]
    return block


def _odd_reason(text: bytes, columns: Columns) -> str:
    """What is wrong with a row of which a cell holds what no text could; what is not UTF-8 has U+FFFD in its place."""
    return cells_reason(CONTROL, 0) if min(text) < ord("\t") else not_utf8(columns)


def _categories(
    cells: Sequence[Column], columns: Columns, rows: int
) -> tuple[np.ndarray, np.ndarray | None, dict[int, CellLists], dict[int, CodedKeys]]:
    """Keys, checks, lists and coded keys, as of a block, of cells of `columns.categorical`, and of others behind."""
    of_lists, lists, coded = {one.name: one for one in columns.lists}, dict[int, CellLists](), dict[int, CodedKeys]()
    for field, (name, column) in enumerate(zip(columns.categorical, cells) if columns.coded else ()):
        if name not in of_lists and (own_coded := column.coded(columns)):
            coded[field] = own_coded
    left = [field for field in range(len(columns.categorical)) if field not in coded]
    keys, checks = np.empty((len(left), rows), np.uint64), None
    for place, field in enumerate(left):
        name, column = columns.categorical[field], cells[field]
        if name in of_lists:
            lists[field] = column.lists(of_lists[name], columns)
            keys[place] = 0
            continue
        keys[place], own = column.keys(columns)
        if own is not None and own.any():
            checks = np.zeros(keys.shape, np.uint32) if checks is None else checks
            checks[place] = own
    return keys, checks, lists, coded


def _weights(column: Column, columns: Columns) -> tuple[np.ndarray, np.ndarray]:
    """Float32 [B], and which cells hold none: an empty one has no weight."""
    weights, wrong = column.numbers(columns)
    return weights, wrong | no_weights(weights)


def no_weights(numbers: np.ndarray) -> np.ndarray:
    """Which numbers are no weights, nan of empty cells among them."""
    wrong: np.ndarray = ~((numbers >= 0) & (numbers <= _MOST_WEIGHT))
    return wrong


def _reason(name: str, column: Column, times: dict[str, Timestamp], row: int) -> str:
    shown = column.texts([row])[0][:SHOWN]
    return time_reason(name, shown, times[name].form) if name in times else number_reason(name, shown)


def _part_reason(name: str, column: Column, row: int) -> str:
    return f"{name} is {column.texts([row])[0][:SHOWN]!r}, {IN_NO_PART}"


def texts_of(cells: Sequence[Column], columns: Columns) -> list[list[str]]:
    """The text of cells of each of `columns.names` as plain rows would have it: labels 0 and 1, points in time as
    seconds, nothing for cells that are as good as empty. What can't be read stays as it is."""
    left, found = list(cells), []
    if columns.label:
        labels, wrong = left[0].labels(columns)
        found.append([text if odd else str(label) for text, label, odd in zip(left.pop(0).texts(), labels, wrong)])
    times = {one.name: one for one in columns.timestamps}
    for name in columns.numeric:
        column = left.pop(0)
        texts = column.texts()
        values, wrong = column.times(times[name], columns) if name in times else column.numbers(columns)
        for row, (text, value, odd) in enumerate(zip(texts, values.tolist(), wrong.tolist())):
            if not odd and math.isnan(value):
                texts[row] = ""
            elif not odd:
                texts[row] = number_text(repr(value)) if name in times else column.number_text(text, columns)
        found.append(texts)
    lists = {one.name: one for one in columns.lists}
    for name, column in zip(columns.categorical, left):
        texts = column.list_texts(lists[name]) if name in lists else column.texts()
        found.append(["" if text in columns.missing else text for text in texts])
    if columns.split:
        of_parts = cells[columns.read_names.index(columns.split.column)]
        found.append([str(part) for part in columns.split.parts_of(of_parts, columns).tolist()])
    return found
