"""Finding raw files, and keeping the rows of them that can't be used."""

import difflib
import fnmatch
import glob
import os
import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise, permutations
from pathlib import Path

from src.base.errors import InputError
from src.base.logs import warn
from src.rows.block import BadRow
from src.rows.cells.split import IN_NO_PART
from src.rows.columns import Columns
from src.rows.unpacking import file_and_member, members_of

REJECTS = "rejected_rows.txt"
_LOOKED_AT = 200  # rows, and bytes of each
_FEW = 10  # of so many rows a bad one may be skipped
_NEARLY_ALL, _SHOWN_NAMES = 0.9, 5
_OTHER_WIDTH = re.compile(r"(\d+) columns instead of \d+")
_NAMES = ("train.txt", "train.txt.gz", "train.txt.xz")
_LONGEST_NAME = 4096
_MANIFEST = "manifest.json"  # of a data folder, whose files are no raw ones
_PACKED = r"(\.(gz|xz|bz2|zst))?"
_ROWS = re.compile(
    rf"(\.(txt|tsv|csv|dat|log|parquet|pq|arrow|feather|ipc){_PACKED}|(^|/)[^./]*(\.(gz|xz|bz2|zst|zip|tar|tgz))?)$",
    re.IGNORECASE,
)
# 31012024, whose first four digits are no year.
_DAY_FIRST = re.compile(r"(?<!\d)([0-3]\d)([0-3]\d)((?:19|20)\d\d)(?!\d)")
_NO_ROWS = re.compile(r"(readme|license|sample_?submission)", re.IGNORECASE)


def find_raws(data_path: str, option: str = "data_path") -> list[Path]:
    """The raw files at a path.

    That is origin_data/train.txt or train.txt below it; the file itself; all files of rows in a folder or an archive,
    in the order of their numbers, or train alone where an archive has it; those of a pattern such as part-*.csv; or
    several of these with commas between. Hidden files, those that begin with _, and data folders are passed over.

    Raises:
        InputError: there is none, or one is given twice.
    """
    path = Path(data_path)
    several = data_path.split(",")
    if len(several) > 1 and not os.path.exists(path):  # by os, for which what is too long for a path is not there
        raws = []
        for one in several:
            if not (found := _expanded(one)):
                raise InputError(f"{option} {data_path}: there is no file {one}: name files, with commas between")
            raws += found
        refuse_twice(raws, option)
        if option == "data_path":  # what is scored may come in any order
            _tell_of_order(raws)
        return raws
    places = (path / folder / name for folder in ("origin_data", "") for name in _NAMES)
    known = [place for place in places if os.path.isfile(place)]
    if known[1:]:
        warn(f"{known[0]} is read, and not {', '.join(map(str, known[1:]))}")
    if found := known[:1] or _expanded(data_path):
        return found
    raise InputError(f"{option} {data_path}: {_missing(path)}")


def _missing(path: Path) -> str:
    """That no rows are at a path, and what to do."""
    made = "unpack the raw text there, or make some with src/synthetic.py"
    if os.path.exists(path):
        return (
            f"there is no file {path / 'origin_data' / _NAMES[0]}, {path / _NAMES[0]} or {path}, and no folder of "
            f"files of rows: {made}"
        )
    beside = os.listdir(path.parent) if os.path.isdir(path.parent) else []
    alike = difflib.get_close_matches(path.name, beside, 1)
    hint = f"is it {path.with_name(alike[0])}?" if alike else "check the name" if path.suffix else made
    return f"there is no file {path}, nor a folder of that name: {hint}"


def _expanded(name: str) -> list[Path]:
    """The files that a path means: itself, those of a folder, an archive or a pattern."""
    path = Path(name)
    if os.path.isfile(path):
        members = members_of(path)
        return [path] if members is None else [path / member for member in _rows_among(members)]
    if os.path.isdir(path):
        places = [place.relative_to(path) for place in path.rglob("*") if place.is_file()]
        made = {place.parent for place in places if place.name == _MANIFEST}
        kept = [place.as_posix() for place in places if not made.intersection(place.parents)]
        return [raw for one in _rows_among(kept, False) for raw in _expanded(str(path / one))]
    if len(name) > _LONGEST_NAME:
        return []
    archive, pattern = file_and_member(path)
    if pattern and archive.is_file():
        members = fnmatch.filter(members_of(archive) or [], pattern)
        return [archive / member for member in sorted(members, key=natural)]
    matched = sorted((one for one in glob.glob(name, recursive=True) if os.path.isfile(one)), key=natural)
    return [raw for one in matched for raw in _expanded(one)]


def _rows_among(names: Sequence[str], train_alone: bool = True) -> list[str]:
    """Those of some files that seem to hold rows, in the order of their numbers."""
    kept = [name for name in names if not any(part.startswith((".", "_")) for part in name.split("/"))]
    kept = [name for name in kept if not _NO_ROWS.match(name.rpartition("/")[2]) and _ROWS.search(name)]
    train = [name for name in kept if name.rpartition("/")[2].partition(".")[0].lower() == "train"]
    return sorted(train if train and train_alone else kept, key=natural)


