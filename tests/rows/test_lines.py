import contextlib
import itertools
import math
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from src.rows import lines as criteo
from src.rows import text_file
from src.rows.block import BadRow
from src.rows.cells.reasons import label_reason, number_reason
from src.rows.columns import Columns
from src.rows.keys import key_of, text_of
from src.rows.lines import parse
from src.rows.parsing import cells_of
from src.rows.text_file import LineIndex


@contextlib.contextmanager
def numpy_alone():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(criteo, "_library", lambda: None)
        yield


@pytest.fixture(autouse=True, scope="module", params=["compiled", "numpy"])
def parser(request):
    """Both parsers: the compiled one, which leaves odd lines to NumPy, and NumPy alone."""
    assert criteo._library(), "install g++"
    if request.param == "numpy":
        with numpy_alone():
            yield
    else:
        yield


# To draw lines takes ten times as long as to parse them: such tests parse each by one parser and by the other.
by_both = pytest.mark.parametrize("parser", ["both"], indirect=True)
BOTH = (contextlib.nullcontext, numpy_alone)


BYTE_ORDER_MARK = b"\xef\xbb\xbf"
LARGEST_FLOAT32 = 3.4028235677973366e38  # from here on a number rounds to infinity
TWO_BY_TWO = Columns.numbered(2, 2)


def number(cell: bytes) -> float | None:
    """The cell's number, 0 for an empty one, None where it holds no finite number."""
    if cell == b"":
        return 0.0
    try:
        value = float(cell) if set(cell) <= set(b"0123456789+-.eE") else math.nan
    except ValueError:
        return None
    return value if abs(value) < LARGEST_FLOAT32 else None


def complaint(line: bytes, cells: list[bytes], columns: Columns) -> str | None:
    """What is wrong with a line, if anything."""
    if line.decode("utf-8", "ignore").encode() != line:
        return "is not utf-8 text (a --schema may name another encoding)"
    if len(cells) != len(columns.names):
        return f"{len(cells)} columns instead of {len(columns.names)}"
    if any(byte < 9 for byte in line):
        return "holds a control character"
    if cells[0] not in (b"0", b"1"):
        return label_reason(Columns((), ()), cells[0][:40].decode("utf-8", "replace"))
    for name, cell in zip(columns.dense, cells[1:]):
        if number(cell) is None:
            return number_reason(name, cell[:40].decode("utf-8", "replace"))
    return None


def split_lines(text: bytes) -> list[bytes]:
    lines = text.split(b"\n")
    return lines if lines[-1] else lines[:-1]


def plain_parse(text: bytes, columns: Columns, first_line: int = 1):
    """Labels, rows of numbers, rows of category cells, and bad rows, cell by cell."""
    labels, numbers, categories, bad = [], [], [], []
    for line_number, line in enumerate(split_lines(text), first_line):
        cells = line.split(b"\t")
        if cells[-1].endswith(b"\r"):
            cells[-1] = cells[-1][:-1]
        if reason := complaint(line, cells, columns):
            bad.append(BadRow(line_number, reason, line))
            continue
        labels.append(int(cells[0]))
        end = 1 + len(columns.dense)
        numbers.append([np.float32(number(cell) if cell else math.nan) for cell in cells[1:end]])
        categories.append(cells[end:])
    return labels, numbers, categories, bad


def check_against_plain(blocks, text: bytes, columns: Columns, first_line: int = 1) -> None:
    labels, numbers, categories, bad = plain_parse(text, columns, first_line)
    assert np.concatenate([block.labels for block in blocks]).tolist() == labels
    actual = np.concatenate([block.numbers for block in blocks])
    assert actual.dtype == np.float32
    np.testing.assert_array_equal(actual, np.reshape(numbers, (len(labels), len(columns.dense))))
    assert not np.signbit(actual[actual == 0]).any()
    assert [row for block in blocks for row in block.bad] == bad
    assert len(labels) + len(bad) == len(split_lines(text))
    keys = np.concatenate([block.keys for block in blocks], axis=1)
    assert keys.dtype == np.uint64
    assert keys.shape == (len(columns.categorical), len(labels))
    seen = {(cell, key) for row, row_keys in zip(categories, keys.T.tolist()) for cell, key in zip(row, row_keys)} | {
        (b"", 0)
    }
    assert len(seen) == len({cell for cell, _ in seen}) == len({key for _, key in seen})
    for cell, key in seen:
        if len(cell) > 8 or (cell and cell[0] & 0xC0 == 0x80):  # long, or no beginning of UTF-8
            assert text_of(key) is None
        elif cell.decode("utf-8", "ignore").encode() == cell:
            assert text_of(key) == cell.decode()
            assert key_of(cell.decode()) == key


