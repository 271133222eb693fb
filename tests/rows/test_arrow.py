"""Cells of Arrow's arrays as their text, and data folders of the same rows as text and as columns."""

import csv
import io
import json
import math
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from src.base.workers import runs_of
from src.data.compiled.key_tables import merge_counts
from src.data.vocabulary import count
from src.preprocess_data import main
from src.rows import columnar
from src.rows.cells import buffers
from src.rows.cells.arrow import column_of
from src.rows.cells.split import Split
from src.rows.columns import Columns
from src.rows.keys import keys_of
from src.rows.reader import RawInput
from src.rows.text import number_text

pa = pytest.importorskip("pyarrow", reason="pip install -r tests/requirements.txt")
from pyarrow import parquet  # noqa: E402

COLUMNS = Columns(("n",), ("c",), "", key_seed="00112233445566778899aabbccddeeff")
FLOATS = [0.0, -0.0, 1.0, -7.5, 0.1, 1e-4, 1e-5, 123456.789, 2.0**53 - 1, 2.0**53, 2.0**53 + 2, 1e15, 1e16, 1.5e16,
          1e22, 1e300, -1e-300, 5e-324, math.inf, -math.inf, math.nan, None, 1 / 3, 100.0, 65504.0]  # fmt: skip
WHOLE = [0, 1, -1, 127, -128, None, 9, 10]
WIDE = [*WHOLE, 2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63)]


@pytest.fixture(params=["compiled", "python"])
def way(request, monkeypatch):
    if request.param == "python":
        monkeypatch.setattr(buffers, "_library", lambda: None)
    elif not buffers._library():
        pytest.skip("there is no C++ compiler")


def arrays():
    yield from (pa.array(WHOLE, kind) for kind in (pa.int8(), pa.int16(), pa.int32()))
    yield pa.array(WIDE, pa.int64())
    yield from (pa.array([0, 255, None], kind) for kind in (pa.uint8(), pa.uint16(), pa.uint32()))
    yield pa.array([0, 2**64 - 1, None, 2**53 + 1], pa.uint64())
    yield pa.array(FLOATS, pa.float64())
    single = [None if value is None else float(np.float32(np.clip(value, -3.4e38, 3.4e38))) for value in FLOATS]
    yield pa.array([*single, 3e38, 16777216.0, 1.6777217e10, 1.2345679e16], pa.float32())
    yield pa.array(np.array([0.5, 1, 100, np.nan, -0.0], np.float16))


def expected_texts(array):
    """By Python's own texts."""
    if pa.types.is_floating(array.type):
        values = list(array.to_numpy(zero_copy_only=False))
        return ["" if np.isnan(value) else number_text(str(value)) for value in values]
    return ["" if value is None else str(value) for value in array.to_pylist()]


@pytest.mark.parametrize("array", list(arrays()), ids=lambda array: str(array.type))
@pytest.mark.parametrize("sliced", [0, 1, 3])
def test_numbers_are_the_text_that_python_writes(way, array, sliced):
    array = array.slice(sliced)
    column, texts = column_of(array), expected_texts(array)
    assert column.texts() == texts
    assert column.keys(COLUMNS)[0].tolist() == keys_of(texts, COLUMNS.key_seed).tolist()
    numbers, wrong = column.numbers(COLUMNS)
    values = [math.nan if text == "" else float(text) for text in texts]
    beyond = [abs(value) > float(np.finfo(np.float32).max) for value in values]
    assert wrong.tolist() == beyond
    right = np.array([0 if odd else value for value, odd in zip(values, beyond)], np.float32) + np.float32(0)
    assert numbers.view(np.int32).tolist() == right.view(np.int32).tolist()  # -0 and nan have one form


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint8(), pa.int16(), pa.uint16(), pa.int32(), pa.uint32(), pa.int64()])
def test_distinct_values_are_taken_by_numbers_of_any_type(way, kind):
    distinct = ["a", "a rather long value", "日本"]
    coded = pa.DictionaryArray.from_arrays(pa.array([2, None, 0, 1, 1], kind), pa.array(distinct))
    for array, texts in (
        (coded, ["日本", "", "a", distinct[1], distinct[1]]),
        (coded.slice(2), ["a", *distinct[1:2] * 2]),
    ):
        column = column_of(array)
        assert column.keys(COLUMNS)[0].tolist() == keys_of(texts, COLUMNS.key_seed).tolist()
        assert column.texts() == texts


