"""Ranks that are processes which do not use MindSpore, and call the compiled operators as its runtime does.

`Connected` gives what functions of this file made on each, one after another.
"""

import contextlib
import ctypes
import os

import numpy as np
from stopping import forkserver

_ADDRESS_BYTES = 4096


class Rank:
    """One of several ranks, connected by UCX.

    Args:
        library: the compiled library.
        rank, ranks: the number of this process, and how many there are.

    Attributes:
        wire: place of the type in which values travel among WIRE_DTYPES.
    """

    def __init__(self, library, rank, ranks):
        self.library, self.rank, self.ranks = ctypes.CDLL(library), rank, ranks
        self.library.RanksSent.restype = self.library.RanksAddress.restype = ctypes.c_int64
        self.wire, self.share = np.array([0], np.int32), np.array([1 / ranks], np.float32)

    def call(self, name, inputs, *outputs):
        """An operator's outputs, made beforehand; None where it fails."""
        arrays = [*inputs, *outputs]
        assert all(array.flags.c_contiguous for array in arrays)
        data = (ctypes.c_void_p * len(arrays))(*[array.ctypes.data for array in arrays])
        dims = (ctypes.c_int * len(arrays))(*[array.ndim for array in arrays])
        shapes = [(ctypes.c_int64 * array.ndim)(*array.shape) for array in arrays]
        pointers = (ctypes.POINTER(ctypes.c_int64) * len(arrays))(
            *[ctypes.cast(shape, ctypes.POINTER(ctypes.c_int64)) for shape in shapes]
        )
        failed = getattr(self.library, name)(len(arrays), data, dims, pointers, None, None, None)
        return None if failed else outputs

    def mean(self, values):
        found = self.call("RanksMean", [values, self.share, self.wire], np.full_like(values, np.nan))
        return found and found[0]

    def look_up(self, table, ids, tables, pieces):
        vectors = np.full((*ids.shape, table.shape[1]), np.nan, np.float32)
        found = self.call("RanksLookup", [table, ids, tables, pieces, self.wire], vectors)
        return found and found[0]

    def gradients(self, gradients, room):
        width = gradients.shape[2]
        rows, sums = np.full((room, 1), -7, np.int32), np.full((room, 1, width), np.nan, np.float32)
        return self.call("RanksGradients", [gradients, self.share, self.wire], rows, sums)

    def all_gradients(self, rows, gradients, tables, pieces, room):
        width = gradients.shape[2]
        found, sums = np.full((room, 1), -7, np.int32), np.full((room, 1, width), np.nan, np.float32)
        return self.call(
            "RanksAllGradients", [rows, gradients, tables, pieces, self.share, self.wire], found, sums
        )  # fmt: skip

    def sent(self):
        return self.library.RanksSent()


def _work(library, rank, ranks, limit_s, said, pipe):
    if said:
        os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    one, address = Rank(library, rank, ranks), ctypes.create_string_buffer(_ADDRESS_BYTES)
    assert one.library.RanksOpen(rank, ranks, ctypes.c_double(limit_s)) == 0
    assert one.library.RanksAddress(address, ctypes.c_int64(_ADDRESS_BYTES)) > 0
    pipe.send(address.raw)
    assert one.library.RanksConnect(pipe.recv(), ctypes.c_int64(_ADDRESS_BYTES)) == 0
    while given := pipe.recv():  # whoever ends takes what it shares along: all do together
        work, wire, arguments = given
        one.wire = np.array([wire], np.int32)
        pipe.send(work(one, *arguments))


class Connected(contextlib.AbstractContextManager):
    """Ranks that are connected, each a process of its own.

    Args:
        library: the compiled library.
        ranks: how many.
        limit_s: how long they wait for each other.
        said: a file for what they say of errors.
    """

    def __init__(self, library, ranks, limit_s=30.0, said=None):
        self.pipes, self.children = [], []
        for rank in range(ranks):
            here, there = forkserver.Pipe()
            child = forkserver.Process(target=_work, args=(library, rank, ranks, limit_s, said, there))
            child.start()
            there.close()  # so that a child that dies is no wait for ever
            self.pipes.append(here)
            self.children.append(child)
        addresses = b"".join(pipe.recv() for pipe in self.pipes)
        for pipe in self.pipes:
            pipe.send(addresses)

    def __call__(self, work, *arguments, wire=0):
        """What a function (Rank, arguments of its rank...) gives on each rank; arguments are lists by rank.

        Values travel in the type of a place among WIRE_DTYPES.
        """
        for rank, pipe in enumerate(self.pipes):
            pipe.send((work, wire, [values[rank] for values in arguments]))
        return [pipe.recv() for pipe in self.pipes]

    def __exit__(self, *_):
        for pipe in self.pipes:
            pipe.send(None)
        for child in self.children:
            child.join()


def mean(rank, values):
    """The mean, and what its rank has sent for it."""
    before = rank.sent()
    return rank.mean(values), rank.sent() - before


def step(rank, table, ids, tables, pieces, gradients, room):
    """A lookup, and the gradients of its vectors; and what its rank has sent for both."""
    before = rank.sent()
    vectors = rank.look_up(table, ids, tables, pieces)
    given = rank.gradients(gradients, room) if vectors is not None else None
    return vectors, given, rank.sent() - before


def all_gradients(rank, rows, gradients, tables, pieces, room):
    before = rank.sent()
    return rank.all_gradients(rows, gradients, tables, pieces, room), rank.sent() - before


def mean_but_for_the_last(rank, values):
    """The mean, for which the last rank never comes."""
    return None if rank.rank == rank.ranks - 1 else rank.mean(values)
