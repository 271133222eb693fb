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
from src.rows.columns import Columns

_BEGINS = {b"PAR1": "parquet", b"ARROW1": "arrow", b"\xff\xff\xff\xff": "stream"}
_BATCH_ROWS, _CELL_ROWS = 1 << 17, 1 << 12
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
            block.bad = [replace(row, file=self.raw) for row in block.bad]
            yield block

    def cells(self, columns: Columns) -> Iterator[list[list[str]]]:
        return (texts_of(cells, columns) for _, _, cells in self._batches(columns, _CELL_ROWS))

    def _batches(self, columns: Columns, rows: int) -> Iterator[tuple[int, int, list[Column]]]:
        """Some rows at a time: the first one's number, from 1, how many, and cells of each of `columns.read_names`."""
        left = self.rows
        for start, batch in _opened(self.path, self.kind).batches(list(columns.read_names), self.first, rows):
            skipped = max(self.first - start, 0)
            batch = batch.slice(skipped, left)
            cells = (column_of(batch.column(name)) for name in columns.read_names)
            yield start + skipped + 1, batch.num_rows, [one for one in cells if one is not None]
            left -= batch.num_rows
            if left <= 0:
                return


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
            self.rows = opened.rows
        except (pyarrow.ArrowInvalid, OSError) as error:
            raise InputError(f"{raw} can't be read ({str(error).splitlines()[0]}): is it whole?") from None
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
        return [ColumnarSpan(first, last - first, self.path, self.kind, first)
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

    def batches(self, names: list[str], first: int, rows: int) -> Iterator[tuple[int, Any]]:
        """Batches from the one with a row on, and the number of each one's first row, from 0."""
        from pyarrow import parquet

        counts = [self.file.metadata.row_group(group).num_rows for group in range(self.file.num_row_groups)]
        starts = [0, *itertools.accumulate(counts)]
        groups = [group for group, end in enumerate(starts[1:]) if end > first]
        start = starts[groups[0]] if groups else 0
        # Text as numbers of distinct values, as it mostly is in the file: a value's key is then computed once a batch.
        texts = [name for name in names if str(self.schema.field(name).type) in ("string", "large_string")]
        file = parquet.ParquetFile(self.path, read_dictionary=texts, **_ALONE)
        for batch in file.iter_batches(rows, row_groups=groups, columns=names, use_threads=False):
            if start + batch.num_rows > first:
                yield start, batch
            start += batch.num_rows


class _Arrow:
    def __init__(self, path: Path, kind: str):
        import pyarrow as pa

        self.stream = kind == "stream"
        source = pa.memory_map(str(path))
        self.reader = pa.ipc.open_stream(source) if self.stream else pa.ipc.open_file(source)
        self.schema = self.reader.schema
        self.path, self.kind = path, kind

    @property
    def rows(self) -> int:
        return sum(batch.num_rows for batch in self._all())

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
