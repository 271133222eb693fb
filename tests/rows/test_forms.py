"""The same rows in other forms: files of columns, packed files, archives, folders, patterns."""

import bz2
import csv
import gzip
import io
import json
import lzma
import random
import sys
import tarfile
import zipfile
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import write_raw

from src.base.errors import InputError
from src.preprocess_data import main, output_folder
from src.rows.columns import Columns, Timestamp
from src.rows.raw_files import find_raws
from src.rows.reader import RawInput

SEEN = Timestamp("seen", since="2026-01-01")
NAMES = ["clicked", "price", "visits", "seen", "site", "user", "city"]
SCHEMA = """
label: clicked
dense: [price, visits, {name: seen, as: timestamp, since: 2026-01-01}]
categorical: [site, user, city]
"""
COLUMNS = Columns(
    ("price", "visits", *SEEN.numbers), ("site", "user", "city"), "clicked", tuple(NAMES), timestamps=(SEEN,)
)  # fmt: skip
CITIES = ["", "Köln", "北京", "a rather long name of a city", "x"]


def frame_of(rows=700):
    rng = random.Random(4)
    return pd.DataFrame({
        "clicked": [rng.randrange(2) for _ in range(rows)],
        "price": [rng.choice([None, rng.randrange(9999) / 8, -0.0]) for _ in range(rows)],
        "visits": pd.array([rng.choice([None, rng.randrange(10**rng.randrange(1, 12))]) for _ in range(rows)], "Int64"),
        "seen": [datetime(2026, 3, 1) + timedelta(minutes=rng.randrange(10**5)) for _ in range(rows)],
        "site": [f"s{rng.randrange(5)}" for _ in range(rows)],
        "user": [rng.randrange(40) for _ in range(rows)],
        "city": [rng.choice(CITIES) for _ in range(rows)],
    })  # fmt: skip


@pytest.fixture(scope="module")
def frame():
    return frame_of()


@pytest.fixture
def pyarrow():
    return pytest.importorskip("pyarrow", reason="pip install -r tests/requirements.txt")


def text_of(frame, separator="\t"):
    buffer = io.StringIO()
    frame.to_csv(buffer, sep=separator, index=False, header=False, lineterminator="\n", quoting=csv.QUOTE_MINIMAL)
    return buffer.getvalue().encode()


def parquet(frame, path, **options):
    frame.to_parquet(path, index=False, engine="pyarrow", **options)


def arrow(frame, path, stream=False):
    import pyarrow as pa

    table = pa.Table.from_pandas(frame, preserve_index=False)
    table = table.set_column(4, "site", table["site"].dictionary_encode())
    table = table.set_column(5, "user", table["user"].cast(pa.float64()))
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=97)


def with_nulls(frame):
    """As pandas keeps whole numbers of which some are missing, and empty text."""
    return frame.assign(visits=frame["visits"].astype("float64"), city=frame["city"].replace("", None))


FORMS = {
    "tabs.txt": lambda frame, path: path.write_bytes(text_of(frame)),
    "commas.csv": lambda frame, path: path.write_bytes(text_of(frame, ",")),
    "p.parquet": lambda frame, path: parquet(frame, path, row_group_size=64),
    "nulls.parquet": lambda frame, path: parquet(with_nulls(frame), path),
    "a.arrow": arrow,
    "s.arrow": lambda frame, path: arrow(frame, path, True),
}


def read(raws, columns, folder):
    """All rows, and where they stand."""
    rows = RawInput(raws, columns, folder)
    spans = rows.spans(0, rows.rows, 101)
    blocks = [block for span in spans for block in rows.read(span)]
    assert not [row for block in blocks for row in block.bad]
    return [np.concatenate(part) for part in zip(*((b.labels, b.numbers, b.keys.T, b.lines) for b in blocks))]