def line_of(*cells: str) -> bytes:
    return "\t".join(cells).encode() + b"\n"


integers = st.integers(-(10**20) + 1, 10**20 - 1).map(str)
signs, points = st.sampled_from(["", "+", "-"]), st.sampled_from(["", "."])


def digits(least, most):
    return st.text("0123456789", min_size=least, max_size=most)


def joined(*parts):
    return st.tuples(*parts).map("".join)


decimals = (
    st.floats(-1e30, 1e30).map(repr)
    | joined(signs, digits(1, 12), points, digits(0, 4))
    | joined(signs, st.just("."), digits(1, 9))
)
powers = joined(st.sampled_from("eE"), signs, st.sampled_from(["", "0", "1", "2"]), digits(1, 1))
exponents = joined(signs, digits(1, 3), points, digits(0, 2), powers)
numeric = st.one_of(st.just(""), st.integers(-3, 120).map(str), integers, decimals, exponents).map(str.encode)
NO_NUMBERS = "nan inf -inf Infinity 1e39 -1e400 1_0 0x10 - + . e5 --1 1e 1,5 12345678a a12345678 \u00b2".encode().split(
    b" "
) + [b" 1", b"1 ", b"1\r", b"1\x0b"]
no_number = st.one_of(
    st.sampled_from(NO_NUMBERS),
    st.text("0123456789abc.-+eE /:;\x0b\x0c\x1f", min_size=1, max_size=50).map(str.encode),
)
printable = st.characters(min_codepoint=0x20, exclude_categories=("Cs",))
category = st.one_of(
    st.just(b""),
    st.integers(0, 2**32 - 1).map(lambda value: f"{value:08x}".encode()),
    st.text(printable, max_size=40).map(lambda text: text.encode()[:40].decode("utf-8", "ignore").encode()),
)
line_end = st.sampled_from([b"\n", b"\r\n"])


@st.composite
def good_line(draw, columns: Columns) -> list[bytes]:
    """Cells of a line without fault."""
    cells = [draw(st.sampled_from([b"0", b"1"]))]
    cells += [draw(numeric) for _ in columns.dense]
    return cells + [draw(category) for _ in columns.categorical]


@st.composite
def spoiled_line(draw, columns: Columns) -> list[bytes]:
    """Cells of a line, often with a fault in one place."""
    cells = draw(good_line(columns))
    place = draw(st.integers(0, len(cells) - 1))
    fault = draw(st.sampled_from(["label", "number", "control", "bytes", "more", "fewer", "empty", "none"]))
    if fault == "label":
        cells[0] = draw(st.sampled_from([b"", b"2", b"-1", b"00", b"0.0", b"x", b" 1", b"/", b":", b"\xff"]))
    elif fault == "number":
        cells[draw(st.integers(1, len(columns.dense)))] = draw(no_number)
    elif fault == "control":
        cells[place] += bytes([draw(st.integers(0, 8))])
    elif fault == "bytes":
        cells[place] += draw(st.binary(max_size=40)).translate(None, b"\t\n\r")
    elif fault == "more":
        cells.insert(place, b"7")
    elif fault == "fewer":
        del cells[place]
    elif fault == "empty":
        cells = [b""]
    return cells


@st.composite
def tables(draw, line) -> tuple[Columns, bytes]:
    """Columns, and text of one line or more."""
    columns = Columns.numbered(draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    rows = draw(st.lists(line(columns), min_size=1, max_size=8))
    text = b"".join(b"\t".join(cells) + draw(line_end) for cells in rows)
    if draw(st.booleans()) and len(text) > 1 and not text.endswith(b"\n\n"):
        text = text[:-1]
    return columns, text


@by_both
@given(table=tables(good_line))
def test_parse_of_sound_text_equals_plain_python(table):
    columns, text = table
    for parser in BOTH:
        with parser():
            block = parse(text, columns)
        assert block.bad == []
        check_against_plain([block], text, columns)


@by_both
@given(table=tables(spoiled_line), first_line=st.integers(1, 10**9))
def test_parse_of_spoiled_text_reports_every_bad_line_and_keeps_the_others(table, first_line):
    columns, text = table
    for parser in BOTH:
        with parser():
            block = parse(text, columns, first_line)
        check_against_plain([block], text, columns, first_line)


@by_both
@given(
    table=tables(spoiled_line), block_bytes=st.integers(1, 64), rows=st.integers(1, 4), with_mark=st.booleans(),
)  # fmt: skip
def test_spans_in_tiny_blocks_equal_plain_python(table, block_bytes, rows, with_mark):
    columns, text = table
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_file, "_BLOCK_BYTES", block_bytes)
        path = Path(folder, "raw.txt")
        path.write_bytes(BYTE_ORDER_MARK * with_mark + text)
        index = LineIndex(path, every=2)
        spans = index.spans(0, index.rows, rows)
        assert [span.rows for span in spans] == [min(rows, index.rows - i) for i in range(0, index.rows, rows)]
        for span, parser in itertools.product(spans, BOTH):
            with parser():
                blocks = list(span.blocks(columns))
            lines = split_lines(text)[span.first_row : span.first_row + span.rows]
            check_against_plain(blocks, b"\n".join([*lines, b""]), columns, span.first_row + 1)


