"""Parquet's pages read by compiled code, beside pyarrow."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from src.preprocess_data import main
from src.rows import columnar
from src.rows.cells import pages

pa = pytest.importorskip("pyarrow", reason="pip install -r tests/requirements.txt")
from pyarrow import parquet  # noqa: E402

ROWS = 5000
SCHEMA = pa.schema([
    ("few", pa.string()), ("many", pa.string()), ("none", pa.string()), ("odd", pa.large_string()), ("i4", pa.int32()),
    ("i8", pa.int64()), ("no_number", pa.int64()), ("f4", pa.float32()), ("f8", pa.float64()),
    pa.field("there", pa.int64(), nullable=False), pa.field("text", pa.string(), nullable=False),
])  # fmt: skip
OTHERS = {
    "truth": [True, None], "small": pa.array([1, None], pa.int8()), "large": pa.array([2**63, 1], pa.uint64()),
    "raw": [b"a", None], "list": [["a"], []], "struct": [{"few": "a"}, None],
    "time": pa.array([1, 2], pa.timestamp("us")),
    "coded": pa.array(["a", None]).dictionary_encode(), "decimal": pa.array([1, None], pa.decimal128(9, 2)),
    "nothing": pa.nulls(2),
}  # fmt: skip
WRITERS = {
    "as pandas does": {},
    "pages of the second kind": {"data_page_version": "2.0", "compression": "zstd"},
    "unpacked pages of the second kind": {"data_page_version": "2.0", "compression": "none"},
    "no dictionaries": {"use_dictionary": False, "compression": "gzip"},
    "dictionaries given up": {"dictionary_pagesize_limit": 4000, "data_page_size": 3000, "write_batch_size": 100},
    "short pages": {"data_page_size": 100, "write_batch_size": 17, "compression": "none"},
    "checksums": {"write_page_checksum": True, "write_statistics": False},
    "no schema of Arrow's": {"store_schema": False},
}


@pytest.fixture(autouse=True)
def always(monkeypatch):
    """Let small groups of rows be read by pages, too."""
    if not pages._library():
        pytest.skip("there is no C++ compiler")
    monkeypatch.setattr(pages, "LEAST_ROWS", 1)


def some(values, share, seed):
    """The values, of which a share is missing: at random, but for runs of 200, of which some miss all or none."""
    rng = np.random.default_rng(seed)
    missing = rng.random(len(values)) < np.repeat(rng.choice([0, share, 1], -(-len(values) // 200)), 200)[: len(values)]
    return [None if none else value for value, none in zip(values, missing)]


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(7)
    whole = rng.integers(-(2**62), 2**62, ROWS)
    odd = ["", "é" * 40, "x" * 5000, "8 bytes.", "\u4e2d"]
    columns = [
        some([f"v{value}" for value in rng.integers(0, 7, ROWS)], 0.4, 1), some([f"{one:x}" for one in whole], 0.1, 2),
        [None] * ROWS, some([odd[place] for place in rng.integers(0, len(odd), ROWS)], 0.5, 3),
        some((whole % 1000).tolist(), 0.3, 4), some(whole.tolist(), 0.3, 5), [None] * ROWS,
        some((whole % 999 / 8).tolist(), 0.2, 6), some((whole / 7).tolist(), 0.2, 8), whole.tolist(),
        [f"{one % 5000:x}" for one in whole],
    ]  # fmt: skip
    return pa.table([pa.array(column, field.type) for column, field in zip(columns, SCHEMA)], schema=SCHEMA)


def opened(path):
    return columnar._opened(path, "parquet")


def cells(path, names, first=0, rows=1000):
    """Rows from the first one on, as Python's values, and the types that the columns had."""
    found, kinds = [], {name: set() for name in names}
    for start, batch in opened(path).batches(names, first, rows):
        batch.validate(full=True)
        assert 0 < batch.num_rows <= rows
        found += batch.slice(max(first - start, 0)).to_pylist()
        for name in names:
            kinds[name].add(str(batch.column(name).type))
    return found, kinds


