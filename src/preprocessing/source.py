"""The rows of a preprocessing run: which lines of the raw files are read, in which spans, and which part each is of.

The split is chronological: the last seventh of the lines is validation and test, everything before it is training.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from src.base.errors import InputError
from src.preprocessing.options import PreprocessingSpec
from src.preprocessing.sampling import SampledSpan
from src.rows.block import PartSpan, Span
from src.rows.cells.split import IN_NO_PART, PARTS
from src.rows.columns import Columns
from src.rows.raw_files import nature_of
from src.rows.reader import RawInput
from src.rows.unpacking import fingerprint

OwnFiles = Mapping[str, Sequence[Path]]
_FIRST_ROWS = 1000
_SHOWN_NAMES = 3


@dataclass(frozen=True)
class Piece:
    """A stretch of a part's rows, from which one shard comes.

    Attributes:
        part: train, valid or test.
        number: of the piece within the part.
        spans: the rows, of one file or of several small ones.
    """

    part: str
    number: int
    spans: tuple[Span, ...]

    @property
    def rows(self) -> int:
        """How many, bad ones among them."""
        return sum(span.rows for span in self.spans)

    @property
    def follows(self) -> bool:
        """As of its first span."""
        return self.spans[0].follows


@dataclass(frozen=True)
class Source:
    """The rows of a run.

    Attributes:
        raws: the raw files.
        columns: what their lines hold, in the files' order.
        rows: lines that are read, bad ones among them.
        bounds: each part's first and behind-the-last row.
        pieces: the rows of all parts, in order.
        sampled: how many of the training rows without a click are kept, and by which seed, if not all are.
    """

    raws: tuple[Path, ...]
    columns: Columns
    rows: int
    bounds: dict[str, tuple[int, int]]
    pieces: tuple[Piece, ...]
    sampled: dict[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> str:
        """The raw files, for messages."""
        return names_of(self.raws)

    def keyed(self, seed: str) -> "Source":
        """The same rows, whose categories get keys by a vocabulary's seed."""
        return replace(self, columns=replace(self.columns, key_seed=seed))

    def plan(self) -> dict[str, Any]:
        """What decides the rows of each piece, in JSON's types."""
        return {
            "raws": [(str(raw), *fingerprint(raw)) for raw in self.raws],
            "columns": asdict(self.columns),
            "rows": [(piece.part, piece.rows) for piece in self.pieces],
        } | ({"sampled": self.sampled} if self.sampled else {})


def names_of(raws: tuple[Path, ...]) -> str:
    """Raw files as the user gave them, the first ones of many."""
    more = f" and {len(raws) - _SHOWN_NAMES} files more" if len(raws) > _SHOWN_NAMES else ""
    return ", ".join(map(str, raws[:_SHOWN_NAMES])) + more


def find_rows(raw_input: RawInput, options: PreprocessingSpec, all_test: bool, own: OwnFiles | None = None) -> Source:
    """The rows that the options ask for.

    Args:
        raw_input: all rows.
        options: train_line_count, valid_fraction and shard_rows of them matter.
        all_test: whether all rows are the test part.
        own: files of validation and test rows, by part, behind those of training; empty without such files.

    Raises:
        InputError: no rows, fewer than asked for, files of several forms, or of another one than the columns say.
    """
    names = names_of(raw_input.raws)
    for raw, columns in zip(raw_input.raws, raw_input.columns):
        if columns != raw_input.columns[0]:
            raise InputError(f"{raw} has another header than {raw_input.raws[0]}: give files of one form")
    if raw_input.rows == 0:
        raise InputError(f"{names} is empty: it must hold lines of raw text")
    wanted = options.train_line_count
    if wanted and own and any(own.values()):
        raise InputError("train_line_count has no effect with valid_path and test_path, of which all rows are read")
    if wanted > raw_input.rows:
        raise InputError(
            f"train_line_count is {wanted}, but {names} has {raw_input.rows} lines: give at most that, or leave the "
            f"option away to read all"
        )
    rows = wanted or raw_input.rows
    _refuse_other_kinds_of_file(raw_input, rows)
    bounds = {"test": (0, rows)} if all_test else split(rows, options.valid_fraction)
    rule = raw_input.columns[0].split
    if rule:
        bounds = dict.fromkeys(rule.parts, (0, rows))
    elif own and any(own.values()):
        bounds = _of_files(raw_input, own)
    pieces = tuple(
        Piece(part, number, spans)
        for part, (first, last) in bounds.items()
        for number, spans in enumerate(_together(raw_input.spans(first, last, options.shard_rows), options.shard_rows))
    )
    if rule:
        pieces = tuple(replace(piece, spans=_chosen(piece, rule.parts[0])) for piece in pieces)
    if options.keep_negatives < 1:
        pieces = tuple(_sampled(piece, options) if piece.part == "train" else piece for piece in pieces)
    parts = ", ".join(f"{part} {first + 1}-{last}" for part, (first, last) in bounds.items())
    print(f"{names}: {rows} rows; " + (f"{', '.join(bounds)} by {rule.column}" if rule else parts), flush=True)
    kept = {"share": options.keep_negatives, "seed": options.seed} if options.keep_negatives < 1 else {}
    return Source(raw_input.raws, raw_input.columns[0], rows, bounds, pieces, kept)


