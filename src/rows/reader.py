"""Raw files as one run of rows, of which parts are read apart from each other."""

import bisect
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from src.base.errors import InputError
from src.base.logs import warn
from src.rows.block import Block, RowFile, Span
from src.rows.columnar import ColumnarFile, kind_of
from src.rows.columns import Columns
from src.rows.text import NUMBER
from src.rows.text_file import TextFile
from src.rows.unpacking import unpacked


class RawInput:
    """The rows of raw files, one behind the other: packed or not, with a header or without.

    Args:
        raws: the files as the user gave them, in order; empty ones among them are passed over.
        columns: what their rows hold.
        folder: takes the text of those that are packed or in another encoding, where it stays for a later run.
        order_by: column whose value in each file's first row gives the files' order; "" for the given one.
        behind: those of the files that stay behind the others, in the order given.

    Attributes:
        raws: those that are not empty, or the first one.
        texts: the files that their rows are read from.
        columns: of each file, in the order that its header gives, if there are headers.
        rows: of all files.

    Raises:
        InputError: a file can't be unpacked or read, or its header lacks a column.
    """

    def __init__(
        self, raws: Sequence[Path], columns: Columns, folder: Path, order_by: str = "", behind: Sequence[Path] = ()
    ):  # fmt: skip
        texts = {raw: unpacked(raw, folder, columns.encoding) for raw in raws}
        filled = [raw for raw, text in texts.items() if text.stat().st_size]
        if 0 < len(filled) < len(raws):
            empty = next(raw for raw in raws if raw not in filled)
            warn(f"{len(raws) - len(filled)} of {len(raws)} files are empty and passed over, such as {empty}")
        self.raws, self._named = tuple(filled or raws[:1]), len(raws) > 1
        self.texts = [texts[raw] for raw in self.raws]
        self._files = [_opened(text, columns, raw) for raw, text in zip(self.raws, self.texts)]
        if order_by:
            self._order(order_by, behind)
        self.columns = [file.columns for file in self._files]
        self.rows = sum(file.rows for file in self._files)

    def spans(self, first_row: int, last_row: int, rows: int) -> list[Span]:
        """Rows first_row up to, not including, last_row, in spans of at most `rows` rows of one file."""
        found: list[Span] = []
        for before, raw, file in zip(self._befores(), self.raws, self._files):
            first, last = max(first_row - before, 0), min(last_row - before, file.rows)
            name = str(raw) if self._named else ""
            spans = file.spans(first, last, rows) if first < last else []
            found += [replace(span, first_row=before + span.first_row, raw=name) for span in spans]
        return found

    def _order(self, column: str, behind: Sequence[Path]) -> None:
        """Put the files in the order of the values that their first rows have in a column."""
        ordered = [raw not in behind and file.rows > 0 for raw, file in zip(self.raws, self._files)]
        places = [place for place, chosen in enumerate(ordered) if chosen]
        ends = {place: _ends(self._files[place], column, self.raws[place]) for place in places}
        of_numbers = all(NUMBER.fullmatch(value) for pair in ends.values() for value in pair)

        def value_of(text: str) -> tuple[float, str]:
            return (float(text), "") if of_numbers else (0.0, text)

        places.sort(key=lambda place: value_of(ends[place][0]))
        for one, other in itertools.pairwise(places):
            if value_of(ends[one][1]) > value_of(ends[other][0]):
                warn(
                    f"{self.raws[one]} ends with {column} {ends[one][1]}, and {self.raws[other]}, which is read behind "
                    f"it, begins with {ends[other][0]}: rows must come in the order of time"
                )
                break
        order = [*places, *(place for place, chosen in enumerate(ordered) if not chosen)]
        self.raws = tuple(self.raws[place] for place in order)
        self.texts, self._files = [self.texts[place] for place in order], [self._files[place] for place in order]

    def rows_of(self, raws: Sequence[Path]) -> int:
        """How many rows some of the files have."""
        return sum(file.rows for raw, file in zip(self.raws, self._files) if raw in raws)

    def _befores(self) -> list[int]:
        """How many rows come before each file's."""
        return [0, *itertools.accumulate(file.rows for file in self._files)][:-1]

    def columns_of(self, span: Span) -> Columns:
        """The columns of one of the spans, in the order of its file."""
        return self.columns[bisect.bisect_right(self._befores(), span.first_row) - 1]

    def read(self, span: Span) -> Iterator[Block]:
        """The blocks of one of the spans, in order."""
        return span.blocks(self.columns_of(span))

    def remove_unpacked(self) -> None:
        """Remove the text of packed files, once the rows are through."""
        for text in set(self.texts) - set(self.raws):
            text.unlink()


def _ends(file: RowFile, column: str, raw: Path) -> tuple[str, str]:
    """The values of a column in the first and the last row of a file."""
    if column not in file.names:
        raise InputError(f"order_by {column}: {raw} has no such column: it has {', '.join(file.names)[:200]}")
    names, found = file.columns.file_names, []
    alone = replace(file.columns, dense=(), categorical=(column,), label="", timestamps=(), split=None, order=names)
    for row in (0, file.rows - 1):
        cells = next(file.spans(row, row + 1, 1)[0].cells(alone))[0]
        found.append(cells[0] if cells else "")
    return found[0], found[1]


def _opened(path: Path, columns: Columns, raw: Path) -> RowFile:
    """A file of whatever form its first bytes tell."""
    with path.open("rb") as file:
        kind = kind_of(file.read(8))
    return ColumnarFile(path, kind, columns, raw) if kind else TextFile(path, columns, raw)
