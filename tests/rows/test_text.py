"""One rule of encodings, whichever door text comes by."""

import pytest
from conftest import write_raw

from src.base.errors import InputError
from src.data.manifest import Manifest, raw_format
from src.rows.columns import Columns
from src.rows.keys import key_of, keys_of
from src.rows.lines import parse
from src.rows.reader import RawInput
from src.rows.schema import load_schema
from src.rows.text import encoding_named, encoding_of, utf8

CITIES = ["北京", "上海 and some more", "Köln", "", "x"]
TEXT = "".join(f"1\t5\t{city}\n" for city in CITIES)
KEYS = [[key_of(city) for city in CITIES]]


def columns(encoding):
    return Columns(("I1",), ("C1",), encoding=encoding)


def read(path, encoding, folder):
    found = RawInput([path], columns(encoding), folder)
    return [block for span in found.spans(0, found.rows, 99) for block in found.read(span)]


@pytest.mark.parametrize("encoding", ["utf-8", "gb18030", "utf-16", "utf-16-le", "utf-8-sig"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_file_of_any_encoding_gives_the_keys_of_its_text(tmp_path, encoding, mark):
    (tmp_path / "raw.txt").write_bytes((mark * (encoding not in ("utf-16", "utf-8-sig")) + TEXT).encode(encoding))
    (block,) = read(tmp_path / "raw.txt", encoding_named(encoding), tmp_path / "text")
    assert (block.keys.tolist(), block.bad) == (KEYS, [])


@pytest.mark.parametrize("encoding", ["utf-8", "gb18030", "utf-16-le"])
def test_text_and_bytes_that_a_program_has_give_the_same(encoding):
    assert utf8(TEXT) == utf8(TEXT.encode(encoding), encoding) == TEXT.encode()
    assert keys_of(CITIES).tolist() == parse(utf8(TEXT.encode(encoding), encoding), columns(encoding)).keys[0].tolist()


@pytest.mark.parametrize("encoding", ["utf-8", "gb18030", "ascii"])
def test_bytes_that_are_not_text_make_a_bad_row_with_its_line(tmp_path, encoding):
    (tmp_path / "raw.txt").write_bytes(b"1\t5\ta\n0\t5\t\xff\xfe\n0\t5\tb\n1\t5\t\xb0\xa1\xff\n")
    (block,) = read(tmp_path / "raw.txt", encoding, tmp_path / "text")
    assert [str(row) for row in block.bad] == [
        f"line {line}: is not {encoding} text (a --schema may name another encoding)" for line in (2, 4)
    ]
    assert block.keys.tolist() == [[key_of("a"), key_of("b")]]


def test_half_of_a_surrogate_pair_is_refused():
    with pytest.raises(InputError, match=r"'a\\ud800' holds a lone surrogate, which is no text: mend it"):
        keys_of(["fine", "a\ud800"])


def test_a_schema_names_the_encoding_and_the_manifest_keeps_it(tmp_path):
    schema = "label: y\ndense: [n]\ncategorical: [c]\n"
    (tmp_path / "s.yaml").write_text(f"{schema}encoding: GBK\n")
    found = load_schema(tmp_path / "s.yaml")
    assert found.encoding == "gbk"
    manifest = Manifest(("n",), ("c",), (2,), {}, (), 0, {"columns": raw_format(found)}, {})
    assert manifest.columns() == found
    (tmp_path / "s.yaml").write_text(f"{schema}encoding: UTF8\n")
    assert "encoding" not in raw_format(load_schema(tmp_path / "s.yaml"))
    for wrong in ("klingon", "base64", "idna", "punycode", "undefined"):
        (tmp_path / "s.yaml").write_text(f"{schema}encoding: {wrong}\n")
        with pytest.raises(InputError, match=rf"encoding is '{wrong}', of which Python reads no files: it must be one"):
            load_schema(tmp_path / "s.yaml")


def test_a_plain_file_is_read_where_it_is(tmp_path):
    read(write_raw(tmp_path / "raw.txt", TEXT.splitlines()), "utf-8", tmp_path / "text")
    assert not (tmp_path / "text").exists()


@pytest.mark.parametrize(("text", "encoding"), [
    ("Zürich, São Paulo, Köln, Genève", "latin-1"), ("北京, 上海, Köln", "gb18030"), ("臺北, 高雄, 東京", "gb18030"),
])  # fmt: skip
def test_letters_with_accents_are_not_taken_for_chinese_signs(text, encoding):
    assert encoding_of(text.encode(encoding)) == encoding
