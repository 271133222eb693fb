"""Raw text to MindRecord: `python src/preprocess_data.py --data_path=./data/`.

The split is chronological: the last seventh of the lines is validation and test, everything before it is training.
A run that was killed goes on from the pieces that it had finished.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from src.criteo import BadRow, Columns, LineIndex, Span
from src.errors import InputError, run
from src.journal import Journal, record
from src.manifest import MANIFEST, PARTS, VOCABULARY, DataFolder, File, Manifest, Part
from src.model_utils.config import resolve
from src.parallel import run_parallel
from src.preprocess_steps import Shard, bad_rows_of, count_span, encode_span, merge_field, split
from src.vocabulary import Vocabulary

REJECTS = "rejected_rows.txt"
_SHOWN_BAD_ROWS = 3


@dataclass(frozen=True)
class Options:
    """How rows are split, coded and packed; the options of the same names."""

    valid_fraction: float = 0.5
    min_count: int = 1
    vocab_scope: str = "train"
    max_bad_rows: int = 0
    record_rows: int = 512
    shard_rows: int = 262_144


def preprocess(
    raw: Path, folder: Path, columns: Columns, options: Options, *, train_line_count: int = 0, overwrite: bool = False
) -> DataFolder:
    """Make a data folder of a raw file: count, merge, encode, and the manifest last.

    Args:
        raw: the raw text.
        folder: the data folder to write.
        columns: what the lines hold.
        options: how.
        train_line_count: lines to read, 0 for all.
        overwrite: whether a data folder in that place is replaced.

    Raises:
        InputError: an empty raw file, fewer lines than asked for, more bad rows than allowed, or a data folder in the
            place of the new one.
    """
    index = LineIndex(raw)
    rows = _rows_to_read(index, train_line_count)
    changed_ns = raw.stat().st_mtime_ns
    plan = {"raw": [str(raw.resolve()), index.size, changed_ns, rows], **asdict(columns), **asdict(options)}
    journal = _start(folder, overwrite, plan)
    bounds = split(rows, options.valid_fraction)
    spans = [
        (part, number, span)
        for part, (first, last) in bounds.items()
        for number, span in enumerate(index.spans(first, last, options.shard_rows))
    ]
    print(
        f"{raw}: {rows} rows; " + ", ".join(f"{part} lines {a + 1}-{b}" for part, (a, b) in bounds.items()), flush=True
    )

    bad, bad_rows = _count(journal, spans, columns, options, raw)
    _make_room(folder, journal)  # only now, so that a refused input leaves an earlier data folder whole
    vocabulary = _merge(journal, spans, columns, options)
    vocabulary.save(folder / VOCABULARY)
    if bad:
        _write_rejects(folder / REJECTS, bad)
    shards = _encode(journal, spans, columns, vocabulary, folder, options.record_rows)
    if (raw.stat().st_size, raw.stat().st_mtime_ns) != (index.size, changed_ns):
        raise InputError(f"{raw} changed while it was read: start again when it is whole")
    files = [File.of(folder, folder / name) for name in (VOCABULARY, REJECTS) if (folder / name).is_file()]
    parts = {
        part: _part(bounds[part], [shard for shard, span in zip(shards, spans) if span[0] == part]) for part in bounds
    }
    manifest = Manifest(
        columns.dense,
        columns.categorical,
        vocabulary.table_rows,
        {name: part for name, part in parts.items() if part},
        (*files, *(file for shard in shards for file in shard.files)),
        bad_rows,
        {"name": raw.name, "bytes": index.size, "lines": rows},
        asdict(options),
    )
    manifest.save(folder)
    journal.close()
    return DataFolder(folder, manifest)


def _rows_to_read(index: LineIndex, wanted: int) -> int:
    if index.rows == 0:
        raise InputError(f"{index.path} is empty: it must hold lines of raw text")
    if wanted > index.rows:
        raise InputError(
            f"train_line_count is {wanted}, but {index.path} has {index.rows} lines: give at most that, or "
            f"leave the option away to read all"
        )
    return wanted or index.rows


def _start(folder: Path, overwrite: bool, plan: dict[str, Any]) -> Journal:
    """Make the folder and the journal of this plan."""
    if (folder / MANIFEST).exists() and not overwrite:
        raise InputError(
            f"output {folder} already holds preprocessed data: name another --output_path, or replace it with "
            f"--overwrite=True"
        )
    journal = Journal(folder, plan)
    if (folder / MANIFEST).exists():
        journal.forget("encode")  # of a run killed just before it would have ended
    if journal.replaced:
        print(f"{folder} holds an unfinished run with another input or other options: starting afresh", flush=True)
    return journal


def _make_room(folder: Path, journal: Journal) -> None:
    """Remove the files of an earlier data folder, but those that this plan's journal knows; nothing else is touched."""
    (folder / MANIFEST).unlink(missing_ok=True)  # from here on the folder is not valid
    if journal.any("encode"):
        return
    for name in (VOCABULARY, REJECTS):
        (folder / name).unlink(missing_ok=True)
    for part in PARTS:
        for path in (folder / part).glob("part-*.mindrecord*"):
            path.unlink()


def _pieces(
    journal: Journal, step: str, function: Callable[..., Any], work: Sequence[tuple[Any, ...]], sizes: Sequence[int],
    unit: str, shared: tuple[Any, ...],
) -> None:  # fmt: skip
    """Do the pieces of a step that are not finished yet."""
    missing = journal.missing(step, len(work))
    if len(missing) < len(work):
        done = len(work) - len(missing)
        print(f"{step}: going on from an earlier run, {done} of {len(work)} pieces are done", flush=True)
    arguments = [(journal.path(step, number), function, *work[number]) for number in missing]
    for _ in run_parallel(step, record, arguments, [sizes[number] for number in missing], unit, shared):
        pass