def _of_files(raw_input: RawInput, own: OwnFiles) -> dict[str, tuple[int, int]]:
    """The bounds of parts whose rows stand in files of their own, behind those of training."""
    counts = {part: raw_input.rows_of(own.get(part, ())) for part in PARTS}
    counts["train"] = raw_input.rows - sum(counts.values())
    ends = np.cumsum(list(counts.values())).tolist()
    return {part: (end - rows, end) for (part, rows), end in zip(counts.items(), ends) if rows}


def _chosen(piece: Piece, first_part: str) -> tuple[Span, ...]:
    """The rows of a piece's spans that belong to its part; bad ones, of no part, are told by the first part."""
    number, with_bad = PARTS.index(piece.part), piece.part == first_part
    return tuple(
        PartSpan(span.first_row, span.rows, span, number, with_bad, raw=span.raw, follows=span.follows)
        for span in piece.spans
    )


def _sampled(piece: Piece, options: PreprocessingSpec) -> Piece:
    spans = (SampledSpan.of(span, options.keep_negatives, options.seed) for span in piece.spans)
    return replace(piece, spans=tuple(spans))


def _together(spans: list[Span], most_rows: int) -> list[tuple[Span, ...]]:
    """Spans in their order, those of small files together: thousands of files would else be as many shards."""
    groups: list[list[Span]] = []
    rows = most_rows
    for span in spans:
        if rows + span.rows > most_rows:
            groups.append([])
            rows = 0
        groups[-1].append(span)
        rows += span.rows
    return [tuple(group) for group in groups]


def _refuse_other_kinds_of_file(raw_input: RawInput, rows: int) -> None:
    """Input that begins with nothing but bad rows holds other columns, or no rows at all."""
    first = min(rows, _FIRST_ROWS)
    blocks = [block for span in raw_input.spans(0, first, first) for block in raw_input.read(span)]
    if first > 1 and not any(len(block.labels) for block in blocks):
        bad = [row for block in blocks for row in block.bad]
        other_columns = [row for row in bad if " columns instead of " in row.reason]
        hint = "Mend the rows, or name the columns in the order of the file in a --schema"
        if other_columns:
            hint = "Are --dense_dim and --slot_dim right, or is a --schema needed, which --guess_schema=FILE begins?"
            columns = raw_input.columns[0]
            if columns != Columns.numbered(len(columns.dense), len(columns.categorical)):
                hint = "Does the --schema name all columns (by header: true, or columns), and the separator?"
        hint = nature_of(bad, raw_input.columns[0]) or hint
        what = f"a row of {len(raw_input.columns[0].file_names)} columns"
        if all(row.reason.endswith(IN_NO_PART) for row in bad):
            what = "in a part of the split"
        raise InputError(
            f"{names_of(raw_input.raws)}: none of the first {first} lines is {what}; {(other_columns or bad)[0]}. "
            f"{hint}"
        )


def split(rows: int, valid_fraction: float) -> dict[str, tuple[int, int]]:
    """First and behind-the-last row of each part that has rows: train is what comes before the last seventh."""
    last_seventh = rows // 7
    train = rows - last_seventh
    valid = int(last_seventh * valid_fraction + 0.5)
    bounds = {"train": (0, train), "valid": (train, train + valid), "test": (train + valid, rows)}
    return {part: (first, last) for part, (first, last) in bounds.items() if last > first}
