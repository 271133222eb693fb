"""Odd inputs in columns, Parquet and Arrow, and of lists, for `odd_files.py`; see `odd_cases.py` for what a case is."""

import gzip
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import feather, parquet

from benchmarks.odd_cases import CATEGORICAL, DENSE, Input, Row, flipped, plain_rows, schema_of, text_of

_NOON = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)
_NAME = "rows.parquet"


def table_of(rows: Sequence[Row]) -> pa.Table:
    """Whole numbers and text, nulls for empty cells."""
    columns = {"label": pa.array([int(row.label) for row in rows], pa.int8())}
    for place, name in enumerate(DENSE):
        columns[name] = pa.array([int(row.numbers[place]) if row.numbers[place] else None for row in rows], pa.int64())
    for place, name in enumerate(CATEGORICAL):
        columns[name] = pa.array([row.texts[place] or None for row in rows], pa.string())
    return pa.table(columns)


def _put(table: pa.Table, **columns: Any) -> pa.Table:
    """A table with other columns in the place of some, or behind all."""
    for name, column in columns.items():
        place = table.column_names.index(name) if name in table.column_names else table.num_columns
        table = table.remove_column(place) if name in table.column_names else table
        table = table.add_column(place, name, column if isinstance(column, pa.ChunkedArray) else [column])
    return table


def _parquet(
    change: Callable[[pa.Table], pa.Table] = lambda table: table, known: bool | None = True, *,
    after: Callable[[bytes], bytes] = bytes, schema: dict[str, Any] | None = None, **how: Any,
) -> Callable[[], Input]:  # fmt: skip
    """A file of a changed table; known: whether its rows are the plain ones, None for rows that must be refused."""

    def make() -> Input:
        rows = plain_rows()
        parquet.write_table(change(table_of(rows)), _NAME, **({"row_group_size": 37} | how))
        Path(_NAME).write_bytes(after(Path(_NAME).read_bytes()))
        return Input(_NAME, rows if known else [] if known is None else None, schema or schema_of(), columnar=True)

    return make


def _cast(name: str, kind: Any) -> Callable[[pa.Table], pa.Table]:
    return lambda table: _put(table, **{name: table[name].cast(kind)})


def _coded(name: str, kind: Any = None) -> Callable[[pa.Table], pa.Table]:
    """A column as a dictionary, of other values if asked for."""
    return lambda table: _put(table, **{name: (table[name].cast(kind) if kind else table[name]).dictionary_encode()})


def _filled(name: str, value: Any, kind: Any = None, known: bool | None = None, **more: Any) -> Callable[[], Input]:
    """A column of one value in all rows."""
    return _parquet(lambda table: _put(table, **{name: pa.array([value] * len(table), kind)}), known, **more)


def _at_row(name: str, value: Any, kind: Any) -> Callable[[], Input]:
    """One value that can't be used, in row 101."""

    def change(table: pa.Table) -> pa.Table:
        values = table[name].cast(kind).to_pylist()
        return _put(table, **{name: pa.array([*values[:100], value, *values[101:]], kind)})

    return _parquet(change, None)


def _parts(change: Callable[[pa.Table], pa.Table], known: bool | None = True, at: int = 70) -> Callable[[], Input]:
    """The rows in two files, of which the second one is changed."""

    def make() -> Input:
        rows = plain_rows()
        parquet.write_table(table_of(rows[:at]), "a.parquet")
        parquet.write_table(change(table_of(rows[at:])), "b.parquet")
        return Input("a.parquet,b.parquet", rows if known else [], schema_of(), columnar=True)

    return make


def _arrow(write: Callable[[pa.Table, str], None], change: Callable[[bytes], bytes] = bytes,
           known: bool | None = True) -> Callable[[], Input]:  # fmt: skip
    def make() -> Input:
        rows = plain_rows()
        write(table_of(rows), "rows.arrow")
        Path("rows.arrow").write_bytes(change(Path("rows.arrow").read_bytes()))
        return Input("rows.arrow", rows if known else [] if known is None else None, schema_of(), columnar=True)

    return make


def _stream(table: pa.Table, path: str) -> None:
    with pa.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=33)


def _file(table: pa.Table, path: str) -> None:
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=33)


def _empty_groups() -> Input:
    rows = plain_rows()
    table = table_of(rows)
    with parquet.ParquetWriter(_NAME, table.schema) as writer:
        for low, high in ((0, 0), (0, 50), (50, 50), (50, 140), (140, 140)):
            writer.write_table(table.slice(low, high - low))
    return Input(_NAME, rows, schema_of(), columnar=True)