def natural(name: str) -> list[tuple[int, str]]:
    """What sorts names so that numbers within them rise."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def refuse_twice(raws: Sequence[Path], option: str) -> None:
    """Refuse a file that is given twice, whatever it is called."""
    known: dict[tuple[int, int, str], Path] = {}
    for raw in raws:
        file, member = file_and_member(raw)
        place = file.stat().st_dev, file.stat().st_ino, member
        if place in known:
            raise InputError(f"{option}: {raw} and {known[place]} are the same file: give each file once")
        known[place] = raw


def _tell_of_order(raws: Sequence[Path]) -> None:
    """Tell of numbered files that do not come in the order of their numbers."""
    names = [re.split(r"(\d+)", _DAY_FIRST.sub(r"\1-\2-\3", str(raw))) for raw in raws]
    for number, (one, other) in enumerate(pairwise(names)):
        if one[::2] == other[::2] and _falls([*map(int, one[1::2])], [*map(int, other[1::2])]):
            order = f"{raws[number]} is read before {raws[number + 1]}"
            warn(f"{order}: rows must come in the order of time, as the last ones are for tests")
            return


def _falls(one: list[int], other: list[int]) -> bool:
    """Whether the numbers of a name come behind those of another, whatever a date with the year at its end means."""
    years = [place for place, pair in enumerate(zip(one, other)) if all(1900 <= number < 2100 for number in pair)]
    year = years[-1] if years else 0
    begin = max(year - 3, 0)
    orders = [(*range(begin), year, *days, *range(year + 1, len(one))) for days in permutations(range(begin, year))]
    return bool(one) and all([one[n] for n in order] > [other[n] for n in order] for order in orders)


def nature_of(bad: Sequence[BadRow], columns: Columns) -> str:
    """What bad rows look like, and what to do, where their text or what is wrong with all of them tells it; else ""."""
    if bad and all(row.reason.endswith(IN_NO_PART) for row in bad):
        return "Name such values in --split, or split by another column"
    if bad and all(row.reason.endswith(" is '2', which is not 0 or 1") for row in bad):
        return 'If 2 is a click and 1 is none, say in a --schema positive: ["2"]'
    texts = [row.text[:_LOOKED_AT] for row in bad[:_LOOKED_AT]]
    text = b"\n".join(texts)
    controls = sum(byte < ord("\t") or ord("\r") < byte < ord(" ") for byte in text)
    if text.count(0) * 3 > len(text):
        return "The text looks like UTF-16: a --schema may say encoding: utf-16"
    if controls * 20 > len(text):
        return "This is binary content and no text, perhaps packed in a way that is not known here: save it as text"
    separator = columns.separator.encode()
    if not columns.quotes and any(line.startswith(b'"') or separator + b'"' in line for line in texts):
        return "Cells stand between quotation marks: a --schema may say quote: '\"'"
    for other in (sign for sign in (b"\t", b",", b";", b"|", b"::") if sign != separator):
        if texts and all(line.count(other) == len(columns.file_names) - 1 > 0 for line in texts):
            return f"{other.decode()!r} seems to separate the columns: a --schema may name it as separator"
    return ""


def misfit(bad: Sequence[BadRow], share: float, columns: Columns) -> str:
    """What to say of bad rows that are as many of a file's as `share`, where nearly all rows have one other number of
    columns than they should; else ""."""
    counts = Counter(found[1] for row in bad if (found := _OTHER_WIDTH.match(row.reason)))
    count, times = counts.most_common(1)[0] if counts else ("", 0)
    if share * times < _NEARLY_ALL * len(bad):
        return ""
    return (
        f"Rows of the file have {count} columns, and those of the schema are {len(columns.file_names)}, "
        f"{_some(columns.file_names)}: they do not fit; give a --schema of the file's columns, or the right file"
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) < _SHOWN_NAMES else f"{names[0]}, {names[1]} .. {names[-1]}"


def is_many(share: float) -> bool:
    """Whether bad rows that are as many of a file's are too many to leave out."""
    return share * _FEW > 1


def advice(bad: Sequence[BadRow], share: float, columns: Columns, skipping: str) -> str:
    """What to do about bad rows that are as many of a file's as `share`: of few, what `skipping` says."""
    if not is_many(share):
        return f"Mend them, or {skipping}"
    what = (
        nature_of(bad, columns) or misfit(bad, share, columns) or "Mend them, or say in a --schema how cells are read"
    )
    return f"These are {share:.0%} of the rows, too many to skip. {what}"


def write_rejects(path: Path, bad: Sequence[BadRow]) -> None:
    """The bad lines: number, reason, and the line as it stood, between tabs."""
    with path.open("wb") as file:
        for row in bad:
            place = f"{row.file}:{row.line}" if row.file else str(row.line)
            file.write(f"{place}\t{row.reason}\t".encode("utf-8", "surrogateescape") + row.text + b"\n")
