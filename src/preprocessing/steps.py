"""The steps from raw text to MindRecord, each a pure function over a part of the work.

    count_rows      lines                       ->  each column's values and how often they occur, bad lines
    encode_rows     lines, the encoder          ->  a MindRecord file
    scatter_rows    lines, the encoder          ->  coded rows, dealt at random to buckets
    bundle_rows     some files of such rows     ->  one file of them
    gather_bucket   a bucket of all such rows   ->  a MindRecord file of shuffled rows

What was counted is merged by src/preprocessing/merging.py. Lines come as spans of raw files, one behind the other.

What a step gives depends on its arguments alone, so any number of processes or machines can share the work, and what
was finished before a crash need not be done again.
"""

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from src.base.errors import naming
from src.base.files import whole_file
from src.base.npz import Arrays
from src.data import numeric
from src.data.compiled import key_tables
from src.data.compiled.key_tables import Counts, count_keys, merge_counts
from src.data.growth import Watched
from src.preprocessing.merging import counts_of_fields
from src.preprocessing.shards import Coded, Coding, from_json, packed_rows, seen, sums_of, to_json, write_shard
from src.rows.block import BadRow, Block, Span
from src.rows.cells.lists import joined_lists
from src.rows.columns import Columns

_KEPT_BAD_BYTES = 1 << 20
_NO_NUMBERS = np.empty((0, 0), np.float32)  # of blocks that are kept for their categories alone
_BUNDLED = 64  # files, which are open at once
_BUNDLE_BYTES = 64 << 20  # of them in memory


def prepare(with_pandas: bool) -> None:
    """Load now what the first `count_rows` would, so that forked processes share it."""
    key_tables.prepare()
    if with_pandas:
        import pandas  # noqa: F401


def count_rows(
    spans: Sequence[Span], columns: Columns, keep_bad: int, numbers: bool = False, watched: Watched | None = None
) -> Arrays:
    """Count the categories of some lines, and the numbers if asked for.

    Returns:
        rows: lines that can be used. keys, counts, bounds, checks: of all fields, as `counts_of_fields` has them.
        late_keys_0, late_places_0, ...: of a vocabulary that is watched the `first_places` of values without a row.
        values_0, values_counts_0, ...: each numeric column's summary.
        negative: how many numbers of each numeric column are below 0.
        dropped: how many values of each column of lists are beyond those that a cell may have.
        weights: of a run with weights, the sum of the rows'.
        negatives: rows without a click and the sum of their weights, and those of the rows left out by chance.
        bad_rows: lines that can't be used; bad: the first of them as JSON, keep_bad at least.
    """
    blocks, bad, of_numbers = list[Block](), list[BadRow](), list[np.ndarray]()
    negative, weights, negatives = np.zeros(len(columns.dense), np.int64), 0.0, np.zeros(4)
    for block in _blocks(spans, replace(columns, checked=True, signs=not numbers, coded=watched is None)):
        blocks.append(replace(block, numbers=_NO_NUMBERS))
        negative += (block.numbers < 0).sum(axis=0)
        of_numbers += [block.numbers] if numbers else []
        negatives += [*block.negative_sums, *block.left_out]
        weights += 0.0 if block.weights is None else float(block.weights.sum(dtype=np.float64))
        bad += block.bad
    rows = sum(len(block.labels) for block in blocks)
    # More than asked for, where they are short: a later run may allow them, and goes on from these counts.
    short = int(np.searchsorted(np.cumsum([len(row.text) for row in bad]), _KEPT_BAD_BYTES))
    kept = [
        (row.line, row.reason, row.text.decode("latin-1"), row.file, row.unit) for row in bad[: max(keep_bad, short)]
    ]
    arrays = {"rows": np.array(rows), "negative": negative, "negatives": negatives}
    arrays |= {"bad_rows": np.array(len(bad)), "bad": from_json(kept)}
    arrays |= {"weights": np.array(weights)} if columns.weight else {}
    found = [_counted(field, blocks) for field in range(len(columns.categorical))]
    for field in range(len(columns.categorical) if watched else 0):
        arrays |= _late(watched, field, np.concatenate([own.keys[field] for own in blocks]), np.arange(rows))
    arrays["dropped"] = np.zeros(len(columns.lists), np.int64)
    for number, one in enumerate(columns.lists):
        field = columns.categorical.index(one.name)
        of_column = joined_lists([block.lists[field] for block in blocks])
        found[field] = count_keys(of_column.keys, of_column.checks)
        arrays |= _late(watched, field, of_column.keys, of_column.places()[0])
        arrays["dropped"][number] = of_column.dropped(one.max_values)
    arrays |= counts_of_fields(found)
    for column, values in enumerate(np.concatenate(of_numbers).T if numbers else ()):
        distinct, counts = numeric.summarise(values)
        arrays |= {f"values_{column}": distinct, f"values_counts_{column}": counts}
    return arrays


