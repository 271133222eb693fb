"""A preprocessing run: from raw files to a data folder, in pieces that a killed run need not do again."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from src.base.errors import InputError
from src.base.events import happens
from src.base.files import flush
from src.base.logs import warn
from src.base.workers import processes
from src.data.counted import COUNTS, Counted
from src.data.encoder import Encoder, load_encoder
from src.data.known_values import Unmatched, unmatched_of, warning, warning_of_dropped
from src.data.layout import Layout
from src.data.manifest import MANIFEST, PARTS, VOCABULARY, DataFolder, Manifest, raw_format
from src.data.parts import File, Negatives, Part
from src.data.vocabulary import UNSEEN
from src.engines.engine import Engine, Local
from src.preprocessing.coding import Shards, code
from src.preprocessing.growing import Grower
from src.preprocessing.journal import NEW, UNPACKED, Journal, Work, hold_output
from src.preprocessing.learning import Known, groups_of, key_seed_of, learn_encoder, load_known, loaded
from src.preprocessing.options import PreprocessingSpec
from src.preprocessing.sampling import negatives_of
from src.preprocessing.shards import Shard
from src.preprocessing.source import OwnFiles, Source, find_rows
from src.preprocessing.steps import bad_rows_of, count_rows, prepare
from src.rows.block import BadRow, first_categories
from src.rows.columns import Columns
from src.rows.keys import keys_of
from src.rows.raw_files import REJECTS, advice, write_rejects
from src.rows.reader import RawInput
from src.rows.unpacking import fingerprint

_SHOWN_BAD_ROWS = 3
_SAMPLE_BYTES = 8 << 20  # in which unseen values are looked for


def preprocess(
    raws: Sequence[Path],
    folder: Path,
    columns: Columns,
    options: PreprocessingSpec,
    overwrite: bool = False,
    own: OwnFiles | None = None,
    order_by: str = "",
    engine: Engine | None = None,
) -> DataFolder:
    """Make a data folder of raw files: count, merge, encode, and the manifest last.

    Args:
        raws: the raw files, in order of time; .gz and .xz are unpacked.
        folder: the data folder to write.
        columns: what the lines hold.
        options: how.
        overwrite: whether a data folder in that place is replaced, once the new one is whole.
        own: raw files of validation and test rows, by part; all of raws are for training then.
        order_by: column whose value in each file's first row gives the order of raws; "" for the order given.
        engine: does the pieces; None for this machine.

    Raises:
        InputError: no rows, fewer than asked for, more bad ones than allowed, a vocabulary that does not fit, a data
            folder in the place of the new one, or another run at work there.
    """
    engine = engine or Local()
    with hold_output(folder, lambda: _refuse_finished(folder, overwrite)):
        known = _known(columns, options, engine)
        behind = [raw for part in PARTS for raw in (own or {}).get(part, ())]
        raws = [*raws, *behind]
        given = [fingerprint(raw) for raw in raws]
        grower = Grower(known, options) if known and options.grow else None
        # A mistake is found before the results of an earlier run are given up.
        raw_input = RawInput(raws, replace(columns, split=options.part_rule), folder / UNPACKED, order_by, behind)
        source = find_rows(raw_input, options, all_test=known is not None and not grower, own=own)
        if grower or not known:  # else counts tell of bad rows alone
            source = source.keyed(grower.key_seed if grower else key_seed_of(source))
        journal, new = Journal(folder, engine), folder / NEW
        engine.begin(journal.folder, [*raw_input.texts, *(grower.files if grower else ())])
        bad = count(source, journal, options, grower)
        encoder, counted = _learned(source, journal, options, known, grower)
        source = source.keyed(encoder.vocabulary.key_seed)
        shared = shared_keys(source, journal) if counted else {}
        encoder = _saved(new, encoder, counted, bad)
        del counted
        shards = code(source, journal, encoder, folder, options)
        _refuse_changed_raws(raws, given, source)
        told = options.recorded(known.manifest.options if known else None)
        manifest = manifest_of(new, source, columns, told, encoder, shards, len(bad))
        grown = grower.growth.content() if grower else {}
        manifest = replace(manifest, shared_keys=shared, source=manifest.source | grown, **_counted(source, journal))
        _check_labels(source.columns, manifest, known)
        _warn_of_unmatched(source, encoder, manifest, known.manifest if known else None)
        happens("the manifest is to be written")
        manifest.save(new)
        _put_in_place(new, folder, manifest)
        happens("the manifest is written")
        journal.close()
    return DataFolder(folder, manifest)


def _known(columns: Columns, options: PreprocessingSpec, engine: Engine) -> Known | None:
    """The model's encoder that a run takes, if it does; what columns or memory rule out is refused."""
    options.check_columns(columns)
    known = load_known(options.vocab_path, columns)
    values = len(known.encoder.inputs) + known.encoder.layout.ids if known else options.row_values(columns)
    options.check_record(values)
    options.check_memory(len(columns.categorical), values, processes(engine.workers))
    return known


