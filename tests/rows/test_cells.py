"""Cells between quotes, comments, other labels, numbers and missing marks than plain text has, points in time."""

import csv
import io
import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import write_raw

from src.base.errors import InputError
from src.rows import lines, text_file
from src.rows.cells import finding
from src.rows.cells.times import numbers_of, of_texts
from src.rows.columns import Columns, Timestamp
from src.rows.keys import key_of, keys_of
from src.rows.lines import with_point
from src.rows.parsing import cells_of, parse
from src.rows.raw_files import nature_of
from src.rows.raw_rows import block_of_frame, block_of_lines, frame_of_file, lines_of
from src.rows.schema import load_schema
from src.rows.text_file import TextFile

QUOTED = Columns(("n",), ("a", "b, c"), "y", separator=",", header=True)
NAMES = ["y", "n", "a", "b, c"]


@pytest.fixture(params=["compiled", "python"])
def both_ways(request, monkeypatch):
    if request.param == "python":
        for module in (finding, lines):
            monkeypatch.setattr(module, "_library", lambda: None)


def csv_rows(rows=300):
    """Cells with all that must be quoted."""
    rng = random.Random(5)
    signs = ["a", '"', ",", "\n", "é", " ", "\r\n", 'x"y', "1", "\t", ""]
    return [[str(rng.randrange(2)), str(rng.randrange(999) / 8), *("".join(rng.choices(signs, k=4)) for _ in "ab")]
            for _ in range(rows)]  # fmt: skip


def written(row):
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator="\r\n").writerow(row)
    return buffer.getvalue()


@pytest.mark.parametrize("block_bytes", [8 << 20, 200, 37])
@pytest.mark.parametrize("span_rows", [300, 7])
def test_what_csv_writes_is_read_in_any_spans_and_blocks(both_ways, tmp_path, monkeypatch, block_bytes, span_rows):
    monkeypatch.setattr(text_file, "_BLOCK_BYTES", block_bytes)
    monkeypatch.setattr(text_file, "_CELL_BYTES", block_bytes)
    rows = csv_rows()
    path = tmp_path / "rows.csv"
    path.write_text("".join(map(written, [NAMES, *rows])) + "\r\n\r\n", newline="")  # blank lines are no rows
    file = TextFile(path, QUOTED, path)
    spans = file.spans(0, file.rows, span_rows)
    blocks = [block for span in spans for block in span.blocks(file.columns)]
    assert not [row for block in blocks for row in block.bad]
    keys = np.concatenate([block.keys for block in blocks], axis=1)
    assert keys.tolist() == [keys_of(column).tolist() for column in list(zip(*rows))[2:]]
    assert np.concatenate([block.labels for block in blocks]).tolist() == [int(row[0]) for row in rows]
    assert np.concatenate([block.numbers for block in blocks])[:, 0].tolist() == [float(row[1]) for row in rows]
    ends = np.cumsum([1, *(written(row).count("\n") for row in [NAMES, *rows])])
    assert np.concatenate([block.lines for block in blocks]).tolist() == ends[1:-1].tolist()
    cells = [row for span in spans for part in span.cells(file.columns) for row in zip(*part)]
    assert [row[2:] for row in cells] == [tuple(row[2:]) for row in rows]


def test_cells_are_found_by_compiled_code_as_by_python(monkeypatch):
    rng = random.Random(1)
    signs = [b"a", b'"', b",", b"\n", b"\r\n", b'"', b"\1", b"#", b"\xc3\xa9", b":", b"::", b",,:"]
    compiled = finding._library
    for _ in range(4000):
        text = b"".join(rng.choices(signs, k=rng.randrange(14)))
        columns = Columns((), ("a", "b"), "", separator=rng.choice([",", "::", ",,:"]), comment=rng.choice(["", "#"]),
                          quote=rng.choice(['"', ""]))  # fmt: skip
        last, found = rng.random() < 0.5, []
        for library in (compiled, lambda: None):
            monkeypatch.setattr(finding, "_library", library)
            found.append(finding.find_cells(text, columns, last))
        ours, theirs = found
        for name in ("counts", "begins", "lines"):
            assert getattr(ours, name).tolist() == getattr(theirs, name).tolist(), (text, name)
        good = np.flatnonzero(ours.counts == 2)
        assert [one.texts() for one in ours.columns(good)] == [one.texts() for one in theirs.columns(good)], text