def _counted(field: int, blocks: Sequence[Block]) -> Counts:
    """A field's counts over blocks."""
    if not any(field in block.coded for block in blocks):
        return _plain_counts(field, blocks)
    parts = []
    for _, run in itertools.groupby(blocks, lambda block: id(field in block.coded and block.coded[field].distinct)):
        here = list(run)
        coded = [block.coded[field] for block in here if field in block.coded]
        parts.append(coded[0].joined(coded[1:]).counts() if coded else _plain_counts(field, here))
    return merge_counts(parts)


def _plain_counts(field: int, blocks: Sequence[Block]) -> Counts:
    """The same of keys alone."""
    of_blocks = [block.keys_of(field) for block in blocks]
    keys, checks = np.concatenate([own for own, _ in of_blocks]), None
    if any(own is not None for _, own in of_blocks):
        checks = np.concatenate([np.zeros(len(own), np.uint32) if check is None else check for own, check in of_blocks])
    return count_keys(keys, checks)


def _late(watched: Watched | None, field: int, keys: np.ndarray, rows: np.ndarray) -> Arrays:
    """What is kept of a field's keys [V] that have no row in a vocabulary that is watched, of rows [V]."""
    found = watched.first_places(field, keys, rows) if watched else ()
    return {f"late_{name}_{field}": array for name, array in zip(("keys", "places"), found)}


def _blocks(spans: Sequence[Span], columns: Columns) -> Iterator[Block]:
    return (block for span in spans for block in span.blocks(columns))


def bad_rows_of(bad: np.ndarray) -> list[BadRow]:
    """The bad lines that `count_rows` kept."""
    return [BadRow(line, why, text.encode("latin-1"), *place) for line, why, text, *place in to_json(bad)]


def encode_rows(spans: Sequence[Span], path: Path, coding: Coding) -> Arrays:
    """Encode some lines to one MindRecord file at `path`; rows keep their order.

    Returns:
        shard: a `Shard`, as JSON.
    """
    packed: list[bytes] = []
    rest: Coded = ()
    sums = np.zeros(3)
    unseen, values = seen(np.empty((0, coding.encoder.layout.ids), np.int32), coding)
    for block in _blocks(spans, replace(coding.columns, coded=True)):
        arrays = coding.coded(block)
        sums += sums_of(arrays)
        found = seen(arrays[1], coding)
        unseen, values = unseen + found[0], values + found[1]
        if rest:
            arrays = tuple(np.concatenate(pair) for pair in zip(rest, arrays))
        whole = len(arrays[0]) // coding.record_rows * coding.record_rows
        packed += packed_rows(tuple(array[:whole] for array in arrays), coding.record_rows)
        rest = tuple(array[whole:] for array in arrays)
    packed += packed_rows(rest, coding.record_rows) if rest else []
    return write_shard(path, packed, sums, (unseen, values), coding)