def test_numbers_of_distinct_values_are_counted_and_coded_as_their_cells(way):
    """Several values of one key, missing ones, marks, hashed texts, and rows that share their values with others."""
    distinct = pa.array(["", "x", "NULL", "a rather long value", None, "another long value"])
    columns = replace(COLUMNS, missing=("NULL",), checked=True)
    column, parts = None, []
    for places in ([3, None, 1, 0, 3], [5, 2, 1, 4, 5]):
        column = column_of(pa.DictionaryArray.from_arrays(pa.array(places, pa.int32()), distinct), column)
        parts.append(column.coded(columns))
    assert parts[0].distinct is parts[1].distinct
    coded = parts[0].joined(parts[1:])
    keys, checks = coded.keys()
    texts = [
        "a rather long value",
        "",
        "x",
        "",
        "a rather long value",
        "another long value",
        "",
        "x",
        "",
        "another long value",
    ]
    assert keys.tolist() == keys_of(texts, COLUMNS.key_seed).tolist()
    for found, expected in zip(merge_counts([coded.counts()]), count(keys[None], checks[None])[0], strict=True):
        assert found.tolist() == expected.tolist()
    chosen = np.arange(len(keys)) % 3 > 0
    ids, target = np.arange(10, 10 + len(coded.distinct)), np.zeros((len(keys), 3), np.int32)
    coded.put(ids, target[:, 1])
    assert coded.distinct[target[:, 1] - 10].tolist() == keys.tolist()
    assert not target[:, ::2].any()
    assert coded.of_rows(chosen).keys()[0].tolist() == keys[chosen].tolist()
    other = column_of(pa.DictionaryArray.from_arrays(pa.array([1, 0], pa.int8()), pa.array(["y", "z"])), column)
    assert other.texts() == ["z", "y"]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary(), pa.string_view()])
@pytest.mark.parametrize("sliced", [0, 2])
def test_texts_have_the_keys_of_the_same_text(way, kind, sliced):
    texts = ["x", "", None, "a text of many letters", "Köln", "北京北京北京", "8letters", "last"]
    column = column_of(pa.array(texts, pa.string()).cast(kind).slice(sliced))
    expected = [text or "" for text in texts[sliced:]]
    keys, checks = column.keys(Columns(**{**vars(COLUMNS), "checked": True}))
    assert keys.tolist() == keys_of(expected, COLUMNS.key_seed).tolist()
    assert [check > 0 for check in checks.tolist()] == [len(text.encode()) > 8 for text in expected]
    assert column.texts() == expected
    assert column.odd() is None


def test_what_lies_under_a_missing_text_is_not_read(way):
    valid, offsets, data = pa.array(["a", "hidden", "b"]).buffers()
    array = pa.Array.from_buffers(pa.string(), 3, [pa.py_buffer(bytes([0b101])), offsets, data])
    column = column_of(array)
    assert column.keys(COLUMNS)[0].tolist() == keys_of(["a", "", "b"], COLUMNS.key_seed).tolist()
    assert column.texts() == ["a", "", "b"]


def test_spans_within_a_row_group_go_on_where_the_last_one_ended(tmp_path, monkeypatch):
    """Each row of a group is decoded once, where spans come in order; and the same rows come in any order."""
    path = tmp_path / "p.parquet"
    parquet.write_table(pa.table({"n": list(range(1000)), "c": [f"v{row}" for row in range(1000)]}), path,
                        row_group_size=700)  # fmt: skip
    decoded = []
    plain = columnar._Parquet.batches

    def counted(self, names, first, rows):
        for start, batch in plain(self, names, first, rows):
            decoded.append(batch.num_rows)
            yield start, batch

    monkeypatch.setattr(columnar._Parquet, "batches", counted)
    rows = RawInput([path], COLUMNS, tmp_path)
    spans = rows.spans(0, 1000, 90)
    assert [span.follows for span in spans] == [span.first_row not in (0, 700) for span in spans]

    def numbers(chosen):
        return [number for span in chosen for block in rows.read(span) for number in block.numbers[:, 0].tolist()]

    assert numbers(spans) == list(range(1000))
    assert sum(decoded) == 1000
    assert numbers(spans[::-1]) == [
        number for span in spans[::-1] for number in range(span.first_row, span.first_row + span.rows)
    ]
    parquet.write_table(pa.table({"n": list(range(1000, 2000)), "c": ["w"] * 1000}), path, row_group_size=900)
    assert numbers(spans[:1]) == list(range(1000, 1090))
    parquet.write_table(pa.table({"n": list(range(5000, 6000)), "c": ["ww"] * 1000}), path, row_group_size=800)
    assert numbers(spans[1:2]) == list(range(5090, 5180))  # of a file that has changed nothing is left