@pytest.mark.parametrize("separator", ["::", "|#|", "||||||||"])
@pytest.mark.parametrize("block_bytes", [8 << 20, 61, 7])
def test_several_signs_separate_cells_as_pythons_split_does(both_ways, tmp_path, monkeypatch, separator, block_bytes):
    """Of which single ones may stand in cells, and quotation marks are signs like any other."""
    monkeypatch.setattr(text_file, "_BLOCK_BYTES", block_bytes)
    rng, rows = random.Random(2), []
    for row in range(200):
        cells = ["".join(rng.choices(["a", separator[0], "é", '"', " ", "#"], k=rng.randrange(4))) for _ in "ab"]
        rows.append(separator.join([str(row % 2), str(row), *cells]))
    columns = Columns(("n",), ("a", "b"), "y", separator=separator)
    path = tmp_path / "rows.dat"
    path.write_text("\r\n".join(rows) + "\r\n", newline="")
    file = TextFile(path, columns, path)
    blocks = [block for span in file.spans(0, file.rows, 90) for block in span.blocks(columns)]
    good = [(number, row.split(separator)) for number, row in enumerate(rows, 1) if row.count(separator) == 3]
    good = [(number, cells) for number, cells in good if len(cells) == 4 and cells[1].isdigit()]
    assert len(good) > 100
    assert [line for block in blocks for line in block.lines.tolist()] == [number for number, _ in good]
    keys = np.concatenate([block.keys for block in blocks], axis=1)
    assert keys.tolist() == [keys_of([cells[place] for _, cells in good]).tolist() for place in (2, 3)]
    assert all("columns instead of 4" in row.reason for block in blocks for row in block.bad)
    assert sum(len(block.bad) for block in blocks) == len(rows) - len(good)


def test_a_row_that_quotes_spoil_is_told_by_its_line_and_the_next_one_is_read(both_ways, monkeypatch):
    text = b'1,5,"a\nb",c\n0,6,"a"b,c\n1,7,"never closed,c\n0,8,"x ""y""",c\n1,9,"\1",c\n1,9,c\n0,1,d,e\n'
    block = parse(text, Columns(("n",), ("a", "b"), "y", separator=","))
    assert [str(row) for row in block.bad] == [
        "line 3: has text behind a closing quotation mark", "line 4: has text behind a closing quotation mark",
        "line 6: holds a control character", "line 7: 3 columns instead of 4",
    ]  # fmt: skip
    text = text.replace(b'0,8,"x ""y""",c\n', b"").replace(b'"\1"', b"x")
    block = parse(text, Columns(("n",), ("a", "b"), "y", separator=","))
    assert str(block.bad[1]) == "line 4: has a quotation mark that is not closed"
    assert (block.lines.tolist(), block.keys[0].tolist()) == ([1, 5, 7], [key_of("a\nb"), key_of("x"), key_of("d")])


def test_a_quote_is_a_sign_like_any_other_between_tabs_within_a_cell_and_where_the_schema_says_so():
    assert parse(b'1\t5\t"Paris"\n', Columns.numbered(1, 1)).keys.tolist() == [[key_of('"Paris"')]]
    comma = Columns(("n",), ("c",), separator=",")
    assert parse(b'1,5,5" disk\n', comma).keys.tolist() == [[key_of('5" disk')]]
    assert parse(b'1,5,"Paris"\n', Columns(("n",), ("c",), separator=",", quote="")).keys[0, 0] == key_of('"Paris"')
    assert parse(b"1,5,'a,b'\n", Columns(("n",), ("c",), separator=",", quote="'")).keys[0, 0] == key_of("a,b")