def _refuse_finished(folder: Path, overwrite: bool) -> None:
    if (folder / MANIFEST).exists() and not overwrite:
        raise InputError(
            f"output {folder} already holds preprocessed data: name another --output_path, or replace it with "
            f"--overwrite=True"
        )


def _refuse_changed_raws(raws: Sequence[Path], given: Sequence[tuple[str, int, int]], source: Source) -> None:
    if [fingerprint(raw) for raw in raws] != given:
        raise InputError(f"{source.names} changed while it was read: start again when it is whole")


def _check_labels(columns: Columns, manifest: Manifest, known: Known | None) -> None:
    """Refuse labels that a schema lists and no row has, of rows that a vocabulary is learned from: they are misspelt.

    Raises:
        InputError: they are all alike.
    """
    means = {part.label_mean for part in manifest.parts.values()}
    for listed, kind, found in ((columns.positive, "positive", {0.0}), (columns.negative, "negative", {1.0})):
        if listed and means == found and not known:
            raise InputError(
                f"no row's label {columns.label} is one of {kind}: {list(listed)}, so that all are alike: say in the "
                f"schema how labels are spelt in the file"
            )


def _learned(
    source: Source, journal: Journal, options: PreprocessingSpec, known: Known | None, grower: Grower | None
) -> tuple[Encoder, Counted | None]:
    """The encoder of a run, and what its vocabulary can grow from, if that is new."""
    if grower:
        return grower.encoder(source, journal)
    return (known.encoder, None) if known else learn_encoder(source, journal, options)


def _saved(new: Path, encoder: Encoder, counted: Counted | None, bad: Sequence[BadRow]) -> Encoder:
    """Write an encoder, what it can grow from, and bad rows if there are some, in place of an earlier run's.

    Returns:
        The encoder of the file, of which no more is in memory than is looked at.
    """
    new.mkdir(exist_ok=True)
    for name in (VOCABULARY, COUNTS, REJECTS):
        (new / name).unlink(missing_ok=True)
    encoder.save(new / VOCABULARY)
    if counted:
        counted.save(new / COUNTS)
    if bad:
        write_rejects(new / REJECTS, bad)
    return load_encoder(new / VOCABULARY, encoder.dense)


