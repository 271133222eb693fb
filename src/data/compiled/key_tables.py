"""Keys counted, merged and looked up, by compiled code, or by pandas where there is no C++ compiler.

Legend: B rows, F fields, K distinct keys.
"""

import ctypes
import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from src.base.native import build, pointer

# A field's distinct keys, uint64, rising, how often each occurs, int64, and, where a key is hashed, each one's check,
# uint32, 0 where it has none.
Counts = tuple[np.ndarray, ...]
SHARED = np.uint32(2)  # in place of the check of a key that several texts have
SLOT_BYTES = 12
_FULL = 0.7  # share of a table's slots that hold keys
_SOURCE = Path(__file__).with_name("keys.cc")
_FLAGS = ("-std=c++17", "-O3", "-march=native", "-shared", "-fPIC")


@functools.cache
def _library() -> ctypes.CDLL | None:
    path = build(
        _SOURCE, _FLAGS, "what counts and looks up categories", "counting and coding by pandas, at half the speed"
    )
    if not path:
        return None
    library = ctypes.CDLL(str(path))
    library.CountKeys.restype = library.SumKeys.restype = ctypes.c_int64
    return library


def prepare() -> None:
    """Load now what the first use would, so that forked processes share it."""
    if not _library():
        import pandas  # noqa: F401


def _size(number: int) -> ctypes.c_int64:
    return ctypes.c_int64(number)


def count_keys(keys: np.ndarray, checks: np.ndarray | None = None) -> Counts:
    """What is counted of keys [B] uint64, and of their checks [B] uint32 if there are any but 0."""
    checks = None if checks is None or not checks.any() else checks
    if not (library := _library()):
        return summed(keys, np.ones(len(keys), np.int64), checks)
    keys = np.ascontiguousarray(keys)
    checks = None if checks is None else np.ascontiguousarray(checks)
    found: Counts = np.empty(len(keys), np.uint64), np.empty(len(keys), np.int64)
    found = found if checks is None else (*found, np.empty(len(keys), np.uint32))
    places = [pointer(array) for array in (*found, None)][:3]
    distinct = library.CountKeys(pointer(keys), pointer(checks), _size(len(keys)), *places)
    return tuple(array[:distinct].copy() for array in found)


def merge_counts(parts: Sequence[Counts]) -> Counts:
    """What several parts of the rows have together; it has checks if any of them has.

    The parts' keys may be in any order, and stand there several times.
    """
    keys, counts = (np.concatenate([part[place] for part in parts]) for place in range(2))
    counts = counts.astype(np.int64, copy=False)
    checks = None
    if any(len(part) > 2 for part in parts):
        own = (part[2] if len(part) > 2 else np.zeros(len(part[0]), np.uint32) for part in parts)
        checks = np.concatenate(list(own))
    if not (library := _library()):
        return summed(keys, counts, checks)
    distinct = library.SumKeys(*(pointer(array) for array in (keys, counts, checks)), _size(len(keys)))
    return tuple(array[:distinct] for array in (keys, counts, checks) if array is not None)


def summed(keys: np.ndarray, counts: np.ndarray, checks: np.ndarray | None = None) -> Counts:
    """The distinct keys, or numbers, of some in any order, rising, and their counts in all; by pandas."""
    import pandas as pd  # late: who has the library needs none

    codes, distinct = pd.factorize(keys)
    order = np.argsort(distinct)
    totals = np.zeros(len(distinct), np.int64)
    np.add.at(totals, codes, counts)
    found: Counts = distinct[order], totals[order]
    return found if checks is None else (*found, _one_each(codes, checks, len(distinct))[order])


def _one_each(codes: np.ndarray, checks: np.ndarray, distinct: int) -> np.ndarray:
    """The check of each distinct key, of the places [B] of keys among them and checks [B]; 0 is for no check."""
    found = np.zeros(distinct, np.uint32)
    codes, checks = codes[checks > 0], checks[checks > 0]
    found[codes] = checks
    found[codes[found[codes] != checks]] = SHARED
    return found


