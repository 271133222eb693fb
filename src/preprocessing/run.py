"""A preprocessing run: from raw files to a data folder, in pieces that a killed run need not do again."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from src.base.errors import InputError
from src.base.events import happens
from src.data import records
from src.data.encoder import Encoder
from src.data.lines import BadRow, Columns
from src.data.manifest import MANIFEST, PARTS, VOCABULARY, DataFolder, File, Manifest, Part, raw_format
from src.data.raw_files import REJECTS, RawInput, fingerprint, write_rejects
from src.preprocessing.journal import UNPACKED, Journal, Work, hold_output
from src.preprocessing.learning import learn_encoder, load_known
from src.preprocessing.options import PreprocessingSpec
from src.preprocessing.source import Source, find_rows
from src.preprocessing.steps import (
    Coding,
    Scattered,
    Shard,
    bad_rows_of,
    count_span,
    encode_span,
    gather_bucket,
    scatter_span,
)

_SHOWN_BAD_ROWS = 3
Shards = dict[str, list[Shard]]  # of each part


def preprocess(
    raws: Sequence[Path], folder: Path, columns: Columns, options: PreprocessingSpec, overwrite: bool = False
) -> DataFolder:
    """Make a data folder of raw files: count, merge, encode, and the manifest last.

    Args:
        raws: the raw files, in order of time; .gz and .xz are unpacked.
        folder: the data folder to write.
        columns: what the lines hold.
        options: how.
        overwrite: whether a data folder in that place is replaced.

    Raises:
        InputError: no rows, fewer than asked for, more bad ones than allowed, a vocabulary that does not fit, a data
            folder in the place of the new one, or another run at work there.
    """
    with hold_output(folder):
        _refuse_finished(folder, overwrite)  # once it is held, for another run may have ended just before
        _refuse_empty(raws)
        given = [fingerprint(raw) for raw in raws]
        known = load_known(options.vocab_path, columns)
        # A mistake is found before the results of an earlier run are given up.
        source = find_rows(RawInput(raws, columns, folder / UNPACKED), options, all_test=known is not None)
        journal = Journal(folder, {"raw": given, **asdict(columns), **asdict(options)})
        bad = count(source, journal, options)
        _make_room(folder, journal)  # only now, so that a refused input leaves an earlier data folder whole
        encoder = known or learn_encoder(source, journal, options)
        encoder.save(folder / VOCABULARY)
        if bad:
            write_rejects(folder / REJECTS, bad)
        shards = code(source, journal, encoder, folder, options)
        if [fingerprint(raw) for raw in raws] != given:
            raise InputError(f"{source.names} changed while it was read: start again when it is whole")
        manifest = manifest_of(folder, source, columns, options, encoder, shards, len(bad))
        happens("the manifest is to be written")
        manifest.save(folder)
        happens("the manifest is written")
        journal.close()
    return DataFolder(folder, manifest)


def _refuse_finished(folder: Path, overwrite: bool) -> None:
    if (folder / MANIFEST).exists() and not overwrite:
        raise InputError(
            f"output {folder} already holds preprocessed data: name another --output_path, or replace it with "
            f"--overwrite=True"
        )


def _refuse_empty(raws: Sequence[Path]) -> None:
    for raw in raws:
        if raw.stat().st_size == 0:
            raise InputError(f"{raw} is empty: it must hold lines of raw text")


def count(source: Source, journal: Journal, options: PreprocessingSpec) -> list[BadRow]:
    """Count all rows; the bad lines, of which no more than max_bad_rows may be."""
    allowed = options.max_bad_rows
    work = [Work(count_span, (piece.span,), piece.span.rows) for piece in source.pieces]
    shared = source.columns, allowed + _SHOWN_BAD_ROWS, options.learns_from_numbers
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
        journal.close()
        shown = "; ".join(str(row) for row in bad[:_SHOWN_BAD_ROWS])
        more = "; ..." if bad_rows > _SHOWN_BAD_ROWS else ""
        raise InputError(
            f"{source.names} has {bad_rows} bad rows, {allowed} are allowed: {shown}{more}. Mend "
            f"them, or skip them into {REJECTS} with --max_bad_rows={bad_rows}"
        )
    if not rows["train" if "train" in source.bounds else "test"]:
        raise InputError(f"{source.names} has no good row to train on: mend the bad ones")
    return bad


def _make_room(folder: Path, journal: Journal) -> None:
    """Remove files of an earlier data folder, but those that this plan's journal knows; nothing else is touched."""
    if (folder / MANIFEST).exists():
        journal.forget("encode")  # of a run that was killed just before it would have ended
        (folder / MANIFEST).unlink()  # from here on the folder is not valid
    if journal.any("encode"):
        return
    for name in (VOCABULARY, REJECTS):
        (folder / name).unlink(missing_ok=True)
    for part in PARTS:
        for path in (folder / part).glob("part-*.mindrecord*"):
            path.unlink()


def code(source: Source, journal: Journal, encoder: Encoder, folder: Path, options: PreprocessingSpec) -> Shards:
    """Code all rows to MindRecord files, those of training in random order if the options say so."""
    for part in source.bounds:
        (folder / part).mkdir(exist_ok=True)
    shuffled = "train" if options.shuffle_rows else None
    mixed = [piece for piece in source.pieces if piece.part == shuffled]
    scattered = tuple(
        Scattered(journal.folder / f"scattered-{number:05d}.npy", journal.path("scatter", number))
        for number in range(len(mixed))
    )
    coding = Coding(source.columns, encoder, folder, options.record_rows, options.seed, scattered)
    if journal.missing("encode", len(source.pieces)):
        encoder.prepare()
        records.prepare()
    scatter = [Work(scatter_span, (piece.span, number), piece.span.rows) for number, piece in enumerate(mixed)]
    journal.finish("scatter", scatter, "rows", coding)
    work = []
    for piece in source.pieces:
        path = folder / piece.part / f"part-{piece.number:05d}.mindrecord"
        if piece.part == shuffled:
            work.append(Work(gather_bucket, (piece.number, path), piece.span.rows))
        else:
            work.append(Work(encode_span, (piece.span, path), piece.span.rows))
    journal.finish("encode", work, "rows", coding)
    shards: Shards = {part: [] for part in source.bounds}
    for number, piece in enumerate(source.pieces):
        shards[piece.part].append(Shard.of(journal.load("encode", number, "shard")[0]))
    return shards


def manifest_of(
    folder: Path,
    source: Source,
    columns: Columns,
    options: PreprocessingSpec,
    encoder: Encoder,
    shards: Shards,
    bad_rows: int,
) -> Manifest:
    """The manifest of what lies in the folder; columns are those that the user gave."""
    names = [name for name in (VOCABULARY, REJECTS) if (folder / name).is_file()]
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
        asdict(options) | {"vocab_path": Path(options.vocab_path).name},
        encoder.inputs,
        encoder.fields,
    )  # fmt: skip


def _part(bounds: tuple[int, int], shards: list[Shard]) -> Part | None:
    rows = sum(shard.rows for shard in shards)
    if not rows:
        return None
    unseen = np.sum([shard.unseen for shard in shards], axis=0) / rows
    return Part(
        rows,
        bounds[0] + 1,
        bounds[1],
        sum(shard.clicks for shard in shards) / rows,
        tuple(unseen.tolist()),
        tuple(shard.files[0].name for shard in shards if shard.rows),
        tuple(shard.rows for shard in shards if shard.rows),
    )
