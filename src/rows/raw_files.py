"""Finding raw files, and keeping the rows of them that can't be used."""

import itertools
import os
import re
from collections.abc import Sequence
from pathlib import Path

from src.base.errors import InputError
from src.base.logs import warn
from src.rows.block import BadRow
from src.rows.columns import Columns

REJECTS = "rejected_rows.txt"
_LOOKED_AT = 200  # rows, and bytes of each
_NAMES = ("train.txt", "train.txt.gz", "train.txt.xz")


def find_raws(data_path: str, option: str = "data_path") -> list[Path]:
    """The raw files at a path: origin_data/train.txt or train.txt below it, itself, or several with commas between.

    Raises:
        InputError: there is none, or one is given twice.
    """
    path = Path(data_path)
    several = [Path(name) for name in data_path.split(",")]
    if len(several) > 1 and not os.path.exists(path):  # by os, for which what is too long for a path is not there
        for one in several:
            if not one.is_file():
                raise InputError(f"{option} {data_path}: there is no file {one}: name files, with commas between")
        _refuse_twice(several, option)
        if option == "data_path":  # what is scored may come in any order
            _tell_of_order(several)
        return several
    places = [*(path / "origin_data" / name for name in _NAMES), *(path / name for name in _NAMES), path]
    found = [place for place in places if place.is_file()]
    if not found:
        raise InputError(
            f"{option} {data_path}: there is no file {places[0]}, {path / _NAMES[0]} or {path}: unpack the raw text "
            f"there, or make some with src/synthetic.py"
        )
    if found[1:]:
        warn(f"{found[0]} is read, and not {', '.join(map(str, found[1:]))}")
    return found[:1]


def _refuse_twice(raws: Sequence[Path], option: str) -> None:
    """Refuse a file that is given twice, whatever it is called."""
    known: dict[tuple[int, int], Path] = {}
    for raw in raws:
        place = raw.stat().st_dev, raw.stat().st_ino
        if place in known:
            raise InputError(f"{option}: {raw} and {known[place]} are the same file: give each file once")
        known[place] = raw


def _tell_of_order(raws: Sequence[Path]) -> None:
    """Tell of numbered files that do not come in the order of their numbers."""
    for one, other in itertools.pairwise(raws):
        words, numbers = re.split(r"\d+", str(one)), [int(number) for number in re.findall(r"\d+", str(one))]
        if words == re.split(r"\d+", str(other)) and numbers > [int(n) for n in re.findall(r"\d+", str(other))]:
            warn(f"{one} is read before {other}: rows must come in the order of time, as the last ones are for tests")
            return


def nature_of(bad: Sequence[BadRow], columns: Columns) -> str:
    """What bad rows look like, and what to do, where their text tells it; else ""."""
    texts = [row.text[:_LOOKED_AT] for row in bad[:_LOOKED_AT]]
    text = b"\n".join(texts)
    controls = sum(byte < ord("\t") for byte in text)
    if text.count(0) * 3 > len(text):
        return "The text looks like UTF-16: a --schema may say encoding: utf-16"
    if controls * 20 > len(text):
        return "This is binary content and no text, perhaps packed in a way that is not known here: save it as text"
    separator = columns.separator.encode()
    if not columns.quotes and any(line.startswith(b'"') or separator + b'"' in line for line in texts):
        return "Cells stand between quotation marks: a --schema may say quote: '\"'"
    for other in (sign for sign in (b"\t", b",", b";", b"|") if sign != separator):
        if texts and all(line.count(other) == len(columns.file_names) - 1 > 0 for line in texts):
            return f"{other.decode()!r} seems to separate the columns: a --schema may name it as separator"
    return ""


def write_rejects(path: Path, bad: Sequence[BadRow]) -> None:
    """The bad lines: number, reason, and the line as it stood, between tabs."""
    with path.open("wb") as file:
        for row in bad:
            place = f"{row.file}:{row.line}" if row.file else str(row.line)
            file.write(f"{place}\t{row.reason}\t".encode("utf-8", "surrogateescape") + row.text + b"\n")
