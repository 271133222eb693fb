"""What is wrong with a cell, in words, and what a schema could say of it."""

import re

from src.rows.columns import Columns

SHOWN = 40
# Labels and marks for missing cells that others write, of which messages know; in small letters.
CLICKS = ("1.0", "true", "t", "yes", "y", "click", "clicked", "+1", "是", "点击", "已点击")
NO_CLICKS = ("-1", "0.0", "-1.0", "false", "f", "no", "n", "否", "未点击")
# Numbers as others write them, and what a schema says of such.
_NUMBERS = {
    r"[+-]?\d{1,3}(\.\d{3})+,\d*": 'decimal: "," and thousands: "."',
    r"[+-]?\d{1,3}(,\d{3})+\.\d*": 'thousands: ","',
    r"[+-]?\d*,\d+": 'decimal: ","',
}
_MARKS = ("\\n", "null", "nan", "na", "n/a", "none", "<na>", "#n/a", "-", "?")


def not_utf8(columns: Columns) -> str:
    """What is wrong with a line whose text can't be decoded."""
    return f"is not {columns.encoding} text (a --schema may name another encoding)"


def label_reason(columns: Columns, shown: str) -> str:
    """What is wrong with a label."""
    if columns.positive and columns.negative:
        return f"{columns.label} is {shown!r}, which is neither among positive nor negative labels"
    if columns.positive or columns.negative:
        return f"{columns.label} is {shown!r}, and there must be a label"
    other = shown.strip().lower()
    kind = "positive" if other in CLICKS else "negative" if other in NO_CLICKS else ""
    hint = f" (a schema says which labels are clicks, here with {kind}: [{shown!r}])" if kind else ""
    return f"{columns.label} is {shown!r}, which is not 0 or 1{hint}"


def number_reason(name: str, shown: str) -> str:
    """What is wrong with a cell that must hold a number."""
    marks = f" (a schema may list it: missing: [{shown!r}])" if shown.strip().lower() in _MARKS else ""
    if not marks:
        marks = next(
            (f" (a schema may say {what})" for form, what in _NUMBERS.items() if re.fullmatch(form, shown)), ""
        )
    return f"{name} is {shown!r}, which is not a number{marks}"


def weight_reason(name: str, shown: str) -> str:
    """What is wrong with the cell of a row's weight."""
    return f"{name} is {shown!r}, and a weight must be a number of 0 or more"


def time_reason(name: str, shown: str, form: str) -> str:
    """What is wrong with a cell that must hold a point in time."""
    return f"{name} is {shown!r}, which is no point in time of the form {form}"


# What is wrong with a row's cells: see `finding.find_cells`.
CONTROL, BEHIND_QUOTE, NOT_CLOSED = -1, -2, -3
_OF_ROWS = {
    CONTROL: "holds a control character",
    BEHIND_QUOTE: "has text behind a closing quotation mark",
    NOT_CLOSED: "has a quotation mark that is not closed",
}


def cells_reason(count: int, width: int) -> str:
    """What is wrong with a row of another number of cells than it must have, or of one below 0."""
    return _OF_ROWS.get(count, f"{count} columns instead of {width}")