@pytest.mark.parametrize("name", list(FORMS)[1:])
def test_rows_of_any_form_are_those_of_plain_text(pyarrow, frame, tmp_path, name):
    FORMS["tabs.txt"](frame, tmp_path / "tabs.txt")
    FORMS[name](frame, tmp_path / name)
    columns = Columns(**{**vars(COLUMNS), "separator": ","}) if name.endswith("csv") else COLUMNS
    for found, expected in zip(
        read([tmp_path / name], columns, tmp_path), read([tmp_path / "tabs.txt"], COLUMNS, tmp_path)
    ):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("options", [[], ["--shuffle_rows=True", "--numeric_transform=quantile", "--hash_rows=50"]])
def test_data_folders_of_the_same_rows_differ_in_the_files_names_alone(pyarrow, frame, tmp_path, options):
    manifests = {}
    for name, more in {"tabs.txt": f"columns: {NAMES}", "commas.csv": f"columns: {NAMES}\nseparator: ','",
                       "nulls.parquet": ""}.items():  # fmt: skip
        FORMS[name](frame, tmp_path / name)
        (tmp_path / "s.yaml").write_text(f"{SCHEMA}{more}\n")
        main([f"--data_path={tmp_path / name}", f"--output_path={tmp_path}/of {name}", "--record_rows=32",
              f"--schema={tmp_path}/s.yaml", "--shard_rows=256", *options])  # fmt: skip
        manifest = json.loads((tmp_path / f"of {name}/manifest.json").read_text())
        assert manifest.pop("source")["names"] == [name]
        manifests[name] = {key: value for key, value in manifest.items() if key != "crc32"}
    assert manifests["tabs.txt"] == manifests["commas.csv"] == manifests["nulls.parquet"]  # with all files' checksums


@pytest.mark.parametrize(("column", "values", "message"), [
    ("price", [1.0, np.inf, 2.0], "row 2: price is 'inf', which is not a number"),
    ("clicked", [0, 1, 7], "row 3: clicked is '7', which is not 0 or 1"),
    ("clicked", [0, None, 1], "row 2: clicked is '', which is not 0 or 1"),
    ("city", ["a", "b\0", "c"], "row 2: holds a control character"),
    ("price", ["1", "x", ""], "row 2: price is 'x', which is not a number"),
])  # fmt: skip
def test_bad_rows_of_columns_are_told_by_their_number(pyarrow, frame, tmp_path, column, values, message):
    parquet(frame.head(3).assign(**{column: values}), tmp_path / "p.parquet")
    rows = RawInput([tmp_path / "p.parquet"], COLUMNS, tmp_path)
    (block,) = (block for span in rows.spans(0, 3, 3) for block in rows.read(span))
    assert [str(row) for row in block.bad] == [message]
    assert len(block.labels) == len(block.lines) == 2


def test_labels_of_truth_need_no_schema(pyarrow, frame, tmp_path):
    parquet(frame.assign(clicked=frame["clicked"] == 1), tmp_path / "p.parquet")
    assert read([tmp_path / "p.parquet"], COLUMNS, tmp_path)[0].tolist() == frame["clicked"].tolist()


@pytest.mark.parametrize(("change", "message"), [
    (lambda frame: frame.drop(columns="city"), "has column 'city' 0 times"),
    (lambda frame: frame.assign(city=[["a"]] * len(frame)), "column 'city' holds list<.*>: give a column of text"),
])  # fmt: skip
def test_columns_that_are_none_are_refused(pyarrow, frame, tmp_path, change, message):
    parquet(change(frame), tmp_path / "p.parquet")
    with pytest.raises(InputError, match=message):
        RawInput([tmp_path / "p.parquet"], COLUMNS, tmp_path)


def test_a_damaged_file_of_columns_is_refused(pyarrow, frame, tmp_path):
    parquet(frame, tmp_path / "p.parquet")
    (tmp_path / "p.parquet").write_bytes((tmp_path / "p.parquet").read_bytes()[:-20])
    with pytest.raises(InputError, match=r"p.parquet: can't be read \(.*\): is it whole\?"):
        RawInput([tmp_path / "p.parquet"], COLUMNS, tmp_path)


def test_without_pyarrow_one_line_names_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "p.parquet").write_bytes(b"PAR1")
    with pytest.raises(
        InputError, match=r"p.parquet is Parquet, which pyarrow reads, and it can't be had .*pip install"
    ):
        RawInput([tmp_path / "p.parquet"], COLUMNS, tmp_path)


