"""What was counted of all lines, merged; pure functions over the files of `count_rows`'s arrays, as those of steps.py.

join_counts     some files' counts   ->  a file of the same form
merge_tables    counts of all lines  ->  some tables' keys in the order of their ids
merge_columns   counts of all lines  ->  some numeric columns' values

Of each field a file has keys that rise. So all files are read along side by side, some keys of each at a time, and
what of these no other file can have any more is put together. That takes the same memory however many keys there are,
and what is found goes to files without names. Of many files some are put together first, for each needs a share of
that memory; no more than one is open at once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from src.base.npz import Arrays, StoredArray, page_out, scratch_array, stored_arrays
from src.data import numeric
from src.data.compiled.key_tables import Counts, Ranking, merge_counts
from src.data.vocabulary import shared_keys
from src.preprocessing.options import MERGED_KEYS

_MOST_FILES, _JOINED = 256, 64
_MERGED_AT_ONCE = 32  # summaries of numbers
_PAGED_OUT_KEYS = 1 << 22


def counts_of_fields(found: Sequence[Counts]) -> Arrays:
    """The counts of all fields as they are kept, each one's behind those of the one before.

    Returns:
        keys: uint64. counts: uint32, or int64 where one needs it. bounds: of each field the first key's place, and
        the one behind the last key, [F + 1]. checks: uint32, if a field has some.
    """
    bounds = np.concatenate([[0], np.cumsum([len(keys) for keys, *_ in found])]).astype(np.int64)
    keys = np.concatenate([keys for keys, *_ in found]) if found else np.empty(0, np.uint64)
    counts = np.concatenate([counts for _, counts, *_ in found]) if found else np.empty(0, np.int64)
    arrays = {"bounds": bounds, "keys": keys, "counts": _narrow(counts)}
    if any(len(one) > 2 for one in found):
        checks = [one[2] if len(one) > 2 else np.zeros(len(one[0]), np.uint32) for one in found]
        arrays["checks"] = np.concatenate(checks)
    return arrays


def _narrow(counts: np.ndarray) -> np.ndarray:
    return counts.astype(np.uint32) if not len(counts) or counts.max() < 1 << 32 else counts


class _CountFile:
    """A file of `counts_of_fields`'s arrays, of which parts are read."""

    def __init__(self, path: Path):
        stored = stored_arrays(path)
        self.bounds = stored["bounds"].read()
        self._arrays: list[Any] = [stored[name] for name in ("keys", "counts", "checks") if name in stored]
        self._first = 0

    def load(self, first_field: int, end_field: int) -> None:
        """Have some fields in memory, and no others from then on."""
        first, end = self.bounds[[first_field, end_field]].tolist()
        self._arrays, self._first = list(self.read(first, end)), first

    def read(self, first: int, end: int) -> Counts:
        """The counts between two places."""
        first, end = first - self._first, end - self._first
        parts = (one.read(first, end) if isinstance(one, StoredArray) else one[first:end] for one in self._arrays)
        return tuple(parts)


@dataclass
class _Run:
    """A field's keys in a file, read along.

    Attributes:
        share: of all keys that are read at once.
        held: what was read and is not passed on.
    """

    file: _CountFile
    next: int
    end: int
    share: float
    held: Counts

    def fill(self, most: int) -> None:
        """Read on, so that it holds its share of so many keys, if there are as many."""
        wanted = min(self.next + max(1, int(most * self.share)) - len(self.held[0]), self.end)
        if wanted > self.next:
            read = self.file.read(self.next, wanted)
            self.held = tuple(np.concatenate(pair) for pair in zip(self.held, read)) if len(self.held[0]) else read
            self.next = wanted

    def taken(self, last: np.uint64 | None) -> Counts:
        """What it holds up to a key, which is passed on; all for None."""
        cut = len(self.held[0]) if last is None else int(np.searchsorted(self.held[0], last, "right"))
        taken = tuple(array[:cut] for array in self.held)
        self.held = tuple(array[cut:] for array in self.held)
        return taken