class Ranking:
    """The places of a table's keys, from 0 on, by falling counts, and where these are equal by rising keys.

    Args:
        counts: the different counts of keys that get a place, rising, int64.
        keys: how many have each of them.
    """

    def __init__(self, counts: np.ndarray, keys: np.ndarray):
        self._counts = np.ascontiguousarray(counts, np.int64)
        self._next = np.ascontiguousarray(keys[::-1].cumsum()[::-1] - keys, np.int64)

    def places(self, totals: np.ndarray) -> np.ndarray:
        """The places, int64, of the next keys by their counts [K]; keys rise from call to call. -1 for no place."""
        totals = np.ascontiguousarray(totals, np.int64)
        places = np.full(len(totals), -1, np.int64)
        if library := _library():
            library.RankCounts(pointer(totals), _size(len(totals)), pointer(self._counts), pointer(self._next),
                               _size(len(self._counts)), pointer(places))  # fmt: skip
            return places
        which = np.minimum(np.searchsorted(self._counts, totals), max(len(self._counts) - 1, 0))
        if not len(self._counts):
            return places
        ranked = np.flatnonzero(self._counts[which] == totals)
        ranked = ranked[np.argsort(which[ranked], kind="stable")]
        own = np.bincount(which[ranked], minlength=len(self._counts))
        begins = np.repeat(own.cumsum() - own, own)
        places[ranked] = self._next[which[ranked]] + np.arange(len(ranked)) - begins
        self._next += own
        return places


def table_bytes(keys: int) -> int:
    """What a `KeyTable` of so many keys takes."""
    return (int(keys / _FULL) + 16) * SLOT_BYTES


class KeyTable:
    """A hash table of keys and their places, which forked processes share, for it never changes.

    Args:
        keys: uint64, no two alike; the first one's place is 1. They need not be aligned.
    """

    def __init__(self, keys: np.ndarray):
        if not (library := _library()):
            import pandas as pd  # late, as above

            self._index = pd.Index(np.require(keys, np.uint64, "A"))
            return
        self.slots = np.zeros((table_bytes(len(keys)) // SLOT_BYTES, SLOT_BYTES), np.uint8)
        for first in range(0, len(keys), 1 << 20):  # what is mapped is copied by parts
            part = np.require(keys[first : first + (1 << 20)], np.uint64, "A")
            library.FillTable(pointer(part), _size(len(part)), ctypes.c_uint32(first + 1), pointer(self.slots),
                              _size(len(self.slots)))  # fmt: skip

    def places(self, keys: np.ndarray) -> np.ndarray:
        """Places, int32 [B], of keys [B], 0 for those that it does not hold."""
        return find_places([self], keys[None])[:, 0]

    def _by_pandas(self, keys: np.ndarray) -> np.ndarray:
        import pandas as pd  # late, as above

        places: np.ndarray = self._index.get_indexer(pd.Index(keys)) + 1  # -1 for a key that is not there
        return places


def find_places(tables: Sequence[KeyTable], keys: np.ndarray) -> np.ndarray:
    """Places [B, F] int32 of keys [F, B], each field's in its own table, as of `KeyTable.places`."""
    found = np.empty(keys.shape[::-1], np.int32)
    if not (library := _library()):
        for field, (table, own) in enumerate(zip(tables, keys)):
            found[:, field] = table._by_pandas(own)
        return found
    keys = np.ascontiguousarray(keys)
    slots = np.array([table.slots.ctypes.data for table in tables], np.uint64)
    counts = np.array([len(table.slots) for table in tables], np.int64)
    library.FindPlaces(pointer(keys), _size(len(keys)), _size(keys.shape[1]), pointer(slots), pointer(counts),
                       pointer(found))  # fmt: skip
    return found
