"""A schema for raw files that nobody has described: guessed from the first rows, to be looked through and edited."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from src.base.errors import InputError
from src.base.files import whole_file
from src.base.logs import warn
from src.metrics.alone import LEAK, LEAST_ROWS, alone_of_category, alone_of_number
from src.rows.cells.lists import MOST_VALUES, ListColumn
from src.rows.cells.reasons import CLICKS, NO_CLICKS
from src.rows.cells.times import of_texts
from src.rows.columnar import kind_of, names_of
from src.rows.columns import Columns
from src.rows.lines import with_point
from src.rows.parsing import cells_of, names_in
from src.rows.reader import RawInput
from src.rows.schema import UNKNOWN
from src.rows.text import BYTE_ORDER_MARK, NUMBER, encoding_of, utf8
from src.rows.unpacking import first_bytes

_SAMPLE_BYTES, _SAMPLE_ROWS = 4 << 20, 20_000
_SEPARATORS = ("\t", ",", ";", "|", "::")
_MARKS = ("\\N", "NULL", "null", "nan", "NaN", "NA", "N/A", "n/a", "None", "<NA>", "#N/A")
_LABELS = re.compile(
    r"(is_?)?(label|click(ed|s)?|target|y|conver(sion|ted))|(是否)?(点击|转化|购买|下单)|标签|目标", re.IGNORECASE
)
_DAYS = ("%d.%m.%Y", "%m/%d/%Y", "%d/%m/%Y", "%Y/%m/%d", "%d-%m-%Y", "%Y年%m月%d日")
_TIME_FORMS = (
    "%Y%m%d%H", "%y%m%d%H", "%Y%m%d", *(day + time for day in _DAYS for time in ("", " %H:%M", " %H:%M:%S"))
)  # fmt: skip
# How numbers are written, by decimal sign and the sign between thousands.
_STYLES = {
    (".", ""): r"[+-]?\d+\.\d+", (",", ""): r"[+-]?\d+,\d+", (".", ","): r"[+-]?\d{1,3}(,\d{3})+\.\d+",
    (",", "."): r"[+-]?\d{1,3}(\.\d{3})+,\d+",
}  # fmt: skip
_CODE = re.compile(r"0\d+")  # a number would lose its zeros
_TIME_NAMES = re.compile(r"time|date|hour|day|stamp|^ts$|_at$|日期|时间|小时|时刻", re.IGNORECASE)
_LIST_SIGNS, _JOINED = "|;, ", "\x1f"  # between values of a list in text; and of one that is no text
_LISTS, _REPEATED = 0.2, 5  # share of cells with several values; how often a value occurs
_GROUPS = r"[+-]?\d{{1,3}}({}\d{{3}})*([.,]\d+)?"  # of digits, which no list is taken for
_SECONDS = (9e8, 2.2e9)  # from 1998 to 2039
_FEW, _MANY = 20, 0.95  # values of a category; share of distinct values of an id
_LEAST_ROWS = 100
_SHOWN = 5  # columns that may be the label


@dataclass(frozen=True)
class _Column:
    """What the sample shows of a column: kind label, number, time, id, constant, list or category; form of a time; sign
    between the values of lists."""

    name: str
    texts: list[str]
    kind: str
    distinct: int
    missing: float
    form: str = ""
    sign: str = ""


def guess_schema(raws: Sequence[Path], target: Path, overwrite: bool = False, label_name: str = "") -> str:
    """Write a schema of the first raw file, and say what was found; warn of columns that give the label away.

    Args:
        raws: the raw files.
        target: the schema's file.
        overwrite: whether an earlier one is replaced.
        label_name: the label's column, where it is known; else it is guessed too.

    Raises:
        InputError: the file is there already, nothing could be made of the raw file, or it has no such label.
    """
    if target.exists() and not overwrite:
        raise InputError(f"guess_schema {target} is there: name another file, or replace it with --overwrite=True")
    columns, cells = _sample(raws[0])
    if not cells or not cells[0]:
        raise InputError(f"{raws[0]} has no rows of one width, from which a schema could be guessed")
    missing = tuple(mark for mark in _MARKS if any(mark in column for column in cells))
    kept = [one.name for one in columns.lists]
    signs = [_JOINED if name in kept else _sign_of_lists(texts, missing)
             for name, texts in zip(columns.file_names, cells)]  # fmt: skip
    style = _style([texts for texts, sign in zip(cells, signs) if not sign], columns.separator)
    found = [_looked_at(name, texts, missing, style) for name, texts in zip(columns.file_names, cells)]
    found = [replace(one, kind="list", sign=sign) if sign else one for one, sign in zip(found, signs)]
    label = _named_label(found, label_name) if label_name else _label_of(found)
    found = [replace(one, kind="label") if one is label else one for one in found]
    with whole_file(target) as file:
        told = replace(columns, missing=missing, decimal=style[0], thousands=style[1])
        file.write(_text(raws[0], told, found, label).encode())
    if label:
        _warn_of_leaks(found, label, missing, style)
    else:
        warn(f"no column of {raws[0]} looks like a label: name one in {target}{_of_two(found)}")
    return f"{target}: {len(found)} columns of {raws[0]}, guessed from {len(cells[0])} rows: look it through"


def _sample(raw: Path) -> tuple[Columns, list[list[str]]]:
    """How the file is written, with the names of all columns, and the text of the first rows' cells."""
    begin = first_bytes(raw, _SAMPLE_BYTES)
    if kind_of(begin):
        with TemporaryDirectory() as folder:
            names, of_lists = names_of(raw)
            lists = tuple(ListColumn(name, _JOINED) for name in of_lists)
            rows = RawInput([raw], Columns((), names, "", lists=lists), Path(folder))
            columns = replace(rows.columns[0], order=names)
            spans = rows.spans(0, min(rows.rows, _SAMPLE_ROWS), _SAMPLE_ROWS)
            parts = [part for span in spans for part in span.cells(rows.columns[0])]
            return columns, [list(chain(*column)) for column in zip(*parts)]
    encoding = _encoding(begin)
    text = utf8(begin, encoding).removeprefix(BYTE_ORDER_MARK)
    text = text[: text.rfind(b"\n") + 1] or text
    shapes = {one: names_in(text, Columns((), ("",), "", separator=one))[0] for one in _SEPARATORS}
    separator = max(shapes, key=lambda one: _fit(text, one, len(shapes[one])))
    names = shapes[separator]
    numbered = tuple(f"column {number}" for number in range(1, len(names) + 1))
    columns = Columns((), numbered, "", separator=separator, encoding=encoding)
    cells = [column[: _SAMPLE_ROWS + 1] for column in cells_of(text, columns)[0]]
    if _is_header(cells):
        columns = Columns((), names, "", separator=separator, encoding=encoding, header=True, order=names)
        return columns, [column[1:] for column in cells]
    return replace(columns, order=numbered), [column[:_SAMPLE_ROWS] for column in cells]


