"""MindRecord files to batches, for training in a seeded shuffled order and for evaluation in the order of the rows.

Legend: B rows of a batch, N numeric columns, L ids of a row.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import mindspore.dataset as ds
import numpy as np
from mindspore import Tensor

from src.base.errors import InputError
from src.base.stops import held_back, take_no_signals
from src.data import records
from src.data.layout import PADDING
from src.data.manifest import DataFolder
from src.data.pieces import between, joined, taken
from src.data.vocabulary import UNSEEN
from src.ranks.dealing import parts

# dense [B, N] float32, ids [B, L] int32, labels [B, 1] float32, and weights [B, 1] float32 if rows have some
Batch = tuple[np.ndarray, ...]
_WINDOW_ROWS = 1 << 16
_UNSEEN_STREAM = 1  # behind seed, epoch and place, it tells this randomness from others


@dataclass(frozen=True)
class Rows:
    """Rows in MindRecord files.

    Attributes:
        shards: paths of the files, in the order of the rows.
        count: rows in all of them.
        dense_dim: N.
        slot_dim: L.
        shard_rows: rows in each file; without them a share is read from the first file on.
        tables: of each id its field, the rows of its table, and whether it is of a list, and may be padding; ids are
            checked against them, unless there are none.
        category_ids: how many of a row's ids, which come first, are of categorical columns.
        weighted: whether rows have weights.
        record_rows: rows in each record but a file's last one; 0 where that is not known.
    """

    shards: Sequence[str]
    count: int
    dense_dim: int
    slot_dim: int
    shard_rows: Sequence[int] = ()
    tables: Sequence[tuple[str, int, bool]] = ()
    category_ids: int = 0
    weighted: bool = False
    record_rows: int = 0

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of a batch's arrays."""
        return ("dense", "ids", "labels", "weights")[: 3 + self.weighted]

    def record_sizes(self) -> np.ndarray:
        """Rows of each record."""
        starts = [(rows, first) for rows in self.shard_rows for first in range(0, rows, self.record_rows)]
        return np.array([min(self.record_rows, rows - first) for rows, first in starts])


