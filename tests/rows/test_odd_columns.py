"""Files of columns that hold what a user would not expect: right, or refused in one line that says where and what."""

import gzip
import tarfile
import zipfile
from datetime import datetime, timezone
from decimal import Decimal

import numpy as np
import pytest

from src.base.errors import InputError
from src.rows.cells.lists import ListColumn
from src.rows.columns import Columns, Timestamp
from src.rows.keys import keys_of
from src.rows.raw_files import find_raws
from src.rows.reader import RawInput
from src.rows.text import is_utf8

pa = pytest.importorskip("pyarrow", reason="pip install -r tests/requirements.txt")
from pyarrow import parquet  # noqa: E402

ROWS = 20
COLUMNS = Columns(("n",), ("c",), "y")
TIMED = Columns(Timestamp("n").numbers, ("c",), "y", timestamps=(Timestamp("n"),))
LISTS = Columns(("n",), ("c",), "y", lists=(ListColumn("c", "|"),))
NOON = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)


def table_of(**columns):
    """Labels, numbers and categories of which some columns are others."""
    given = {"y": [row % 2 for row in range(ROWS)], "n": list(range(ROWS)), "c": [f"v{row % 7}" for row in range(ROWS)]}
    return pa.table(given | columns)


def read(folder, columns=COLUMNS, name="p.parquet"):
    rows = RawInput([folder / name], columns, folder)
    return [block for span in rows.spans(0, rows.rows, 8) for block in rows.read(span)]


def keys_in(blocks):
    return np.concatenate([block.keys[0] for block in blocks]).tolist()


@pytest.mark.parametrize(("array", "text"), [
    (pa.array([Decimal("1.50")] * ROWS), "1.50"),
    (pa.array([Decimal("-0.07")] * ROWS, pa.decimal256(40, 2)), "-0.07"),
    (pa.array([NOON] * ROWS, pa.timestamp("us", "Europe/Berlin")), "2026-01-01 13:00:00+01:00"),
    (pa.array([2**62] * ROWS, pa.timestamp("us")), str(2**62)),
    (pa.array([7] * ROWS, pa.timestamp("us", "No/Where")), "7"),
    (pa.array(["x"] * ROWS, pa.large_string()), "x"),
    (pa.array([2**64 - 1] * ROWS, pa.uint64()), str(2**64 - 1)),
    (pa.array([5] * ROWS, pa.int64()).dictionary_encode(), "5"),
    (pa.array([True] * ROWS), "True"),
    (pa.nulls(ROWS), ""),
])  # fmt: skip
def test_categories_of_any_type_are_their_text(tmp_path, array, text):
    parquet.write_table(table_of(c=array), tmp_path / "p.parquet", row_group_size=6)
    blocks = read(tmp_path)
    assert keys_in(blocks) == keys_of([text] * ROWS).tolist()
    assert not [row for block in blocks for row in block.bad]


@pytest.mark.parametrize("kind", [pa.timestamp("ns", "Asia/Tokyo"), pa.timestamp("s"), pa.timestamp("us", "No/Where"),
                                  pa.timestamp("ms")])  # fmt: skip
def test_times_are_those_of_utc_whatever_the_zone_and_unit(tmp_path, kind):
    parquet.write_table(table_of(n=pa.array([int(NOON.timestamp())] * ROWS, pa.timestamp("s")).cast(
        pa.timestamp(kind.unit)).cast(pa.int64()).cast(kind)), tmp_path / "p.parquet")  # fmt: skip
    numbers = np.concatenate([block.numbers for block in read(tmp_path, TIMED)])
    assert numbers.tolist() == [[12.0, 3.0, 20454.5]] * ROWS