def _fit(text: bytes, separator: str, width: int) -> tuple[float, int]:
    """The share of the first rows that have as many cells as the very first one, and how many."""
    begin = b"".join(text.splitlines(keepends=True)[:200])
    columns = Columns((), tuple(map(str, range(width))), "", separator=separator)
    cells = cells_of(begin, columns)[0]
    return (len(cells[0]) if width > 1 and cells else 0) / max(begin.count(b"\n"), 1), width


def _encoding(begin: bytes) -> str:
    if begin.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    return encoding_of(begin[: begin.rfind(b"\n") + 1] or begin)


def _is_header(cells: Sequence[Sequence[str]]) -> bool:
    """Whether the first row names columns: it has no number, no cell twice, and none that comes again below."""
    first = [column[0] for column in cells if column]
    if len(set(first)) < len(first) or not all(first) or any(NUMBER.fullmatch(cell) for cell in first):
        return False
    return not any(cell in column[1:] for cell, column in zip(first, cells))


def _sign_of_lists(texts: Sequence[str], missing: Sequence[str]) -> str:
    """The sign between the values of a column's cells, "" where these hold one each, as mostly.

    Lists are of several lengths, made of few values that come again in others, and most of these values stand at any
    place, so that neither names of places nor addresses, sentences or numbers with thousands are taken for them.
    """
    filled = [text for text in texts if text and text not in missing]
    for sign in _LIST_SIGNS:
        if sum(sign in text for text in filled) < max(_LISTS * len(filled), _FEW):
            continue
        cells = [text.split(sign) for text in filled]
        values, sizes = Counter(chain(*cells)), set(map(len, cells))
        if len(sizes) < 2 or max(sizes) < 3 or values.total() < _REPEATED * len(values):
            continue
        if 2 * len(values) > len(set(filled)) or all(
            re.fullmatch(_GROUPS.format(re.escape(sign)), text) for text in filled
        ):
            continue
        several = [cell for cell in cells if len(cell) > 1]
        anywhere = {cell[0] for cell in several} & set(chain(*(cell[1:] for cell in several)))
        if 2 * sum(values[value] for value in anywhere) > values.total():
            return sign
    return ""