def scatter_rows(spans: Sequence[Span], number: int, path: Path, coding: Coding) -> Arrays:
    """The first half of shuffling in fixed memory: deal the coded rows of piece `number` at random to buckets.

    They go to the piece's file, at `path`: where each bucket's rows begin, int64 [buckets + 1], then the rows, uint8
    [rows, bytes of a row], those of a bucket side by side.

    Returns:
        rows: how many.
    """
    rows, buckets = [], len(coding.scattered)
    for block in _blocks(spans, replace(coding.columns, coded=True)):
        dense, ids, labels, *weights = coding.coded(block)
        values = [dense, ids, *(one[:, None] for one in weights), labels[:, None]]
        rows.append(np.concatenate([one.view(np.uint8) for one in values], axis=1))
    joined = np.concatenate(rows)
    bucket = np.random.default_rng([coding.seed, number]).integers(0, buckets, len(joined))
    bounds = np.concatenate(([0], np.cumsum(np.bincount(bucket, minlength=buckets))))
    with whole_file(path, sync=True) as file:
        file.write(bounds.astype("<i8").tobytes())
        file.write(joined[np.argsort(bucket, kind="stable")].data)
    return {"rows": np.array(len(joined))}


def bundles_of(scattered: Sequence[Path]) -> list[Sequence[Path]]:
    """The files that `bundle_rows` puts together; none where they are few.

    Each bucket opens all files, so with thousands of pieces the openings, their number squared, would take hours.
    """
    starts = range(0, len(scattered), _BUNDLED)
    return [scattered[start : start + _BUNDLED] for start in starts] if len(starts) > 1 else []


def bundle_rows(files: Sequence[Path], path: Path, coding: Coding) -> Arrays:
    """Between the halves: the rows of some of `scatter_rows`'s files in one of the same form; returns how many."""
    buckets = len(coding.scattered)
    with contextlib.ExitStack() as stack, naming(path):
        opened = [stack.enter_context(file.open("rb")) for file in files]
        bounds = np.stack([np.fromfile(file, "<i8", buckets + 1) for file in opened])
        target = stack.enter_context(whole_file(path, sync=True))
        target.write(bounds.sum(axis=0).astype("<i8").tobytes())
        at_once = max(1, _BUNDLE_BYTES * buckets // (int(bounds[:, -1].sum()) * coding.row_bytes + 1))
        for first in range(0, buckets, at_once):
            counts = np.diff(bounds[:, first : first + at_once + 1])
            sizes = counts.sum(axis=1) * coding.row_bytes
            rows = np.concatenate([np.fromfile(file, np.uint8, size) for file, size in zip(opened, sizes.tolist())])
            bucket = np.repeat(np.tile(np.arange(counts.shape[1]), len(files)), counts.ravel())
            target.write(rows.reshape(-1, coding.row_bytes)[np.argsort(bucket, kind="stable")].data)
    return {"rows": bounds[:, -1].sum()}


def gather_bucket(bucket: int, path: Path, coding: Coding) -> Arrays:
    """The second half: a bucket's rows of all pieces, in random order, as a shard; returns what `encode_rows` does."""
    row_bytes = coding.row_bytes
    begin = 8 * (len(coding.scattered) + 1)
    rows = []
    for scattered in coding.bundled or coding.scattered:  # one by one: there may be more files than may be open
        with scattered.open("rb") as file:
            file.seek(8 * bucket)
            low, high = np.fromfile(file, "<i8", 2).tolist()
            file.seek(begin + low * row_bytes)
            rows.append(np.fromfile(file, np.uint8, (high - low) * row_bytes))
    joined = np.concatenate(rows).reshape(-1, row_bytes)
    joined = joined[np.random.default_rng([coding.seed, len(coding.scattered), bucket]).permutation(len(joined))]
    bounds = 4 * np.cumsum([len(coding.encoder.inputs), coding.encoder.layout.ids])
    dense, ids, weights = np.split(joined[:, :-1], bounds, axis=1)
    rest = (np.ascontiguousarray(weights).view("<f4")[:, 0],) if coding.weighted else ()
    dense, ids = np.ascontiguousarray(dense).view("<f4"), np.ascontiguousarray(ids).view("<i4")
    arrays = dense, ids, joined[:, -1], *rest
    packed = packed_rows(arrays, coding.record_rows)
    return write_shard(path, packed, sums_of(arrays), seen(ids, coding), coding)
