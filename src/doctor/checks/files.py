"""Checks of raw files: whether they hold rows at all, and are read as they were written."""

from collections import Counter

from src.doctor.check import Check, Found
from src.doctor.evidence import Evidence
from src.doctor.raw import RawRows
from src.rows.block import BadRow
from src.rows.raw_files import nature_of
from src.rows.text import NUMBER, UTF8, encoding_of, is_utf8

_SCHEMA = "--schema=SCHEMA.yaml"
_LINES = 50  # looked at, of the first file
_MOST = 0.9  # of these


def _raw(evidence: Evidence) -> RawRows:
    assert evidence.raw
    return evidence.raw


def _cells(row: BadRow, raw: RawRows) -> list[str]:
    return row.text.decode("utf-8", "replace").rstrip("\r\n").split(raw.columns.separator)


def _headers(raw: RawRows) -> list[BadRow]:
    """Bad rows that name columns: those used, or, in the first line, whatever is no number."""
    names = set(raw.columns.names)

    def is_one(row: BadRow) -> bool:
        cells = _cells(row, raw)
        is_first = row.line == 1 and len(cells) == len(raw.columns.file_names)
        return names <= set(cells) or (is_first and not any(NUMBER.fullmatch(cell) for cell in cells))

    return [row for row in raw.bad if is_one(row)] if raw.gathered else []


def _is_cut(raw: RawRows) -> bool:
    last = raw.last_bad
    if last is None or raw.gathered is None:
        return False
    behind = raw.lines + raw.columns.header
    return last.line >= behind and len(_cells(last, raw)) < len(raw.columns.file_names)


def _separator(evidence: Evidence) -> Found | None:
    raw = _raw(evidence)
    lines = raw.begin.splitlines()[:_LINES]
    needed = len(raw.columns.names) - 1
    if raw.gathered or not lines or needed < 1:
        return None
    for other in (sign for sign in "\t,;|" if sign != raw.columns.separator):
        counts = Counter(line.count(other.encode()) for line in lines)
        enough = sum(times for count, times in counts.items() if count >= needed)  # more of them stand within quotes
        own = max(line.count(raw.columns.separator.encode()) for line in lines)
        if enough >= _MOST * len(lines) and needed > own:
            return Found(
                f"{other!r} separates {counts.most_common(1)[0][0] + 1} cells, {raw.columns.separator!r} was expected, "
                f"which makes {own + 1}",
                f"say separator: {other!r} in a schema: {_SCHEMA}",
            )
    return None


def _header(evidence: Evidence) -> Found | None:
    raw = _raw(evidence)
    found = _headers(raw)
    if not found:
        return None
    names = ", ".join(_cells(found[0], raw)[:3])
    if found[0].line == 1 and not raw.columns.header:
        remedy = f"say header: true in a schema: {_SCHEMA}, or drop the line: sed -i 1d {raw.raws[0]}"
    else:
        remedy = f"drop such lines, which stand where files were joined: sed -i {found[0].line}d {raw.raws[0]}"
    return Found(f"line {found[0].line:,} holds names ({names} ..), where a row was expected", remedy)


def _truncated(evidence: Evidence) -> Found | None:
    raw = _raw(evidence)
    if raw.ends_packed:
        return Found(raw.error, f"copy {raw.raws[0]} anew, and compare its size with the original's")
    if not _is_cut(raw):
        return None
    assert raw.last_bad
    found, expected = len(_cells(raw.last_bad, raw)), len(raw.columns.file_names)
    return Found(
        f"the last line, {raw.last_bad.line:,}, ends after {found} of {expected} cells",
        f"copy {raw.raws[-1]} anew, and compare its size with the original's",
    )


def _encoding(evidence: Evidence) -> Found | None:
    raw = _raw(evidence)
    begin = raw.begin[: raw.begin.rfind(b"\n") + 1] or raw.begin
    said = raw.columns.encoding
    if begin.isascii() or begin.startswith((b"\xff\xfe", b"\xfe\xff")):
        return None
    if said == UTF8 and not is_utf8(begin):
        found = encoding_of(begin)
    elif said != UTF8 and is_utf8(begin) and not said.startswith("utf"):
        found = UTF8
    else:
        return None
    return Found(
        f"the text is read as {said}, and its bytes are {'' if said == UTF8 else 'valid '}{found}"
        f"{', or another encoding that is not utf-8' if said == UTF8 else ''}",
        f"say encoding: {found} in a schema: {_SCHEMA}",
        tuple(one.field for one in evidence.unmatched),
    )


def _bad_rows(evidence: Evidence) -> Found | None:
    raw = _raw(evidence)
    if raw.error:
        return None if raw.ends_packed else Found(raw.error, f"look at the file, or name its {_SCHEMA}")
    told = _headers(raw)
    told += [raw.last_bad] if raw.last_bad and _is_cut(raw) else []
    left, first = raw.bad_rows - len(told), next((row for row in raw.bad if row not in told), None)
    if left <= 0 or first is None:
        return None
    hint = nature_of(raw.bad, raw.columns) or f"mend them, or say in a {_SCHEMA} how cells are read"
    return Found(f"{left:,} of {raw.lines:,} rows can't be read, expected none; {first}", hint)


_ANY = "always: a file that is read otherwise than it was written has other columns"
CHECKS = (
    Check("another separator", "the signs between cells", _ANY, ("raw rows",), _separator),
    Check("header as a row", "lines that name columns", _ANY, ("raw rows",), _header),
    Check("truncated file", "the last line, and packed files", _ANY, ("raw rows",), _truncated),
    Check("another encoding", "the first bytes", "bytes beyond ASCII that are not what the schema says: UTF-8 is "
          "hardly ever met by chance", ("raw rows",), _encoding),
    Check("rows that can't be read", "bad rows", "one: training allowed none unless asked to", ("raw rows",),
          _bad_rows, ("another separator", "another encoding", "other columns")),
)  # fmt: skip
