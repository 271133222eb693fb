"""Rows in pieces that follow one another, cut and put together otherwise."""

from collections.abc import Iterator, Sequence

import numpy as np

Piece = tuple[np.ndarray, ...]  # columns of as many rows


def between(pieces: Iterator[Piece], low: int, high: int) -> Iterator[Piece]:
    """The rows low <= row < high of pieces that follow one another."""
    done = 0
    for piece in pieces:
        rows = len(piece[0])
        if done + rows > low:
            yield tuple(column[max(low - done, 0) : high - done] for column in piece)
        done += rows
        if done >= high:
            return


def joined(pieces: Iterator[Piece], size: int) -> Iterator[Piece]:
    """Pieces of any number of rows as batches of one size, the last one of what is left."""
    carried: list[Piece] = []
    for piece in pieces:
        if carried:
            piece = tuple(np.concatenate(pair) for pair in zip(carried.pop(), piece))
        whole = len(piece[0]) // size * size
        for start in range(0, whole, size):
            yield tuple(column[start : start + size] for column in piece)
        if whole < len(piece[0]):
            carried = [tuple(column[whole:] for column in piece)]
    yield from carried


def taken(pieces: Sequence[Piece], order: np.ndarray | None) -> Piece:
    """Rows of pieces that follow one another, by their numbers in a stated order; None for all as they stand.

    Each row that is asked for is copied once, and no other one.
    """
    if order is None:
        return tuple(np.concatenate(column) for column in zip(*pieces))
    places = np.full(sum(len(piece[0]) for piece in pieces), -1)  # where each row goes
    places[order] = np.arange(len(order))
    found = tuple(np.empty((len(order), *column.shape[1:]), column.dtype) for column in pieces[0])
    low = 0
    for piece in pieces:
        own = places[low : low + len(piece[0])]
        low += len(own)
        (wanted,) = np.nonzero(own >= 0)
        for column, target in zip(piece, found):
            target[own[wanted]] = column[wanted]
    return found
