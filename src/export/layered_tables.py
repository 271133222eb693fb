"""Tables of which some rows lie in files of their own: those of an earlier export, and what deltas change of them.

Nothing is copied: which rows are in which file is all that is made, so that tables of any size change at once. The
tables before stay as they were, for who still looks rows up in them. ascend310_infer/src/tables.cc does the same.

Legend: T tables, R rows of all tables together, C rows that are not the earlier export's, n rows to be looked up.
"""

from collections.abc import Sequence

import numpy as np

from src.export.table_file import TableFile, Tables, row_bytes


class LayeredTables(Tables):
    """Tables as deltas left them.

    Args:
        files: the earlier export's file, and those of deltas.
        table_rows: rows of each table, none fewer than in the first file.
        rows: numbers among all rows, rising, of those that are not in the first file, [C].
        file_numbers, places: in which file each of them is, and at which row of it, [C].
    """

    def __init__(
        self,
        files: Sequence[TableFile],
        table_rows: Sequence[int],
        rows: np.ndarray,
        file_numbers: np.ndarray,
        places: np.ndarray,
    ):
        super().__init__(table_rows, files[0].width, files[0].table_type)
        self._files, self._rows, self._file_numbers, self._places = tuple(files), rows, file_numbers, places
        changed = np.zeros(sum(table_rows), bool)
        changed[rows] = True
        self._changed = np.packbits(changed, bitorder="little")  # of 34 M rows it has 4 MB
        self._shifts = np.subtract(self.starts, files[0].starts)

    @classmethod
    def of(cls, tables: Tables) -> "LayeredTables":
        """Tables that are in one file, or in layers already."""
        if isinstance(tables, LayeredTables):
            return tables
        assert isinstance(tables, TableFile)
        none = np.zeros(0, np.int64)
        return cls([tables], tables.table_rows, none, none, none)

    def changed_by(self, file: TableFile, ids: Sequence[np.ndarray], table_rows: Sequence[int]) -> "LayeredTables":
        """Tables in which some rows are others.

        Args:
            file: of the rows that change or are new, table by table.
            ids: which ones these are, of each table, rising.
            table_rows: rows of each table then, none fewer than now.
        """
        starts = np.cumsum([0, *table_rows[:-1]])
        new = np.concatenate([own + start for own, start in zip(ids, starts)])
        old = self._rows + (starts - np.array(self.starts))[self._table_of(self._rows)]
        rows, first = np.unique(np.concatenate((new, old)), return_index=True)  # of a row that is in both the new one
        numbers = np.concatenate((np.full(len(new), len(self._files)), self._file_numbers))[first]
        places = np.concatenate((np.arange(len(new)), self._places))[first]
        return LayeredTables([*self._files, file], table_rows, rows, numbers, places)

    def encoded(self, rows: np.ndarray) -> np.ndarray:
        """As of `Tables`."""
        found = np.empty((len(rows), row_bytes(self.table_type, self.width)), np.uint8)
        is_changed = self._changed[rows >> 3] >> (rows & 7) & 1 > 0
        shifts = self._shifts[self._table_of(rows[~is_changed])] if self._shifts.any() else 0
        found[~is_changed] = self._files[0].encoded(rows[~is_changed] - shifts)
        if is_changed.any():
            at = np.searchsorted(self._rows, rows[is_changed])
            numbers, places = self._file_numbers[at], self._places[at]
            layers = np.empty((len(at), found.shape[1]), np.uint8)
            for number in np.unique(numbers).tolist():
                layers[numbers == number] = self._files[number].encoded(places[numbers == number])
            found[is_changed] = layers
        return found

    def _table_of(self, rows: np.ndarray) -> np.ndarray:
        """The table of each row, [n]; of tables without rows, which begin where the next one does, none."""
        found: np.ndarray = np.searchsorted(self.starts, rows, "right") - 1
        return found