def test_numbers_that_only_their_sign_matters_of_stay_unread(tmp_path, monkeypatch):
    """Where a Parquet file says that none is below 0; but what a split tells is read, and bad rows have all."""
    path, read = tmp_path / "p.parquet", []
    labels = [0, 1, 0, 1, 7, 1]
    numbers = {"n": [1, None, 3, 4, 5, 6], "below": [1, 2, 3, 4, -5, 6], "half": [0.5] * 6, "day": [1, 1, 2, 2, 2, 3]}
    table = pa.table({"label": labels, **numbers, "c": ["a"] * 6})
    columns = Columns(tuple(numbers), ("c",), split=Split("day", "bounds", ("3",)))
    plain = columnar._Parquet.batches

    def noted(self, names, first, rows):
        read.append(names)
        return plain(self, names, first, rows)

    monkeypatch.setattr(columnar._Parquet, "batches", noted)
    for statistics in (True, False):
        parquet.write_table(table, path, row_group_size=2, write_statistics=statistics)
        rows = RawInput([path], columns, tmp_path)
        spans = rows.spans(0, 4, 9)
        (exact,), (signs,) = (list(spans[0].blocks(one)) for one in (columns, replace(columns, signs=True)))
        assert "n" in read[0]
        assert ("n" in read[1]) is not statistics
        assert {"below", "half", "day"} <= set(read[1])
        assert ((exact.numbers < 0) == (signs.numbers < 0)).all()
        assert signs.parts.tolist() == exact.parts.tolist()
        (bad,) = [row for block in rows.spans(0, 6, 9)[0].blocks(replace(columns, signs=True)) for row in block.bad]
        assert (bad.line, bad.text) == (5, b"7\t5\t-5\t0.5\t2\ta")
        read.clear()


def test_work_that_follows_goes_to_one_process_while_there_is_enough_for_all():
    assert runs_of([], 3, 2) == [slice(0, 1), slice(1, 2), slice(2, 3)]
    assert runs_of([False, True, True, True, False, True], 6, 2) == [slice(0, 3), slice(3, 4), slice(4, 6)]
    assert runs_of([True, True], 2, 2) == [slice(0, 1), slice(1, 2)]


NAMES = ["clicked", "price", "cost", "large", "seen", "site", "user", "city", "tags"]
SCHEMA = """
label: clicked
dense: [price, cost, large, {name: seen, as: timestamp, since: 2026-01-01}]
categorical: [site, user, city, {name: tags, list: "|", max_values: 3}]
missing: ["NULL", "nan"]
"""
CITIES = ["", None, "NULL", "nan", 'say "hi"', '"', "a, b; c|d", "Köln", "a rather long name of a city", " x "]


def rows_of(count=600):
    """Rows as Python's values."""
    rng = np.random.default_rng(3)
    for row in range(count):
        tags = [f"t{tag}" for tag in rng.integers(0, 9, rng.integers(0, 5))]
        yield [
            int(rng.integers(2)),
            [None, float(rng.integers(10**6)) / 8, -0.0, 1e-7 * row, 1e20][rng.integers(5)],
            [None, Decimal(int(rng.integers(-(10**6), 10**6))).scaleb(-2)][int(rng.integers(8) > 0)],
            [None, 2**53 + 1 + row, -(2**62) + row, 3][rng.integers(4)],
            [None, datetime(2026, 3, 1) + timedelta(minutes=int(rng.integers(10**5)))][int(rng.integers(9) > 0)],
            f"s{rng.integers(5)}",
            [None, 2**53 + int(rng.integers(9)), 2**63 - 1 - int(rng.integers(9))][rng.integers(3)],
            CITIES[rng.integers(len(CITIES))],
            tags,
        ]


