"""Cells of Arrow's typed columns, as their text would be read.

A whole number is its digits, be it kept as a float, as pandas keeps columns with missing values; other floats are the
shortest text that gives them, truth is True or False, and a point in time is written as pandas writes it.

Legend: B rows.
"""

import itertools
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from src.rows.cells.buffers import floats_of, is_plain, numbers_of, texts_of, values_of
from src.rows.cells.coded import CodedKeys
from src.rows.cells.column import Column, TextColumn, Wrong
from src.rows.cells.lists import CellLists, ListColumn
from src.rows.cells.times import UNITS, bounded, seconds_of
from src.rows.columns import Columns, Timestamp
from src.rows.keys import PAD
from src.rows.lines import keys_by_offsets

_ONLY_LISTS = "cells of lists are read by `lists` alone"


def column_of(array: Any, before: Column | None = None) -> Column | None:
    """The cells of a pyarrow.Array; None for a type that a cell of text could not hold, such as maps.

    Args:
        array: the cells.
        before: those of the rows before, with which the distinct values of a dictionary may be shared.
    """
    import pyarrow as pa

    kind = array.type
    types = pa.types
    if types.is_dictionary(kind):
        if isinstance(before, Coded) and before.values is not None and before.values.equals(array.dictionary):
            return before.followed_by(array.indices)
        distinct = column_of(array.dictionary)
        return distinct and Coded(distinct, array.indices, array.dictionary)
    if types.is_string_view(kind) or types.is_binary_view(kind):
        array = array.cast(pa.large_string() if types.is_string_view(kind) else pa.large_binary())
        return _Texts(array)
    if types.is_string(kind) or types.is_large_string(kind) or types.is_binary(kind) or types.is_large_binary(kind):
        return _Texts(array)
    if types.is_null(kind):
        return TextColumn.of([b""] * len(array))
    if types.is_boolean(kind):
        return _Truth(TextColumn.of([b"False", b"True"]), array.cast(pa.int8()))
    if types.is_integer(kind) or types.is_floating(kind):
        return _Numbers(array)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        values = column_of(array.flatten())
        if isinstance(values, Lists):
            return None
        from pyarrow import compute

        counts = compute.list_value_length(array).fill_null(0).to_numpy(zero_copy_only=False)
        return values and Lists(values, counts.astype(np.int64))
    if types.is_timestamp(kind) or types.is_date(kind):
        return _Moments(array)
    return _encoded(array) if types.is_decimal(kind) else None


class Coded(Column):
    """Cells each of which is one of some distinct ones.

    Args:
        distinct: those.
        places: which, a pyarrow.Array of whole numbers [B], null for an empty cell.
        values: the distinct ones as a pyarrow.Array, if rows that follow may have the same.
    """

    def __init__(self, distinct: Column, places: Any, values: Any = None):
        self.distinct, self.places, self.values = distinct, places, values
        self._known: dict[tuple[Any, ...], CodedKeys] = {}  # of the distinct cells, by how they are read

    def followed_by(self, places: Any) -> "Coded":
        """Other cells of the same distinct ones."""
        other = Coded(self.distinct, places, self.values)
        other._known = self._known
        return other

    @cached_property
    def codes(self) -> np.ndarray:
        """Which, -1 for an empty cell, int64 [B]."""
        return numbers_of(self.places)

    def keys(self, columns: Columns) -> tuple[np.ndarray, np.ndarray | None]:
        return self.coded(columns).keys()

    def coded(self, columns: Columns) -> CodedKeys:
        how = columns.key_seed, columns.checked, columns.missing
        if how not in self._known:
            self._known[how] = CodedKeys.of_distinct(*self.distinct.keys(columns))
        return self._known[how].at(self.places)

    def numbers(self, columns: Columns) -> tuple[np.ndarray, Wrong]:
        return self._taken(*self.distinct.numbers(columns))

    def times(self, timestamp: Timestamp, columns: Columns) -> tuple[np.ndarray, Wrong]:
        return self._taken(*self.distinct.times(timestamp, columns))

    def _taken(self, values: np.ndarray, wrong: Wrong) -> tuple[np.ndarray, Wrong]:
        return np.append(values, values.dtype.type(np.nan))[self.codes], np.append(wrong, False)[self.codes]

    def labels(self, columns: Columns) -> tuple[np.ndarray, Wrong]:
        labels, wrong = self.distinct.labels(columns)
        return np.append(labels, np.uint8(0))[self.codes], np.append(wrong, True)[self.codes]

    def lists(self, column: ListColumn, columns: Columns) -> CellLists:
        return self.distinct.lists(column, columns).taken(self.codes)

    def odd(self) -> Wrong | None:
        odd = self.distinct.odd()
        return None if odd is None else np.append(odd, False)[self.codes]

    def number_text(self, text: str, columns: Columns) -> str:
        return self.distinct.number_text(text, columns)

    def texts(self, rows: Sequence[int] | None = None) -> list[str]:
        used, which = np.unique(self.codes if rows is None else self.codes[rows], return_inverse=True)
        empty = [""] * int((used < 0).sum())
        texts = empty + self.distinct.texts(used[len(empty) :].tolist())
        return [texts[place] for place in which.tolist()]


