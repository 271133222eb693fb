"""The steps from raw text to MindRecord, each a pure function over a part of the work.

    count_span      a span of lines             ->  each column's values and how often they occur, bad lines
    merge_field     counts of all spans         ->  one field's keys in the order of their ids
    merge_column    counts of all spans         ->  one numeric column's values
    encode_span     a span, the encoder         ->  a MindRecord file
    scatter_span    a span, the encoder         ->  coded rows, dealt at random to buckets
    gather_bucket   a bucket of all spans       ->  a MindRecord file of shuffled rows

What a step gives depends on its arguments alone, so any number of processes or machines can share the work, and what
was finished before a crash need not be done again.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from src.base.npz import Arrays
from src.data import numeric, records
from src.data.encoder import Encoder
from src.data.lines import BadRow, Columns
from src.data.manifest import File
from src.data.raw_files import Span, read_span
from src.data.vocabulary import UNSEEN, Counts, count, merge, ordered

_MERGED_AT_ONCE = 32


def count_span(span: Span, columns: Columns, keep_bad: int, numbers: bool = False) -> Arrays:
    """Count the categories of a span of lines, and the numbers if asked for.

    Returns:
        rows: lines that can be used. keys_0, counts_0, ...: each field's distinct keys and how often they occur.
        values_0, values_counts_0, ...: each numeric column's summary.
        bad_rows: lines that can't be used; bad: the first keep_bad of them, as JSON.
    """
    keys, bad, of_numbers = [], [], []
    for block in read_span(span, columns):
        keys.append(block.keys)
        of_numbers += [block.numbers] if numbers else []
        bad += block.bad
    joined = np.concatenate(keys, axis=1)
    kept = [(row.line, row.reason, row.text.decode("latin-1"), row.file) for row in bad[:keep_bad]]
    arrays = {"rows": np.array(joined.shape[1]), "bad_rows": np.array(len(bad)), "bad": _from_json(kept)}
    for field, (distinct, counts) in enumerate(count(joined)):
        arrays |= {f"keys_{field}": distinct, f"counts_{field}": counts}
    for column, values in enumerate(np.concatenate(of_numbers).T if numbers else ()):
        distinct, counts = numeric.summarise(values)
        arrays |= {f"values_{column}": distinct, f"values_counts_{column}": counts}
    return arrays


def bad_rows_of(bad: np.ndarray) -> list[BadRow]:
    """The bad lines that `count_span` kept."""
    return [BadRow(line, why, text.encode("latin-1"), file) for line, why, text, file in _to_json(bad)]


def merge_field(field: int, min_count: int, counted: Sequence[Path], max_rows: int = 0) -> Arrays:
    """One field's vocabulary from the files of `count_span`'s arrays: its keys in the order of their ids, and counts.

    With max_rows, its table gets at most so many rows, the one for unseen values among them.
    """
    keys, counts = ordered(*_merged(f"keys_{field}", f"counts_{field}", merge, counted), min_count)
    kept = slice(max_rows - 1 if max_rows else None)
    return {"keys": keys[kept], "counts": counts[kept]}


def merge_column(column: int, counted: Sequence[Path]) -> Arrays:
    """One numeric column's summary from the files of `count_span`'s arrays."""
    values, counts = _merged(f"values_{column}", f"values_counts_{column}", numeric.merge, counted)
    return {"values": values, "counts": counts}


def _merged(
    values: str, counts: str, merge_parts: Callable[[Sequence[Counts]], Counts], counted: Sequence[Path]
) -> Counts:
    """What the files hold under two names, merged."""
    pending: list[Counts] = []
    for path in counted:
        with np.load(path) as arrays:
            pending.append((arrays[values], arrays[counts]))
        if len(pending) == _MERGED_AT_ONCE:  # so that what waits stays of the size of the result
            pending = [merge_parts(pending)]
    return merge_parts(pending)


@dataclass(frozen=True)
class Shard:
    """What encoding a span gave: the MindRecord file, its index, and sums for the manifest's means."""

    files: tuple[File, File]
    rows: int
    clicks: int
    unseen: tuple[int, ...]  # of each field

    @classmethod
    def of(cls, shard: np.ndarray) -> "Shard":
        """What `encode_span` returned."""
        content = _to_json(shard)
        files = (File(**content["files"][0]), File(**content["files"][1]))
        return cls(files, content["rows"], content["clicks"], tuple(content["unseen"]))


class Scattered(NamedTuple):
    """Where `scatter_span` leaves a span's rows: a .npy file, and an .npz file of what it returns."""

    rows: Path
    bounds: Path