def _count(
    journal: Journal, spans: Sequence[tuple[str, int, Span]], columns: Columns, options: Options, raw: Path
) -> tuple[list[BadRow], int]:
    """Count all spans; the bad lines, of which no more than max_bad_rows may be."""
    _pieces(journal, "count", count_span, [(span,) for _, _, span in spans], [span.rows for _, _, span in spans],
            "rows", (columns, options.max_bad_rows + _SHOWN_BAD_ROWS))  # fmt: skip
    bad: list[BadRow] = []
    bad_rows, train_rows = 0, 0
    for number, (part, _, _) in enumerate(spans):
        with journal.load("count", number) as arrays:
            bad_rows += int(arrays["bad_rows"])
            train_rows += int(arrays["rows"]) if part == "train" else 0
            if len(bad) <= options.max_bad_rows + _SHOWN_BAD_ROWS:
                bad += bad_rows_of(arrays)
    if bad_rows > options.max_bad_rows:
        shown = "; ".join(str(row) for row in bad[:_SHOWN_BAD_ROWS])
        more = "; ..." if bad_rows > _SHOWN_BAD_ROWS else ""
        raise InputError(
            f"{raw} has {bad_rows} bad rows, {options.max_bad_rows} are allowed: {shown}{more}. Mend them, or "
            f"skip them into {REJECTS} with --max_bad_rows={bad_rows}"
        )
    if not train_rows:
        raise InputError(f"{raw} has no good row to train on: mend the bad ones")
    return bad, bad_rows


def _merge(journal: Journal, spans: Sequence[tuple[str, int, Span]], columns: Columns, options: Options) -> Vocabulary:
    """The vocabulary of the training rows, or of all."""
    counted = [
        journal.path("count", number)
        for number, (part, _, _) in enumerate(spans)
        if part == "train" or options.vocab_scope == "all"
    ]
    fields = range(len(columns.categorical))
    _pieces(journal, "merge", merge_field, [(field,) for field in fields], [1 for _ in fields], "fields",
            (counted, options.min_count))  # fmt: skip
    return Vocabulary(columns.categorical, [journal.load("merge", field)["keys"] for field in fields])


def _encode(
    journal: Journal, spans: Sequence[tuple[str, int, Span]], columns: Columns, vocabulary: Vocabulary, folder: Path,
    record_rows: int,
) -> list[Shard]:  # fmt: skip
    """Each span's shard."""
    for part in {part for part, _, _ in spans}:
        (folder / part).mkdir(exist_ok=True)
    work = [(span, folder / part / f"part-{number:05d}.mindrecord") for part, number, span in spans]
    if journal.missing("encode", len(spans)):
        vocabulary.prepare()
    _pieces(journal, "encode", encode_span, work, [span.rows for _, _, span in spans], "rows",
            (columns, vocabulary, folder, record_rows))  # fmt: skip
    return [Shard.of(journal.load("encode", number)) for number in range(len(spans))]


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


def _write_rejects(path: Path, bad: Sequence[BadRow]) -> None:
    """The bad lines: number, reason, and the line as it stood, between tabs."""
    with path.open("wb") as file:
        for row in bad:
            file.write(f"{row.line}\t{row.reason}\t".encode() + row.text + b"\n")


def report(data: DataFolder) -> str:
    """What a person wants to know of a data folder that was just written."""
    manifest = data.manifest
    lines = [
        f"fields: {len(manifest.table_rows)}, table rows {sum(manifest.table_rows)}, by field "
        + " ".join(f"{name}:{rows}" for name, rows in zip(manifest.categorical, manifest.table_rows))
    ]
    for name, part in manifest.parts.items():
        lines.append(
            f"{name}: {part.rows} rows, label mean {part.label_mean:.5f}, "
            f"unseen values {np.mean(part.unseen_share):.2%}"
        )
    if manifest.bad_rows:
        lines.append(f"bad rows: {manifest.bad_rows} skipped, in {data.path / REJECTS}")
    return "\n".join([*lines, f"data folder: {data.path}"])


def find_raw(data_path: str) -> Path:
    """The raw file below data_path: origin_data/train.txt, train.txt, or data_path itself."""
    path = Path(data_path)
    candidates = [path / "origin_data" / "train.txt", path / "train.txt", path]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise InputError(
        f"data_path {data_path}: there is no file {candidates[0]}, {candidates[1]} or {path}: unpack the raw "
        f"text there, or make some with src/synthetic.py"
    )


def output_folder(data_path: str, output_path: str) -> Path:
    """Where the data folder goes: output_path, or else dataset below data_path or beside the raw file it names."""
    if output_path:
        return Path(output_path)
    path = Path(data_path)
    return (path.parent if path.is_file() else path) / "dataset"


def main(argv: Sequence[str]) -> None:
    """Preprocess as the command line says."""
    config = resolve("preprocess", argv)
    options = Options(config.valid_fraction, config.min_count, config.vocab_scope, config.max_bad_rows,
                      config.record_rows, config.shard_rows)  # fmt: skip
    data = preprocess(
        find_raw(config.data_path),
        output_folder(config.data_path, config.output_path),
        Columns.numbered(config.dense_dim, config.slot_dim),
        options,
        train_line_count=config.train_line_count,
        overwrite=config.overwrite,
    )
    print(report(data))


if __name__ == "__main__":
    run(main)