def count(source: Source, journal: Journal, options: PreprocessingSpec, grower: Grower | None = None) -> list[BadRow]:
    """Count all rows, for a vocabulary that grows if there is one; the bad lines, no more than max_bad_rows."""
    allowed, watched = options.max_bad_rows, grower.watched if grower else None
    work = [Work(count_rows, (piece.spans,), piece.rows, piece.follows) for piece in source.pieces]
    numbers = (grower.learns_by if grower else options).learns_from_numbers
    shared = source.columns, allowed + _SHOWN_BAD_ROWS, numbers, watched
    journal.plan("count", source.plan() | {"numbers": numbers} | (watched.plan() if watched else {}))
    _forget_too_few_bad_rows(journal, len(work), shared[1])
    if journal.engine.is_forked and journal.missing("count", len(work)):
        prepare(with_pandas=numbers or watched is not None or bool(source.columns.timestamps))
        if watched:
            watched.vocabulary.prepare()
    journal.finish("count", work, "rows", *shared)
    bad: list[BadRow] = []
    bad_rows, rows = 0, dict.fromkeys(PARTS, 0)
    for number, piece in enumerate(source.pieces):
        good, not_good, kept = journal.load("count", number, "rows", "bad_rows", "bad")
        bad_rows += int(not_good)
        rows[piece.part] += int(good)
        if len(bad) <= allowed + _SHOWN_BAD_ROWS:
            bad += bad_rows_of(kept)
    if bad_rows > allowed:
        shown = "; ".join(str(row) for row in bad[:_SHOWN_BAD_ROWS])
        more = "; ..." if bad_rows > _SHOWN_BAD_ROWS else ""
        skipping = f"skip them into {REJECTS} with --max_bad_rows={bad_rows}, which goes on from what was counted"
        what = advice(bad, bad_rows / source.rows, source.columns, skipping)
        raise InputError(f"{source.names} has {bad_rows} bad rows, {allowed} are allowed: {shown}{more}. {what}")
    if not rows["train" if "train" in source.bounds else "test"]:
        raise InputError(f"{source.names} has no good row to train on: mend the bad ones")
    if source.columns.weight:
        _refuse_no_weight(source, journal, rows)
    if source.sampled:
        _negatives(source, journal)  # a mistake is found before more is done
    return bad


def _refuse_no_weight(source: Source, journal: Journal, rows: dict[str, int]) -> None:
    weights = dict.fromkeys(rows, 0.0)
    for number, piece in enumerate(source.pieces):
        weights[piece.part] += float(journal.load("count", number, "weights")[0])
    for part, count in rows.items():
        if count and not weights[part]:
            raise InputError(
                f"{source.names}: all {count} {part} rows have a weight of 0 in column {source.columns.weight}, so "
                f"none of them counts: mend it, or leave weight out of the schema"
            )


def _negatives(source: Source, journal: Journal) -> Negatives:
    training = [number for number, piece in enumerate(source.pieces) if piece.part == "train"]
    counts = [journal.load("count", number, "negatives")[0] for number in training]
    return negatives_of(counts, source.sampled["share"])


def _forget_too_few_bad_rows(journal: Journal, pieces: int, wanted: int) -> None:
    """Of a run that allowed fewer bad rows, pieces may have kept too few of theirs."""
    for number in set(range(pieces)) - set(journal.missing("count", pieces)):
        bad_rows, kept = journal.load("count", number, "bad_rows", "bad")
        if len(bad_rows_of(kept)) < min(int(bad_rows), wanted):
            journal.forget("count", number)


def _counted(source: Source, journal: Journal) -> dict[str, Any]:
    """Negative numbers, and values of lists that are left out, of all rows: of the columns that have any, by name; and
    what became of training rows without a click, if not all are kept."""
    found: dict[str, Any] = {"negatives": _negatives(source, journal)} if source.sampled else {}
    columns = {"negative": source.columns.dense, "dropped": [one.name for one in source.columns.lists]}
    for name, of_columns in columns.items():
        of_pieces = [journal.load("count", number, name)[0] for number in range(len(source.pieces))]
        totals = np.sum(of_pieces, axis=0).tolist()
        found[name] = {column: total for column, total in zip(of_columns, totals) if total}
    return found


def shared_keys(source: Source, journal: Journal) -> dict[str, int]:
    """How many keys several counted values have, of the tables with hashed keys."""
    tables = Layout.of(source.columns).of_tables(source.columns.categorical)
    found = [int(shared) for (shared,) in loaded(journal, "merge", groups_of(len(tables)), "shared")]
    return {name: shared for name, shared in zip(tables, found) if shared >= 0}