@dataclass(frozen=True)
class Coding:
    """What all pieces of coded rows have in common.

    Attributes:
        columns: of the raw files.
        encoder: codes the rows.
        folder: the data folder; shards lie below it.
        record_rows: rows in a MindRecord record.
        seed: of shuffling.
        scattered: the spans whose rows are shuffled, which make as many buckets.
    """

    columns: Columns
    encoder: Encoder
    folder: Path
    record_rows: int
    seed: int = 0
    scattered: tuple[Scattered, ...] = ()


def encode_span(span: Span, path: Path, coding: Coding) -> Arrays:
    """Encode a span of lines to one MindRecord file at `path`, below the data folder; rows keep their order.

    Returns:
        shard: a `Shard`, as JSON.
    """
    packed: list[bytes] = []
    rest: tuple[np.ndarray, ...] = ()
    rows, clicks = 0, 0
    unseen = np.zeros(len(coding.encoder.fields), np.int64)
    for block in read_span(span, coding.columns):
        dense, ids = coding.encoder.encode(block)
        rows += len(ids)
        clicks += int(block.labels.sum())
        unseen += (ids == UNSEEN).sum(axis=0)
        arrays: tuple[np.ndarray, ...] = (dense, ids, block.labels)
        if rest:
            arrays = tuple(np.concatenate(pair) for pair in zip(rest, arrays))
        whole = len(arrays[0]) // coding.record_rows * coding.record_rows
        packed += _pack(tuple(array[:whole] for array in arrays), coding.record_rows)
        rest = tuple(array[whole:] for array in arrays)
    packed += _pack(rest, coding.record_rows) if rest else []
    return _shard(path, coding.folder, packed, rows, clicks, unseen)


def scatter_span(span: Span, number: int, coding: Coding) -> Arrays:
    """The first half of shuffling in fixed memory: deal the coded rows of span `number` at random to buckets.

    The rows go to the span's .npy file, uint8 [rows, bytes of a row], those of a bucket side by side.

    Returns:
        bounds: [buckets + 1], where each bucket's rows begin in the file.
    """
    rows, buckets = [], len(coding.scattered)
    for block in read_span(span, coding.columns):
        dense, ids = coding.encoder.encode(block)
        rows.append(np.concatenate([dense.view(np.uint8), ids.view(np.uint8), block.labels[:, None]], axis=1))
    joined = np.concatenate(rows)
    bucket = np.random.default_rng([coding.seed, number]).integers(0, buckets, len(joined))
    np.save(coding.scattered[number].rows, joined[np.argsort(bucket, kind="stable")])
    return {"bounds": np.concatenate(([0], np.cumsum(np.bincount(bucket, minlength=buckets))))}


def gather_bucket(bucket: int, path: Path, coding: Coding) -> Arrays:
    """The second half: a bucket's rows of all spans, in random order, as a shard; returns what `encode_span` does."""
    rows = []
    for scattered in coding.scattered:
        with np.load(scattered.bounds) as arrays:
            low, high = arrays["bounds"][bucket : bucket + 2]
        rows.append(np.load(scattered.rows, mmap_mode="r")[low:high])
    joined = np.concatenate(rows)
    joined = joined[np.random.default_rng([coding.seed, len(coding.scattered), bucket]).permutation(len(joined))]
    ids_start = 4 * len(coding.encoder.inputs)
    dense = np.ascontiguousarray(joined[:, :ids_start]).view("<f4")
    ids = np.ascontiguousarray(joined[:, ids_start:-1]).view("<i4")
    packed = _pack((dense, ids, joined[:, -1]), coding.record_rows)
    return _shard(path, coding.folder, packed, len(joined), int(joined[:, -1].sum()), (ids == UNSEEN).sum(axis=0))


def _pack(arrays: tuple[np.ndarray, ...], record_rows: int) -> list[bytes]:
    """Records of dense, ids and labels."""
    return [
        records.pack(*(array[start : start + record_rows] for array in arrays))
        for start in range(0, len(arrays[0]), record_rows)
    ]


def _shard(path: Path, folder: Path, packed: list[bytes], rows: int, clicks: int, unseen: np.ndarray) -> Arrays:
    records.write(path, packed)
    files = File.of(folder, path), File.of(folder, path.with_name(path.name + ".db"))
    return {"shard": _from_json(asdict(Shard(files, rows, clicks, tuple(unseen.tolist()))))}


def _from_json(value: Any) -> np.ndarray:
    return np.frombuffer(json.dumps(value).encode(), np.uint8)


def _to_json(array: np.ndarray) -> Any:
    return json.loads(array.tobytes())
