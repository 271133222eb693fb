"""Files of columns: Parquet and Arrow's, which pandas and Spark write. They need pyarrow, which is not required."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from src.base.errors import InputError
from src.rows.block import Block, RowFile, Span
from src.rows.cells.arrow import Lists, column_of
from src.rows.cells.assembling import block_of, texts_of
from src.rows.cells.column import Column
from src.rows.cells.pages import batches_of, readable
from src.rows.columns import Columns

_BEGINS = {b"PAR1": "parquet", b"ARROW1": "arrow", b"\xff\xff\xff\xff": "stream"}
_BATCH_ROWS, _CELL_ROWS = 1 << 16, 1 << 12
_CODED_BYTES = 4  # of a value in the file; numbers of up to a million distinct ones take less
_TEXTS, _SIGNED = ("string", "large_string"), ("int8", "int16", "int32", "int64")
_DICTIONARIES = {"PLAIN_DICTIONARY", "RLE_DICTIONARY"}  # encodings of a file
_WITH_THEM = _DICTIONARIES | {"PLAIN", "RLE", "BIT_PACKED"}
REQUIREMENTS = "requirements-parquet.txt"


def kind_of(begin: bytes) -> str:
    """parquet, arrow or stream (of Arrow's record batches), by how a file begins; "" for another kind."""
    return next((kind for start, kind in _BEGINS.items() if begin.startswith(start)), "")


def needed(raw: Path, what: str) -> Any:
    """pyarrow, which a file needs.

    Raises:
        InputError: it is not installed, or can't be used.
    """
    try:
        import pyarrow
    except ImportError as error:
        raise InputError(
            f"{raw} is {what}, which pyarrow reads, and it can't be had ({str(error).splitlines()[0]}): "
            f"pip install -r {REQUIREMENTS}"
        ) from None
    return pyarrow


def damaged(raw: Path | str, error: Exception, where: str = "") -> InputError:
    """What to say of a file, or of some of its rows, that pyarrow can't read."""
    return InputError(f"{raw}: {where}can't be read ({str(error).splitlines()[0]}): is it whole?")


@dataclass(frozen=True)
class ColumnarSpan(Span):
    """A run of rows of such a file.

    Attributes:
        path: the file.
        kind: as `kind_of` says.
        first: number of its first row in the file, from 0.
    """

    path: Path
    kind: str
    first: int

    def blocks(self, columns: Columns) -> Iterator[Block]:
        for number, rows, cells in self._batches(columns, max(min(_BATCH_ROWS, self.rows), _CELL_ROWS)):
            text_of = partial(_row_text, cells)
            block = block_of(cells, columns, np.arange(number, number + rows), text_of, "row")
            if block.bad and columns.signs:  # whose text has all numbers
                here = replace(self, first=number - 1, rows=rows)
                yield from here.blocks(replace(columns, signs=False))
                continue
            block.bad = [replace(row, file=self.raw) for row in block.bad]
            yield block

    def cells(self, columns: Columns) -> Iterator[list[list[str]]]:
        return (texts_of(cells, columns) for _, _, cells in self._batches(columns, _CELL_ROWS))

    def _batches(self, columns: Columns, rows: int) -> Iterator[tuple[int, int, list[Column]]]:
        """Some rows at a time: the first one's number, from 1, how many, and cells of each of `columns.read_names`."""
        reading = _reading(self, columns, rows)
        end = self.first + self.rows
        while reading.place < end and (batch := reading.next(end)) is not None:
            cells = [reading.cells_of(name, batch) for name in columns.read_names]
            yield reading.place - batch.num_rows + 1, batch.num_rows, [one for one in cells if one is not None]
        _left[:] = [reading]


class _Reading:
    """Rows of a file one behind the other, of which the next one is number `place`, from 0."""

    def __init__(self, span: ColumnarSpan, columns: Columns, rows: int):
        self.what, opened = _what(span, columns, rows), _opened(span.path, span.kind)
        self.place, self.raw, self.check = span.first, span.raw or str(span.path), span.kind != "parquet"
        told_by = columns.split.column if columns.split else ""
        numbers = [name for name in columns.dense if name in opened.schema.names and name != told_by]
        self._left_out = opened.naturals(numbers) if columns.signs else []
        names = [name for name in columns.read_names if name not in self._left_out]
        self._batches = opened.batches(names, span.first, rows)
        self._begin, self._batch = span.first, None
        self._before: dict[str, Column | None] = {}  # the cells of the rows before

    def cells_of(self, name: str, batch: Any) -> Column | None:
        """The cells of a column, those of numbers that only their sign matters of as zeros."""
        if name in self._left_out:
            return column_of(_zeros(batch.num_rows))
        found = self._before[name] = column_of(batch.column(name), self._before.get(name))
        return found

    def next(self, end: int) -> Any:
        """Some rows, from `place` on, of those before `end`; None where the file has no more."""
        while self._batch is None or self.place >= self._begin + self._batch.num_rows:
            try:
                self._begin, self._batch = next(self._batches, (self.place, None))
                if self._batch is not None and self.check:
                    self._batch.validate(full=True)
            except (ValueError, OSError) as error:  # pyarrow's own errors are such
                raise damaged(self.raw, error, f"rows from {self.place + 1} on ") from None
            if self._batch is None:
                return None
        batch = self._batch.slice(self.place - self._begin, end - self.place)
        self.place += batch.num_rows
        return batch


# What this process has read last, to go on with: rows of a Parquet file can't be passed over, but for whole groups.
_left: list[_Reading] = []


def _what(span: ColumnarSpan, columns: Columns, rows: int) -> tuple[Any, ...]:
    about, how = span.path.stat(), (columns.read_names, columns.signs, rows > _CELL_ROWS)
    return str(span.path), about.st_size, about.st_mtime_ns, about.st_ino, *how


def _zeros(rows: int) -> Any:
    import pyarrow as pa

    return pa.array(np.zeros(rows, np.int8))


def _reading(span: ColumnarSpan, columns: Columns, rows: int) -> _Reading:
    """Where a span begins, from where the last one ended if that is there."""
    last = _left.pop() if _left else None
    if last and last.place == span.first > 0 and last.what == _what(span, columns, rows):
        return last
    return _Reading(span, columns, rows)


def _row_text(cells: Sequence[Column], row: int) -> bytes:
    """A row as plain text would have it, of the columns that are used."""
    return "\t".join(column.texts([row])[0] for column in cells).encode()


class ColumnarFile(RowFile):
    """A file of columns; arguments as for `RawInput`, its kind, and the name that messages give it.

    Raises:
        InputError: pyarrow is not there, the file is damaged, or lacks a column or has it in a form that is none here.
    """

    def __init__(self, path: Path, kind: str, columns: Columns, raw: Path):
        pyarrow = needed(raw, "Parquet" if kind == "parquet" else "of Arrow")
        try:
            opened = _opened(path, kind)
            self.rows, self._starts = opened.rows, opened.starts
        except (pyarrow.ArrowInvalid, OSError) as error:
            raise damaged(raw, error) from None
        self.names = names = opened.schema.names
        lists = [one.name for one in columns.lists]
        for name in columns.read_names:
            if names.count(name) != 1:
                raise InputError(
                    f"{raw} has column {name!r} {names.count(name)} times: it must be there once, and the columns are "
                    f"{', '.join(names)[:200]}"
                )
            kept = opened.schema.field(name).type
            cells = column_of(pyarrow.nulls(0, kept))
            by_lists = columns.split and name == columns.split.column  # which tell no part
            if cells is None or (isinstance(cells, Lists) and (name not in lists or by_lists)):
                raise InputError(
                    f"{raw}: column {name!r} holds {kept}: give a column of text, numbers or times, or one of lists of "
                    f"these, which the schema must say"
                )
        self.path, self.kind, self.columns = path, kind, columns

    def spans(self, first_row: int, last_row: int, rows: int) -> Sequence[ColumnarSpan]:
        bounds = [*range(first_row, last_row, rows), last_row]
        return [ColumnarSpan(first, last - first, self.path, self.kind, first, follows=first not in self._starts)
                for first, last in itertools.pairwise(bounds)]  # fmt: skip


_ALONE: dict[str, Any] = {"memory_map": True, "pre_buffer": False}  # no threads, which a forked process would lack


def names_of(path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The columns of such a file that cells of text could hold, and those of them that hold lists."""
    with path.open("rb") as file:
        kind = kind_of(file.read(8))
    pyarrow = needed(path, "a file of columns")
    cells = {field.name: column_of(pyarrow.nulls(0, field.type)) for field in _opened(path, kind).schema}
    names = tuple(name for name, one in cells.items() if one is not None)
    return names, tuple(name for name in names if isinstance(cells[name], Lists))


class _Parquet:
    def __init__(self, path: Path):
        from pyarrow import parquet

        self.path, self.file = path, parquet.ParquetFile(path, **_ALONE)
        self.schema, self.rows = self.file.schema_arrow, self.file.metadata.num_rows
        counts = [self.file.metadata.row_group(group).num_rows for group in range(self.file.num_row_groups)]
        self.starts = [0, *itertools.accumulate(counts)]
        # The number of each column, or of the first one that it consists of, among the file's own.
        leaves = itertools.accumulate((_leaves(field.type) for field in self.schema), initial=0)
        self.places = dict(reversed([*zip(self.schema.names, leaves)]))  # the first one of a name

    def batches(self, names: list[str], first: int, rows: int) -> Iterator[tuple[int, Any]]:
        """Batches from the one with a row on, and the number of each one's first row, from 0."""
        from pyarrow import parquet

        groups = [group for group, end in enumerate(self.starts[1:]) if end > first]
        start = self.starts[groups[0]] if groups else 0
        texts = [name for name in names if str(self.schema.field(name).type) in _TEXTS and self._is_coded(name, groups)]
        paged = readable(self.file.metadata, self.schema, {name: self.places[name] for name in names}, groups)
        others = [name for name in names if name not in paged]
        file = parquet.ParquetFile(self.path, metadata=self.file.metadata, read_dictionary=texts, **_ALONE)
        if len(others) == len(names):
            batches = file.iter_batches(rows, row_groups=groups, columns=names, use_threads=False)
        else:
            text = np.memmap(self.path, np.uint8, "r")
            batches = itertools.chain.from_iterable(
                batches_of(text, file.metadata, group, paged, texts, names, (
                    file.iter_batches(rows, row_groups=[group], columns=others, use_threads=False) if others else None
                ), rows)
                for group in groups
            )  # fmt: skip
        for batch in batches:
            if start + batch.num_rows > first:
                yield start, batch
            start += batch.num_rows

    def naturals(self, names: Sequence[str]) -> list[str]:
        """Those columns that hold whole numbers, none below 0, as the file itself says."""
        groups = range(self.file.num_row_groups)
        return [name for name in names if self._least(name, groups) >= 0]

    def _least(self, name: str, groups: Sequence[int]) -> int:
        """A column's least whole number, -1 where the file doesn't say, or holds others."""
        if str(self.schema.field(name).type) not in _SIGNED:
            return -1
        about = [chunk.statistics for chunk in self._chunks(name, groups)]
        return min((one.min if one is not None and one.has_min_max else -1 for one in about), default=-1)

    def _chunks(self, name: str, groups: Sequence[int]) -> list[Any]:
        """What the file says of a column's parts."""
        place = self.places[name]
        return [self.file.metadata.row_group(group).column(place) for group in groups]

    def _is_coded(self, name: str, groups: list[int]) -> bool:
        """Whether a column of text is kept as numbers of distinct values, so that a value's key is computed once.

        Where it has too many, a writer goes over to the text itself, and numbers of it would have to be made here;
        of text in other encodings than plain, pyarrow makes none.
        """
        chunks = self._chunks(name, groups)
        if not all(_DICTIONARIES & set(chunk.encodings) and set(chunk.encodings) <= _WITH_THEM for chunk in chunks):
            return False
        size = sum(chunk.total_uncompressed_size for chunk in chunks)
        return size <= _CODED_BYTES * sum(chunk.num_values for chunk in chunks)


def _leaves(kind: Any) -> int:
    """How many columns of a Parquet file a column of a type is."""
    return sum(_leaves(kind.field(place).type) for place in range(kind.num_fields)) or 1


class _Arrow:
    def __init__(self, path: Path, kind: str):
        import pyarrow as pa

        self.stream = kind == "stream"
        source = pa.memory_map(str(path))
        self.reader = pa.ipc.open_stream(source) if self.stream else pa.ipc.open_file(source)
        self.schema = self.reader.schema
        self.path, self.kind = path, kind

    def naturals(self, names: Sequence[str]) -> list[str]:
        return []  # such a file tells nothing of its columns

    @property
    def rows(self) -> int:
        return sum(batch.num_rows for batch in self._all())

    @property
    def starts(self) -> range:  # any row is found at once
        return range(self.rows)

    def _all(self) -> Iterator[Any]:
        if self.stream:
            return iter(_Arrow(self.path, self.kind).reader)
        return (self.reader.get_batch(number) for number in range(self.reader.num_record_batches))

    def batches(self, names: list[str], first: int, rows: int) -> Iterator[tuple[int, Any]]:
        start = 0
        for batch in self._all():
            begin = max(first - start, 0)
            for low in range(begin, batch.num_rows, rows):
                yield start + low, batch.slice(low, rows).select(names)
            start += batch.num_rows


def _opened(path: Path, kind: str) -> Any:
    import pyarrow

    # Arrow's own pool asks the system for memory anew in each forked process, which takes longer than the reading.
    pyarrow.set_memory_pool(pyarrow.system_memory_pool())
    return _Parquet(path) if kind == "parquet" else _Arrow(path, kind)