class Lists(Column):
    """Cells of lists, which only columns of lists may be.

    Args:
        values: cells of all values, those of a list side by side.
        counts: how many each list has, int64 [B].
    """

    def __init__(self, values: Column, counts: np.ndarray):
        self.values, self.counts = values, counts

    def lists(self, column: ListColumn, columns: Columns) -> CellLists:
        keys, checks = self.values.keys(columns)
        if columns.checked and checks is None:
            checks = np.zeros(len(keys), np.uint32)
        return CellLists(keys, self.counts, checks).filled()

    def list_texts(self, column: ListColumn) -> list[str]:
        return self._joined(column.separator)

    def _joined(self, separator: str) -> list[str]:
        texts = iter(self.values.texts())
        return [separator.join(itertools.islice(texts, count)) for count in self.counts.tolist()]

    def texts(self, rows: Sequence[int] | None = None) -> list[str]:
        texts = self._joined("|")
        return texts if rows is None else [texts[row] for row in rows]

    def odd(self) -> Wrong | None:
        odd = self.values.odd()
        if odd is None:
            return None
        rows = np.repeat(np.arange(len(self.counts)), self.counts)
        return np.bincount(rows[odd], minlength=len(self.counts)) > 0

    def keys(self, columns: Columns) -> tuple[np.ndarray, np.ndarray | None]:
        raise TypeError(_ONLY_LISTS)

    def numbers(self, columns: Columns) -> tuple[np.ndarray, Wrong]:
        raise TypeError(_ONLY_LISTS)

    def times(self, timestamp: Timestamp, columns: Columns) -> tuple[np.ndarray, Wrong]:
        raise TypeError(_ONLY_LISTS)

    def labels(self, columns: Columns) -> tuple[np.ndarray, Wrong]:
        raise TypeError(_ONLY_LISTS)


class _Truth(Coded):
    def labels(self, columns: Columns) -> tuple[np.ndarray, Wrong]:
        if columns.positive or columns.negative:
            return super().labels(columns)
        return np.maximum(self.codes, 0).astype(np.uint8), self.codes < 0


class _Written(Column):
    """Cells of values, whose texts are made where they are asked for."""

    def __init__(self, array: Any):
        self.array = array

    @cached_property
    def _cells(self) -> Column:
        return TextColumn(*texts_of(self.array), checked=True)

    def keys(self, columns: Columns) -> tuple[np.ndarray, np.ndarray | None]:
        return self._cells.keys(columns)

    def numbers(self, columns: Columns) -> tuple[np.ndarray, Wrong]:
        return floats_of(self.array)

    def times(self, timestamp: Timestamp, columns: Columns) -> tuple[np.ndarray, Wrong]:
        return self._cells.times(timestamp, columns)

    def labels(self, columns: Columns) -> tuple[np.ndarray, Wrong]:
        return self._cells.labels(columns)

    def lists(self, column: ListColumn, columns: Columns) -> CellLists:
        return self._cells.lists(column, columns)

    def texts(self, rows: Sequence[int] | None = None) -> list[str]:
        return self._cells.texts(rows)

    def odd(self) -> None:
        return None


