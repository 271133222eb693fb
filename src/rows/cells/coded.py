"""The keys of a column's cells as places among distinct ones, which dictionaries of columnar files give.

Legend: B rows, D distinct values.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from src.rows.cells.buffers import count_places, places_of, put_places


@dataclass(frozen=True)
class CodedKeys:
    """Keys of cells.

    Attributes:
        distinct: keys of values, uint64 [D + 1], some of which may be alike; the last one, 0, is an empty cell's.
        checks: as of `Block`, uint32 [D + 1]; None where no key is hashed, or none is asked for.
        places: of the cells' values among these, int32 [B].
    """

    distinct: np.ndarray
    checks: np.ndarray | None
    places: np.ndarray

    @classmethod
    def of_distinct(cls, keys: np.ndarray, checks: np.ndarray | None) -> "CodedKeys":
        """Keys of D values, and their checks, of no cell yet."""
        kept = None if checks is None or not checks.any() else np.append(checks, np.uint32(0))
        return cls(np.append(keys, np.uint64(0)), kept, np.empty(0, np.int32))

    def at(self, places: Any) -> "CodedKeys":
        """Keys of cells, of which a pyarrow.Array says which values they have."""
        return replace(self, places=places_of(places, len(self.distinct) - 1))

    def of_rows(self, chosen: np.ndarray) -> "CodedKeys":
        """Those of some rows, [B] bool."""
        return replace(self, places=self.places[chosen])

    def joined(self, others: Sequence["CodedKeys"]) -> "CodedKeys":
        """These cells and others' of the very same values behind them."""
        return replace(self, places=np.concatenate([self.places, *(one.places for one in others)]))

    def keys(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Each cell's key and check, as `Column.keys` gives them."""
        return self.distinct[self.places], None if self.checks is None else self.checks[self.places]

    def counts(self) -> tuple[np.ndarray, ...]:
        """Keys that occur, in the order of their first cells, how often each does, and their checks if there are some;
        a key that several values have stands there as often."""
        which, counts = count_places(self.places, len(self.distinct))
        found = self.distinct[which], counts
        return found if self.checks is None else (*found, self.checks[which])

    def put(self, ids: np.ndarray, target: np.ndarray) -> None:
        """Set an int32 array, [B] of any stride, to the cells' ids, of ids [D + 1] of the distinct values."""
        put_places(self.places, np.ascontiguousarray(ids, np.int32), target)