def _warn_of_unmatched(source: Source, encoder: Encoder, manifest: Manifest, trained: Manifest | None) -> None:
    """Tell of values that lists leave out, and of fields with far more unseen values than usual, an example each."""
    if line := warning_of_dropped("all rows", manifest.dropped, dict(zip(manifest.fields, manifest.layout.sizes))):
        warn(line)
    for name in manifest.parts:
        found = unmatched_of(manifest, name, trained) if name != "train" else []
        if not found:
            continue
        spans = next(piece for piece in source.pieces if piece.part == name).spans
        cells = first_categories(spans[:1], source.columns, _SAMPLE_BYTES)
        told = [_with_example(one, encoder, cells[encoder.fields.index(one.field)]) for one in found]
        warn(warning(f"{name} part", told))


def _with_example(one: Unmatched, encoder: Encoder, cells: Sequence[str]) -> Unmatched:
    field, vocabulary = encoder.fields.index(one.field), encoder.vocabulary
    keys = keys_of(cells, vocabulary.key_seed)
    ids = vocabulary.ids_of(field, keys)
    unseen = np.flatnonzero(ids == UNSEEN).tolist()
    known = encoder.examples[field].known
    return replace(one, unseen=cells[unseen[0]] if unseen else None, known=known[0] if known else None)


def _put_in_place(new: Path, folder: Path, manifest: Manifest) -> None:
    """Replace an earlier data folder's files by the new ones, the manifest last; nothing else there is touched.

    Who is killed here does it again: what is not among the new files any more stands in its place.
    """
    (folder / MANIFEST).unlink(missing_ok=True)
    happens("an earlier data folder is to be replaced")
    names = {file.name for file in manifest.files}
    old = [path for part in PARTS for path in (folder / part).glob("part-*.mindrecord*")]
    for path in [folder / VOCABULARY, folder / COUNTS, folder / REJECTS, *old]:
        if path.relative_to(folder).as_posix() not in names:
            path.unlink(missing_ok=True)
    for name in names:
        if (new / name).exists():
            (folder / name).parent.mkdir(exist_ok=True)
            (new / name).rename(folder / name)
            happens("a new file is in its place")
    for place in {folder, *((folder / name).parent for name in names)}:
        flush(place)  # else a power cut might leave the manifest alone
    (new / MANIFEST).rename(folder / MANIFEST)
    flush(folder)


def manifest_of(
    folder: Path,
    source: Source,
    columns: Columns,
    options: dict[str, Any],
    encoder: Encoder,
    shards: Shards,
    bad_rows: int,
) -> Manifest:
    """The manifest of what lies in the folder; columns are those that the user gave."""
    names = [name for name in (VOCABULARY, COUNTS, REJECTS) if (folder / name).is_file()]
    parts = {part: _part(source.bounds[part], of_part) for part, of_part in shards.items()}
    return Manifest(
        source.columns.dense,
        source.columns.categorical,
        encoder.table_rows,
        {name: part for name, part in parts.items() if part},
        (*(File.of(folder, folder / name) for name in names),
         *(file for of_part in shards.values() for shard in of_part for file in shard.files)),
        bad_rows,
        {"names": [raw.name for raw in source.raws], "lines": source.rows, "columns": raw_format(columns)},
        options,
        encoder.inputs,
        encoder.fields,
        layout=encoder.layout,
    )  # fmt: skip


def _part(bounds: tuple[int, int], shards: list[Shard]) -> Part | None:
    rows = sum(shard.rows for shard in shards)
    if not rows:
        return None
    unseen, values = (np.sum([getattr(shard, name) for shard in shards], axis=0) for name in ("unseen", "values"))
    return Part(
        rows,
        bounds[0] + 1,
        bounds[1],
        sum(shard.clicks for shard in shards) / sum(shard.weight for shard in shards),
        tuple((unseen / np.maximum(values, 1)).tolist()),
        tuple(shard.files[0].name for shard in shards if shard.rows),
        tuple(shard.rows for shard in shards if shard.rows),
    )
