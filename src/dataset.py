"""MindRecord files to batches, for training in a seeded shuffled order and for evaluation in the order of the rows.

Legend: B rows of a batch, N numeric columns, F fields.
"""

import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import mindspore.dataset as ds
import numpy as np
from mindspore import Tensor

from src.data import records
from src.data.manifest import DataFolder

Batch = tuple[np.ndarray, ...]  # dense [B, N] float32, ids [B, F] int32, labels [B, 1] float32
_WINDOW_ROWS = 1 << 16


@dataclass(frozen=True)
class Rows:
    """Rows in MindRecord files.

    Attributes:
        shards: paths of the files, in the order of the rows.
        count: rows in all of them.
        dense_dim: N.
        slot_dim: F.
    """

    shards: Sequence[str]
    count: int
    dense_dim: int
    slot_dim: int


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
        rank, ranks: which even part of each full batch is given, and how many there are; needs drop_last.
    """

    def __init__(
        self, source: Rows, batch_size: int, shuffle: bool = False, drop_last: bool = False, seed: int = 1,
        rank: int = 0, ranks: int = 1,
    ):  # fmt: skip
        self.own_rows = batch_size // ranks
        self.own_start = rank * self.own_rows
        self.source, self.rows, self.batch_size = source, source.count, batch_size
        self.shuffle, self.drop_last, self.seed = shuffle, drop_last, seed
        self.epoch = self.skipped = 0

    def go_to(self, step: int) -> None:
        """Let the next iteration begin behind so many batches, counted over all epochs, and end with its epoch."""
        self.epoch, self.skipped = divmod(step, len(self))

    def __len__(self) -> int:
        """Batches of an epoch."""
        return self.rows // self.batch_size if self.drop_last else -(-self.rows // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        # A generator, so that only asking for a batch begins an epoch: MindSpore calls iter() to see whether it can.
        batches = self._batches(np.random.default_rng([self.seed, self.epoch]))
        skipped, self.epoch, self.skipped = self.skipped, self.epoch + 1, 0
        yield from itertools.islice(batches, skipped, None)

    def _batches(self, rng: np.random.Generator) -> Iterator[Batch]:
        carried: list[Batch] = []
        for window in _ahead(self._windows(rng)):
            if carried:
                window = tuple(np.concatenate(pair) for pair in zip(carried.pop(), window))
            whole = len(window[0]) // self.batch_size * self.batch_size
            for start in range(0, whole, self.batch_size):
                begin = start + self.own_start
                yield tuple(column[begin : begin + self.own_rows] for column in window)
            if whole < len(window[0]):
                carried = [tuple(column[whole:] for column in window)]
        if carried and not self.drop_last:
            yield carried[0]

    def _records(self, rng: np.random.Generator) -> Iterator[Batch]:
        """The records one by one, unpacked."""
        reading = {"columns_list": [records.COLUMN], "num_parallel_workers": 1}
        shards = list(self.source.shards)
        found = ds.MindDataset(shards, shuffle=False, **reading)
        if self.shuffle:
            order = rng.permutation(found.get_dataset_size())
            found = ds.MindDataset(shards, sampler=ds.SubsetSampler(order.tolist()), **reading)
        for (record,) in found.create_tuple_iterator(num_epochs=1, output_numpy=True):
            dense, ids, labels = records.unpack(record, self.source.dense_dim, self.source.slot_dim)
            yield dense, ids, labels.astype(np.float32)[:, None]

    def _windows(self, rng: np.random.Generator) -> Iterator[Batch]:
        """Records joined to windows of at least _WINDOW_ROWS rows, the last one of what is left; shuffled if asked."""
        waiting: list[Batch] = []
        rows = done = 0
        for record in self._records(rng):
            waiting.append(record)
            rows += len(record[0])
            if rows >= _WINDOW_ROWS or done + rows == self.rows:
                window = tuple(np.concatenate(column) for column in zip(*waiting))
                order = rng.permutation(rows) if self.shuffle else slice(None)
                yield tuple(column[order] for column in window)
                waiting, rows, done = [], 0, done + rows
        if done != self.rows or waiting:
            raise ValueError(f"{list(self.source.shards)} hold {done + rows} rows, not {self.rows}")


def batches_of(data: DataFolder, part: str, batch_size: int, **options: Any) -> RowBatches:
    """The rows of a part of a data folder in batches; options as for RowBatches."""
    shards, shard_rows = data.shards(part)
    rows = Rows(shards, sum(shard_rows), len(data.manifest.inputs), len(data.manifest.fields))
    return RowBatches(rows, batch_size, **options)


def sample(rows: Rows, most: int) -> Batch:
    """Some of the rows in their order, labels [B]: all, or those of records spread evenly, some `most` rows."""
    reading = {"columns_list": [records.COLUMN], "num_parallel_workers": 1}
    shards = list(rows.shards)
    found = ds.MindDataset(shards, shuffle=False, **reading)
    if rows.count > most:
        count = found.get_dataset_size()
        chosen = np.unique(np.linspace(0, count - 1, max(1, most * count // rows.count)).astype(int))
        found = ds.MindDataset(shards, sampler=ds.SubsetSampler(chosen.tolist()), **reading)
    taken = found.create_tuple_iterator(num_epochs=1, output_numpy=True)
    columns = zip(*(records.unpack(record, rows.dense_dim, rows.slot_dim) for (record,) in taken))
    return tuple(np.concatenate(column) for column in columns)


def _ahead(items: Iterator[Batch]) -> Iterator[Batch]:
    """The same items, each made by another thread while the one before it is in use."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = thread.submit(next, items, None)
            yield item


class TrainingDataset(ds.GeneratorDataset):
    """Batches as the data set that `mindspore.Model.train` asks for.

    Without MindSpore's pipeline between them and the training loop: converting a batch there and back costs a tenth
    of a step of 128 samples.
    """

    def __init__(self, batches: RowBatches):
        super().__init__(batches, ["dense", "ids", "labels"], shuffle=False, python_multiprocessing=False)
        self.batches = batches

    def create_tuple_iterator(self, *_: Any, **__: Any) -> "_Epochs":
        """Tensors of one epoch after the other."""
        return _Epochs(self.batches)


class _Epochs:
    """Iterates over batches as tensors; stops at the end of an epoch, and begins the next one when asked again."""

    def __init__(self, batches: RowBatches):
        self.batches = batches
        self.epoch: Iterator[Batch] | None = None

    def __iter__(self) -> "_Epochs":
        return self

    def __next__(self) -> list[Tensor]:
        if self.epoch is None:
            self.epoch = iter(self.batches)
        batch = next(self.epoch, None)
        if batch is None:
            self.epoch = None
            raise StopIteration
        return [Tensor.from_numpy(column) for column in batch]