def _lists(rows: int = 140, most: int = 5) -> list[list[str]]:
    rng = np.random.default_rng(3)
    return [[f"t{tag}" for tag in rng.integers(0, 9, rng.integers(0, most))] for _ in range(rows)]


def _schema_of_lists(sign: str = "|", **more: Any) -> dict[str, Any]:
    listed = {"name": "c", "list": sign, "max_values": 4}
    return schema_of(**more) | {"categorical": [*CATEGORICAL[:2], listed]}


def _list_column(kind: Any, lists: Sequence[Any] | None = None, known: bool | None = False) -> Callable[[], Input]:
    given = _lists() if lists is None else lists
    return _parquet(lambda table: _put(table, c=pa.array(given, kind)), known, schema=_schema_of_lists())


def _listed_text(
    lists: Sequence[Sequence[str]], sign: str, separator: str = "\t", quoted: bool = False, **more: Any
) -> Callable[[], Input]:  # fmt: skip
    """Lists in cells of text, which all doors must read alike."""

    def make() -> Input:
        cells = [f'"{sign.join(one)}"' if quoted else sign.join(one) for one in lists]
        rows = [Row(row.label, row.numbers, (*row.texts[:2], cell)) for row, cell in zip(plain_rows(), cells)]
        Path("train.txt").write_text(text_of(rows, separator), encoding="utf-8")
        return Input("train.txt", None, _schema_of_lists(sign, separator=separator, **more))

    return make