def _merged(files: Sequence[_CountFile], fields: Sequence[int], most: int) -> Iterator[Counts]:
    """The counts of some fields together over all files, by rising keys, some at a time."""
    places = [(file, *file.bounds[field : field + 2].tolist()) for file in files for field in fields]
    total = sum(end - first for _, first, end in places) or 1
    runs = [_Run(file, first, end, (end - first) / total, file.read(first, first)) for file, first, end in places]
    while runs:
        for run in runs:
            run.fill(most)
        lasts = [run.held[0][-1] for run in runs if run.next < run.end]
        parts = [run.taken(min(lasts) if lasts else None) for run in runs]
        yield merge_counts(parts)
        runs = [run for run in runs if len(run.held[0]) or run.next < run.end]


def _opened(fields: Sequence[Sequence[int]], counted: Sequence[Path], most: int) -> list[_CountFile]:
    """The files; small ones' fields are read at once, for a file of a thousand takes longer to open than to read."""
    files = [_CountFile(path) for path in counted]
    numbers = [field for own in fields for field in own]
    first, end = min(numbers, default=0), max(numbers, default=-1) + 1
    if len(numbers) > 1 and sum(int(file.bounds[end] - file.bounds[first]) for file in files) <= most:
        for file in files:
            file.load(first, end)
    return files


def join_counts(counted: Sequence[Path], most: int) -> Arrays:
    """The counts of several files' lines in one, in the same form.

    Args:
        counted: the files of `count_rows`'s arrays.
        most: keys in memory at once.
    """
    files, folder = [_CountFile(path) for path in counted], counted[0].parent
    fields = range(len(files[0].bounds) - 1)
    bounds = np.zeros(len(fields) + 1, np.int64)
    kept = _Kept(folder, sum(int(file.bounds[-1]) for file in files))
    for field in fields:
        for part in _merged(files, [field], most):
            kept.add(part)
        bounds[field + 1] = kept.size
    keys, counts, *checks = kept.arrays()
    return {"bounds": bounds, "keys": keys, "counts": _narrow(counts)} | ({"checks": checks[0]} if checks else {})


def joins_of(counted: Sequence[Path]) -> list[Sequence[Path]]:
    """The files that `join_counts` puts together; none where they are few."""
    return [counted[at : at + _JOINED] for at in range(0, len(counted), _JOINED)] if len(counted) > _MOST_FILES else []


class _Kept:
    """Counts one behind the other, in files without names: of keys, counts, and checks."""

    def __init__(self, folder: Path, most: int):
        self._arrays = [scratch_array(folder, kind, most) for kind in (np.uint64, np.int64, np.uint32)]
        self._paged = self.size = self._columns = 0

    def add(self, part: Counts) -> None:
        """Put more behind."""
        end = self.size + len(part[0])
        for array, own in zip(self._arrays, part):
            array[self.size : end] = own
        self.size, self._columns = end, max(self._columns, len(part))
        if end - self._paged > _PAGED_OUT_KEYS:
            self._paged = end
            for array in self._arrays:
                page_out(array)

    def arrays(self) -> Counts:
        """All of them."""
        return tuple(array[: self.size] for array in self._arrays[: max(self._columns, 2)])


def merge_tables(
    tables: range, fields: Sequence[Sequence[int]], least: Sequence[int], counted: Sequence[Path], max_rows: int = 0,
    most: int = MERGED_KEYS,
) -> Arrays:  # fmt: skip
    """Some tables' vocabularies from the files of `count_rows`'s arrays.

    Args:
        tables: their numbers.
        fields: the numbers of the fields that use each.
        least: how often a category of each must occur, in all of these.
        counted: the files.
        max_rows: rows that a table has at most, the one for unseen values among them; 0 for no bound.
        most: keys in memory at once.

    Returns:
        keys_3, counts_3, ...: of each table, its keys in the order of their ids, and how often each occurs;
        order_3, ...: the places of these keys, from 0, in the order of rising keys;
        left_keys_3, left_counts_3, ...: the same of values that get no row, by rising keys;
        shared_3, ...: how many keys several texts have, -1 where none is hashed.
    """
    arrays: Arrays = {}
    files, folder = _opened(fields, counted, most), counted[0].parent
    for table, own, own_least in zip(tables, fields, least):
        kept = _Kept(folder, sum(int(np.diff(file.bounds)[own].sum()) for file in files))
        frequent: dict[int, int] = {}
        shared: list[int] = []
        largest = 0
        for part in _merged(files, own, most):
            kept.add(part)
            shared.append(_shared(part))
            largest = max(largest, int(part[1].max(initial=0)))
            for count, keys in zip(*(array.tolist() for array in np.unique(part[1], return_counts=True))):
                if count >= own_least:
                    frequent[count] = frequent.get(count, 0) + keys
        keys, totals, *_ = kept.arrays()
        found = _ranked(keys, totals, frequent, max_rows - 1 if max_rows else len(keys), largest, folder)
        arrays |= {f"{name}_{table}": array for name, array in found.items()}
        arrays[f"shared_{table}"] = np.array(_total(shared))
    return arrays