def _style(cells: Sequence[Sequence[str]], separator: str) -> tuple[str, str]:
    """Decimal sign, which a separator can't be, and the sign between thousands; "" for none."""
    some = [cell for column in cells for cell in column[: _FEW * _FEW]]
    counts = {style: sum(bool(re.fullmatch(form, cell)) for cell in some) for style, form in _STYLES.items()}
    by_sign = {sign: sum(count for style, count in counts.items() if style[0] == sign) for sign in ".,"}
    decimal = "," if by_sign[","] > by_sign["."] and separator != "," else "."
    thousands = "." if decimal == "," else ","
    return decimal, thousands if counts[decimal, thousands] else ""


def _numbers(texts: Sequence[str], style: tuple[str, str]) -> list[float] | None:
    """The numbers that texts are, None where one is none."""
    decimal, thousands = (sign.encode() for sign in style)
    plain = [with_point(text.encode(), decimal, thousands).decode() for text in texts]
    return [float(text) for text in plain] if all(NUMBER.fullmatch(text) for text in plain) else None


def _looked_at(name: str, texts: list[str], missing: Sequence[str], style: tuple[str, str]) -> _Column:
    filled = [text for text in texts if text and text not in missing]
    distinct = len(set(filled))
    facts = name, texts
    share = 1 - len(filled) / len(texts)
    if distinct < 2:
        return _Column(*facts, "constant", distinct, share)
    numbers = _numbers(filled, style)
    if form := _time_form(name, filled, numbers):
        return _Column(*facts, "time", distinct, share, form)
    if any(map(_CODE.fullmatch, filled)):
        return _Column(*facts, "category", distinct, share)
    whole = numbers is not None and all(number.is_integer() for number in numbers)
    if distinct > _MANY * len(filled) and len(filled) > _LEAST_ROWS and (numbers is None or whole):
        return _Column(*facts, "id", distinct, share)
    if numbers is not None and (not whole or distinct > _FEW):
        return _Column(*facts, "number", distinct, share)
    return _Column(*facts, "category", distinct, share)


def _time_form(name: str, filled: Sequence[str], numbers: Sequence[float] | None) -> str:
    """The form of a column of times; "" for other columns."""
    some = filled[:_LEAST_ROWS]
    if numbers is not None and all(_SECONDS[0] < number < _SECONDS[1] for number in numbers):
        return "seconds" if _TIME_NAMES.search(name) or len(set(numbers)) > _FEW else ""
    if numbers is not None and all(_SECONDS[0] < number / 1000 < _SECONDS[1] for number in numbers):
        return "milliseconds"
    if numbers is None and not np.isnan(of_texts(some, "iso")).any():
        return "iso"
    if numbers is None or _TIME_NAMES.search(name):
        return next((form for form in _TIME_FORMS if not np.isnan(of_texts(some, form)).any()), "")
    return ""


def _label_of(found: Sequence[_Column]) -> _Column | None:
    """The column of two values whose name says so, or else the first one of 0 and 1, or of words such as yes and no."""
    of_two = [one for one in found if one.distinct == 2 and one.missing == 0]
    named = [one for one in of_two if _LABELS.fullmatch(one.name)]
    plain = [one for one in of_two if set(one.texts) == {"0", "1"}]
    words = [one for one in of_two if {text.lower() for text in set(one.texts)} <= {"0", "1", *CLICKS, *NO_CLICKS}]
    return next(iter([*named, *plain, *words]), None)


def _of_two(found: Sequence[_Column]) -> str:
    """The columns of two values, of which one may be the label, and what a schema says of such; "" for none."""
    of_two = [one for one in found if one.distinct == 2 and one.missing == 0][:_SHOWN]
    shown = "; ".join(f"{one.name!r} ({', '.join(sorted(set(one.texts)))})" for one in of_two)
    return f'; of two values: {shown}; say by positive: [".."] which are clicks' if of_two else ""