class _Numbers(_Written):
    def number_text(self, text: str, columns: Columns) -> str:
        return text

    def labels(self, columns: Columns) -> tuple[np.ndarray, Wrong]:
        if columns.positive or columns.negative or not str(self.array.type).startswith(("int", "uint")):
            return super().labels(columns)
        numbers, _ = floats_of(self.array)  # no other whole number is as near to 0 or 1
        return (numbers == 1).astype(np.uint8), (numbers != 0) & (numbers != 1)

    def times(self, timestamp: Timestamp, columns: Columns) -> tuple[np.ndarray, Wrong]:
        if timestamp.form not in UNITS:
            return super().times(timestamp, columns)
        values = values_of(self.array)
        seconds = bounded(values * UNITS[timestamp.form])
        return seconds, np.isnan(seconds) & ~np.isnan(values)


class _Moments(_Written):
    @cached_property
    def _cells(self) -> Column:
        return _encoded(self.array)

    def numbers(self, columns: Columns) -> tuple[np.ndarray, Wrong]:
        empty = self.array.is_null().to_numpy(zero_copy_only=False)
        return np.full(len(empty), np.nan, np.float32), ~empty

    def times(self, timestamp: Timestamp, columns: Columns) -> tuple[np.ndarray, Wrong]:
        import pyarrow as pa

        # To microseconds first: a date has days, and a cast to another unit refuses what it would cut off.
        array = self.array
        if pa.types.is_timestamp(array.type):  # without its zone, which may be none: times are kept in UTC
            array = array.cast("int64").cast(pa.timestamp(array.type.unit))
        moments = array.cast(pa.timestamp("us"), safe=False).to_numpy(zero_copy_only=False)
        moments = moments.astype("datetime64[us]")
        seconds = bounded(seconds_of(moments))
        return seconds, np.isnan(seconds) & ~np.isnat(moments)


def _encoded(array: Any) -> Coded:
    """Cells of Python's text of values, of a point in time that Python has not its number."""
    coded = array.dictionary_encode()
    try:
        texts = ["" if value is None else str(value) for value in coded.dictionary.to_pylist()]
    except (OverflowError, ValueError, KeyError):  # beyond the years 1 to 9999, or of no known zone
        texts = ["" if value is None else str(value) for value in coded.dictionary.cast("int64").to_pylist()]
    return Coded(TextColumn.of([text.encode() for text in texts]), coded.indices)


class _Texts(TextColumn):
    """The cells of an array of text, a missing one empty."""

    def __init__(self, array: Any):
        wide = str(array.type).startswith("large")
        _, offsets, data = array.buffers()
        kind = np.dtype(np.int64 if wide else np.int32)
        self.offsets = np.zeros(1, kind)  # an empty array may have no buffers
        if len(array):
            self.offsets = np.frombuffer(offsets, kind, len(array) + 1, array.offset * kind.itemsize)
        first, last = int(self.offsets[0]), int(self.offsets[-1])
        self.data = np.frombuffer(data, np.uint8) if last > first else np.empty(0, np.uint8)
        self.checked = is_plain(self.data[first:last])
        self.empty = array.is_null().to_numpy(zero_copy_only=False) if array.null_count else None
        if self.empty is not None and not (np.diff(self.offsets)[self.empty] > 0).any():
            self.empty = None  # as it mostly is: nothing stands where a cell is missing

    def _cell_keys(self, seed: str, checked: bool) -> tuple[np.ndarray, np.ndarray | None]:
        found = keys_by_offsets(self.data, self.offsets, seed, checked) if self.empty is None else None
        return found or super()._cell_keys(seed, checked)

    @cached_property
    def _cells(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        places = self.offsets.astype(np.int64)
        first, last = int(places[0]), int(places[-1])
        buffer = np.concatenate([np.zeros(PAD, np.uint8), self.data[first:last], np.zeros(PAD, np.uint8)])
        starts, ends = places[:-1] - first + PAD, places[1:] - first + PAD
        if self.empty is not None:
            starts, ends = np.where(self.empty, PAD, starts), np.where(self.empty, PAD, ends)
        return buffer, starts, ends

    @property
    def buffer(self) -> np.ndarray:  # type: ignore[override]
        """As of `TextColumn`."""
        return self._cells[0]

    @property
    def starts(self) -> np.ndarray:  # type: ignore[override]
        """As of `TextColumn`."""
        return self._cells[1]

    @property
    def ends(self) -> np.ndarray:  # type: ignore[override]
        """As of `TextColumn`."""
        return self._cells[2]