def _shared(part: Counts) -> int:
    """As of `shared_keys`, where files have checks of other fields too."""
    return shared_keys(part) if len(part) > 2 and part[2].any() else -1


def _total(shared: Sequence[int]) -> int:
    known = [count for count in shared if count >= 0]
    return sum(known) if known else -1


def _ranked(
    keys: np.ndarray, totals: np.ndarray, frequent: dict[int, int], most_rows: int, largest: int, folder: Path
) -> Arrays:
    """A table's arrays, as of `merge_tables`, of its rising keys, how often each occurs, how many keys have each count
    that is enough, and the largest count."""
    rows = min(sum(frequent.values()), most_rows)
    counts = np.array(sorted(frequent), np.int64)
    ranking = Ranking(counts, np.array([frequent[count] for count in counts.tolist()], np.int64))
    sizes = {"keys": rows, "counts": rows, "order": rows}
    sizes |= {"left_keys": len(keys) - rows, "left_counts": len(keys) - rows}
    of_counts = np.uint32 if largest < 1 << 32 else np.int64
    kinds = {
        "keys": np.uint64,
        "counts": of_counts,
        "order": np.uint32,
        "left_keys": np.uint64,
        "left_counts": of_counts,
    }
    found = {name: scratch_array(folder, kinds[name], size) for name, size in sizes.items()}
    done = left = 0
    for first in range(0, len(keys), _PAGED_OUT_KEYS):
        of_keys, of_totals = keys[first : first + _PAGED_OUT_KEYS], totals[first : first + _PAGED_OUT_KEYS]
        places = ranking.places(of_totals)
        has_row = (places >= 0) & (places < rows)
        own = places[has_row]
        found["keys"][own], found["counts"][own] = of_keys[has_row], of_totals[has_row]
        found["order"][done : done + len(own)] = own
        others = len(places) - len(own)
        found["left_keys"][left : left + others] = of_keys[~has_row]
        found["left_counts"][left : left + others] = of_totals[~has_row]
        done, left = done + len(own), left + others
        for array in (keys, totals, *found.values()):
            page_out(array)
    return found


def merged_counts(
    fields: Sequence[Sequence[int]], counted: Sequence[Path], most: int = MERGED_KEYS
) -> list[tuple[Counts, int]]:
    """Keys and counts over all files of tables that these fields use, and how many of the keys several texts have."""
    files = _opened(fields, counted, most)
    found: list[tuple[Counts, int]] = []
    for own in fields:
        parts = list(_merged(files, own, most))
        keys, counts = (np.concatenate([part[place] for part in parts]) for place in range(2))
        found.append(((keys, counts), _total([_shared(part) for part in parts])))
    return found


def merge_columns(columns: range, counted: Sequence[Path]) -> Arrays:
    """Some numeric columns' summaries, values_3, counts_3, ..., from the files of `count_rows`'s arrays."""
    pending: list[list[numeric.Summary]] = [[] for _ in columns]
    for path in counted:
        stored = stored_arrays(path)
        for column, parts in zip(columns, pending):
            parts.append((stored[f"values_{column}"].read(), stored[f"values_counts_{column}"].read()))
        for parts in pending:
            if len(parts) >= _MERGED_AT_ONCE:  # so that what waits stays of the size of the result
                parts[:] = [numeric.merge(parts)]
    found = [numeric.merge(parts) for parts in pending]
    arrays_of = (("values", 0), ("counts", 1))
    return {f"{name}_{column}": one[place] for column, one in zip(columns, found) for name, place in arrays_of}
