"""What the columns of raw rows are."""

from dataclasses import dataclass, replace

from src.rows.lists import ListColumn
from src.rows.text import UTF8


@dataclass(frozen=True)
class Columns:
    """What the columns of a raw file are.

    Attributes:
        dense, categorical, label: names of the columns that are used, in the order that training sees; label is ""
            for rows that have none, which are read with 0.
        order: names of all columns in the order of the file, others among them; empty for label, dense, categorical.
        separator: one character, tab or one that prints; cells can't be quoted.
        header: whether each file begins with a line of names, which then gives the order.
        encoding: of the text, by Python's name.
        key_seed: of the keys of long categories, which the vocabulary tells: `Encoder.keyed` puts it here.
        lists: the categorical columns whose cells hold several values.
        shared: categorical columns that have a table of this name, as (column, name); others have one of their own
            name.
    """

    dense: tuple[str, ...]
    categorical: tuple[str, ...]
    label: str = "label"
    order: tuple[str, ...] = ()
    separator: str = "\t"
    header: bool = False
    encoding: str = UTF8
    key_seed: str = ""
    lists: tuple[ListColumn, ...] = ()
    shared: tuple[tuple[str, str], ...] = ()

    @classmethod
    def numbered(cls, dense_dim: int = 13, slot_dim: int = 26) -> "Columns":
        """Criteo's names: I1, I2, ... and C1, C2, ..."""
        return cls(tuple(f"I{i + 1}" for i in range(dense_dim)), tuple(f"C{i + 1}" for i in range(slot_dim)))

    @property
    def names(self) -> tuple[str, ...]:
        """The columns that are used: label, dense, categorical."""
        return (*self._label, *self.dense, *self.categorical)

    @property
    def _label(self) -> tuple[str, ...]:
        return (self.label,) if self.label else ()

    def without_label(self) -> "Columns":
        """The columns of rows whose label is not known, and does not stand in the file."""
        return replace(self, label="", order=tuple(name for name in self.order if name != self.label))

    @property
    def file_names(self) -> tuple[str, ...]:
        """All columns in the order of the file."""
        return self.order or self.names