@pytest.mark.parametrize("how", WRITERS.values(), ids=WRITERS.keys())
def test_pages_hold_what_was_written(table, tmp_path, how):
    """Of several groups with dictionaries of their own: nulls, all or none of a run, and texts of any size."""
    parquet.write_table(table, tmp_path / "p", row_group_size=1777, **how)
    file = opened(tmp_path / "p")
    groups = list(range(file.file.num_row_groups))
    places = {name: place for place, name in enumerate(SCHEMA.names)}
    assert pages.readable(file.file.metadata, file.schema, places, groups) == places
    names = SCHEMA.names[::-1]
    expected = table.select(names).to_pylist()
    found, kinds = cells(tmp_path / "p", names)
    assert found == expected
    coded = how.get("use_dictionary", True)
    assert any(kind.startswith("dictionary") for kind in kinds["few"]) is coded
    for first, rows in ((1, 7), (1776, 4096), (1777, 333), (4999, 10)):
        assert cells(tmp_path / "p", names[3:6], first, rows)[0] == [
            {name: row[name] for name in names[3:6]} for row in expected[first:]
        ]


def test_a_dictionary_that_is_given_up_ends_in_plain_text(tmp_path):
    """The cells before stay places in it; a column of which most is plain is none of a dictionary anywhere."""
    texts = [f"{row % 150:08d}" for row in range(ROWS)] + [f"{row:08d}" for row in range(300)]
    parquet.write_table(pa.table({"c": texts, "plain": [f"{text}{text}" for text in texts[::-1]]}), tmp_path / "p",
                        dictionary_pagesize_limit=3000, data_page_size=700, write_batch_size=50)  # fmt: skip
    found, kinds = cells(tmp_path / "p", ["c", "plain"], rows=250)
    assert [row["c"] for row in found] == texts
    assert [row["plain"] for row in found] == [f"{text}{text}" for text in texts[::-1]]
    assert kinds["c"] == {"dictionary<values=string, indices=int32, ordered=0>", "string"}
    assert kinds["plain"] == {"string"}


def test_values_that_no_row_has_stay_in_the_dictionary_alone(tmp_path):
    coded = pa.DictionaryArray.from_arrays(
        pa.array([2, None, 2, 0] * 50, pa.int32()), ["a", "unused", "", "unused too"]
    )
    parquet.write_table(pa.table({"c": coded}), tmp_path / "p", store_schema=False)
    ((_, batch),) = opened(tmp_path / "p").batches(["c"], 0, 1000)
    assert batch.column("c").dictionary.to_pylist() == ["a", "unused", "", "unused too"]
    assert batch.column("c").to_pylist() == ["", None, "", "a"] * 50


@pytest.mark.parametrize("name", OTHERS)
def test_other_types_are_read_by_pyarrow_beside(tmp_path, name):
    parquet.write_table(pa.table({name: OTHERS[name], "few": ["x", None], "n": [7, 8]}), tmp_path / "p")
    file = opened(tmp_path / "p")
    places = {one: file.places[one] for one in (name, "few", "n")}
    readable = pages.readable(file.file.metadata, file.schema, places, [0])
    assert set(readable) == {"few", "n"}
    expected = parquet.read_table(tmp_path / "p").to_pylist()
    assert cells(tmp_path / "p", [name, "few", "n"], rows=1)[0] == expected
    assert cells(tmp_path / "p", ["n", name], first=1)[0] == [{"n": 8, name: expected[1][name]}]


def test_rare_encodings_many_small_groups_and_no_compiler_leave_all_to_pyarrow(tmp_path, monkeypatch):
    table = pa.table({"n": list(range(100)), "c": [f"v{row}" for row in range(100)]})
    parquet.write_table(table, tmp_path / "p", use_dictionary=False,
                        column_encoding={"n": "DELTA_BINARY_PACKED", "c": "DELTA_BYTE_ARRAY"})  # fmt: skip
    parquet.write_table(table, tmp_path / "groups", row_group_size=30)

    def readable(name, groups):
        file = opened(tmp_path / name)
        return set(pages.readable(file.file.metadata, file.schema, {"n": 0, "c": 1}, groups))

    assert readable("p", [0]) == set()
    assert readable("groups", [0, 1, 2, 3]) == {"n", "c"}
    monkeypatch.setattr(pages, "LEAST_ROWS", 25)  # the last group has 10: it is the mean that counts
    assert readable("groups", [0, 1, 2, 3]) == {"n", "c"}
    monkeypatch.setattr(pages, "LEAST_ROWS", 26)
    assert readable("groups", [0, 1, 2, 3]) == readable("groups", []) == set()
    monkeypatch.setattr(pages, "_library", lambda: None)
    monkeypatch.setattr(pages, "LEAST_ROWS", 1)
    assert readable("groups", [0, 1, 2, 3]) == set()
    assert cells(tmp_path / "groups", ["n", "c"])[0] == cells(tmp_path / "p", ["n", "c"])[0] == table.to_pylist()


