"""What the columns of raw rows are, and how their cells are read."""

from dataclasses import dataclass, replace

from src.rows.cells.lists import ListColumn
from src.rows.cells.split import Split
from src.rows.text import UTF8

QUOTE = '"'


@dataclass(frozen=True)
class Timestamp:
    """A column of points in time, which gives three numbers: hour of the day, weekday (0: Monday) and age in days.

    Attributes:
        name: of the column.
        form: iso (2014-10-21 13:00:00, or a part of it), seconds or milliseconds (since 1970), or a form as of Python's
            strptime.
        since: the day, 2014-10-21, that ages count from.
    """

    name: str
    form: str = "iso"
    since: str = "1970-01-01"

    @property
    def numbers(self) -> tuple[str, str, str]:
        """Names of the three numbers."""
        return f"{self.name} hour", f"{self.name} weekday", f"{self.name} days"


@dataclass(frozen=True)
class Example:
    """What the values of a categorical column looked like in training; "" for what is not there.

    Attributes:
        known: some frequent values.
        not_whole: one that is not a whole number as Python writes it, such as 00054.
        like_missing: one that pandas takes for a missing value, such as NULL.
    """

    known: tuple[str, ...] = ()
    not_whole: str = ""
    like_missing: str = ""


@dataclass(frozen=True)
class Columns:
    """What the columns of a raw file are.

    Attributes:
        dense, categorical, label: names of what is used, in the order that training sees; of a timestamp, dense has the
            three numbers; label is "" for rows that have none, which are read with 0.
        order: names of all columns in the order of the file, others among them; empty for label, dense, categorical.
        separator: tab, or signs that print, most often one.
        header: whether each file begins with a line of names, which then gives the order.
        encoding: of the text, by Python's name.
        key_seed: of the keys of long categories, which the vocabulary tells: `Encoder.keyed` puts it here.
        quote: the sign between a pair of which a cell may stand, as RFC 4180 has it; "" for none, None for a quotation
            mark unless tabs or several signs separate.
        comment: the sign that begins lines that are no rows; "" for none.
        positive, negative: labels of clicks, and of the others; where one is empty, it is all that the other has not.
            Where both are, 1 and 0.
        missing: cells, beside the empty one, that are as good as empty.
        decimal, thousands: the signs in numbers; "" for none of the latter.
        timestamps: columns of points in time.
        lists: the categorical columns whose cells hold several values.
        shared: categorical columns that have a table of this name, as (column, name); others have one of their own
            name.
        checked: whether blocks have checks of hashed keys, too.
        signs: whether of numbers it only matters which are below 0, so that others may be given as 0.
        coded: whether keys that are kept as numbers of distinct ones are given so.
        split: tells the part of each row, if a column does.
        weight: the column of the rows' weights, "" for none.
    """

    dense: tuple[str, ...]
    categorical: tuple[str, ...]
    label: str = "label"
    order: tuple[str, ...] = ()
    separator: str = "\t"
    header: bool = False
    encoding: str = UTF8
    key_seed: str = ""
    quote: str | None = None
    comment: str = ""
    positive: tuple[str, ...] = ()
    negative: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    decimal: str = "."
    thousands: str = ""
    timestamps: tuple[Timestamp, ...] = ()
    lists: tuple[ListColumn, ...] = ()
    shared: tuple[tuple[str, str], ...] = ()
    checked: bool = False
    signs: bool = False
    coded: bool = False
    split: Split | None = None
    weight: str = ""

    @classmethod
    def numbered(cls, dense_dim: int = 13, slot_dim: int = 26) -> "Columns":
        """Criteo's names: I1, I2, ... and C1, C2, ..."""
        return cls(tuple(f"I{i + 1}" for i in range(dense_dim)), tuple(f"C{i + 1}" for i in range(slot_dim)))

    @property
    def numeric(self) -> tuple[str, ...]:
        """The columns of numbers and points in time."""
        column_of = {number: one.name for one in self.timestamps for number in one.numbers}
        return tuple(dict.fromkeys(column_of.get(name, name) for name in self.dense))

    @property
    def names(self) -> tuple[str, ...]:
        """The columns that are learned from: label, numbers and points in time, categories."""
        return (*self._label, *self.numeric, *self.categorical)

    @property
    def read_names(self) -> tuple[str, ...]:
        """The same, and behind them that of the weights, and the one that tells a row's part, if it is none of them."""
        names = (*self.names, *self._weight)
        return (*names, self.split.column) if self.split and self.split.column not in names else names

    @property
    def _label(self) -> tuple[str, ...]:
        return (self.label,) if self.label else ()

    @property
    def _weight(self) -> tuple[str, ...]:
        return (self.weight,) if self.weight else ()

    def with_weight_as_number(self) -> "Columns":
        """The same columns with that of the weights as the last one of numbers."""
        return replace(self, dense=(*self.dense, self.weight), weight="", order=self.file_names)

    def without_label(self) -> "Columns":
        """The columns of rows whose label is not known, and does not stand in the file, nor does a weight."""
        order = tuple(name for name in self.order if name not in (self.label, self.weight))
        return replace(self, label="", weight="", order=order)

    @property
    def file_names(self) -> tuple[str, ...]:
        """All columns in the order of the file."""
        return self.order or (*self._label, *self._weight, *self.numeric, *self.categorical)

    @property
    def quotes(self) -> str:
        """The sign of quotes, "" for none."""
        if self.quote is not None:
            return self.quote
        return "" if self.separator == "\t" or len(self.separator) > 1 else QUOTE

    @property
    def plain(self) -> bool:
        """Whether cells are read as they stand: labels 0 and 1, numbers with a point, no marks, lists or weights.

        And one sign separates them.
        """
        others = (
            self.positive, self.negative, self.missing, self.thousands, self.timestamps, self.lists, self.split,
            self.weight,
        )  # fmt: skip
        return not any(others) and self.decimal == "." and len(self.separator) == 1
