"""Raw text to MindRecord: `python src/preprocess_data.py --data_path=./data/`.

Three steps, each a pure function over spans of lines, so that any number of processes can share them:
count the categories of a span, merge counts to a vocabulary, encode a span to a MindRecord file.
The split is chronological: the last seventh of the lines is validation and test, everything before it is training.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from mindspore.mindrecord import FileWriter
from tqdm import tqdm

from src import records
from src.criteo import BadRow, Columns, LineIndex, Span, read_span
from src.errors import InputError, run
from src.manifest import MANIFEST, PARTS, VOCABULARY, DataFolder, File, Manifest, Part
from src.model_utils.config import resolve
from src.vocabulary import UNSEEN, Counts, Vocabulary, count, merge

REJECTS = "rejected_rows.txt"
_SHOWN_BAD_ROWS = 3
_MERGED_AT_ONCE = 8
_PAGE_BYTES = 4 << 20
_HEADER_BYTES = 1 << 20


@dataclass(frozen=True)
class SpanCounts:
    """What counting a span found: rows that can be used, each field's categories, and the bad lines."""

    rows: int
    counts: list[Counts]
    bad: list[BadRow]
    bad_rows: int


def count_span(span: Span, columns: Columns, keep_bad: int) -> SpanCounts:
    """Count the categories of a span of lines; of its bad lines at most keep_bad are returned."""
    blocks = list(read_span(span, columns))
    bad = [row for block in blocks for row in block.bad]
    counts = count(np.concatenate([block.keys for block in blocks], axis=1))
    return SpanCounts(sum(len(block.labels) for block in blocks), counts, bad[:keep_bad], len(bad))


@dataclass(frozen=True)
class Shard:
    """What encoding a span gave: the files, and the sums that the manifest's means are made of."""

    files: tuple[File, File]
    rows: int
    clicks: int
    unseen: np.ndarray  # [F]


def encode_span(
    span: Span, path: Path, columns: Columns, vocabulary: Vocabulary, folder: Path, record_rows: int
) -> Shard:
    """Encode a span of lines to one MindRecord file at `path`, below `folder`; rows keep their order."""
    blocks = list(read_span(span, columns))
    labels = np.concatenate([block.labels for block in blocks])
    dense = np.concatenate([block.dense for block in blocks])
    ids = vocabulary.encode(np.concatenate([block.keys for block in blocks], axis=1))
    packed = [
        {
            records.COLUMN: records.pack(
                dense[i : i + record_rows], ids[i : i + record_rows], labels[i : i + record_rows]
            )
        }
        for i in range(0, len(labels), record_rows)
    ]
    write_records(path, packed)
    files = File.of(folder, path), File.of(folder, path.with_name(path.name + ".db"))
    return Shard(files, len(labels), int(labels.sum()), (ids == UNSEEN).sum(axis=0))