def zipped(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def tarred(path, members):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


TEXT = b"".join(b"%d\t%d\ta%d\n" % (row % 2, row, row) for row in range(30))
SMALL = Columns.numbered(1, 1)


def numbers_at(path, folder, columns=SMALL):
    return read(find_raws(str(path)), columns, folder)[1][:, 0].tolist()


@pytest.mark.parametrize(("name", "pack"), [
    ("r.gz", gzip.compress), ("r.xz", lzma.compress), ("r.bz2", bz2.compress), ("r.bin", gzip.compress),
])  # fmt: skip
def test_packed_files_are_read_whatever_they_are_called(tmp_path, name, pack):
    (tmp_path / name).write_bytes(pack(TEXT))
    assert numbers_at(tmp_path / name, tmp_path / "text") == list(range(30))


def test_files_packed_by_zstd_are_read(pyarrow, tmp_path):
    with pyarrow.CompressedOutputStream(str(tmp_path / "r.zst"), "zstd") as file:
        file.write(TEXT)
    assert numbers_at(tmp_path / "r.zst", tmp_path / "text") == list(range(30))
    (tmp_path / "r.zst").write_bytes((tmp_path / "r.zst").read_bytes()[:-30])
    with pytest.raises(InputError, match=r"r.zst can't be unpacked"):
        numbers_at(tmp_path / "r.zst", tmp_path / "text")


@pytest.mark.parametrize(("name", "write"), [("dac.tar.gz", tarred), ("logs.zip", zipped)])
def test_members_of_archives_are_read(tmp_path, name, write):
    lines = TEXT.splitlines(keepends=True)
    write(tmp_path / name, {"readme.txt": b"x", "train.txt": TEXT, "test.txt": b"5\ta\n"})  # as Kaggle's
    assert numbers_at(tmp_path / name, tmp_path / "a") == list(range(30))
    assert output_folder(str(tmp_path / name), "", find_raws(str(tmp_path / name))) == tmp_path / "dataset"
    days = {f"d/day_{day}.gz": gzip.compress(b"".join(lines[3 * day : 3 * day + 3])) for day in range(9, -1, -1)}
    write(tmp_path / name, {"__MACOSX/x.csv": b"x", **days})
    assert numbers_at(tmp_path / name, tmp_path / "b") == list(range(30))
    assert numbers_at(tmp_path / name / "d/day_1*", tmp_path / "c") == [3, 4, 5]
    with pytest.raises(InputError, match="there is no file"):
        find_raws(str(tmp_path / name / "d/day_77.gz"))


def test_folders_and_patterns_are_read_in_the_order_of_their_numbers(tmp_path):
    lines = TEXT.decode().splitlines()
    for day in range(10, 0, -1):
        write_raw(tmp_path / f"days/day={day}/part-00000", lines[3 * day - 3 : 3 * day])
    write_raw(tmp_path / "days/_SUCCESS", [])
    write_raw(tmp_path / "days/day=1/.part-00000.crc", ["x"])
    write_raw(tmp_path / "days/dataset/manifest.json", ["{}"])
    write_raw(tmp_path / "days/dataset/rejected_rows.txt", ["{}"])
    assert numbers_at(tmp_path / "days", tmp_path) == list(range(30))
    assert numbers_at(tmp_path / "days/*/part*", tmp_path) == list(range(30))
    assert numbers_at(tmp_path / "days/day=[12]/*", tmp_path) == list(range(6))


def test_an_archive_that_is_damaged_is_refused(tmp_path):
    zipped(tmp_path / "a.zip", {"train.txt": TEXT})
    (tmp_path / "a.zip").write_bytes((tmp_path / "a.zip").read_bytes()[:-9])
    with pytest.raises(InputError, match=r"a.zip can't be unpacked"):
        find_raws(str(tmp_path / "a.zip"))
    tarred(Path(tmp_path / "a.tar.gz"), {"train.txt": TEXT})
    (tmp_path / "b.csv").write_bytes(b"PK\3\4")
    with pytest.raises(InputError, match=r"b.csv"):
        find_raws(str(tmp_path / "b.csv"))