@pytest.mark.parametrize("digits", range(1, 21))
def test_whole_numbers_of_any_length(digits):
    texts = ["9" * digits, "1" + "0" * (digits - 1), ("1234567890" * 2)[:digits], "0" * (digits - 1) + "7"]
    for text in texts:
        block = parse(line_of("1", text, "-" + text, "", ""), TWO_BY_TWO)
        assert block.numbers[0].tolist() == [np.float32(int(text)), np.float32(-int(text))]


def test_empty_cells_are_no_numbers_and_negative_ones_stay():
    (row,) = parse(line_of("0", "", "-2", "", ""), TWO_BY_TWO).numbers.tolist()
    assert math.isnan(row[0])
    assert row[1] == -2


@pytest.mark.parametrize("text", ["-0", "-0.0", "-00000000", "-1e-60"])
def test_there_is_one_zero(text):
    assert parse(line_of("0", text, "0", "", ""), TWO_BY_TWO).numbers.tobytes() == bytes(8)


def test_line_that_ends_with_carriage_return_has_an_empty_last_category():
    block = parse(b"1\t2\t3\ta\t\r\n0\t2\t3\ta\tb\r\n", TWO_BY_TWO)
    assert block.keys.tolist() == [[ord("a"), ord("a")], [0, ord("b")]]


MALFORMED = {
    "too_few_columns": (b"1\t2\t3\ta", "4 columns instead of 5"),
    "too_many_columns": (b"1\t2\t3\ta\tb\tc", "6 columns instead of 5"),
    "empty_line": (b"", "1 columns instead of 5"),
    "label_2": (b"2\t2\t3\ta\tb", "label is '2', which is not 0 or 1"),
    "no_label": (b"\t2\t3\ta\tb", "label is '', which is not 0 or 1"),
    "label_of_two_digits": (b"01\t2\t3\ta\tb", "label is '01', which is not 0 or 1"),
    "text_in_number": (b"1\t2\tx3\ta\tb", "I2 is 'x3', which is not a number"),
    "nan": (b"1\tnan\t3\ta\tb", "I1 is 'nan', which is not a number (a schema may list it: missing: ['nan'])"),
    "inf": (b"1\t2\tinf\ta\tb", "I2 is 'inf', which is not a number"),
    "beyond_float32": (b"1\t2\t1e39\ta\tb", "I2 is '1e39', which is not a number"),
    "long_cell": (b"1\t2\t" + b"z" * 90 + b"\ta\tb", f"I2 is '{'z' * 40}', which is not a number"),
    "nul": (b"1\t2\t3\ta\0\tb", "holds a control character"),
    "no_utf8": (b"1\t2\t3\ta\t\xb0\xa1", "is not utf-8 text (a --schema may name another encoding)"),
    "surrogate": (b"1\t2\t3\ta\t\xed\xa0\x80", "is not utf-8 text (a --schema may name another encoding)"),
    "backspace": (b"1\t2\t3\ta\tb\x08", "holds a control character"),
}


@pytest.mark.parametrize("place", [0, 1, 4])
@pytest.mark.parametrize(("line", "reason"), MALFORMED.values(), ids=MALFORMED)
def test_malformed_line_is_reported_with_its_number_and_text(line, reason, place):
    lines = [b"1\t2\t3\ta\tb"] * 4
    lines.insert(place, line)
    block = parse(b"\n".join([*lines, b""]), TWO_BY_TWO, first_line=100)
    assert block.bad == [BadRow(100 + place, reason, line)]
    assert len(block.labels) == len(block.numbers) == block.keys.shape[1] == 4