def test_lists_may_hold_numbers_nulls_and_dictionaries(tmp_path):
    coded = pa.array([["1", "2"]] * ROWS, pa.list_(pa.dictionary(pa.int8(), pa.string())))
    for array in (pa.array([[1, None, 2]] * ROWS), coded, pa.array([["1", "2"]] * ROWS, pa.list_(pa.string(), 2))):
        parquet.write_table(table_of(c=array), tmp_path / "p.parquet")
        for block in read(tmp_path, LISTS):
            assert block.lists[0].keys.reshape(-1, 2).tolist() == [keys_of(["1", "2"]).tolist()] * len(block.labels)
    parquet.write_table(table_of(c=pa.array([None, ["x"]] * (ROWS // 2))), tmp_path / "p.parquet")
    assert np.concatenate([block.lists[0].counts for block in read(tmp_path, LISTS)]).tolist() == [0, 1] * (ROWS // 2)


@pytest.mark.parametrize(("columns", "array", "kind"), [
    (COLUMNS, pa.array([{"a": 1}] * ROWS), "struct<a: int64>"),
    (COLUMNS, pa.array([[("a", 1)]] * ROWS, pa.map_(pa.string(), pa.int64())), "map<string, int64"),
    (COLUMNS, pa.array([1] * ROWS, pa.duration("s")), "duration"),
    (COLUMNS, pa.array([1] * ROWS, pa.time64("us")), "time64"),
    (COLUMNS, pa.array([["a"]] * ROWS), "list<element: string>"),
    (LISTS, pa.array([[["a"]]] * ROWS), "list<element: list<element: string>>"),
    (LISTS, pa.array([[{"a": 1}]] * ROWS), "list<element: struct<a: int64>>"),
])  # fmt: skip
def test_types_that_no_cell_could_be_are_refused_by_name(tmp_path, columns, array, kind):
    parquet.write_table(table_of(c=array), tmp_path / "p.parquet")
    with pytest.raises(InputError) as refusal:
        read(tmp_path, columns)
    assert str(refusal.value).startswith(f"{tmp_path}/p.parquet: column 'c' holds {kind}")
    assert "give a column of text, numbers or times" in str(refusal.value)


@pytest.mark.parametrize(("columns", "changed", "message"), [
    (COLUMNS, {"c": pa.array([b"a", b"\xff"] * (ROWS // 2))}, "row 2: is not utf-8 text (a --schema may name another"),
    (COLUMNS, {"c": ["a", "b\0"] * (ROWS // 2)}, "row 2: holds a control character"),
    (COLUMNS, {"n": pa.array([1.0, 1e300] * (ROWS // 2))}, "row 2: n is '1e+300', which is not a number"),
    (COLUMNS, {"n": pa.array([0, 1] * (ROWS // 2), pa.timestamp("s"))}, "row 1: n is '1970-01-01 00:00:00', which is"),
    (TIMED, {"n": pa.array([0, 2**62] * (ROWS // 2), pa.timestamp("us"))}, f"row 2: n is '{2**62}', which is no point"),
    (LISTS, {"c": [["a"], ["b", "c\0"]] * (ROWS // 2)}, "row 2: holds a control character"),
    (COLUMNS, {"y": pa.nulls(ROWS)}, "row 1: y is '', which is not 0 or 1"),
])  # fmt: skip
def test_cells_that_cannot_be_used_are_told_by_row_and_column(tmp_path, columns, changed, message):
    parquet.write_table(table_of(**changed), tmp_path / "p.parquet")
    bad = [row for block in read(tmp_path, columns) for row in block.bad]
    assert str(bad[0]).startswith(message)


@pytest.mark.parametrize("name", ["p.parquet.gz", "p.zip", "p.tar.gz"])
def test_packed_columns_are_the_same_rows(tmp_path, name):
    """Their bytes are no text, which would be made UTF-8 of."""
    numbers = [(row * 7919) % 65521 for row in range(ROWS)]
    parquet.write_table(table_of(n=numbers), tmp_path / "p.parquet")
    data = (tmp_path / "p.parquet").read_bytes()
    assert not is_utf8(data)
    if name == "p.zip":
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.write(tmp_path / "p.parquet", "inner.parquet")
    elif name == "p.tar.gz":
        with tarfile.open(tmp_path / name, "w:gz") as archive:
            archive.add(tmp_path / "p.parquet", "inner.parquet")
    else:
        (tmp_path / name).write_bytes(gzip.compress(data))
    rows = RawInput(find_raws(str(tmp_path / name)), COLUMNS, tmp_path / "unpacked")
    blocks = [block for span in rows.spans(0, rows.rows, 8) for block in rows.read(span)]
    assert np.concatenate([block.numbers[:, 0] for block in blocks]).tolist() == numbers


def test_row_groups_and_files_without_rows_are_passed_over(tmp_path):
    table = table_of()
    with parquet.ParquetWriter(tmp_path / "p.parquet", table.schema) as writer:
        for low, rows in ((0, 0), (0, 5), (5, 0), (5, ROWS), (0, 0)):
            writer.write_table(table.slice(low, rows))
    parquet.write_table(table.slice(0, 0), tmp_path / "0.parquet")
    rows = RawInput([tmp_path / "0.parquet", tmp_path / "p.parquet"], COLUMNS, tmp_path)
    blocks = [block for span in rows.spans(0, rows.rows, 3) for block in rows.read(span)]
    assert keys_in(blocks) == keys_of(table["c"].to_pylist()).tolist()


def test_parts_of_a_folder_may_have_columns_in_another_order_and_of_other_types(tmp_path):
    table = table_of()
    other = table.select(["c", "y", "n"]).set_column(2, "n", table["n"].cast(pa.float32()))
    parquet.write_table(table, tmp_path / "a.parquet")
    parquet.write_table(other.set_column(0, "c", table["c"].dictionary_encode()), tmp_path / "b.parquet")
    first, second = read(tmp_path, name="a.parquet"), read(tmp_path, name="b.parquet")
    assert keys_in(first) == keys_in(second)
    assert [block.numbers.tolist() for block in first] == [block.numbers.tolist() for block in second]


def damaged(folder, place, data):
    path = folder / "p.parquet"
    parquet.write_table(table_of(), path)
    content = bytearray(path.read_bytes())
    content[slice(*place)] = data
    path.write_bytes(content)


@pytest.mark.parametrize(("place", "data", "message"), [
    ((-30, -10), b"\xff" * 20, "can't be read"),  # the footer
    ((-8, -4), b"\xff\xff\xff\x7f", "can't be read"),  # its length
    ((60, None), b"", "can't be read"),
    ((4, 200), bytes(196), "rows from 1 on can't be read"),  # pages
])  # fmt: skip
def test_damaged_parquet_is_refused_in_one_line(tmp_path, place, data, message):
    damaged(tmp_path, place, data)
    with pytest.raises(InputError) as refusal:
        read(tmp_path)
    assert str(refusal.value).startswith(f"{tmp_path}/p.parquet: {message} (")
    assert str(refusal.value).endswith("): is it whole?")
    assert "\n" not in str(refusal.value)


def test_arrow_files_whose_offsets_are_broken_are_refused(tmp_path):
    """Which would be read as memory that is not theirs."""
    path = tmp_path / "a.arrow"
    with pa.ipc.new_file(str(path), table_of().schema) as writer:
        writer.write_table(table_of())
    content = path.read_bytes()
    offsets = np.arange(0, 2 * ROWS + 1, 2, dtype="<i4").tobytes()
    assert content.count(offsets) == 1
    path.write_bytes(content.replace(offsets, b"\x77" * len(offsets)))
    with pytest.raises(InputError, match=r"a.arrow: rows from 1 on can't be read \(.*\): is it whole\?"):
        read(tmp_path, name="a.arrow")
