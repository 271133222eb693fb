"""Which part each row belongs to, by the value of a column.

Legend: B rows.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from src.base.errors import InputError
from src.rows.text import NUMBER

if TYPE_CHECKING:
    from src.rows.cells.column import Column
    from src.rows.columns import Columns

PARTS = ("train", "valid", "test")
FORM = re.compile(r"random:.+|[^:=]+:[^,]+(,[^,]+)?|[^:=]+=[^/]+(/[^/]*){1,2}")
NO_PART = -1
IN_NO_PART = "which is in no part of the split"  # ends what is said of such rows


def mixed_shares(numbers: np.ndarray, seed: int | Sequence[int]) -> np.ndarray:
    """Of each number [B] uint64 another one from 0 to 1, float64, which looks random and follows from these."""
    mixed = numbers + np.random.default_rng(seed).integers(0, 2**64, dtype=np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):  # splitmix64
        mixed = (mixed ^ mixed >> np.uint64(shift)) * np.uint64(factor)
    shares: np.ndarray = (mixed ^ mixed >> np.uint64(31)).astype(np.float64) / 2.0**64
    return shares


@dataclass(frozen=True)
class Split:
    """How a column's values tell the part.

    Attributes:
        column: its name.
        kind: bounds, values or random.
        values: of bounds, the values with which validation, if there are two, and test begin; of values, those of each
            part, with commas between.
        shares: of validation, and of both that and test, of random.
        seed: likewise.
    """

    column: str
    kind: str
    values: tuple[str, ...] = ()
    shares: tuple[float, float] = (0.0, 0.0)
    seed: int = 0

    @classmethod
    def of(cls, text: str, held_out: float, valid_fraction: float, seed: int) -> "Split":
        """What an option says: random:user, day:20,22 or fold=0,1,2/3/4.

        Args:
            text: the option.
            held_out: the share that is not training, at random.
            valid_fraction: the share of this that is validation.
            seed: of randomness.
        """
        if text.startswith("random:"):
            return cls(text.removeprefix("random:"), "random", (), (held_out * valid_fraction, held_out), seed)
        column, values, kind = *re.split("[:=]", text, maxsplit=1), "bounds" if ":" in text else "values"
        if "=" in text and (":" not in text or text.index("=") < text.index(":")):
            kind = "values"
        return cls(column, kind, tuple(values.split("," if kind == "bounds" else "/")))

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts that rows may belong to."""
        if self.kind == "random":
            valid, held_out = self.shares
            return tuple(part for part, share in zip(PARTS, (1.0, valid, held_out - valid)) if share > 0)
        if self.kind == "bounds":
            return PARTS if len(self.values) > 1 else ("train", "test")
        return tuple(part for part, values in zip(PARTS, self.values) if values)

    def parts_of(self, column: "Column", columns: "Columns") -> np.ndarray:
        """The number in PARTS of each row's part, NO_PART for a value that the split does not name, int8 [B]."""
        keys, _ = column.keys(replace(columns, key_seed="", checked=False, missing=()))
        distinct, first, which = np.unique(keys, return_index=True, return_inverse=True)
        if self.kind == "random":
            return self._at_random(distinct)[which]
        part_of = self._by_bounds() if self.kind == "bounds" else self._by_values()
        parts = np.array([part_of(text) for text in column.texts(first.tolist())], np.int8)
        found: np.ndarray = parts[which]
        return found

    def _at_random(self, keys: np.ndarray) -> np.ndarray:
        share = mixed_shares(keys, self.seed)
        valid, held_out = self.shares
        parts: np.ndarray = np.where(share < valid, 1, np.where(share < held_out, 2, 0)).astype(np.int8)
        return parts

    def _by_bounds(self) -> Callable[[str], int]:
        """Compared as numbers where the bounds are, else as text, in which 2014-10-28 comes before 2014-10-28 13:00."""
        parts = [0, *(PARTS.index(part) for part in self.parts[1:])]
        numbers = [float(value) for value in self.values if NUMBER.fullmatch(value)]
        if len(numbers) < len(self.values):
            return lambda text: parts[sum(text >= value for value in self.values)] if text else NO_PART
        return lambda text: (
            parts[sum(float(text) >= number for number in numbers)] if NUMBER.fullmatch(text) else NO_PART
        )

    def _by_values(self) -> Callable[[str], int]:
        part_of = {value: part for part, values in enumerate(self.values) for value in values.split(",") if values}
        return lambda text: part_of.get(text, NO_PART)

    def check(self) -> None:
        """Refuse bounds that fall, or a value of two parts.

        Raises:
            InputError: it is so.
        """
        if self.kind == "bounds" and len(self.values) > 1:
            low, high = self.values
            numbers = [float(value) for value in self.values if NUMBER.fullmatch(value)]
            if (numbers[0] >= numbers[1]) if len(numbers) > 1 else low >= high:
                raise InputError(f"split {self.column}:{low},{high}: the second bound must come behind the first one")
        values = [value for of_part in self.values for value in of_part.split(",")] if self.kind == "values" else []
        if twice := [value for value in values if values.count(value) > 1]:
            raise InputError(f"split: {self.column} {twice[0]!r} is named twice: a value is of one part")
