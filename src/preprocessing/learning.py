"""The encoder of a preprocessing run: that of a model, or learned from the counted rows."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from src.base.errors import InputError
from src.data.counted import Counted
from src.data.encoder import Encoder, Learned, learn, load_encoder
from src.data.growth import TableCounts, Waiting
from src.data.known_values import learn_examples
from src.data.layout import Layout
from src.data.manifest import MANIFEST, VOCABULARY, Manifest
from src.data.numeric import count_scale
from src.data.vocabulary import AnyVocabulary, HashedVocabulary, Vocabulary
from src.model_utils.object_storage import refuse_remote
from src.preprocessing.journal import Journal, Work
from src.preprocessing.merging import join_counts, joins_of, merge_columns, merge_tables
from src.preprocessing.options import PreprocessingSpec, check_table_rows
from src.preprocessing.source import Source
from src.rows.block import Span, first_categories, first_cells
from src.rows.columns import Columns
from src.rows.keys import learn_seed

_EXAMPLE_BYTES = 1 << 18
_SEED_ROWS = 256
_MOST_GROUPS = 64


@dataclass(frozen=True)
class Known:
    """A model's encoder, and the manifest of the rows that it was trained with."""

    encoder: Encoder
    manifest: Manifest


def manifest_in(place: Path) -> Manifest:
    """The manifest of a folder, which several ask for, and which is read once as long as the file stays."""
    file = (place / MANIFEST).stat()
    return _manifest_of(place / MANIFEST, file.st_ino, file.st_size, file.st_mtime_ns)


@functools.lru_cache(maxsize=1)
def _manifest_of(path: Path, *_: int) -> Manifest:
    return Manifest.load(path)


def load_known(vocab_path: str, columns: Columns) -> Known | None:
    """What is at vocab_path, if one is given.

    Raises:
        InputError: there is none, or it is for other columns.
    """
    if not vocab_path:
        return None
    refuse_remote(vocab_path, "vocab_path")
    place = Path(vocab_path)
    if not (place / MANIFEST).is_file() or not (place / VOCABULARY).is_file():
        raise InputError(
            f"vocab_path {place} has no {MANIFEST} and {VOCABULARY}: name the data or checkpoint folder of the model"
        )
    manifest = manifest_in(place)
    manifest.verify(place, [VOCABULARY])
    if (manifest.dense, manifest.categorical) != (columns.dense, columns.categorical):
        raise InputError(
            f"vocab_path {place} is for columns {manifest.dense + manifest.categorical}, the raw files are said to "
            f"hold {columns.dense + columns.categorical}: give its --schema"
        )
    known = manifest.columns()
    if (known.lists, known.shared) != (columns.lists, columns.shared):
        raise InputError(
            f"vocab_path {place} is for other lists or shared tables than the raw files are said to hold: give its "
            f"--schema"
        )
    return Known(load_encoder(place / VOCABULARY, manifest.dense), manifest)


def key_seed_of(source: Source) -> str:
    """The seed of a new vocabulary's keys: the same for the same training rows, be they in other files or columns."""
    return learn_seed(first_cells(_training_spans(source), source.columns, _EXAMPLE_BYTES, _SEED_ROWS))


def learn_encoder(source: Source, journal: Journal, options: PreprocessingSpec) -> tuple[Encoder, Counted | None]:
    """What is learned from the training rows, or from all, and what is counted of a vocabulary of these, to grow from;
    the journal must hold their counts."""
    learned_from = [
        number for number, piece in enumerate(source.pieces) if piece.part == "train" or options.vocab_scope == "all"
    ]
    rows = sum(int(journal.load("count", number, "rows")[0]) for number in learned_from)
    vocabulary, tables = _vocabulary(source.columns, learned_from, journal, options)
    layout = Layout.of(source.columns)
    of_fields = layout.of_fields([table.counts for table in tables]) if tables and options.category_counts else ()
    learned = learn_numbers(source, journal, learned_from, options, rows, of_fields)
    examples = learn_examples(vocabulary, first_categories(_training_spans(source), source.columns, _EXAMPLE_BYTES))
    encoder = Encoder(source.columns.dense, vocabulary, learned, examples, layout)
    check_table_rows(encoder.layout.of_tables(encoder.table_rows))
    scales = [count_scale(counts, rows) for counts in of_fields]
    return encoder, Counted(0, rows, tables, scales) if isinstance(vocabulary, Vocabulary) else None