def test_groups_and_files_without_rows_give_none(table, tmp_path):
    with parquet.ParquetWriter(tmp_path / "p", table.schema) as writer:
        for low, high in ((0, 0), (0, 50), (50, 50), (50, 140), (140, 140)):
            writer.write_table(table.slice(low, high - low))
    parquet.write_table(table.slice(0, 0), tmp_path / "empty")
    assert cells(tmp_path / "p", table.schema.names)[0] == table.slice(0, 140).to_pylist()
    assert cells(tmp_path / "empty", table.schema.names)[0] == []


@pytest.mark.parametrize("how", ["short pages", "as pandas does", "pages of the second kind"])
def test_damaged_pages_are_refused_or_give_cells(table, tmp_path, how):
    """Nothing beyond the file is read, whatever byte is another one; pyarrow reads the footer, which stays whole."""
    short = table.slice(0, 300).select(["few", "many", "i8", "f4", "there"])
    parquet.write_table(short, tmp_path / "p", **WRITERS[how])
    whole, refused = (tmp_path / "p").read_bytes(), 0
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    rng = np.random.default_rng(5)
    for place, change in itertools.product(rng.integers(4, footer, 250).tolist(), (0x01, 0x80, 0xFF)):
        (tmp_path / "p").write_bytes(whole[:place] + bytes([whole[place] ^ change]) + whole[place + 1 :])
        try:
            assert sum(batch.num_rows for _, batch in opened(tmp_path / "p").batches(short.schema.names, 0, 128)) == 300
        except (ValueError, OSError):
            refused += 1
    assert refused > 50


def test_a_damaged_page_is_named_by_its_column(table, tmp_path):
    parquet.write_table(table.select(["i8"]), tmp_path / "p", compression="none", use_dictionary=False)
    data = bytearray((tmp_path / "p").read_bytes())
    data[4:8] = b"\xff" * 4
    (tmp_path / "p").write_bytes(data)
    with pytest.raises(ValueError, match="a page of column 'i8' does not hold what it says"):
        cells(tmp_path / "p", ["i8"])


def test_folders_of_pages_and_of_text_are_the_same_bytes(table, tmp_path, monkeypatch):
    """Of columns that end as plain text, that are all of it, and that are none; shards begin within groups of rows."""
    monkeypatch.chdir(tmp_path)
    names = ["i8", "f8", "few", "many", "odd", "text", "none"]
    labels = pa.array([place % 3 == 0 for place in range(ROWS)]).cast(pa.int64())
    rows = table.select(names).add_column(0, "label", labels)
    parquet.write_table(rows, "rows.parquet", row_group_size=1777, dictionary_pagesize_limit=9000, data_page_size=3000,
                        write_batch_size=100)  # fmt: skip
    lines = ["\t".join("" if cell is None else str(cell) for cell in row.values()) + "\n" for row in rows.to_pylist()]
    Path("rows.txt").write_text("".join(lines), encoding="utf-8")
    plain = "label: label\ndense: [i8, f8]\ncategorical: [few, many, odd, text, none]\n"
    Path("parquet.yaml").write_text(plain)
    Path("txt.yaml").write_text(f"columns: [{', '.join(rows.column_names)}]\n{plain}")
    found = []
    for form in ("txt", "parquet"):
        main([f"--data_path=rows.{form}", f"--output_path={form}", f"--schema={form}.yaml", "--record_rows=32",
              "--shard_rows=640", "--min_count=2", "--numeric_transform=quantile"])  # fmt: skip
        files = sorted(path for path in Path(form).rglob("*") if path.is_file() and path.name != "manifest.json")
        found.append({path.relative_to(form).as_posix(): path.read_bytes() for path in files})
    assert len(found[0]) > 8
    assert found[0].keys() == found[1].keys()
    assert [name for name in found[0] if found[0][name] != found[1][name]] == []