def _named_label(found: Sequence[_Column], name: str) -> _Column:
    label = next((one for one in found if one.name == name), None)
    if label is None:
        raise InputError(f"label is {name!r}, which is no column: the columns are {', '.join(c.name for c in found)}")
    if label.distinct != 2 or label.missing:
        raise InputError(
            f"label {name!r} has {label.distinct} values in the first {len(label.texts)} rows and "
            f"{label.missing:.0%} missing ones, and a label of two values can be guessed: say in a schema which are "
            f"positive or negative"
        )
    return label


def _clicks_among(labels: Counter[str]) -> list[str]:
    """The labels that are clicks: those that are called so, or else the rarest one."""
    return [value for value in labels if value.lower() in ("1", *CLICKS)] or [labels.most_common()[-1][0]]


def _text(raw: Path, columns: Columns, found: Sequence[_Column], label: _Column | None) -> str:
    lines = [f"# Guessed from the first {len(found[0].texts)} rows of {raw.name}: look it through, and edit it.",
             "# Beside each column: its values in these rows, and the share of missing ones.", ""]  # fmt: skip
    if label:
        counts = Counter(label.texts)
        share = ", ".join(f"{value} {count / len(label.texts):.1%}" for value, count in counts.most_common())
        lines.append(f"label: {json.dumps(label.name, ensure_ascii=False)}  # {share}")
        if set(counts) != {"0", "1"}:
            lines.append(f"positive: {json.dumps(_clicks_among(counts), ensure_ascii=False)}")
    else:
        lines.append(f"label: {UNKNOWN}  # no column looks like one{_of_two(found)}")
    if columns.header:
        lines.append("header: true")
    else:
        lines.append(f"columns: {json.dumps(columns.order, ensure_ascii=False)}")
    default = Columns((), ())
    for key in ("separator", "encoding", "decimal", "thousands", "missing"):
        if (value := getattr(columns, key)) != getattr(default, key):
            lines.append(f"{key}: {json.dumps(value, ensure_ascii=False)}")
    for key, kinds in (("dense", ("number", "time")), ("categorical", ("category", "list"))):
        own = [one for one in found if one.kind in kinds]
        lines += [f"{key}:" if own else f"{key}: []", *(f"  - {_entry(one)}  # {_facts(one)}" for one in own)]
    left = [one for one in found if one.kind in ("id", "constant")]
    lines += ["# Left away:"] * bool(left)
    reasons = {"id": "an id: nearly each row has a value of its own", "constant": "always the same"}
    lines += [f"#  - {_entry(one)}  # {reasons[one.kind]}; {_facts(one)}" for one in left]
    return "\n".join(lines) + "\n"


def _entry(column: _Column) -> str:
    name = json.dumps(column.name, ensure_ascii=False)
    if column.kind == "list":
        most, sign = max(text.count(column.sign) + 1 for text in column.texts), column.sign.replace(_JOINED, "|")
        return f"{{name: {name}, list: {json.dumps(sign)}, max_values: {min(most, MOST_VALUES)}}}"
    if column.kind != "time":
        return name
    filled = of_texts([text for text in column.texts if text][:_LEAST_ROWS], column.form)
    since = np.datetime64(int(np.nanmin(filled)), "s").astype("datetime64[D]")
    return f"{{name: {name}, as: timestamp, format: {json.dumps(column.form)}, since: {since}}}"


def _facts(column: _Column) -> str:
    return f"{column.kind}, {column.distinct} values, {column.missing:.1%} missing"


def _warn_of_leaks(found: Sequence[_Column], label: _Column, missing: Sequence[str], style: tuple[str, str]) -> None:
    """Tell of columns that alone tell the label, as those do that are made of it or are known only after the click."""
    clicks_are = _clicks_among(Counter(label.texts))
    labels = np.array([text in clicks_are for text in label.texts], np.float32)
    if len(labels) < LEAST_ROWS or len(set(labels[len(labels) // 2 :].tolist())) < 2:
        return
    for one in found:
        if one.kind in ("label", "constant", "id"):
            continue
        numbers = _numbers([text if text and text not in missing else "0" for text in one.texts], style)
        if one.kind == "number" and numbers is not None:
            alone = alone_of_number(labels, np.array(numbers))
        else:
            alone = alone_of_category(labels, np.array(one.texts))
        if alone > LEAK:
            warn(f"column {one.name!r} alone tells the label (AUC {alone:.3f}): is it known before the click? If not, "
                 f"leave it away")  # fmt: skip