def learn_numbers(
    source: Source, journal: Journal, pieces: Sequence[int], options: PreprocessingSpec, rows: int,
    counts: Sequence[np.ndarray] = (),
) -> Learned:  # fmt: skip
    """What is learned beside the vocabulary, from pieces of so many rows, and from the counts of the fields' ids."""
    groups = groups_of(len(source.columns.dense) if options.learns_from_numbers else 0)
    journal.plan("merge_numbers", {"pieces": list(pieces)}, "count")
    work = [Work(merge_columns, (columns,), len(columns)) for columns in groups]
    journal.finish("merge_numbers", work, "columns", [journal.path("count", number) for number in pieces])
    summaries = loaded(journal, "merge_numbers", groups, "values", "counts")
    return learn(
        options.numeric_transform, options.missing_indicators, options.numeric_buckets,
        [(values, counts_of_values) for values, counts_of_values in summaries], counts, rows,
    )  # fmt: skip


def _training_spans(source: Source) -> list[Span]:
    return [span for piece in source.pieces if piece.part == "train" for span in piece.spans]


def groups_of(count: int) -> list[range]:
    """Numbers up to a count, in at most so many groups of neighbours as are pieces of work."""
    size = -(-count // _MOST_GROUPS) or 1
    return [range(first, min(first + size, count)) for first in range(0, count, size)]


def loaded(journal: Journal, step: str, groups: Sequence[range], *names: str) -> list[list[np.ndarray]]:
    """The named arrays of each field or column, from the pieces that hold the groups, as `Journal.mapped` has them."""
    found = []
    for piece, group in enumerate(groups):
        arrays = journal.mapped(step, piece, *(f"{name}_{number}" for number in group for name in names))
        found += [arrays[place : place + len(names)] for place in range(0, len(arrays), len(names))]
    return found


def least_of_tables(columns: Columns, options: PreprocessingSpec) -> tuple[int, ...]:
    """How often a value of each table must occur for a row."""
    least = [options.least_counts.get(name, options.min_count) for name in columns.categorical]
    return Layout.of(columns).of_tables(least)


def fields_of_tables(columns: Columns) -> list[list[int]]:
    """The numbers of the fields that use each table."""
    tables = Layout.of(columns).tables
    return [[field for field, own in enumerate(tables) if own == table] for table in range(len(set(tables)))]


def _vocabulary(
    columns: Columns, pieces: Sequence[int], journal: Journal, options: PreprocessingSpec
) -> tuple[AnyVocabulary, list[TableCounts]]:
    """The vocabulary of the counted rows and, by table, what was counted; nothing of a hash."""
    names, seed = columns.categorical, columns.key_seed
    if options.hash_rows:
        return HashedVocabulary(names, options.hash_rows, key_seed=seed), []
    least, fields = least_of_tables(columns, options), fields_of_tables(columns)
    groups = groups_of(len(least))
    work = [
        Work(merge_tables, (tables, [fields[table] for table in tables], [least[table] for table in tables]),
             len(tables))
        for tables in groups
    ]  # fmt: skip
    counted, step = joined(journal, pieces, options)
    decides = {"pieces": list(pieces), "least": least, "fields": fields}
    journal.plan("merge", decides | {"most": options.max_rows_per_field}, step)
    journal.finish("merge", work, "fields", counted, options.max_rows_per_field, options.merged_keys(journal.workers))
    merged = loaded(journal, "merge", groups, "keys", "counts", "order", "left_keys", "left_counts")
    keys, counts, orders, *left = zip(*merged) if merged else [()] * 5
    vocabulary = Vocabulary(names, keys, orders, key_seed=seed, tables=Layout.of(columns).tables)
    return vocabulary, [TableCounts.since_fit(own, Waiting.since_fit(*rest)) for own, *rest in zip(counts, *left)]


def joined(journal: Journal, pieces: Sequence[int], options: PreprocessingSpec) -> tuple[list[Path], str]:
    """The files of some pieces' counts, those of many pieces put together, and the name of the step that did so."""
    paths, step, level = [journal.path("count", number) for number in pieces], "count", 0
    while joins := joins_of(paths):
        level += 1
        before, step = step, f"join{level}"
        journal.plan(step, {"files": [path.stem for path in paths]}, before)
        work = [Work(join_counts, (files,), len(files)) for files in joins]
        journal.finish(step, work, "files", options.merged_keys(journal.workers))
        paths = [journal.path(step, number) for number in range(len(joins))]
    return paths, step