_STRINGS, _MAP = pa.list_(pa.string()), pa.map_(pa.string(), pa.int64())
_STRUCT = pa.struct([("x", pa.int64()), ("y", pa.struct([("z", pa.string())]))])
CASES: dict[str, Callable[[], Input]] = {
    "parquet": _parquet(),
    # how it is written
    **{f"parquet by {codec}": _parquet(compression=codec) for codec in ("none", "gzip", "zstd", "brotli", "lz4")},
    "parquet of pages of the second kind": _parquet(data_page_version="2.0"),
    "parquet with checksums of pages": _parquet(write_page_checksum=True),
    "parquet without dictionaries and statistics": _parquet(use_dictionary=False, write_statistics=False),
    "parquet of other encodings": _parquet(use_dictionary=False, column_encoding={
        "n": "DELTA_BINARY_PACKED", "m": "BYTE_STREAM_SPLIT", "a": "DELTA_BYTE_ARRAY", "b": "DELTA_LENGTH_BYTE_ARRAY"}),
    "parquet of a group a row": _parquet(row_group_size=1),
    "parquet with groups without rows": _empty_groups,
    "parquet without rows": _parquet(lambda table: table.slice(0, 0), None),
    "parquet of one row": _parquet(lambda table: table.slice(0, 1), False),
    "parquet of columns in another order": _parquet(lambda table: table.select([*table.column_names[::-1]])),
    "parquet in gzip": _parquet(after=gzip.compress),
    # types
    **{f"text as {kind}": _parquet(_cast("a", kind)) for kind in (pa.large_string(), pa.binary(), pa.large_binary())},
    "text of a dictionary": _parquet(_coded("a")),
    "numbers of a dictionary": _parquet(_coded("n")),
    "numbers as text": _parquet(_cast("n", pa.string())),
    **{f"numbers as {kind}": _parquet(_cast("n", kind)) for kind in (
        pa.int8(), pa.uint16(), pa.uint64(), pa.float32(), pa.float64(), pa.decimal128(22, 3), pa.decimal256(50, 0),
    )},
    **{f"labels as {kind}": _parquet(_cast("label", kind)) for kind in (
        pa.bool_(), pa.float64(), pa.string(), pa.uint8(), pa.int64(),
    )},
    "categories of a dictionary of whole numbers": _parquet(
        lambda table: _put(table, a=pa.array([n % 5 for n in range(len(table))]).dictionary_encode()), False),
    "categories of decimals": _filled("a", Decimal("1.50"), pa.decimal128(9, 2), False),
    "categories of times with a zone": _filled("a", _NOON, pa.timestamp("us", "Asia/Tokyo"), False),
    "categories of times of no known zone": _filled("a", 7, pa.timestamp("ns", "No/Where"), False),
    "categories of dates": _filled("a", _NOON.date(), pa.date32(), False),
    "categories of a column without type": _filled("a", None, pa.null(), False),
    "categories of -0.0 and nan": _parquet(
        lambda table: _put(table, a=pa.array([-0.0, float("nan"), 1.5, None] * (len(table) // 4))), False),
    "numbers of times": _filled("n", _NOON, pa.timestamp("us", "UTC")),
    "a struct among unread columns": _parquet(
        lambda table: _put(table, s=pa.array([{"x": 1, "y": {"z": "q"}}] * len(table), _STRUCT)).select(
            ["s", *table.column_names])),
    "categories of structs": _filled("a", {"x": 1, "y": {"z": "q"}}, _STRUCT),
    "categories of maps": _filled("a", [("k", 1)], _MAP),
    "categories of durations": _filled("a", 5, pa.duration("s")),
    "lists that the schema does not name": _filled("a", ["x", "y"], _STRINGS),
    "numbers of lists": _filled("n", [1, 2], pa.list_(pa.int64())),
    # values
    "parquet without a label": _at_row("label", None, pa.int8()),
    "parquet with a label of 2": _at_row("label", 2, pa.int8()),
    "parquet with an infinite number": _at_row("n", float("inf"), pa.float64()),
    "parquet with a number beyond float32": _at_row("m", 1e39, pa.float64()),
    "parquet with a control letter": _at_row("b", "a\x07", pa.string()),
    "parquet with text that is not utf-8": _at_row("b", b"a\xff", pa.binary()),
    "parquet lacks a column": _parquet(lambda table: table.drop_columns(["m"]), None),
    "parquet has a column twice": _parquet(lambda table: table.append_column("m", table["m"]), None),
    # parts
    "parts in other order of columns": _parts(lambda table: table.select([*table.column_names[::-1]])),
    "parts of other types": _parts(lambda table: _coded("b")(_cast("n", pa.float64())(_cast("a", pa.binary())(table)))),
    "parts with more columns": _parts(lambda table: table.append_column("more", table["a"])),
    "parts with fewer columns": _parts(lambda table: table.drop_columns(["b"]), None),
    "parts of which one has no rows": _parts(lambda table: table, at=140),
    # damage
    "parquet cut in the middle": _parquet(known=None, after=lambda data: data[: len(data) // 2]),
    "parquet without its end": _parquet(known=None, after=lambda data: data[:-1]),
    "parquet with a changed footer": _parquet(known=None, after=lambda data: data[:-200] + bytes(100) + data[-100:]),
    "parquet with a changed length of the footer": _parquet(
        known=None, after=lambda data: data[:-8] + b"\xff" * 4 + data[-4:]),
    "parquet's first bytes alone": _parquet(known=None, after=lambda data: data[:4]),
    "parquet with a changed page": _parquet(known=False, after=lambda data: flipped(data, 0.2)),
    # Arrow
    "arrow stream": _arrow(_stream),
    "arrow file": _arrow(_file),
    "feather by lz4": _arrow(lambda table, path: feather.write_feather(table, path, compression="lz4")),
    "arrow stream without its end": _arrow(_stream, lambda data: data[: len(data) * 2 // 3], None),
    "arrow file cut in the middle": _arrow(_file, lambda data: data[: len(data) // 2], None),
    # lists
    "lists of text": _list_column(_STRINGS),
    "lists of whole numbers": _list_column(pa.list_(pa.int64()), [[n % 3, n % 7] for n in range(140)]),
    "large lists with nulls": _list_column(pa.large_list(pa.string()), [None, [None, "x"], [], ["y"]] * 35),
    "lists of one size": _list_column(pa.list_(pa.string(), 2), [[f"t{n % 3}", f"t{n % 5}"] for n in range(140)]),
    "lists without a value": _list_column(_STRINGS, [[]] * 140),
    "lists of lists": _list_column(pa.list_(_STRINGS), [[["x"]]] * 140, None),
    "lists by bars in tabs": _listed_text(_lists(), "|"),
    "lists by semicolons in csv": _listed_text(_lists(), ";", ","),
    "lists by commas in quoted cells": _listed_text(_lists(), ",", ",", True),
    "lists by blanks": _listed_text(_lists(), " "),
    "lists of 2,000 values": _listed_text(_lists(most=2000), "|"),
    "lists of signs alone": _listed_text([["", "", ""]] * 140, "|"),
}  # fmt: skip
