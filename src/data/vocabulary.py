"""Categories to ids: count, order, encode and load.

Each field has ids of its own. Id 0 is for values that the vocabulary does not hold; the others follow falling
frequency, so that hot rows of a table lie side by side. An empty cell is a value like any other.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from src.base.errors import InputError
from src.base.files import MappedFile
from src.base.npz import Arrays, mapped_arrays
from src.data.compiled.key_tables import SHARED, Counts, KeyTable, count_keys, find_places
from src.engines.kept import InFile, Load
from src.rows.keys import is_seed, seed_words

UNSEEN = 0
BESIDE = "/inputs/"  # begins the names of what an encoder keeps in the same file
_HASH_BITS = "/hash_bits"
_HASHED = "/hash_rows"
_SEED = "/key_seed"
_NAMES, KEYS, ORDER = "/names", "/keys/", "/order/"  # behind the last two stands a table's number
HIDDEN = "/hidden"
_NO_SEED = np.array([0, 0x9E3779B97F4A7C15], np.uint64)


def count(keys: np.ndarray, checks: np.ndarray | None = None) -> list[Counts]:
    """Distinct keys and their counts of each field, from keys [F, B], and their checks from checks [F, B]."""
    return [count_keys(own, None if checks is None else checks[field]) for field, own in enumerate(keys)]


def shared_keys(counts: Counts) -> int:
    """How many keys of a field several texts have, -1 where none is hashed, or no checks are known."""
    return int((counts[2] == SHARED).sum()) if len(counts) > 2 else -1


def ordered(keys: np.ndarray, totals: np.ndarray, min_count: int = 1) -> Counts:
    """A field's keys that occur at least min_count times, in the order of their ids; ties in frequency go by key."""
    keys, totals = keys[totals >= min_count], totals[totals >= min_count]
    order = np.lexsort((keys, -totals))
    return keys[order], totals[order]


class Vocabulary(InFile):
    """Which id each category has.

    A few keys are looked up by bisection, which touches a few pages of a mapped file; only where many are looked up is
    a hash table built, which takes some seconds and gigabytes for tens of millions of keys.

    Args:
        names: of the fields.
        keys: each table's keys, uint64, in the order of their ids, which begin with 1.
        orders: each table's places in `keys` in the order of rising keys; None where they are not known.
        file: the mapped file that keys and orders lie in, if they do.
        key_seed: of the keys; "" in files of the first kinds.
        tables: the number of each field's table; unless given each field has one of its own.
    """

    def __init__(
        self,
        names: Sequence[str],
        keys: Sequence[np.ndarray],
        orders: Sequence[np.ndarray] | None = None,
        file: MappedFile | None = None,
        key_seed: str = "",
        tables: Sequence[int] = (),
    ):
        self.names, self.key_seed = tuple(names), key_seed
        self.tables = tuple(tables) or tuple(range(len(self.names)))
        self.keys = list(keys)
        self._orders, self._file = orders, file
        self._indexes: list[KeyTable | None] = [None] * len(self.keys)
        self._bisected = [0] * len(self.keys)

    def place(self) -> tuple[Load, Path, tuple[Any, ...]] | None:
        """See `InFile`."""
        if not self._file:
            return None
        self._file.check()
        return load_vocabulary, self._file.path, (self.tables,)

    @property
    def table_rows(self) -> tuple[int, ...]:
        """Rows of each field's table, the one for unseen values included."""
        return tuple(len(self.keys[table]) + 1 for table in self.tables)

    def prepare(self) -> None:
        """Build the hash tables now that large jobs would build, so that forked processes share them."""
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:  # compiled code lets others run
            list(pool.map(self._index, range(len(self.keys))))
        if self._file:
            self._file.page_out()

    def release(self) -> None:
        """Give up the hash tables, which are built anew where they are needed."""
        self._indexes = [None] * len(self.keys)

    def encode(self, keys: np.ndarray) -> np.ndarray:
        """Ids [B, F] int32 of keys [F, B]."""
        return self._ids(range(len(self.names)), keys)

    def ids_of(self, field: int, keys: np.ndarray) -> np.ndarray:
        """Ids [B] int32 of one field's keys [B]."""
        return self._ids([field], keys[None])[:, 0]

    def _ids(self, fields: Sequence[int], keys: np.ndarray) -> np.ndarray:
        """Ids [B, n] int32 of n fields' keys [n, B]: all that another kind of vocabulary does in another way."""
        tables = [self.tables[field] for field in fields]
        indexes = [self._index_for(table, keys.shape[1]) for table in tables]
        if all(indexes):
            return find_places([index for index in indexes if index], keys)
        ids = np.empty(keys.shape[::-1], np.int32)
        for place, (table, own, index) in enumerate(zip(tables, keys, indexes)):
            ids[:, place] = self._places(table, own, index)
        return ids

    def _index_for(self, table: int, wanted: int) -> KeyTable | None:
        """A table's hash table, if there is one, or it pays to build one for so many keys more."""
        if self._indexes[table] is None and self._orders is not None:
            self._bisected[table] += wanted
            # A hash table costs about as much as bisecting for an eighth of its keys.
            if self._bisected[table] <= len(self.keys[table]) // 8:
                return None
        return self._index(table)

    def _places(self, table: int, keys: np.ndarray, index: KeyTable | None) -> np.ndarray:
        if index:
            return index.places(keys)
        assert self._orders is not None, "else there is an index"
        if self._file:
            self._file.check()
        return _bisect(self.keys[table], self._orders[table], keys)

    def keys_of(self, field: int) -> np.ndarray:
        """The keys of a field's table, in the order of their ids."""
        return self.keys[self.tables[field]]

    def rarity_of(self, ids: np.ndarray, places: np.ndarray) -> np.ndarray:
        """What rises with how seldom values are, by their ids [V]; places [V] are those in their cells."""
        rarity: np.ndarray = np.where(ids == UNSEEN, np.iinfo(ids.dtype).max, ids)
        return rarity

    def _index(self, table: int) -> KeyTable:
        index = self._indexes[table]
        if index is None:
            if self._file:
                self._file.check()
            index = self._indexes[table] = KeyTable(self.keys[table])
        return index

    def arrays(self) -> Arrays:
        """What is kept: the names, and by a table's number its keys and their order; not which table a field has."""
        arrays = {_NAMES: np.array(self.names)} | _seed_array(self.key_seed)
        orders = self._orders or [order_of(keys) for keys in self.keys]
        for table, (keys, order) in enumerate(zip(self.keys, orders)):
            arrays |= {f"{KEYS}{table}": keys, f"{ORDER}{table}": order}
        return arrays


