"""A model's encoder, grown by new training rows: the steps as pure functions, and what a run makes of them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from src.base.errors import InputError
from src.base.npz import Arrays, stored_arrays
from src.data.counted import COUNTS, Counted, Growth
from src.data.encoder import Encoder, Learned
from src.data.growth import OF_ROWS, OF_WAITING, Found, Places, Rule, TableCounts, Watched, grow, merge_places
from src.data.layout import Layout
from src.data.manifest import VOCABULARY, Manifest
from src.data.numeric import count_scale, count_scores
from src.data.vocabulary import Vocabulary
from src.preprocessing.journal import Journal, Work
from src.preprocessing.learning import (
    Known,
    fields_of_tables,
    groups_of,
    joined,
    learn_numbers,
    least_of_tables,
    loaded,
)
from src.preprocessing.merging import merged_counts
from src.preprocessing.options import PreprocessingSpec, check_table_rows
from src.preprocessing.source import Source

_MERGED_AT_ONCE = 32
_PIECE_ROWS = 32  # bits of a place within a piece


class Grower:
    """A model's encoder that a run lets grow.

    Args:
        known: the encoder, and the manifest beside it.
        options: of the run.

    Attributes:
        key_seed: of the keys that rows must be read with.
        learns_by: the options by which it was learned.
        watched: what counting rows must know; None where values are hashed, and need no vocabulary.
        growth: the manifest's facts, once there is a grown encoder.
        files: that workers read of it.

    Raises:
        InputError: nothing is kept beside it to grow from.
    """

    def __init__(self, known: Known, options: PreprocessingSpec):
        self._known, self._options = known, options
        vocabulary, manifest = known.encoder.vocabulary, known.manifest
        self.key_seed = vocabulary.key_seed
        self.learns_by = by = options.adopted(manifest.options)
        if not options.relearn_numbers:
            self.learns_by = replace(by, numeric_transform="log", missing_indicators=False, numeric_buckets=0)
        self.watched: Watched | None = None
        self._counted: Counted | None = None
        if isinstance(vocabulary, Vocabulary):
            self._counted = load_counted(Path(options.vocab_path), manifest)
            least = [by.least_counts.get(name, by.min_count) for name in vocabulary.names]
            self.watched = Watched(vocabulary, tuple(least), manifest.sha256(VOCABULARY) or "")
        self.growth = Growth.of(manifest)
        self.files = [Path(options.vocab_path, name) for name in (VOCABULARY, *([COUNTS] if self._counted else []))]

    def encoder(self, source: Source, journal: Journal) -> tuple[Encoder, Counted | None]:
        """The encoder with rows for the values of the source's training rows, and what it can grow from again.

        The journal must hold the counts of the rows.
        """
        known, before, options = self._known, Growth.of(self._known.manifest), self._options
        pieces = [number for number, piece in enumerate(source.pieces) if piece.part == "train"]
        number, anew = before.number + 1, options.relearn_numbers
        rows = sum(int(journal.load("count", piece, "rows")[0]) for piece in pieces)
        learned = known.encoder.learned
        if anew:
            found = learn_numbers(source, journal, pieces, self.learns_by, rows)
            learned = replace(found, missing=learned.missing, counts=learned.counts)
        vocabulary, counted, facts = known.encoder.vocabulary, None, {}
        if self._counted and isinstance(vocabulary, Vocabulary):
            least = least_of_tables(source.columns, self.learns_by)
            rules = [Rule(number, one, options.forget_after, self.learns_by.max_rows_per_field) for one in least]
            tables = _grow_tables(source, journal, pieces, (vocabulary, self._counted), rules, options)
            vocabulary.release()
            names = Layout.of(source.columns).of_tables(vocabulary.names)
            facts = _facts(names, vocabulary, self._counted, tables, number)
            counted = Counted(number, self._counted.rows + rows, [one for _, one in tables], self._counted.scales)
            vocabulary = Vocabulary(
                vocabulary.names, [keys for keys, _ in tables], key_seed=self.key_seed, tables=vocabulary.tables
            )
            if learned.counts:
                learned, counted = _scored(learned, counted, vocabulary.tables, None if anew else number)
        layout = Layout.of(source.columns)
        encoder = Encoder(source.columns.dense, vocabulary, learned, known.encoder.examples, layout)
        check_table_rows(encoder.layout.of_tables(encoder.table_rows))
        ancestors = (*before.ancestors, known.manifest.sha256(VOCABULARY) or "")
        self.growth = Growth(number, ancestors, number if anew else before.relearned, facts)
        return encoder, counted


def load_counted(place: Path, manifest: Manifest) -> Counted:
    """What is kept in a folder beside a vocabulary, to grow from.

    Raises:
        InputError: nothing is, or it is damaged.
    """
    if manifest.sha256(COUNTS) is None:
        raise InputError(
            f"vocab_path {place} can't grow: it has no {COUNTS}, as an older version made it; preprocess its raw rows "
            f"again, or give the new ones with them"
        )
    if not (place / COUNTS).is_file():
        raise InputError(f"vocab_path {place} can't grow without {COUNTS}: name the data or checkpoint folder")
    manifest.verify(place, [COUNTS])
    return Counted.load(place / COUNTS)


def _grow_tables(
    source: Source, journal: Journal, pieces: Sequence[int], before: tuple[Vocabulary, Counted],
    rules: Sequence[Rule], options: PreprocessingSpec,
) -> list[tuple[np.ndarray, TableCounts]]:  # fmt: skip
    """Of each table its keys and counts, from pieces of work that a killed run need not do again."""
    fields = fields_of_tables(source.columns)
    groups = groups_of(len(rules))
    decides = {"pieces": list(pieces), "rules": [vars(rule) for rule in rules], "fields": fields}
    joins, step = joined(journal, pieces, options)
    journal.plan("merge", decides, step)
    work = [
        Work(grow_tables, (tables, [fields[one] for one in tables], [rules[one] for one in tables]), len(tables))
        for tables in groups
    ]
    paths = [journal.path("count", piece) for piece in pieces]
    journal.finish("merge", work, "fields", paths, joins, *before, options.merged_keys(journal.workers))
    names = ("keys", *OF_ROWS, *(f"waiting_{name}" for name in OF_WAITING))
    return [(keys, TableCounts.of(kept)) for keys, *kept in loaded(journal, "merge", groups, *names)]


def grow_tables(
    tables: range, fields: Sequence[Sequence[int]], rules: Sequence[Rule], counts_of_pieces: Sequence[Path],
    joins: Sequence[Path], vocabulary: Vocabulary, counted: Counted, most: int,
) -> Arrays:  # fmt: skip
    """Some tables behind a growth, from the files of `count_rows`'s arrays.

    Args:
        tables: their numbers.
        fields: the numbers of the fields that use each.
        rules: by which each grows.
        counts_of_pieces: the files, in the order of the rows.
        joins: the counts of the same rows, in fewer files.
        vocabulary, counted: of all tables, before.
        most: counted keys in memory at once.

    Returns:
        keys_3, counts_3, first_3, seen_3, since_3, waiting_keys_3, ...: of each table; shared_3 as of `merge_tables`.
    """
    arrays: Arrays = {}
    places = _places(fields, [rule.least for rule in rules], counts_of_pieces)
    for table, own, rule, (merged, shared), late in zip(
        tables, fields, rules, merged_counts(fields, joins, most), places
    ):
        keys, counts = merged
        ids = vocabulary.ids_of(own[0], keys)
        found = Found(keys, counts, *late)
        old = np.require(vocabulary.keys[table], np.uint64, "A")
        grown, state = grow(old, counted.tables[table], found, ids, rule)
        arrays |= {f"keys_{table}": grown, f"shared_{table}": np.array(shared)}
        arrays |= {f"{name}_{table}": getattr(state, name) for name in OF_ROWS}
        arrays |= {f"waiting_{name}_{table}": getattr(state.waiting, name) for name in OF_WAITING}
    return arrays


def _places(fields: Sequence[Sequence[int]], most: Sequence[int], counts_of_pieces: Sequence[Path]) -> list[Places]:
    """Of each table the first places of values without a row; a place is a piece's number and a row's in it."""
    empty = np.empty(0, np.uint64), np.empty(0, np.int64)
    pending = [[empty] for _ in fields]
    for piece, path in enumerate(counts_of_pieces):
        stored, begin = stored_arrays(path), piece << _PIECE_ROWS
        for numbers, parts in zip(fields, pending):
            parts += [
                (stored[f"late_keys_{one}"].read(), stored[f"late_places_{one}"].read() + begin) for one in numbers
            ]
        for parts, least in zip(pending, most):
            if len(parts) >= _MERGED_AT_ONCE:
                parts[:] = [merge_places(parts, least)]
    return [merge_places(parts, least) for parts, least in zip(pending, most)]


def _facts(
    names: Sequence[str], before: Vocabulary, counted: Counted, after: Sequence[tuple[np.ndarray, TableCounts]],
    number: int,
) -> dict[str, dict[str, int]]:  # fmt: skip
    """What changed in each table."""
    facts = {}
    for name, old_keys, old, (keys, new) in zip(names, before.keys, counted.tables, after):
        rows, changed = len(old_keys), new.since == number
        had, has = old.counts > 0, new.counts[:rows] > 0
        facts[name] = {
            "new": len(keys) - rows,
            "dealt": int((changed[:rows] & has).sum()),
            "freed": int((changed[:rows] & had).sum()),
            "free": int((new.counts == 0).sum()),
            "waiting": len(new.waiting.keys),
        }
    return facts


def _scored(learned: Learned, counted: Counted, tables: Sequence[int], number: int | None) -> tuple[Learned, Counted]:
    """With scores of the categories of all ids, and their scales.

    Args:
        learned: with the scores before a growth.
        counted: behind it.
        tables: the number of each field's table.
        number: of the growth, by whose old scales rows that it changed get scores, and others keep theirs; None for
            scales and scores of all rows so far.
    """
    of_fields, scales = [counted.tables[table] for table in tables], counted.scales
    if number is None:
        scales = [count_scale(table.counts, counted.rows) for table in of_fields]
    found = [count_scores(table.counts, scale) for table, scale in zip(of_fields, scales)]
    for scores, old, table in zip(found, learned.counts, of_fields):
        if number is not None:
            stays = np.append(True, table.since != number)[: len(old)]
            scores[: len(old)][stays] = old[stays]
    return replace(learned, counts=tuple(found)), replace(counted, scales=scales)
