"""What of an encoder's file differs from an earlier one's, in a small file; and encoders that an earlier one becomes.

An encoder's file is named arrays. Of each array of the later file a change says one of

    same       it is the earlier file's
    sorted     it is the order of a table's keys, which are among the arrays
    changed    it is the earlier file's, cut or lengthened, with other values in some places
    whole      it is here

The file is made again from that to the byte. A program that scores needs less: it keeps the earlier file's keys where
they are, mapped and sorted, and looks first among those that changed.

Legend: B values, K keys that changed.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from src.base.errors import InputError
from src.base.npz import Arrays, save_arrays
from src.data.encoder import Encoder, encoder_of
from src.data.vocabulary import BESIDE, KEYS, ORDER, UNSEEN, Vocabulary, order_of

_PLAN, _WHOLE, _PLACES, _VALUES = "/plan", "/whole/", "/places/", "/values/"


def write_change(path: Path, old: Arrays, new: Arrays) -> None:
    """Write what makes the new arrays of the old ones."""
    plan: list[tuple[str, str, int]] = []
    kept: Arrays = {}
    for number, (name, array) in enumerate(new.items()):
        how, arrays = _difference(name, array, old, new)
        plan.append((name, how, len(array) if array.ndim else 0))
        kept |= {f"{begin}{number}": one for begin, one in arrays.items()}
    save_arrays(path, {_PLAN: np.frombuffer(json.dumps(plan).encode(), np.uint8)} | kept)


def _difference(name: str, array: np.ndarray, old: Arrays, new: Arrays) -> tuple[str, Arrays]:
    before = old.get(name)
    keys = new.get(KEYS + name.removeprefix(ORDER)) if name.startswith(ORDER) else None
    if keys is not None and _equal(order_of(keys), array):
        return "sorted", {}
    if before is not None and before.dtype == array.dtype and before.ndim == array.ndim == 1:
        common = min(len(before), len(array))
        differ = np.flatnonzero((_bytes_of(before[:common]) != _bytes_of(array[:common])).any(axis=1))
        if not len(differ) and len(before) == len(array):
            return "same", {}
        places = np.concatenate((differ, np.arange(common, len(array)))).astype(np.uint32)
        if len(places) * (4 + array.itemsize) < array.nbytes:
            return "changed", {_PLACES: places, _VALUES: array[places]}
    elif before is not None and _equal(before, array):
        return "same", {}
    return "whole", {_WHOLE: array}


def _bytes_of(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).view(np.uint8).reshape(len(array), array.itemsize)


def _equal(one: np.ndarray, other: np.ndarray) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


class EncoderChange:
    """What makes a later encoder's arrays of an earlier one's.

    Args:
        path: names the file in errors.
        arrays: of a file that `write_change` wrote.

    Raises:
        InputError: they are none.
    """

    def __init__(self, path: Path, arrays: Arrays):
        self.path, self._arrays = path, arrays
        try:
            self._plan = json.loads(arrays[_PLAN].tobytes())
        except (KeyError, ValueError):
            raise self._other() from None

    def made_of(self, old: Arrays, but: Callable[[str], bool] = lambda name: False) -> Arrays:
        """The later file's arrays, in their order.

        Args:
            old: those of the earlier file.
            but: names of arrays that are not wanted.

        Raises:
            InputError: this is a change of another file.
        """
        new: Arrays = {}
        for number, (name, how, length) in enumerate(self._plan):
            if but(name):
                continue
            try:
                new[name] = self._array(number, name, how, length, old, new)
            except (KeyError, IndexError):
                raise self._other() from None
        return new

    def _array(self, number: int, name: str, how: str, length: int, old: Arrays, new: Arrays) -> np.ndarray:
        if how == "same":
            return old[name]
        if how == "whole":
            return self._arrays[f"{_WHOLE}{number}"]
        if how == "sorted":
            return order_of(new[KEYS + name.removeprefix(ORDER)])
        array = np.zeros(length, old[name].dtype)
        array[: len(old[name])] = old[name][:length]
        array[self._arrays[f"{_PLACES}{number}"]] = self._arrays[f"{_VALUES}{number}"]
        return array

    def key_changes(self, sizes: Sequence[int]) -> list[tuple[int, np.ndarray, np.ndarray]] | None:
        """Of each table its number of keys, and places and values of those that changed.

        None where keys were not just changed in some places, or other facts of the vocabulary are not the same.

        Args:
            sizes: how many keys each table has in the earlier file.
        """
        found: list[tuple[int, np.ndarray, np.ndarray]] = []
        for number, (name, how, length) in enumerate(self._plan):
            if not name.startswith(KEYS):
                if how != "same" and not name.startswith((ORDER, BESIDE)):
                    return None
                continue
            if how == "same":
                found.append((length, np.zeros(0, np.uint32), np.zeros(0, np.uint64)))
            elif how == "changed" and length >= sizes[len(found)]:
                places, keys = (np.array(self._arrays[f"{begin}{number}"]) for begin in (_PLACES, _VALUES))
                found.append((length, places, keys))
            else:
                return None
        return found or None

    def _other(self) -> InputError:
        return InputError(f"{self.path} is no change of this encoder: make the delta again")


class ChangedVocabulary(Vocabulary):
    """A vocabulary of which some keys are others, and more stand behind them.

    Args:
        base: the one before.
        sizes: how many keys each table has.
        places, keys: of those that changed or are more, of each table, [K].
    """

    def __init__(self, base: Vocabulary, sizes: list[int], places: list[np.ndarray], keys: list[np.ndarray]):
        import pandas as pd  # late: who makes a delta, or exports, needs none

        super().__init__(base.names, base.keys, key_seed=base.key_seed, tables=base.tables)
        self.base, self.sizes, self.places, self.changed = base, sizes, places, keys
        self._gone = [np.sort(own.astype(np.int64)) + 1 for own in places]
        self._found = [pd.Index(own) for own in keys]

    @classmethod
    def of(cls, old: Vocabulary, changes: list[tuple[int, np.ndarray, np.ndarray]]) -> "ChangedVocabulary":
        """What `EncoderChange.key_changes` makes of a vocabulary."""
        base = old.base if isinstance(old, ChangedVocabulary) else old
        places, keys = [], []
        for table, (_, own_places, own_keys) in enumerate(changes):
            if isinstance(old, ChangedVocabulary):  # of a place that changed twice the later key
                own_places = np.concatenate((own_places, old.places[table]))
                own_places, first = np.unique(own_places, return_index=True)
                own_keys = np.concatenate((own_keys, old.changed[table]))[first]
            places.append(own_places)
            keys.append(own_keys)
        return cls(base, [size for size, _, _ in changes], places, keys)

    @property
    def table_rows(self) -> tuple[int, ...]:
        """As of `Vocabulary`."""
        return tuple(self.sizes[table] + 1 for table in self.tables)

    def prepare(self) -> None:
        """As of `Vocabulary`."""
        self.base.prepare()

    def _ids(self, fields: Sequence[int], keys: np.ndarray) -> np.ndarray:
        """As of `Vocabulary`."""
        import pandas as pd  # late, as above

        all_ids = self.base._ids(fields, keys)
        for field, own, ids in zip(fields, keys, all_ids.T):  # which is changed in its place
            table = self.tables[field]
            if len(gone := self._gone[table]):
                ids[gone[np.minimum(np.searchsorted(gone, ids), len(gone) - 1)] == ids] = UNSEEN
                found = self._found[table].get_indexer(pd.Index(own))
                ids[found >= 0] = self.places[table][found[found >= 0]] + 1
        return all_ids

    def keys_of(self, field: int) -> np.ndarray:
        """As of `Vocabulary`; it takes as long as there are keys."""
        return self._all_keys(self.tables[field])

    def arrays(self) -> Arrays:
        """As of `Vocabulary`; it takes as long as there are keys."""
        keys = [self._all_keys(table) for table in range(len(self.sizes))]
        return Vocabulary(self.names, keys, key_seed=self.key_seed, tables=self.tables).arrays()

    def _all_keys(self, table: int) -> np.ndarray:
        keys = np.zeros(self.sizes[table], np.uint64)
        keys[: len(self.base.keys[table])] = self.base.keys[table]
        keys[self.places[table]] = self.changed[table]
        return keys


def changed_encoder(
    old: Encoder, before: Arrays, change: EncoderChange, dense: tuple[str, ...]
) -> tuple[Encoder, Arrays]:
    """The later encoder, and its arrays.

    Args:
        old: the earlier encoder.
        before: the arrays of its file; of one that this gave, what that gave.
        change: what makes the later one of it.
        dense: names of the numeric columns.
    """
    vocabulary = old.vocabulary
    if isinstance(vocabulary, ChangedVocabulary):
        changes = change.key_changes(vocabulary.sizes)
    else:
        changes = change.key_changes(list(map(len, vocabulary.keys))) if isinstance(vocabulary, Vocabulary) else None
    if changes is None:
        if isinstance(vocabulary, ChangedVocabulary):
            before = before | vocabulary.arrays()
        arrays = change.made_of(before)
        return encoder_of(change.path, arrays, dense), arrays
    assert isinstance(vocabulary, Vocabulary)
    arrays = change.made_of(before, lambda name: name.startswith((KEYS, ORDER)))
    keys = {name: array for name, array in before.items() if name.startswith((KEYS, ORDER))}  # which stay as they are
    return encoder_of(change.path, arrays, dense, ChangedVocabulary.of(vocabulary, changes)), arrays | keys