@pytest.mark.parametrize(("texts", "rules", "expected"), [
    (["1", "0", "2"], {}, [1, 0, None]),
    (["1.0", "True", "click", "0", ""], {"positive": ("1.0", "True", "click")}, [1, 1, 1, 0, None]),
    (["-1", "1", "3"], {"negative": ("-1",)}, [0, 1, 1]),
    (["yes", "no", "maybe"], {"positive": ("yes",), "negative": ("no",)}, [1, 0, None]),
    (["yes", "NULL"], {"positive": ("yes",), "missing": ("NULL",)}, [1, None]),
])  # fmt: skip
def test_labels_are_those_that_the_schema_names(both_ways, texts, rules, expected):
    block = parse("".join(f"{text}\ta\n" for text in texts).encode(), Columns((), ("c",), **rules))
    assert block.labels.tolist() == [label for label in expected if label is not None]
    assert [row.line for row in block.bad] == [line for line, label in enumerate(expected, 1) if label is None]


@pytest.mark.parametrize(("label", "hint"), [
    ("1.0", "positive: ['1.0']"), ("True", "positive: ['True']"), ("-1", "negative: ['-1']"),
])  # fmt: skip
def test_a_label_that_others_write_names_the_line_of_a_schema(label, hint):
    (row,) = parse(f"{label}\t5\n".encode(), Columns.numbered(1, 0)).bad
    assert str(row) == (
        f"line 1: label is {label!r}, which is not 0 or 1 (a schema says which labels are clicks, here with {hint})"
    )


@pytest.mark.parametrize(("cell", "hint"), [
    ("1,5", 'decimal: ","'), ("1.949,93", 'decimal: "," and thousands: "."'), ("1,234.56", 'thousands: ","'),
])  # fmt: skip
def test_a_number_that_others_write_names_the_lines_of_a_schema(cell, hint):
    (row,) = parse(f"1\t{cell}\n".encode(), Columns.numbered(1, 0)).bad
    assert str(row) == f"line 1: I1 is {cell!r}, which is not a number (a schema may say {hint})"


NUMBERS = {
    "1,5": 1.5, "1.234,5": 1234.5, "-1.234.567": -1234567, "1.5": None, "12.34,5": None, "1234,5": 1234.5, "": np.nan,
    "\\N": np.nan, "1,2,3": None, "1.2345": None, ",5": 0.5, "+7": 7, "1e3": 1000, "-": None, ".123": None,
}  # fmt: skip


def test_numbers_with_a_decimal_comma_and_groups_of_three(both_ways):
    columns = Columns(("n",), (), "y", decimal=",", thousands=".", missing=("\\N",))
    block = parse("".join(f"1\t{text}\n" for text in NUMBERS).encode(), columns)
    assert [row.line for row in block.bad] == [line for line, value in enumerate(NUMBERS.values(), 1) if value is None]
    np.testing.assert_array_equal(block.numbers[:, 0], [value for value in NUMBERS.values() if value is not None])
    for text, value in NUMBERS.items():
        if value is not None and text not in ("", "\\N"):
            assert float(with_point(text.encode(), b",", b".")) == value


def test_missing_marks_are_empty_cells(both_ways):
    columns = Columns(("n",), ("c",), missing=("\\N", "NULL", "not known"))
    block = parse(b"1\t\\N\tNULL\n0\tnot known\tnot known\n1\t5\tnull\n", columns)
    assert block.keys[0].tolist() == [0, 0, key_of("null")]
    np.testing.assert_array_equal(block.numbers[:, 0], [np.nan, np.nan, 5])


@pytest.mark.parametrize(("text", "form"), [
    ("2014-10-21 13:45:00", "iso"), ("14102113", "%y%m%d%H"), ("1413899100", "seconds"),
    ("1413899100000", "milliseconds"),
])  # fmt: skip
def test_points_in_time_give_hour_weekday_and_age(text, form):
    moment = Timestamp("t", form, since="2014-10-20")
    hour, weekday, days = numbers_of(of_texts([text], form), moment)[0].tolist()
    assert (hour, weekday, int(days)) == (13, 1, 1)  # a Tuesday
    block = parse(f"1\t{text}\n0\tno time\n1\t\n".encode(), Columns(moment.numbers, (), timestamps=(moment,)))
    assert str(block.bad[0]) == f"line 2: t is 'no time', which is no point in time of the form {form}"
    assert block.numbers[0].tolist() == [hour, weekday, days]
    assert np.isnan(block.numbers[1]).all()


