"""Which rank takes which rows of a batch, so that each reads little more than its share of the records.

Legend: W rows of a window, K records of it, S segments of it, which are of one batch each, N ranks.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

_OF_ALL = -1


@dataclass(frozen=True)
class Part:
    """What a rank takes of a window.

    Attributes:
        done, rows: of the epoch before the window, and in it.
        records: numbers of those that the rank reads.
        own: numbers of its rows among those of the window's records, in the order of batches.
        own_of_read: their numbers among those of the records that it reads.
    """

    done: int
    rows: int
    records: np.ndarray
    own: np.ndarray
    own_of_read: np.ndarray


def parts(
    order: np.ndarray, sizes: np.ndarray, window_rows: int, batch_size: int, rank: int, ranks: int,
    rng: np.random.Generator | None,
) -> Iterator[Part]:  # fmt: skip
    """What a rank takes of each window of an epoch.

    Args:
        order: numbers of all records, as they come.
        sizes: rows of each record, by its number.
        window_rows: a window is of records that hold at least so many, the last one of what is left.
        batch_size, rank, ranks: as for `deal`.
        rng: shuffles the rows of a window; None to leave them as they are.
    """
    ends, low, done = np.cumsum(sizes[order]), 0, 0
    while low < len(order):
        high = min(int(np.searchsorted(ends, done + window_rows)) + 1, len(order))
        numbers, rows = order[low:high], int(ends[high - 1]) - done
        own_sizes = sizes[numbers]
        mixed = rng.permutation(rows) if rng else np.arange(rows)
        own = mixed[deal(mixed, own_sizes, done, batch_size, ranks) == rank]
        record = np.repeat(np.arange(len(numbers)), own_sizes)[own]
        used = np.isin(np.arange(len(numbers)), record)
        left_out = np.cumsum(np.where(used, 0, own_sizes))  # rows before, of records that are not read
        yield Part(done, rows, numbers[used], own, own - left_out[record])
        low, done = high, done + rows


def deal(order: np.ndarray, sizes: np.ndarray, first: int, batch_size: int, ranks: int) -> np.ndarray:
    """The rank that takes each row of a window, [W]: as many rows of every batch as the others, whatever the windows.

    Records belong to ranks in turns. A batch has not as many rows of each rank's records, so some records, as few as
    will do, belong to all, and their rows fill up what is missing. It is the same on whatever rank it is computed.

    Args:
        order: numbers of the records' rows, one record behind the other, as they come to batches, [W].
        sizes: rows of each record, [K].
        first: rows of the epoch before the window.
        batch_size: rows of a batch, a multiple of the ranks.
        ranks: N.
    """
    record = np.repeat(np.arange(len(sizes)), sizes)[order]
    segment = (first % batch_size + np.arange(len(order))) // batch_size
    count = int(segment[-1]) + 1
    rows = np.bincount(segment * len(sizes) + record, minlength=count * len(sizes)).reshape(count, len(sizes))
    wanted = _wanted(first % batch_size, len(order), batch_size, ranks)
    owner = np.arange(len(sizes)) % ranks
    taken = np.stack([rows[:, owner == rank].sum(1) for rank in range(ranks)], 1)  # [S, N]
    while (over := taken - wanted).max() > 0:
        worst, rank = np.unravel_index(int(over.argmax()), over.shape)
        given_up = int(np.where(owner == rank, rows[worst], -1).argmax())
        owner[given_up] = _OF_ALL
        taken[:, rank] -= rows[:, given_up]
    found = owner[record]
    found[found == _OF_ALL] = np.repeat(np.tile(np.arange(ranks), count), (wanted - taken).reshape(-1))
    return found


def _wanted(begin: int, rows: int, batch_size: int, ranks: int) -> np.ndarray:
    """How many rows of each segment a rank takes, [S, N]: those of a batch in turns, over its segments."""
    ends = np.minimum(np.arange(batch_size, begin + rows + batch_size, batch_size), begin + rows)
    highs = ends - np.arange(0, len(ends) * batch_size, batch_size)  # places in their batches
    lows = np.append(begin, np.zeros(len(ends) - 1, int))
    before, behind = ((places[:, None] + ranks - 1 - np.arange(ranks)) // ranks for places in (lows, highs))
    return behind - before
