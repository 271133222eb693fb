"""Odd inputs, made from plain rows of a seed: how each is written, and which rows it holds.

A case writes raw files and gives an `Input`. Where `rows` stand, the programs must see just these, or refuse the input;
where they don't, all programs must see the same.
"""

import gzip
import io
import lzma
import os
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

DENSE, CATEGORICAL = ("n", "m"), ("a", "b", "c")


@dataclass(frozen=True)
class Row:
    """A label, numbers and categories, as text."""

    label: str
    numbers: tuple[str, ...]
    texts: tuple[str, ...]

    def cells(self) -> list[str]:
        return [self.label, *self.numbers, *self.texts]


@dataclass(frozen=True)
class Input:
    """What preprocessing is given."""

    path: str
    rows: Sequence[Row] | None = None
    schema: dict[str, Any] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    columns: tuple[tuple[str, ...], tuple[str, ...]] = (DENSE, CATEGORICAL)
    columnar: bool = False  # files that are no text


def plain_rows(count: int = 140, seed: int = 1, word: Callable[[int], str] = "w{:07d}".format) -> list[Row]:
    """Rows whose label depends on the first category; a tenth of the cells are empty."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        codes = rng.integers(0, 6, len(CATEGORICAL))
        texts = ["" if rng.random() < 0.1 else word(int(code)) for code in codes]
        numbers = ["" if rng.random() < 0.1 else str(rng.integers(0, 50)) for _ in DENSE]
        rows.append(Row(str(int(codes[0] + 2 * rng.random() > 4)), tuple(numbers), tuple(texts)))
    return rows


def text_of(rows: Sequence[Row], separator: str = "\t", end: str = "\n", order: Sequence[int] | None = None) -> str:
    """Rows as lines, their columns in another order if one is given."""
    places = order or range(len(rows[0].cells()) if rows else 0)
    return "".join(separator.join([row.cells()[place] for place in places]) + end for row in rows)


def _written(name: str, data: bytes, rows: Sequence[Row] | None, **more: Any) -> Input:
    Path(name).write_bytes(data)
    return Input(name, rows, **more)


def _text(data: str, rows: Sequence[Row] | None, **more: Any) -> Input:
    return _written("train.txt", data.encode(), rows, **more)


def _changed(change: Callable[[Row], Row], known: bool = True, **more: Any) -> Input:
    """The rows with each of them, from the third on, changed."""
    rows = plain_rows()
    rows = [*rows[:3], *map(change, rows[3:])]
    return _text(text_of(rows), rows if known else None, **more)


def _first_text(text: str, known: bool = True) -> Callable[[], Input]:
    """All rows but three have this first category."""
    return lambda: _changed(lambda row: Row(row.label, row.numbers, (text, *row.texts[1:])), known)


def _number(text: str) -> Callable[[], Input]:
    return lambda: _changed(lambda row: Row(row.label, (text, *row.numbers[1:]), row.texts))


def _label(text: str) -> Callable[[], Input]:
    return lambda: _changed(lambda row: Row(text, row.numbers, row.texts))


def _encoded(encoding: str, word: str = "Zürich {}") -> Callable[[], Input]:
    """Text in another encoding than UTF-8; what it says must not be taken for something else."""
    return lambda: _written("train.txt", text_of(plain_rows(word=word.format)).encode(encoding), None)


def schema_of(separator: str = "\t", header: bool = False, **more: Any) -> dict[str, Any]:
    """The schema of plain rows."""
    return {"label": "label", "dense": list(DENSE), "categorical": list(CATEGORICAL), "separator": separator,
            "header": header, **more}  # fmt: skip


def _separated(separator: str, header: bool = False, end: str = "\n") -> Callable[[], Input]:
    def make() -> Input:
        head = separator.join(["label", *DENSE, *CATEGORICAL]) + end if header else ""
        text = head + text_of(plain_rows(), separator, end)
        return _text(text, plain_rows(), schema=schema_of(separator, header))

    return make


def _header(names: Sequence[str], order: Sequence[int] | None = None, begin: str = "") -> Callable[[], Input]:
    def make() -> Input:
        text = begin + ",".join(names) + "\n" + text_of(plain_rows(), ",", order=order)
        return _text(text, plain_rows(), schema=schema_of(",", True))

    return make


def _rewritten(change: Callable[[str], str], known: bool = True) -> Callable[[], Input]:
    return lambda: _text(change(text_of(plain_rows())), plain_rows() if known else None)


def _packed(name: str, change: Callable[[bytes], bytes], known: bool = True) -> Callable[[], Input]:
    return lambda: _written(name, change(text_of(plain_rows()).encode()), plain_rows() if known else None)


def flipped(data: bytes, place: float) -> bytes:
    """Bytes with one bit changed."""
    at = int(len(data) * place)
    return data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]


def _tar(data: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        member = tarfile.TarInfo("train.txt")
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    return file.getvalue()


def _zip(data: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("train.txt", data)
    return file.getvalue()


def _counted(count: int, **more: Any) -> Callable[[], Input]:
    return lambda: _text(text_of(plain_rows(count)), plain_rows(count), **more)


def _several(names: Sequence[str], known: bool = True) -> Callable[[], Input]:
    """The rows in as many files of the same size."""

    def make() -> Input:
        rows = plain_rows()
        share = len(rows) // len(names)
        for number, name in enumerate(names):
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            data = text_of(rows[number * share : (number + 1) * share]).encode()
            Path(name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return Input(",".join(names), rows if known else None)

    return make


def _twice() -> Input:
    made = _text(text_of(plain_rows()), None)
    os.link("train.txt", "again.txt")
    return Input(f"{made.path},again.txt", [])


def _with_empty() -> Input:
    _text(text_of(plain_rows()), None)
    Path("empty.txt").touch()
    return Input("empty.txt,train.txt", plain_rows())


def _other_headers() -> Input:
    rows = plain_rows()
    names = ["label", *DENSE, *CATEGORICAL]
    Path("one.txt").write_text(",".join(names) + "\n" + text_of(rows[:70], ","))
    order = [0, 2, 1, 3, 5, 4]
    other = ",".join(names[place] for place in order) + "\n" + text_of(rows[70:], ",", order=order)
    Path("two.txt").write_text(other)
    return Input("one.txt,two.txt", rows, schema_of(",", True))


def _named(dense: Sequence[str], categorical: Sequence[str]) -> Callable[[], Input]:
    """Columns of other names, of which there may be more."""

    def make() -> Input:
        rng = np.random.default_rng(1)
        rows = [
            Row(str(rng.integers(0, 2)), tuple(str(rng.integers(0, 9)) for _ in dense),
                tuple(f"v{rng.integers(0, 4)}" for _ in categorical))
            for _ in range(140)
        ]  # fmt: skip
        schema = {"label": "label", "dense": list(dense), "categorical": list(categorical)}
        return _text(text_of(rows), rows, schema=schema, columns=(tuple(dense), tuple(categorical)))

    return make


def _folder() -> Input:
    Path("folder.txt").mkdir()
    return Input("folder.txt", [])


def _dangling() -> Input:
    Path("train.txt").symlink_to("nothing.txt")
    return Input("train.txt", [])


def _linked() -> Input:
    _written("real.txt", text_of(plain_rows()).encode(), None)
    Path("train.txt").symlink_to("real.txt")
    return Input("train.txt", plain_rows())


def _file_named(name: str) -> Callable[[], Input]:
    return lambda: _written(name, text_of(plain_rows()).encode(), plain_rows())


def _odd_line(line: bytes, options: tuple[str, ...] = ()) -> Callable[[], Input]:
    """One line more in the middle, which is no row; with the option max_bad_rows it is left out."""

    def make() -> Input:
        lines = text_of(plain_rows()).encode().splitlines(keepends=True)
        data = b"".join([*lines[:50], line + b"\n", *lines[50:]])
        return _written("train.txt", data, plain_rows() if options else [], options=options)

    return make


_SKIP = ("--max_bad_rows=1",)
_ALL = ["label", *DENSE, *CATEGORICAL]
# Where the rows are [], nothing but a refusal is right.
CASES: dict[str, Callable[[], Input]] = {
    "plain": _counted(140),
    # encodings
    "utf-8 words": lambda: _text(text_of(plain_rows(word="漢字 {}".format)), plain_rows(word="漢字 {}".format)),
    "byte order mark": _rewritten(lambda text: "\ufeff" + text),
    "utf-16": lambda: _written("train.txt", text_of(plain_rows()).encode("utf-16"), []),
    "utf-32 without mark": lambda: _written("train.txt", text_of(plain_rows()).encode("utf-32-le"), []),
    "latin-1": _encoded("latin-1"),
    "gbk": _encoded("gbk", "漢字 {}"),
    "gbk that the schema names": lambda: _written(
        "train.txt", text_of(rows := plain_rows(word="漢字 {}".format)).encode("gbk"), rows,
        schema=schema_of(encoding="gbk"),
    ),
    "shift-jis": _encoded("shift-jis", "表示 {}"),
    "one line that is not utf-8": _odd_line(b"1\t2\t3\ta\xff\tb\tc", _SKIP),
    "emoji and joiners": _first_text("👩\u200d🚀e\u0301"),
    "right to left": _first_text("\u202e\u05e9\u05dc\u05d5\u05dd"),
    "line separators of unicode": _first_text("a\u2028b\u2029c\u0085d"),
    "replacement sign": _first_text("\ufffd"),
    # separators and line ends
    "commas": _separated(","),
    "semicolons and header": _separated(";", True),
    "bars": _separated("|"),
    "blanks": _separated(" "),
    "windows line ends": _rewritten(lambda text: text.replace("\n", "\r\n")),
    "windows line ends and header": _separated(",", True, "\r\n"),
    "old mac line ends": _rewritten(lambda text: text.replace("\n", "\r"), False),
    "carriage return in a cell": _first_text("a\rb"),
    "no last line end": _rewritten(lambda text: text.rstrip("\n")),
    "blank last line": _odd_line(b""),
    "separator at the end": _rewritten(lambda text: text.replace("\n", "\t\n"), False),
    "vertical tab and form feed": _first_text("a\vb\fc"),
    "quotes in a cell": _first_text('say "so"'),
    "quoted cells and commas": lambda: _text(
        text_of(plain_rows(word='"w{}"'.format), ","), None, schema=schema_of(",")
    ),
    "half a quote": _first_text('"half'),
    "backslashes": _first_text("a\\tb\\n"),
    "blanks around": _first_text("  a  "),
    # damage
    "nul bytes": _odd_line(b"1\t2\t3\ta\0\tb\tc", _SKIP),
    "control letters": _odd_line(b"1\t2\t3\ta\x07\tb\tc", _SKIP),
    "too few columns": _odd_line(b"1\t2\t3", _SKIP),
    "too many columns": _odd_line(b"1\t2\t3\ta\tb\tc\td", _SKIP),
    "an odd line that is not allowed": _odd_line(b"odd"),
    "random bytes": lambda: _written("train.txt", np.random.default_rng(1).bytes(9999), []),
    "zeros": lambda: _written("train.txt", bytes(9999), []),
    "empty": lambda: _written("train.txt", b"", []),
    "one line end": lambda: _written("train.txt", b"\n", []),
    "gzip": _packed("train.gz", gzip.compress),
    "two gzip members": _packed("train.gz", lambda data: gzip.compress(data[:999]) + gzip.compress(data[999:])),
    "cut gzip": _packed("train.gz", lambda data: gzip.compress(data)[:-20]),
    "gzip without its end": _packed("train.gz", lambda data: gzip.compress(data)[:-8]),
    "changed gzip": _packed("train.gz", lambda data: flipped(gzip.compress(data), 0.5)),
    "gzip with changed checksum": _packed("train.gz", lambda data: flipped(gzip.compress(data), 0.9999)),
    "gzip and more behind": _packed("train.gz", lambda data: gzip.compress(data) + b"more"),
    "empty gzip": lambda: _written("train.gz", gzip.compress(b""), []),
    "text called gzip": _packed("train.gz", bytes),
    "gzip called text": _packed("train.txt", gzip.compress),
    "xz": _packed("train.xz", lzma.compress),
    "cut xz": _packed("train.xz", lambda data: lzma.compress(data)[:-30]),
    "changed xz": _packed("train.xz", lambda data: flipped(lzma.compress(data), 0.5)),
    "tar.gz": _packed("train.tar.gz", _tar),
    "zip": _packed("train.zip", _zip),
    # names
    "file name with blanks": _file_named("a b  c.txt"),
    "file name of other letters": _file_named("数据 é.txt"),
    "file name with signs": _file_named("%s {} $(x) 'y' \"z\".txt"),
    "file name with a comma": _file_named("a,b.txt"),
    "file name that is not utf-8": _file_named(os.fsdecode(b"a\xff.txt")),
    "file name of 200 letters": _file_named("l" * 196 + ".txt"),
    "file name without a suffix": _file_named("train"),
    "a folder": _folder,
    "a link": _linked,
    "a link to nothing": _dangling,
    "columns with names of the program's": _named(["self", "arrays"], ["file", "/inputs/x", "/names", "names"]),
    "columns with odd names": _named(["-1", "a\\b"], ["@", '"q"', " ", "漢字", "l" * 200, "a/../b", "x", "x.npy"]),
    "columns with a tab in their names": _named(["n"], ["a\tb", "c"]),
    "one name for two columns": _named(["n"], ["a", "a"]),
    "a name that an input has": _named(["n"], ["n bucket", "n missing"]),
    # headers
    "header": _header(_ALL),
    "header in another order": _header([_ALL[place] for place in (3, 0, 5, 2, 1, 4)], (3, 0, 5, 2, 1, 4)),
    "header behind a byte order mark": _header(_ALL, begin="\ufeff"),
    "header with a name twice": _header(["label", "n", "m", "a", "b", "b"]),
    "header without a name": _header(["label", "n", "m", "a", "b", "x"]),
    "header in quotes": _header([f'"{name}"' for name in _ALL]),
    "header alone": lambda: _text(",".join(_ALL) + "\n", [], schema=schema_of(",", True)),
    # counts
    "1 row": _counted(1),
    "2 rows": _counted(2),
    "7 rows": _counted(7),
    "15 rows": _counted(15),
    "300 fields": _named(["n"], [f"c{number}" for number in range(300)]),
    "no category twice": lambda: _text(
        text_of(rows := [Row(row.label, row.numbers, (f"u{number}", *row.texts[1:]))
                         for number, row in enumerate(plain_rows())]), rows,
    ),
    "no click": lambda: _text(text_of(rows := [Row("0", row.numbers, row.texts) for row in plain_rows()]), rows),
    "a column without a value": lambda: _text(
        text_of(rows := [Row(row.label, ("", row.numbers[1]), ("", *row.texts[1:])) for row in plain_rows()]), rows
    ),
    # sizes
    "a cell of 100,000 letters": _first_text("l" * 100_000),
    "a line of 20 MB without an end": lambda: _written("train.txt", b"x" * 20_000_000, []),
    "text of 8 and 9 bytes": lambda: _text(
        text_of(rows := [Row(row.label, row.numbers, ("12345678" + "9" * (number % 2), *row.texts[1:]))
                         for number, row in enumerate(plain_rows())]), rows,
    ),
    # numbers and labels
    **{f"number {text!r}": _number(text) for text in (
        "-5", "-0", "+5", ".5", "5.", "1e3", "1E-320", "3e38", "1e39", "nan", "inf", "0x10", "1,5", "1_0", " 5", "5 ",
        "0" * 300 + "1", "1" * 400, "٣", "1.5.2", "--1", "1e", "-",
    )},
    **{f"label {text!r}": _label(text) for text in ("1.0", "true", " 1", "-1", "2", "", "01")},
    # orders
    "files of one name": _several(["mon/clicks.gz", "tue/clicks.gz"]),
    "files in other order than their numbers": _several(["day_10.txt", "day_2.txt"]),
    "text and packed files": _several(["a.txt", "b.gz"]),
    "20 files": _several([f"part-{number:02d}.txt" for number in range(20)]),
    "one file twice": _twice,
    "an empty file among others": _with_empty,
    "files of other headers": _other_headers,
}  # fmt: skip