def test_comments_are_no_rows(both_ways, tmp_path):
    path = write_raw(tmp_path / "rows.txt", ["# one", "1\t5\ta", "#", "0\t6\tb#c", "# end"])
    file = TextFile(path, Columns.numbered(1, 1), path)
    assert file.rows == 5
    file = TextFile(path, Columns(("I1",), ("C1",), comment="#"), path)
    (block,) = (block for span in file.spans(0, file.rows, 9) for block in span.blocks(file.columns))
    assert (block.lines.tolist(), block.numbers[:, 0].tolist(), block.bad) == ([2, 4], [5, 6], [])


SCHEMA = """
label: clicked
dense: [{name: seen, as: timestamp}, price]
categorical: [site]
header: true
separator: ";"
decimal: ","
positive: ["yes"]
missing: ["n/a"]
"""
ROWS = ['"clicked";price;seen;site', 'yes;1,5;"2014-10-21 13:00:00";"a;b"', "no;n/a;;n/a"]


def test_all_doors_read_cells_by_one_rule(tmp_path):
    (tmp_path / "s.yaml").write_text(SCHEMA)
    columns = load_schema(tmp_path / "s.yaml")
    assert columns.dense == ("seen hour", "seen weekday", "seen days", "price")
    path = write_raw(tmp_path / "rows.csv", ROWS)
    file = TextFile(path, columns, path)
    (from_file,) = (block for span in file.spans(0, 2, 2) for block in span.blocks(file.columns))
    from_lines = block_of_lines(lines_of(ROWS, columns), columns)
    frame = frame_of_file(path, columns)
    assert frame["seen"].tolist() == [pd.Timestamp("2014-10-21 13:00:00"), pd.NaT]
    by_hand = pd.DataFrame({"seen": ["2014-10-21 13:00:00", None], "price": ["1,5", "n/a"], "site": ["a;b", "n/a"]})
    for block in (from_lines, block_of_frame(frame, columns), block_of_frame(by_hand, columns)):
        np.testing.assert_array_equal(block.numbers, from_file.numbers)
        np.testing.assert_array_equal(block.keys, from_file.keys)
    assert from_file.labels.tolist() == from_lines.labels.tolist() == [1, 0]
    cells = cells_of("\n".join(ROWS[1:]).encode(), file.columns)[0]
    assert cells == [["1", "0"], ["1413896400", ""], ["1.5", ""], ["a;b", ""]]


@pytest.mark.parametrize(("line", "message"), [
    ("positive: [true]", "positive holds True: it must be text, in quotes"),
    ('decimal: ".,"', "decimal is '.,': it must be one sign"),
    ('thousands: "."', "thousands and decimal are both '.'"),
    ('quote: ","', "quote and separator are both ','"),
    ("dense: [{name: a, as: number}]", "dense holds .*: it must be a name, or of the form"),
    ("dense: [{name: a, as: timestamp, since: yesterday}]", "since is 'yesterday': it must be a day"),
    ("dense: [a hour, {name: a, as: timestamp}]", "'a hour' is one of the numbers of a timestamp"),
    ('positive: ["1"]\nnegative: ["1"]', "'1' is both positive and negative"),
])  # fmt: skip
def test_a_schema_that_can_not_be_is_refused(tmp_path, line, message):
    path = Path(tmp_path / "s.yaml")
    path.write_text(f"label: y\ncategorical: [c]\nseparator: ','\n{line}\n")
    with pytest.raises(InputError, match=message):
        load_schema(path)


@pytest.mark.parametrize(("content", "words"), [
    (b'"1"\t"5"\t"a"\n', "Cells stand between quotation marks: a --schema may say quote"),
    ("1\t5\ta\n".encode("utf-16-le"), "The text looks like UTF-16"),
    (bytes(range(256)), "This is binary content and no text"),
    (b"1,5,a\n", "',' seems to separate the columns"),
    (b"1\t5\n", ""),
])  # fmt: skip
def test_what_bad_rows_look_like_is_told(content, words):
    columns = Columns.numbered(1, 1)
    told = nature_of(parse(20 * content, columns).bad, columns)
    assert told.startswith(words)
    assert bool(told) == bool(words)