class RowBatches:
    """The rows of MindRecord files in batches; each iteration is one epoch.

    Shuffling takes the records in a random order, and the rows in a random order within windows of
    65,536 rows of these. Both follow from the seed and the number of the epoch alone.

    Args:
        source: the rows.
        batch_size: B; the last batch may be smaller.
        shuffle: whether to shuffle.
        drop_last: whether to leave out a last batch that is not full.
        seed: of the shuffling.
        rank, ranks: which even part of each full batch is given, and how many there are; needs drop_last. Rows of all
            records meet in a batch, so that each rank reads all, but takes out its own rows alone.
        unseen_share: of the values of categorical columns that get the id for unseen ones, at random. Which, follows
            from the seed, the epoch and the row's place in it.

    Raises:
        InputError, while iterating: an id is outside its field's table.
    """

    def __init__(
        self, source: Rows, batch_size: int, shuffle: bool = False, drop_last: bool = False, seed: int = 1,
        rank: int = 0, ranks: int = 1, unseen_share: float = 0.0,
    ):  # fmt: skip
        self.rank, self.ranks, self.unseen_share, self.deals = rank, ranks, unseen_share, False
        self.own_rows = batch_size // ranks
        self.own_start = rank * self.own_rows
        self.source, self.rows, self.batch_size = source, source.count, batch_size
        self.shuffle, self.drop_last, self.seed = shuffle, drop_last, seed
        self.epoch = self.skipped = 0

    def deal(self) -> None:
        """Let ranks take any parts of a batch, so that each reads little more than its share of the records.

        Without effect where the rows of records are not known.
        """
        self.deals = self.ranks > 1 and bool(self.source.record_rows and self.source.shard_rows)

    def go_to(self, step: int) -> None:
        """Let the next iteration begin behind so many batches, counted over all epochs, and end with its epoch."""
        self.epoch, self.skipped = divmod(step, len(self))

    def __len__(self) -> int:
        """Batches of an epoch."""
        return self.rows // self.batch_size if self.drop_last else -(-self.rows // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        # A generator, so that only asking for a batch begins an epoch: MindSpore calls iter() to see whether it can.
        windows = _ahead(self._dealt_windows(self.epoch) if self.deals else self._windows(self.epoch))
        skipped, self.epoch, self.skipped = self.skipped, self.epoch + 1, 0
        yield from itertools.islice(joined(windows, self.own_rows), skipped, len(self))

    def share(self, rank: int, ranks: int) -> Iterator[Batch]:
        """A rank's share of the batches, in their order: equal parts of batches that follow one another.

        Only files that hold rows of these are read. A rank that has none left gets one of no rows.
        """
        source, size = self.source, self.turns(ranks) * self.batch_size
        low, high = min(rank * size, self.rows), min((rank + 1) * size, self.rows)
        if low == high:
            yield _no_rows(source)
            return
        ends = np.cumsum(source.shard_rows or [self.rows])
        first, last = (int(place) for place in np.searchsorted(ends, [low, high - 1], "right"))
        before = int(ends[first - 1]) if first else 0
        if source.shard_rows:
            source = replace(source, shards=source.shards[first : last + 1])
        pieces = between(self._records(source), low - before, high - before)
        for batch in _ahead(joined(pieces, self.batch_size)):
            _check_ids(batch[1], source.tables)
            yield batch

    def turns(self, ranks: int) -> int:
        """The batches that the rank with the most of them has as its share."""
        return -(-len(self) // ranks)

    def _records(self, source: Rows, rng: np.random.Generator | None = None) -> Iterator[Batch]:
        """The records one by one, unpacked, in a random order if there is one."""
        return self._read(source, None if rng is None else rng.permutation(_count(source)))

    def _read(self, source: Rows, numbers: np.ndarray | None) -> Iterator[Batch]:
        """Records by their numbers, or all in their order, one by one, unpacked."""
        reading = {"columns_list": [records.COLUMN], "num_parallel_workers": 1}
        shards = list(source.shards)
        if numbers is None:
            found = ds.MindDataset(shards, shuffle=False, **reading)
        else:
            found = ds.MindDataset(shards, sampler=ds.SubsetSampler(numbers.tolist()), **reading)
        for (record,) in found.create_tuple_iterator(num_epochs=1, output_numpy=True):
            dense, ids, *more = records.unpack(record, source.dense_dim, source.slot_dim, source.weighted)
            yield dense, ids, *(one.astype(np.float32)[:, None] for one in more)

    def _windows(self, epoch: int) -> Iterator[Batch]:
        """The own rows of windows, in their order, shuffled if asked.

        A window is of records that hold at least _WINDOW_ROWS rows, the last one of what is left.
        """
        rng = np.random.default_rng([self.seed, epoch])
        waiting: list[Batch] = []
        rows = done = 0
        for record in self._records(self.source, rng if self.shuffle else None):
            waiting.append(record)
            rows += len(record[0])
            if rows >= _WINDOW_ROWS or done + rows == self.rows:
                own = self._own(done, rows, rng.permutation(rows) if self.shuffle else None)
                yield self._checked(taken(waiting, own), epoch, done, rows, own)
                waiting, rows, done = [], 0, done + rows
        if done != self.rows or waiting:
            raise ValueError(f"{list(self.source.shards)} hold {done + rows} rows, not {self.rows}")

    def _checked(self, window: Batch, epoch: int, done: int, rows: int, own: np.ndarray | None) -> Batch:
        """The own rows of a window, by their numbers there, whose ids are seen to be ids, and made those of unseen
        values as asked; behind so many rows of the epoch."""
        dense, ids, *others = window
        _check_ids(ids, self.source.tables)
        if not self.unseen_share:
            return window
        chosen = np.random.default_rng([self.seed, epoch, done, _UNSEEN_STREAM])
        chances = chosen.random((rows, self.source.category_ids), np.float32)
        return dense, self._with_unseen(ids, chances if own is None else chances[own]), *others

    def _with_unseen(self, ids: np.ndarray, chances: np.ndarray) -> np.ndarray:
        """Ids [B, L] some of which are those for unseen values, by chances [B, category_ids]."""
        found = ids.copy()
        own = found[:, : chances.shape[1]]
        own[(chances < self.unseen_share) & (own != PADDING)] = UNSEEN
        return found

    def _dealt_windows(self, epoch: int) -> Iterator[Batch]:
        """As `_windows`, of the same windows, of which this rank takes other rows, and reads the records that it needs.

        What it needs is found twice, for all windows before it reads and for each one then: all at once would take
        memory by the rows of the epoch.
        """
        sizes, rng = self.source.record_sizes(), np.random.default_rng([self.seed, epoch])
        if (count := _count(self.source)) != len(sizes) or sizes.sum() != self.rows:
            raise ValueError(f"{list(self.source.shards)} hold {count} records, not {len(sizes)} of {self.rows} rows")
        order = rng.permutation(len(sizes)) if self.shuffle else np.arange(len(sizes))
        facts = order, sizes, _WINDOW_ROWS, self.batch_size, self.rank, self.ranks
        shuffling, again = (rng, deepcopy(rng)) if self.shuffle else (None, None)
        needed = np.concatenate([part.records for part in parts(*facts, again)])
        reading = self._read(self.source, needed)
        for part in parts(*facts, shuffling):
            pieces = list(itertools.islice(reading, len(part.records)))
            if [len(piece[0]) for piece in pieces] != sizes[part.records].tolist():
                raise ValueError(f"records of {list(self.source.shards)} have other numbers of rows than the manifest")
            yield self._checked(taken(pieces, part.own_of_read), epoch, part.done, part.rows, part.own)

    def _own(self, done: int, rows: int, order: np.ndarray | None) -> np.ndarray | None:
        """Which rows of a window are this rank's, in their order, behind so many rows of the epoch; None for all."""
        if self.own_rows == self.batch_size:
            return order
        places = (done + np.arange(rows)) % self.batch_size - self.own_start
        (own,) = np.nonzero((places >= 0) & (places < self.own_rows))
        return own if order is None else order[own]


def batches_of(data: DataFolder, part: str, batch_size: int, **options: Any) -> RowBatches:
    """The rows of a part of a data folder in batches; options as for RowBatches."""
    shards, shard_rows = data.shards(part)
    manifest = data.manifest
    layout = manifest.layout
    of_fields = zip(manifest.fields, manifest.table_rows, (pool != "" for pool in layout.pools))
    tables = layout.of_ids(tuple(of_fields))
    of_categories, weighted = sum(layout.sizes[: len(manifest.categorical)]), bool(manifest.weight)
    record_rows = int(manifest.options.get("record_rows", 0))
    rows = Rows(
        shards, sum(shard_rows), len(manifest.inputs), layout.ids, shard_rows, tables, of_categories, weighted,
        record_rows,
    )  # fmt: skip
    return RowBatches(rows, batch_size, **options)


def _check_ids(ids: np.ndarray, tables: Sequence[tuple[str, int, bool]]) -> None:
    """Refuse ids that no row of a table has: operators would read other memory, or take zeros for their vectors."""
    if not tables or not len(ids):
        return
    most, least = ids.max(0), ids.min(0)
    for place, (name, rows, pads) in enumerate(tables):
        first = PADDING if pads else 0
        if least[place] < first or most[place] >= rows:
            wrong = int(np.sum((ids[:, place] < first) | (ids[:, place] >= rows)))
            raise InputError(
                f"{wrong} of {len(ids)} ids of {name} are outside its table of {rows} rows, up to {most[place]}: the "
                f"data folder's rows are not of its manifest; preprocess again"
            )


def _count(source: Rows) -> int:
    """How many records there are."""
    return int(ds.MindDataset(list(source.shards), shuffle=False).get_dataset_size())


def _no_rows(source: Rows) -> Batch:
    return (
        np.empty((0, source.dense_dim), np.float32),
        np.empty((0, source.slot_dim), np.int32),
        *[np.empty((0, 1), np.float32)] * (1 + source.weighted),
    )


def sample(rows: Rows, most: int) -> Batch:
    """Some of the rows in their order: all, or those of records spread evenly, some `most` rows.

    Labels, and weights if rows have some, are [B].
    """
    with held_back(off_thread=True):  # from the threads that MindSpore starts here
        reading = {"columns_list": [records.COLUMN], "num_parallel_workers": 1}
        shards = list(rows.shards)
        found = ds.MindDataset(shards, shuffle=False, **reading)
        if rows.count > most:
            count = found.get_dataset_size()
            chosen = np.unique(np.linspace(0, count - 1, max(1, most * count // rows.count)).astype(int))
            found = ds.MindDataset(shards, sampler=ds.SubsetSampler(chosen.tolist()), **reading)
        taken = found.create_tuple_iterator(num_epochs=1, output_numpy=True)
        columns = zip(*(records.unpack(record, rows.dense_dim, rows.slot_dim, rows.weighted) for (record,) in taken))
        return tuple(np.concatenate(column) for column in columns)


def _ahead(items: Iterator[Batch]) -> Iterator[Batch]:
    """The same items, each made by another thread while the one before it is in use."""
    with ThreadPoolExecutor(1, initializer=take_no_signals) as thread:
        coming = thread.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = thread.submit(next, items, None)
            yield item


class TrainingDataset(ds.GeneratorDataset):
    """Batches as the data set that `mindspore.Model.train` asks for.

    Without MindSpore's pipeline between them and the training loop: converting a batch there and back costs a tenth
    of a step of 128 samples.

    Args:
        batches: of the rows.
        waiting: a context in which the loop waits for the next one.
    """

    def __init__(self, batches: RowBatches, waiting: Callable[[], AbstractContextManager] = nullcontext):
        super().__init__(batches, list(batches.source.columns), shuffle=False, python_multiprocessing=False)
        self.batches, self.waiting = batches, waiting

    def create_tuple_iterator(self, *_: Any, **__: Any) -> "_Epochs":
        """Tensors of one epoch after the other."""
        return _Epochs(self.batches, self.waiting)


class _Epochs:
    """Iterates over batches as tensors; stops at the end of an epoch, and begins the next one when asked again."""

    def __init__(self, batches: RowBatches, waiting: Callable[[], AbstractContextManager]):
        self.batches, self.waiting = batches, waiting
        self.epoch: Iterator[Batch] | None = None

    def __iter__(self) -> "_Epochs":
        return self

    def __next__(self) -> list[Tensor]:
        if self.epoch is None:
            self.epoch = iter(self.batches)
        with self.waiting():
            batch = next(self.epoch, None)
        if batch is None:
            self.epoch = None
            raise StopIteration
        return [Tensor.from_numpy(column) for column in batch]