def write_records(path: Path, packed: list[dict[str, bytes]]) -> None:
    """Write records to one MindRecord file and its index file."""
    writer = FileWriter(str(path), shard_num=1, overwrite=True)
    writer.set_header_size(_HEADER_BYTES)
    # Files are made of whole pages, and records of parts of one: the default of 32 MiB pads a small file to 50 MB.
    largest = max(len(record[records.COLUMN]) for record in packed)
    writer.set_page_size(_PAGE_BYTES * (1 + 2 * largest // _PAGE_BYTES))
    writer.add_schema(records.SCHEMA, "packed rows of a click log")
    writer.write_raw_data(packed)
    writer.commit()
    for written in (path, path.with_name(path.name + ".db")):
        written.chmod(0o644)  # MindRecord leaves them to their owner alone


def split(rows: int, valid_fraction: float) -> dict[str, tuple[int, int]]:
    """First and behind-the-last row of each part that has rows: train is what comes before the last seventh."""
    last_seventh = rows // 7
    train = rows - last_seventh
    valid = int(last_seventh * valid_fraction + 0.5)
    bounds = {"train": (0, train), "valid": (train, train + valid), "test": (train + valid, rows)}
    return {part: (first, last) for part, (first, last) in bounds.items() if last > first}


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


def preprocess(
    raw: Path, folder: Path, columns: Columns, *, train_line_count: int = 0, overwrite: bool = False, **options: Any
) -> DataFolder:
    """Run the three steps over a raw file and write the data folder, the manifest last.

    Args:
        raw: the raw text.
        folder: the data folder to write.
        columns: what the lines hold.
        train_line_count: lines to read, 0 for all.
        overwrite: whether a data folder in that place is replaced.
        options: valid_fraction, min_count, vocab_scope, max_bad_rows, record_rows and shard_rows, as in Config.

    Raises:
        InputError: an empty raw file, fewer lines than asked for, more bad rows than allowed, or a data folder in the
            place of the new one.
    """
    index = LineIndex(raw)
    rows = _rows_to_read(index, train_line_count)
    _make_room(folder, overwrite)
    bounds = split(rows, options["valid_fraction"])
    spans = {part: index.spans(first, last, options["shard_rows"]) for part, (first, last) in bounds.items()}
    print(
        f"{raw}: {rows} rows; " + ", ".join(f"{part} lines {a + 1}-{b}" for part, (a, b) in bounds.items()), flush=True
    )

    vocabulary, bad, bad_rows = _fit(
        raw, columns, spans, options["min_count"], options["vocab_scope"], options["max_bad_rows"]
    )
    vocabulary.save(folder / VOCABULARY)
    if bad:
        _write_rejects(folder / REJECTS, bad)
    files = [File.of(folder, folder / name) for name in (VOCABULARY, REJECTS) if (folder / name).is_file()]
    shards = _encode(columns, spans, vocabulary, folder, options["record_rows"])
    if (size := raw.stat().st_size) != index.size:
        raise InputError(
            f"{raw} changed from {index.size} to {size} bytes while it was read: start again when it is whole"
        )
    manifest = Manifest(
        columns.dense,
        columns.categorical,
        vocabulary.table_rows,
        {part: made for part in bounds if (made := _part(bounds[part], shards[part]))},
        (*files, *(file for part in shards.values() for shard in part for file in shard.files)),
        bad_rows,
        {"name": raw.name, "bytes": index.size, "lines": rows},
        options,
    )
    manifest.save(folder)
    return DataFolder(folder, manifest)


def _make_room(folder: Path, overwrite: bool) -> None:
    """Make the folder, without the files of an earlier or unfinished run; nothing else in it is touched."""
    if (folder / MANIFEST).exists() and not overwrite:
        raise InputError(
            f"output {folder} already holds preprocessed data: name another --output_path, "
            f"or replace it with --overwrite=True"
        )
    for name in (MANIFEST, VOCABULARY, REJECTS):  # the manifest first: from here on the folder is not valid
        (folder / name).unlink(missing_ok=True)
    for part in PARTS:
        for path in (folder / part).glob("part-*.mindrecord*"):
            path.unlink()
    folder.mkdir(parents=True, exist_ok=True)


def _rows_to_read(index: LineIndex, wanted: int) -> int:
    if index.rows == 0:
        raise InputError(f"{index.path} is empty: it must hold lines of raw text")
    if wanted > index.rows:
        raise InputError(
            f"train_line_count is {wanted}, but {index.path} has {index.rows} lines: give at most that, or "
            f"leave the option away to read all"
        )
    return wanted or index.rows


def _fit(
    raw: Path, columns: Columns, spans: dict[str, list[Span]], min_count: int, vocab_scope: str, max_bad_rows: int
) -> tuple[Vocabulary, list[BadRow], int]:
    """The vocabulary, and the bad lines, of which no more than max_bad_rows may be."""
    parts = [part for part in spans for _ in spans[part]]
    results = _parallel(
        "counting",
        count_span,
        [(span,) for part in spans for span in spans[part]],
        (columns, max_bad_rows + _SHOWN_BAD_ROWS),
    )
    bad: list[BadRow] = []
    bad_rows, train_rows = 0, 0
    pending: list[list[Counts]] = []
    for result, part in zip(results, parts):
        bad, bad_rows = bad + result.bad, bad_rows + result.bad_rows
        train_rows += result.rows if part == "train" else 0
        if part == "train" or vocab_scope == "all":
            pending.append(result.counts)
        if len(pending) == _MERGED_AT_ONCE:  # so that what waits stays of the size of the vocabulary
            pending = [_merge_fields(pending)]
    if bad_rows > max_bad_rows:
        shown = "; ".join(str(row) for row in bad[:_SHOWN_BAD_ROWS])
        more = "; ..." if bad_rows > _SHOWN_BAD_ROWS else ""
        raise InputError(
            f"{raw} has {bad_rows} bad rows, {max_bad_rows} are allowed: {shown}{more}. Mend them, or "
            f"skip them into {REJECTS} with --max_bad_rows={bad_rows}"
        )
    if not train_rows:
        raise InputError(f"{raw} has no good row to train on: mend the bad ones")
    return Vocabulary.fit(columns.categorical, _merge_fields(pending), min_count), bad, bad_rows


def _merge_fields(pending: list[list[Counts]]) -> list[Counts]:
    return [merge(field_counts) for field_counts in zip(*pending)]


def _encode(
    columns: Columns, spans: dict[str, list[Span]], vocabulary: Vocabulary, folder: Path, record_rows: int
) -> dict[str, list[Shard]]:
    """Write each part's shards."""
    for part in spans:
        (folder / part).mkdir(exist_ok=True)
    work = [
        (span, folder / part / f"part-{number:05d}.mindrecord")
        for part in spans
        for number, span in enumerate(spans[part])
    ]
    vocabulary.prepare()
    results = list(_parallel("encoding", encode_span, work, (columns, vocabulary, folder, record_rows)))
    ends = np.cumsum([len(spans[part]) for part in spans]).tolist()
    return {part: results[end - len(spans[part]) : end] for part, end in zip(spans, ends)}


_shared: tuple[Any, ...] = ()


def _share(values: tuple[Any, ...]) -> None:
    global _shared
    _shared = values


def _call(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    return function(*arguments, *_shared)


def _parallel(
    what: str, function: Callable[..., Any], work: Sequence[tuple[Any, ...]], shared: tuple[Any, ...]
) -> Iterator[Any]:
    """The results of function(*arguments, *shared) in the order of the work, from a process a core.

    The first of the arguments is a span. Processes are forked, so `shared` costs no copy.
    """
    start = time.perf_counter()
    workers = min(len(os.sched_getaffinity(0)), len(work))
    rows = sum(arguments[0].rows for arguments in work)
    with (
        ProcessPoolExecutor(workers, get_context("fork"), _share, (shared,)) as pool,
        tqdm(total=rows, unit=" rows", unit_scale=True, desc=what, disable=None) as bar,
    ):
        futures = [pool.submit(_call, function, arguments) for arguments in work]
        try:
            for future, arguments in zip(futures, work):
                yield future.result()
                bar.update(arguments[0].rows)
        finally:
            for future in futures:
                future.cancel()
    print(f"{what}: {rows} rows, {rows / (time.perf_counter() - start):.0f} rows/s", flush=True)


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


def main(argv: Sequence[str]) -> None:
    """Preprocess as the command line says."""
    config = resolve("preprocess", argv)
    options = {
        name: getattr(config, name)
        for name in ("valid_fraction", "min_count", "vocab_scope", "max_bad_rows", "record_rows", "shard_rows")
    }
    data = preprocess(
        find_raw(config.data_path),
        output_folder(config.data_path, config.output_path),
        Columns.numbered(config.dense_dim, config.slot_dim),
        train_line_count=config.train_line_count,
        overwrite=config.overwrite,
        **options,
    )
    print(report(data))


if __name__ == "__main__":
    run(main)
