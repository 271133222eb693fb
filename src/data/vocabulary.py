"""Categories to ids: count, order, encode and load.

Each field has ids of its own. Id 0 is for values that the vocabulary does not hold; the others follow falling
frequency, so that hot rows of a table lie side by side. An empty cell is a value like any other.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from src.base.errors import InputError
from src.base.npz import Arrays

UNSEEN = 0
BESIDE = "/inputs/"  # begins the names of what an encoder keeps in the same file; no column is named so
_HASHED = "/hash_rows"  # no column of a raw file is named so
Counts = tuple[np.ndarray, np.ndarray]  # a field's distinct keys, uint64, and how often each occurs, int64


def count(keys: np.ndarray) -> list[Counts]:
    """Distinct keys and their counts of each field, from keys [F, B]."""
    counts = []
    for field_keys in keys:
        codes, distinct = pd.factorize(field_keys)  # a hash table, ten times faster than sorting
        counts.append((distinct, np.bincount(codes, minlength=len(distinct))))
    return counts


def merge(parts: Sequence[Counts]) -> Counts:
    """One field's counts over several parts of the rows."""
    codes, distinct = pd.factorize(np.concatenate([keys for keys, _ in parts]))
    totals = np.zeros(len(distinct), np.int64)
    np.add.at(totals, codes, np.concatenate([counts for _, counts in parts]))
    return distinct, totals


def ordered(keys: np.ndarray, totals: np.ndarray, min_count: int = 1) -> Counts:
    """A field's keys that occur at least min_count times, in the order of their ids; ties in frequency go by key."""
    keys, totals = keys[totals >= min_count], totals[totals >= min_count]
    order = np.lexsort((keys, -totals))
    return keys[order], totals[order]


class Vocabulary:
    """Which id each category has.

    Args:
        names: of the fields.
        keys: each field's keys, uint64, in the order of their ids, which begin with 1.
    """

    def __init__(self, names: Sequence[str], keys: Sequence[np.ndarray]):
        self.names = tuple(names)
        self.keys = list(keys)
        self._indexes = [pd.Index(field_keys) for field_keys in self.keys]

    @property
    def table_rows(self) -> tuple[int, ...]:
        """Rows of each field's table, the one for unseen values included."""
        return tuple(len(keys) + 1 for keys in self.keys)

    def prepare(self) -> None:
        """Build the hash tables now that the first `encode` would build, so that forked processes share them."""
        self.encode(np.zeros((len(self.keys), 1), np.uint64))

    def encode(self, keys: np.ndarray) -> np.ndarray:
        """Ids [B, F] int32 of keys [F, B]."""
        ids = np.empty(keys.shape[::-1], np.int32)
        for field, index in enumerate(self._indexes):
            ids[:, field] = index.get_indexer(keys[field]) + 1  # -1 for a key that is not there, so 0
        return ids

    def arrays(self) -> Arrays:
        """What is kept: an array of keys a field."""
        return dict(zip(self.names, self.keys))


class HashedVocabulary:
    """Ids by hashing: no vocabulary to learn or to keep, every value has an id, and some share one.

    Args:
        names: of the fields.
        rows: of each field's table; id 0 stays unused, so that it means the same as with a vocabulary.
    """

    def __init__(self, names: Sequence[str], rows: int):
        self.names, self.rows = tuple(names), rows

    @property
    def table_rows(self) -> tuple[int, ...]:
        """Rows of each field's table."""
        return (self.rows,) * len(self.names)

    def prepare(self) -> None:
        """Nothing to do."""

    def encode(self, keys: np.ndarray) -> np.ndarray:
        """Ids [B, F] int32 of keys [F, B]."""
        mixed = keys * np.uint64(0x9E3779B97F4A7C15)  # Fibonacci hashing: the upper bits depend on all of the key's
        mixed = (mixed ^ mixed >> np.uint64(32)) * np.uint64(0xD6E8FEB86659FD93)
        return ((mixed >> np.uint64(32)) % np.uint64(self.rows - 1) + np.uint64(1)).astype(np.int32).T.copy()

    def arrays(self) -> Arrays:
        """What is kept: how to hash."""
        return {_HASHED: np.array(self.rows), "names": np.array(self.names)}


AnyVocabulary = Vocabulary | HashedVocabulary


def load_vocabulary(path: Path) -> AnyVocabulary:
    """The vocabulary whose `arrays` an .npz file holds, among others that begin with BESIDE.

    Raises:
        InputError: it says more of hashing than this program knows.
    """
    with np.load(path) as arrays:
        names = [name for name in arrays.files if not name.startswith(BESIDE)]
        if _HASHED in names:
            if unknown := set(names) - {_HASHED, "names"}:
                raise InputError(
                    f"{path} holds {min(unknown)}, which this program does not know: use the program that wrote it"
                )
            return HashedVocabulary(arrays["names"].tolist(), int(arrays[_HASHED]))
        return Vocabulary(names, [arrays[name] for name in names])