def test_first_fault_of_a_line_is_the_reason():
    block = parse(b"3\tx\ty\ta\tb\n1\tx\ty\ta\tb\n", TWO_BY_TWO)
    assert [str(row) for row in block.bad] == [
        "line 1: label is '3', which is not 0 or 1",
        "line 2: I1 is 'x', which is not a number",
    ]


@pytest.mark.filterwarnings("error")
def test_number_beyond_float32_gives_no_warning():
    """A warning would stand on stderr beside the one line of the error."""
    assert len(parse(line_of("1", "1e39", "-1e39", "", ""), TWO_BY_TWO).bad) == 1


@given(
    st.text("ab\t\r\n", max_size=60).map(str.encode),
    st.booleans(),
    st.integers(1, 5),
    st.sampled_from([1, 2, 3, 7, 1000]),
)
@example(b"", True, 1, 7)
@example(b"\n", False, 1, 1)
def test_line_index_equals_plain_splitting(text, with_mark, every, block_bytes):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_file, "_BLOCK_BYTES", block_bytes)
        path = Path(folder, "raw.txt")
        path.write_bytes(BYTE_ORDER_MARK * with_mark + text)
        index = LineIndex(path, every)
        *whole, rest = text.split(b"\n")
        lines = [line + b"\n" for line in whole] + [rest] * (rest != b"")
        assert index.rows == len(lines)
        begin = 3 * with_mark
        offsets = [begin + sum(map(len, lines[:row])) for row in range(len(lines) + 1)]
        assert [index.offset(row) for row in range(len(lines) + 1)] == offsets
        assert index.offset(len(lines) + 9) == index.size == begin + len(text)
        for first in range(len(lines)):
            spans = index.spans(first, len(lines), every)
            content = path.read_bytes()
            assert b"".join(content[span.start : span.end] for span in spans) == b"".join(lines[first:])
            assert [span.first_row for span in spans] == list(range(first, len(lines), every))
            assert sum(span.rows for span in spans) == len(lines) - first
        assert index.spans(0, 0, every) == []


def test_line_longer_than_a_block_is_read_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(text_file, "_BLOCK_BYTES", 7)
    path = tmp_path / "raw.txt"
    path.write_bytes(line_of("1", "5", "6", "x" * 500, "y") * 3)
    index = LineIndex(path)
    (span,) = index.spans(0, 3, 3)
    keys = np.concatenate([block.keys for block in span.blocks(TWO_BY_TWO)], axis=1)
    assert keys.tolist() == [[key_of("x" * 500)] * 3, [key_of("y")] * 3]


def test_columns_are_named_as_in_criteo():
    assert Columns.numbered().names[:2] == ("label", "I1")
    assert Columns.numbered().names[-1] == "C26"
    assert len(Columns.numbered().names) == 40
    assert Columns.numbered(2, 1).names == ("label", "I1", "I2", "C1")


def test_parsers_give_the_same_bits():
    """So that a run which goes on on a machine without a compiler, or with one, ends with the same files."""
    rng = np.random.default_rng(3)
    texts = (b"", b"a", b"12345678", b"more than eight", "\u00e4".encode())
    lines = []
    for text in texts * 199:
        numbers = [b"%d" % int(rng.pareto(0.3)), b"%d" % rng.integers(-9, 9), rng.choice([b"", b"-0", b"-12.5"])]
        lines.append(b"\t".join([b"%d" % rng.integers(2), *numbers, b"1.5", b"%x" % rng.integers(1 << 32), text]))
    text, columns = b"\r\n".join(lines), Columns.numbered(4, 2)
    one, other = parse(text, columns), criteo._parse(text + b"\n", columns, 1)
    assert one.labels.tobytes() == other.labels.tobytes()
    assert one.numbers.tobytes() == other.numbers.tobytes()
    assert one.keys.tobytes() == other.keys.tobytes()
    assert len(one.labels) == len(lines)


def test_cells_of_lines_that_are_rows():
    text = "1;2;a;b\r\n\n1;2;3\n0;;Zürich;\n".encode() + b"0;;\xff;\n"
    columns = Columns(("n",), ("y", "x"), order=("label", "n", "x", "y"), separator=";")
    assert cells_of(text, columns)[0] == [["1", "0"], ["2", ""], ["b", ""], ["a", "Zürich"]]
    assert cells_of(b"", columns)[0] == [[], [], [], []]
