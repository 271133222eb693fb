"""Score rows and measure the scores."""

import itertools
import time
import weakref
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import mindspore as ms
import numpy as np
from mindspore import Tensor

from src.base.finite import NotFinite
from src.base.stops import held_back
from src.checkpoints import checkpoint
from src.data.known_values import unmatched_of, warning
from src.data.manifest import DataFolder
from src.dataset import Batch, RowBatches, batches_of
from src.metrics.bootstrap import Interval, intervals
from src.metrics.curves import quality
from src.metrics.monitored import Metrics, measured
from src.network.compiled import operators_for
from src.network.options import NetworkSpec
from src.ranks.group import ONE_RANK, Ranks
from src.training.prepare import Runtime

Scores = tuple[np.ndarray, ...]  # labels, logits, and weights if rows have some


class Network(Protocol):
    """What scores rows: a `DLRM`, or what stands for one."""

    def set_train(self, mode: bool) -> Any:
        """As of a cell."""

    def __call__(self, dense: Tensor, ids: Tensor) -> Tensor:
        """Logits [B, 1] float32 of dense [B, N] float32 and ids [B, L] int32."""


# The rows of a batch that networks' graphs are compiled for.
_compiled: weakref.WeakKeyDictionary[Network, set[int]] = weakref.WeakKeyDictionary()


def rows_of_graph(batches: RowBatches, batch_size: int) -> int:
    """Rows that a graph is compiled for which scores these: batch_size, of fewer rows the next power of two."""
    return min(batch_size, 1 << (batches.rows - 1).bit_length())


def score(model: Network, batches: Iterable[Batch], batch_size: int, ranks: Ranks = ONE_RANK) -> Scores:
    """Labels [B] and logits [B] of all rows, and weights [B] if they have some, the same on every rank.

    A last batch that is not full is filled up with zeros and cut again, so that one compiled graph serves all; the one
    batch of few rows to the next power of two. Ranks share the batches, and go on together, for split tables need all
    of them: who has none left takes zeros.

    Args:
        model: the network.
        batches: rows, at most batch_size at a time: of a data folder, of which each rank reads its share, or any that
            are the same on every rank, which take them in turns.
        batch_size: rows that the graph is compiled for, if there are so many.
        ranks: that share the work.
    """
    if isinstance(batches, RowBatches):
        batch_size = rows_of_graph(batches, batch_size)
    shared = ranks.size > 1 and isinstance(batches, RowBatches)
    own: list[tuple[np.ndarray, ...]] = []  # labels, logits and weights [batch_size] each
    sizes = []
    model.set_train(False)
    on_cpu = ms.get_context("device_target") == "CPU"
    for batch in _own_share(batches, ranks) if shared else _own_turns(batches, ranks):
        sizes.append(len(batch[2]))
        missing = ((0, batch_size - sizes[-1]), (0, 0))
        dense, ids, *more = (np.pad(column, missing) for column in batch) if sizes[-1] < batch_size else batch
        labels, *weights = (column[:, 0] for column in more)
        compiles = batch_size not in (known := _compiled.setdefault(model, set()))
        with held_back(on_cpu), ranks.sign.work(compiles):
            own.append((labels, model(Tensor(dense), Tensor(ids)).asnumpy()[:, 0], *weights))
        known.add(batch_size)
    by_rank, all_sizes = ranks.gather(np.array(own)), ranks.gather(np.array(sizes, np.int32))  # [N, turns, ...]
    if not shared:
        by_rank, all_sizes = by_rank.swapaxes(0, 1), all_sizes.swapaxes(0, 1)
    in_order = zip(by_rank.reshape(-1, by_rank.shape[-2], batch_size), all_sizes.reshape(-1))
    return tuple(np.concatenate([batch[:, :rows] for batch, rows in in_order], 1))


def _own_turns(batches: Iterable[Batch], ranks: Ranks) -> Iterator[Batch]:
    """Every N-th of batches that all ranks have; none of its rows for a rank that has none in the last turn."""
    remaining = iter(batches)
    while turn := list(itertools.islice(remaining, ranks.size)):
        yield turn[ranks.rank] if ranks.rank < len(turn) else _nothing_of(turn[0])


def _own_share(batches: Any, ranks: Ranks) -> Iterator[Batch]:
    """A rank's share of RowBatches, and of no rows as many as the rank with the most of them has more."""
    left = batches.turns(ranks.size)
    for batch in batches.share(ranks.rank, ranks.size):
        yield batch
        left -= 1
    for _ in range(left):
        yield _nothing_of(batch)


def _nothing_of(batch: Batch) -> Batch:
    return tuple(column[:0] for column in batch)


