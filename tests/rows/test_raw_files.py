"""Several raw files as one run of rows, whatever they are; what is in a file's lines stands in test_lines."""

import bz2
import errno
import gzip
import lzma
import tarfile
from pathlib import Path

import numpy as np
import pytest
from conftest import raw_lines, write_raw

from src.base.errors import InputError
from src.data.manifest import is_data_folder
from src.preprocess_data import output_folder
from src.rows import text_file, unpacking
from src.rows.columns import Columns
from src.rows.lines import parse
from src.rows.raw_files import find_raws
from src.rows.raw_rows import blocks_of_file
from src.rows.reader import RawInput
from src.rows.text_file import LineIndex

HEADER = Columns(("n",), ("c",), "y", header=True)


def packed(path, lines):
    """A compressed file, its last line without an end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with (gzip.open if path.suffix == ".gz" else lzma.open)(path, "wt") as file:
        file.write("\n".join(lines))
    return path


@pytest.fixture
def days(tmp_path):
    """Three files of 60 lines, and the lines."""
    lines = raw_lines(60)
    names = write_raw(tmp_path / "a.txt", lines[:20]), packed(tmp_path / "b.gz", lines[20:45])
    return [*names, packed(tmp_path / "c.xz", lines[45:])], lines


@pytest.mark.parametrize("rows", [1, 7, 60])
@pytest.mark.parametrize(("first", "last"), [(0, 60), (5, 50), (20, 45), (44, 46), (3, 3)])
def test_rows_of_several_files_equal_those_of_one(days, tmp_path, first, last, rows):
    raws, lines = days
    found = RawInput(raws, Columns.numbered(), tmp_path / "text")
    assert found.rows == 60
    spans = found.spans(first, last, rows)
    assert all(0 < span.rows <= rows for span in spans)
    assert [row for span in spans for row in range(span.first_row, span.first_row + span.rows)] == [*range(first, last)]
    blocks = [block for span in spans for block in found.read(span)]
    if first < last:
        whole = parse("".join(line + "\n" for line in lines[first:last]).encode(), Columns.numbered())
        np.testing.assert_array_equal(np.concatenate([block.keys for block in blocks], axis=1), whole.keys)
        np.testing.assert_array_equal(np.concatenate([block.numbers for block in blocks]), whole.numbers)


def test_unpacked_text_stays_until_it_is_removed(days, tmp_path, monkeypatch):
    raws, _ = days
    text = tmp_path / "text"
    RawInput(raws, Columns.numbered(), text)
    assert sorted(path.name.split("-", 1)[1] for path in text.iterdir()) == ["b.gz.txt", "c.xz.txt"]
    with monkeypatch.context() as patch:
        patch.setattr(unpacking, "_OPENERS", {".gz": None, ".xz": None})  # so that nothing can be unpacked
        again = RawInput(raws, Columns.numbered(), text)
    again.remove_unpacked()
    assert list(text.iterdir()) == []
    assert all(raw.exists() for raw in raws)


def test_plain_files_need_no_folder(tmp_path):
    RawInput([write_raw(tmp_path / "a.txt", raw_lines(3))], Columns.numbered(), tmp_path / "text").remove_unpacked()
    assert not (tmp_path / "text").exists()


def test_compressed_files_of_one_name_are_not_taken_for_each_other(tmp_path):
    """day=1/part.gz and day=2/part.gz, and a file that another has replaced."""
    raws = [packed(tmp_path / day / "part.gz", [f"{row % 2}\t1\t{day}" for row in range(5)]) for day in ("d1", "d2")]
    columns = Columns.numbered(1, 1)

    def texts():
        found = RawInput(raws, columns, tmp_path / "text")
        return [block.keys.tolist() for span in found.spans(0, 10, 10) for block in found.read(span)]

    def keys_of(text):
        return parse(f"1\t1\t{text}\n".encode() * 5, columns).keys.tolist()

    assert texts() == [keys_of("d1"), keys_of("d2")]
    packed(raws[1], [f"1\t1\td{row}" for row in (3, 3, 3, 3, 3)])
    assert texts() == [keys_of("d1"), keys_of("d3")]


def test_bad_rows_name_the_file_as_the_user_gave_it_where_there_are_several(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one, other = write_raw(tmp_path / "a.txt", ["x"]), packed(tmp_path / "b.gz", ["0\t1\ta", "y"])
    for raws, expected in (
        ([one.relative_to(tmp_path), other.relative_to(tmp_path)], ["a.txt line 1: 1 columns", "b.gz line 2: 1 colum"]),
        ([other], ["line 2: 1 columns in"]),
    ):
        found = RawInput(raws, Columns.numbered(1, 1), tmp_path / "text")
        bad = [row for span in found.spans(0, 9, 9) for block in found.read(span) for row in block.bad]
        assert [str(row)[: len(text)] for row, text in zip(bad, expected)] == expected
        assert len(bad) == len(expected)


def test_each_file_has_the_order_of_its_own_header(tmp_path):
    raws = [
        write_raw(tmp_path / "a.txt", ["n\tc\ty", "5\ta\t1"]),
        packed(tmp_path / "b.gz", ["y\tz\tc\tn", "0\t\tb\t6"]),
    ]
    found = RawInput(raws, HEADER, tmp_path / "text")
    assert [columns.order for columns in found.columns] == [("n", "c", "y"), ("y", "z", "c", "n")]
    blocks = [block for span in found.spans(0, 2, 9) for block in found.read(span)]
    assert [(block.labels.tolist(), block.numbers.tolist()) for block in blocks] == [([1], [[5.0]]), ([0], [[6.0]])]


def test_a_header_without_a_column_is_refused_by_the_users_name_of_the_file(tmp_path):
    raw = packed(tmp_path / "b.gz", ["y\tn", "0\t6"])
    with pytest.raises(InputError, match=rf"^{raw}: its header has column 'c' 0 times"):
        RawInput([raw], HEADER, tmp_path / "text")


@pytest.mark.parametrize(
    ("stands", "read", "told"),
    [
        ("utf-8", "gb18030", "which is utf-8 text read as gb18030: leave encoding out of the schema"),
        ("gb18030", "utf-8", "which is not utf-8 text: a schema may name another encoding"),
        ("gb18030", "latin-1", ""),
    ],
)
def test_a_header_in_another_encoding_says_so(tmp_path, stands, read, told):
    (tmp_path / "a.txt").write_bytes("点击\t价格\t设备品牌\n1\t5\t华为\n".encode(stands))
    columns = Columns(("价格",), ("设备品牌",), "点击", header=True, encoding=read)
    with pytest.raises(InputError, match=rf"header has column '.*' 0 times.*'(, )?{told}$"):
        RawInput([tmp_path / "a.txt"], columns, tmp_path / "text")


def test_index_of_spans_is_that_of_the_file(tmp_path):
    """RawInput counts rows over all files, an index over its own."""
    index = LineIndex(write_raw(tmp_path / "a.txt", raw_lines(9)))
    assert [(span.first_row, span.raw) for span in index.spans(2, 9, 4)] == [(2, ""), (6, "")]


def test_a_file_given_twice_is_refused_whatever_it_is_called(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_raw(tmp_path / "a.txt", raw_lines(3))
    (tmp_path / "link.txt").symlink_to("a.txt")
    (tmp_path / "hard.txt").hardlink_to("a.txt")
    for other in ("a.txt", f"{tmp_path}/a.txt", "link.txt", "hard.txt"):
        with pytest.raises(InputError, match=rf"{other} and a.txt are the same file: give each file once"):
            find_raws(f"a.txt,{other}")


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["day_1", "day_10", "day_2"], "warning: day_10 is read before day_2: rows must come in the order of time"),
        (["day_1", "day_2", "day_10"], ""),
        (["b", "a"], ""),
        (["y2_d9", "y3_d1"], ""),
        (["31-01-2024", "01-02-2024"], ""),
        (["2024_31.01.2024_part9", "2024_01.02.2024_part1"], ""),
        (["clicks31012024", "clicks01022024"], ""),
        (["01-31-2024", "02-01-2024"], ""),  # the month first
        (["20240131", "20240201"], ""),
        (["20240201", "20240131"], "warning: 20240201 is read before 20240131: "),
        (["01-02-2024", "31-01-2023"], "warning: 01-02-2024 is read before 31-01-2023: "),
        (["02-02-2024", "01-02-2024"], "warning: 02-02-2024 is read before 01-02-2024: "),
    ],
)
def test_numbered_files_in_another_order_than_that_of_their_numbers_are_told(tmp_path, monkeypatch, capfd, names, told):
    monkeypatch.chdir(tmp_path)
    for name in names:
        write_raw(tmp_path / name, raw_lines(1))
    assert [raw.name for raw in find_raws(",".join(names))] == names
    assert capfd.readouterr().err.startswith(told or "\n") == bool(told)
    find_raws(",".join(names), "dataset_path")  # to be scored
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("files", [30, 600])
def test_a_list_of_files_may_be_longer_than_a_path(tmp_path, monkeypatch, files):
    """Of which the name of a file has at most 255 bytes, and all at most 4,095."""
    monkeypatch.chdir(tmp_path)
    names = [f"part-{number:05d}" for number in range(files)]
    for name in names:
        write_raw(tmp_path / name, raw_lines(1))
    raws = find_raws(",".join(names))
    assert [raw.name for raw in raws] == names
    assert output_folder(",".join(names), "", raws) == Path("dataset")
    assert not is_data_folder(Path(",".join(names)))


@pytest.mark.parametrize("name", ["x" * 252, "\N{GRINNING FACE}" * 63])
def test_a_packed_file_may_have_the_longest_name(tmp_path, name):
    path = packed(tmp_path / f"{name}.gz"[-255:], ["1\t2\ta"])
    assert RawInput([path], Columns.numbered(1, 1), tmp_path / "text").rows == 1


def test_the_file_that_is_not_read_is_named(tmp_path, capfd):
    for name in ("train.txt", "origin_data/train.txt"):
        write_raw(tmp_path / name, raw_lines(1))
    assert find_raws(str(tmp_path)) == [tmp_path / "origin_data/train.txt"]
    assert (
        capfd.readouterr().err == f"warning: {tmp_path}/origin_data/train.txt is read, and not {tmp_path}/train.txt\n"
    )


@pytest.mark.parametrize("name", ["dac.tar.gz", "dac.tar", "dac.txt"])
def test_an_archive_is_told_by_what_is_in_it(tmp_path, name):
    inner = write_raw(tmp_path / "train.txt", raw_lines(5))
    with tarfile.open(tmp_path / name, "w:gz" if name != "dac.tar" else "w") as archive:
        archive.add(inner, "train.txt")
    assert find_raws(str(tmp_path / name)) == [tmp_path / name / "train.txt"]
    assert sum(len(block.labels) for block in blocks_of_file(tmp_path / name, Columns.numbered())) == 5
    with pytest.raises(InputError, match=rf"{name} is an archive or a spreadsheet, and no text"):
        RawInput([tmp_path / name], Columns.numbered(), tmp_path / "text")
    assert not list((tmp_path / "text").glob("*"))


@pytest.mark.parametrize("place", [40, 200, -3])
@pytest.mark.parametrize("suffix", [".gz", ".xz"])
def test_a_flipped_bit_of_a_packed_file_is_one_line(tmp_path, suffix, place):
    raw = packed(tmp_path / f"a{suffix}", raw_lines(40))
    content = bytearray(raw.read_bytes())
    content[place] ^= 4
    raw.write_bytes(content)
    with pytest.raises(InputError, match=rf"a{suffix} can't be unpacked"):
        RawInput([raw], Columns.numbered(), tmp_path / "text")
    assert not list((tmp_path / "text").glob("*"))


def test_what_is_packed_is_told_by_its_first_bytes(tmp_path):
    """And .bz2 is read too."""
    text = "".join(line + "\n" for line in raw_lines(9)).encode()
    for name, pack in (("a.bz2", bz2.compress), ("b.txt", gzip.compress), ("c", lzma.compress)):
        (tmp_path / name).write_bytes(pack(text))
        assert RawInput([tmp_path / name], Columns.numbered(), tmp_path / "text").rows == 9


@pytest.mark.parametrize("header", [False, True])
def test_a_line_without_an_end_is_refused(tmp_path, monkeypatch, header):
    monkeypatch.setattr(text_file, "_LONGEST_LINE", 1000)
    monkeypatch.setattr(text_file, "_BLOCK_BYTES", 256)
    raw = tmp_path / "a.txt"
    raw.write_bytes(b"1\t1\ta\n" * 100 + b"x" * 2000 + b"\n")
    with pytest.raises(InputError, match=r"a.txt: line 101 has more than 0 MiB: give text of a row a line"):
        LineIndex(raw, header=header)


@pytest.mark.parametrize("columns", [Columns.numbered(1, 1), HEADER])
def test_empty_files_among_several_are_passed_over(tmp_path, capfd, columns):
    lines = ["n\tc\ty", "5\ta\t1"] if columns.header else ["1\t5\ta"]
    raws = [write_raw(tmp_path / "a", []), write_raw(tmp_path / "b", lines), packed(tmp_path / "c.gz", [])]
    found = RawInput(raws, columns, tmp_path / "text")
    (block,) = [block for span in found.spans(0, 9, 9) for block in found.read(span)]
    assert (found.rows, block.labels.tolist(), found.raws) == (1, [1], (raws[1],))
    assert "warning: 2 of 3 files are empty and passed over, such as " in capfd.readouterr().err


def test_a_full_disk_leaves_no_partial_text(tmp_path, monkeypatch):
    def full(*_):
        yield b"begin"
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(unpacking, "utf8_blocks", full)
    raw = packed(tmp_path / "a.gz", raw_lines(9))
    with pytest.raises(OSError, match=r"No space left on device: '\S+a.gz.txt'"):
        RawInput([raw], Columns.numbered(), tmp_path / "text")
    assert not list((tmp_path / "text").iterdir())


def test_a_misspelt_file_is_told_to_be_missing_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clicks.csv").touch()
    (tmp_path / "empty").mkdir()
    for name, message in {
        "clikcs.csv": "there is no file clikcs.csv, nor a folder of that name: is it clicks.csv\\?$",
        "nothing.tsv": "there is no file nothing.tsv, nor a folder of that name: check the name$",
        "data": "there is no file data, nor a folder of that name: unpack the raw text there, or make some with src/",
        "empty": "and no folder of files of rows: unpack the raw text there",
    }.items():
        with pytest.raises(InputError, match=message):
            find_raws(name)