def texts(row):
    """A row's cells as one would write them."""
    *cells, tags = row
    return ["" if cell is None else repr(cell) if isinstance(cell, float) else str(cell) for cell in cells] + [
        "|".join(tags)
    ]


def write_tabs(rows, path):
    path.write_text("".join("\t".join(texts(row)) + "\n" for row in rows))


def write_csv(rows, path):
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\r\n").writerows(map(texts, rows))
    path.write_text(buffer.getvalue(), newline="")


def table_of(rows):
    kinds = [pa.int8(), pa.float64(), pa.decimal128(12, 2), pa.int64(), pa.timestamp("us"), pa.string(), pa.uint64(),
             pa.large_string(), pa.list_(pa.string())]  # fmt: skip
    table = pa.table([pa.array(column, kind) for column, kind in zip(zip(*rows), kinds)], names=NAMES)
    for name in ("site", "city"):
        place = NAMES.index(name)
        table = table.set_column(place, name, table[name].dictionary_encode())
    return table


def write_parquet(rows, path):
    parquet.write_table(table_of(rows), path, row_group_size=70)


def write_arrow(rows, path):
    with pa.ipc.new_stream(str(path), table_of(rows).schema) as writer:
        writer.write_table(table_of(rows), max_chunksize=45)


WRITERS = {"txt": (write_tabs, f"columns: {NAMES}"), "csv": (write_csv, f"columns: {NAMES}\nseparator: ','"),
           "parquet": (write_parquet, ""), "arrow": (write_arrow, "")}  # fmt: skip


@pytest.mark.parametrize("options", [[], ["--shuffle_rows=True", "--numeric_transform=quantile"],
                                     ["--split=random:user"], ["--min_count=3"]])  # fmt: skip
def test_folders_of_the_same_rows_give_the_same_bytes(tmp_path, monkeypatch, options):
    """Nulls, missing marks, quotes, decimals, numbers beyond 2^53, dictionaries, row groups and several files."""
    monkeypatch.chdir(tmp_path)
    rows, found = list(rows_of()), {}
    for form, (write, more) in WRITERS.items():
        Path(form).mkdir()
        for number, (low, high) in enumerate(((0, 130), (130, 131), (131, 600))):
            write(rows[low:high], Path(form) / f"{number}.{form}")
        Path("s.yaml").write_text(f"{SCHEMA}{more}\n")
        main([f"--data_path={form}", f"--output_path=of_{form}", "--record_rows=32", "--schema=s.yaml",
              "--shard_rows=64", *options])  # fmt: skip
        files = {path.relative_to(f"of_{form}").as_posix(): path.read_bytes()
                 for path in sorted(Path(f"of_{form}").rglob("*")) if path.is_file()}  # fmt: skip
        manifest = json.loads(files.pop("manifest.json"))
        assert manifest.pop("source")["names"] == [f"{number}.{form}" for number in range(3)]
        assert manifest.pop("crc32")
        found[form] = files | {"manifest.json": manifest}
    assert len(found["txt"]) > 8
    for form in ("csv", "parquet", "arrow"):
        assert found[form].keys() == found["txt"].keys()
        assert [name for name, content in found[form].items() if content != found["txt"][name]] == [], form


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint16(), pa.int64(), pa.uint64()])
def test_labels_of_whole_numbers_are_those_of_their_text(way, kind):
    array = pa.array([0, 1, None, 2, 100] + [2**63 - 1] * (kind == pa.int64()), kind)
    labels, wrong = column_of(array).labels(COLUMNS)
    assert (labels[:2].tolist(), wrong.tolist()[:5]) == ([0, 1], [False, False, True, True, True])
    assert wrong[5:].all()
    clicks, wrong = column_of(array).labels(replace(COLUMNS, positive=("2",)))
    assert (clicks[:5].tolist(), wrong.any()) == ([0, 0, 0, 1, 0], True)