def order_of(keys: np.ndarray) -> np.ndarray:
    """Places in `keys`, of which no two are alike, in the order of rising keys, uint32."""
    return np.argsort(keys).astype(np.uint32)


def _bisect(keys: np.ndarray, order: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The places, from 1, of wanted keys [B] in `keys`, 0 where they are not; `order` sorts `keys`.

    np.searchsorted would read a mapped file as a whole, for its arrays are not aligned.
    """
    low, high = np.zeros(len(wanted), np.int64), np.full(len(wanted), len(keys))
    while (open_ := low < high).any():
        middle = (low + high) // 2
        smaller = open_ & (keys[order[np.where(open_, middle, 0)]] < wanted)
        low, high = np.where(smaller, middle + 1, low), np.where(open_ & ~smaller, middle, high)
    inside = low < len(keys)
    places = order[low[inside]].astype(np.int64)
    found = np.zeros(len(wanted), np.int64)
    found[inside] = np.where(keys[places] == wanted[inside], places + 1, UNSEEN)
    return found


class HashedVocabulary:
    """Ids by hashing: no vocabulary to learn or to keep, every value has an id, and some share one.

    Args:
        names: of the fields.
        rows: of each field's table; id 0 stays unused, so that it means the same as with a vocabulary.
        bits: of the hash that ids are made of; 32 in files of the first kind.
        key_seed: of the keys, and of the ids; "" in files of the first kinds.
    """

    def __init__(self, names: Sequence[str], rows: int, bits: int = 64, key_seed: str = ""):
        self.names, self.rows, self.bits, self.key_seed = tuple(names), rows, bits, key_seed

    @property
    def table_rows(self) -> tuple[int, ...]:
        """Rows of each field's table."""
        return (self.rows,) * len(self.names)

    def prepare(self) -> None:
        """Nothing to do."""

    def encode(self, keys: np.ndarray) -> np.ndarray:
        """Ids [B, F] int32 of keys [F, B]."""
        ids: np.ndarray = self.ids_of(0, keys).T.copy()
        return ids

    def ids_of(self, field: int, keys: np.ndarray) -> np.ndarray:
        """Ids of one field's keys, or of several fields', in their shape: the field makes no difference."""
        # Fibonacci hashing: the upper bits depend on all of the key's. The seed's numbers let none foretell the ids.
        added, factor = seed_words(self.key_seed) if self.key_seed else _NO_SEED
        mixed = (keys ^ added) * (factor | np.uint64(1))
        mixed = (mixed ^ mixed >> np.uint64(32)) * np.uint64(0xD6E8FEB86659FD93)
        mixed = mixed >> np.uint64(32) if self.bits == 32 else mixed ^ mixed >> np.uint64(32)
        ids: np.ndarray = (mixed % np.uint64(self.rows - 1) + np.uint64(1)).astype(np.int32)
        return ids

    def rarity_of(self, ids: np.ndarray, places: np.ndarray) -> np.ndarray:
        """How seldom a value is, is not known: the places."""
        return places

    def arrays(self) -> Arrays:
        """What is kept: how to hash."""
        bits = {} if self.bits == 32 else {_HASH_BITS: np.array(self.bits)}
        return {_HASHED: np.array(self.rows), "names": np.array(self.names)} | bits | _seed_array(self.key_seed)


def _seed_array(seed: str) -> Arrays:
    return {_SEED: np.array(seed)} if seed else {}


AnyVocabulary = Vocabulary | HashedVocabulary


def load_vocabulary(path: Path, tables: Sequence[int] = ()) -> AnyVocabulary:
    """The vocabulary whose `arrays` an .npz file holds, among others; its keys stay in the file.

    Args:
        path: the file.
        tables: as for `Vocabulary`.

    Raises:
        InputError: it says more of categories than this program knows, or its keys are not as it says.
    """
    file = MappedFile(path)
    return vocabulary_of(path, mapped_arrays(file), file, tables)


def vocabulary_of(
    path: Path, found: Arrays, file: MappedFile | None, tables: Sequence[int] = (), secret: str = ""
) -> AnyVocabulary:
    """The same, of a file's arrays, which lie in a mapped file if one is given.

    Args:
        path: names the file in errors.
        found, file: as above.
        tables: as for `Vocabulary`.
        secret: of a vocabulary that is hidden.

    Raises:
        InputError: as above, or it is hidden, and the secret is another one.
    """
    arrays = {name: array for name, array in found.items() if not name.startswith(BESIDE)}
    if _HASHED in arrays:
        bits = int(arrays.pop(_HASH_BITS, 32))
        seed = _seed_in(path, arrays)
        unknown = set(arrays) - {_HASHED, "names"}
        _refuse_unknown(path, unknown if bits in (32, 64) else unknown | {f"{_HASH_BITS} {bits}"})
        return HashedVocabulary(arrays["names"].tolist(), int(arrays[_HASHED]), bits, seed)
    if _NAMES not in arrays:  # as files were at first: keys alone, under the names of their fields
        return Vocabulary(list(arrays), list(arrays.values()), file=file)
    token = arrays.pop(HIDDEN, None)
    seed, names = _seed_in(path, arrays), arrays[_NAMES].tolist()
    tables_there = len(set(tables)) or len(names)
    keys, orders = ([f"{begin}{table}" for table in range(tables_there)] for begin in (KEYS, ORDER))
    _refuse_unknown(path, set(arrays) - {_NAMES, *keys, *orders})
    if missing := {*keys, *orders} - set(arrays):
        raise InputError(f"{path} lacks {min(missing)}, which its {_NAMES} promises: make it again")
    kept = [arrays[name] for name in keys], [arrays[name] for name in orders]
    if token is not None:
        from src.data.hidden import HiddenVocabulary, check_secret  # which rests on this file

        check_secret(path, token, secret)
        return HiddenVocabulary(names, kept[0], secret, kept[1], file, seed, tables)
    return Vocabulary(names, *kept, file, seed, tables)


def _seed_in(path: Path, arrays: Arrays) -> str:
    """The seed of the keys, which is taken out of the arrays."""
    seed = str(arrays.pop(_SEED, ""))
    _refuse_unknown(path, set() if not seed or is_seed(seed) else {f"{_SEED} {seed}"})
    return seed


def _refuse_unknown(path: Path, unknown: set[str]) -> None:
    if unknown:
        raise InputError(
            f"{path} holds {min(unknown)}, which this program does not know: use the program that wrote it"
        )