def finite_score(model: Network, batches: Iterable[Batch], batch_size: int, ranks: Ranks = ONE_RANK) -> Scores:
    """As `score`, of a network that did not diverge.

    Raises:
        NotFinite: a logit is not.
    """
    found = score(model, batches, batch_size, ranks)
    if wrong := int(np.sum(~np.isfinite(found[1]))):
        raise NotFinite(f"{wrong} of {len(found[1])} logits are not finite")
    return found


def evaluate(
    model: Network, batches: Iterable[Batch], batch_size: int, ranks: Ranks = ONE_RANK, monitor: str = "auc"
) -> Metrics:
    """Accuracy, AUC, logloss and the monitored metric over all rows; arguments and errors as for `finite_score`."""
    return measured(*finite_score(model, batches, batch_size, ranks), monitor=monitor)


@dataclass(frozen=True)
class Evaluation:
    """What a checkpoint is worth on the rows of a part.

    Attributes:
        scores: labels, logits, and weights if rows have some.
        metrics: accuracy, AUC and logloss.
        intervals: AUC and logloss, by name, and between which values they lie in 95 of 100 resamples.
        more: metrics beside these.
        rows, seconds: how many, and how long they took.
        warning: of fields that the checkpoint's training rows do not match, "" for none.
    """

    scores: Scores
    metrics: Metrics
    intervals: dict[str, Interval]
    more: dict[str, float]
    rows: int
    seconds: float
    warning: str

    @property
    def auc(self) -> Interval:
        """AUC, and between which values it lies."""
        return self.intervals["auc"]

    @property
    def beside(self) -> dict[str, float]:
        """What the log for machines has beside the metrics."""
        return {"eval_s": self.seconds, "auc_low": self.auc.low, "auc_high": self.auc.high, **self.more}


def score_checkpoint(
    path: Path, data: DataFolder, part: str, network: NetworkSpec, runtime: Runtime, batch_size: int,
    begins: Callable[[], None] = lambda: None,
) -> Scores:  # fmt: skip
    """Labels, logits and weights, as of `score`, by a checkpoint; arguments and errors as of `evaluate_checkpoint`."""
    ranks, compute, models, batches = runtime.ranks, runtime.compute, [], []

    def read() -> None:
        checkpoint.check_encoder(path, data)
        operators = operators_for(ms.get_context("device_target"), compute.cpu_kernels)
        dtype, mode = getattr(ms, compute.compute_dtype), runtime.parallel.parallel_mode
        models.append(checkpoint.load(path, data.manifest, network, operators, dtype, ranks, mode))
        batches.append(batches_of(data, part, batch_size))
        if ranks.rank == 0:  # which writes for all
            begins()

    ranks.together(read)
    rows = data.manifest.parts[part].rows
    crc = zlib.crc32(repr((network, batch_size, data.manifest.rows_of_tables, part, rows)).encode()) >> 1
    ranks.agree("what they evaluate", {"the checksum of rows and network": crc})
    return finite_score(models[0], batches[0], batch_size, ranks)


def evaluate_checkpoint(
    path: Path, data: DataFolder, part: str, network: NetworkSpec, runtime: Runtime, batch_size: int,
    begins: Callable[[], None] = lambda: None,
) -> Evaluation | None:  # fmt: skip
    """Evaluate a checkpoint on a part of a data folder; None on all ranks but the first one.

    Several ranks give what one process gives, to the bit: each scores its share of the same batches.

    Args:
        path: the checkpoint, of a network of this shape.
        data, part: the rows, coded by its encoder.
        network: its shape.
        runtime: on what it is computed; ranks may be more or fewer than wrote the checkpoint, and share out its tables
            as the mode says. Each calls this with the same arguments.
        batch_size: rows at once, of each rank.
        begins: called, by the first rank, when the checkpoint is read and the rows are found, before they are scored.

    Raises:
        InputError: another encoder coded the rows, the checkpoint is damaged, a logit is not finite, or ranks do not
            find the same; on all ranks, whichever it was that found it.
    """
    begin = time.perf_counter()

    def starts() -> None:
        nonlocal begin
        begins()
        begin = time.perf_counter()

    scores = score_checkpoint(path, data, part, network, runtime, batch_size, starts)
    if runtime.ranks.rank:
        return None
    labels, logits, *others = scores
    weights = others[0] if others else None
    metrics = measured(labels, logits, weights)
    seconds = time.perf_counter() - begin
    found = unmatched_of(data.manifest, part, checkpoint.manifest_beside(path))
    return Evaluation(
        scores, metrics, intervals(labels, logits, weights=weights), quality(labels, logits, weights),
        data.manifest.parts[part].rows, seconds, warning(f"{part} rows", found) if found else "",
    )  # fmt: skip
