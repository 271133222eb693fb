"""What was counted of all lines, merged; pure functions over the files of `count_rows`'s arrays, as those of steps.py.

merge_tables    counts of all lines  ->  some tables' keys in the order of their ids
merge_columns   counts of all lines  ->  some numeric columns' values
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from src.base.npz import Arrays
from src.data import numeric
from src.data.vocabulary import Counts, merge, ordered, shared_keys

_MERGED_AT_ONCE = 32


def merge_tables(
    tables: range, fields: Sequence[Sequence[int]], least: Sequence[int], counted: Sequence[Path], max_rows: int = 0
) -> Arrays:
    """Some tables' vocabularies from the files of `count_rows`'s arrays.

    Args:
        tables: their numbers.
        fields: the numbers of the fields that use each.
        least: how often a category of each must occur, in all of these.
        counted: the files.
        max_rows: rows that a table has at most, the one for unseen values among them; 0 for no bound.

    Returns:
        keys_3, counts_3, ...: of each table, its keys in the order of their ids, and how often each occurs;
        left_keys_3, left_counts_3, ...: the same of values that get no row; shared_3, ...: how many keys several texts
        have, -1 where none is hashed.
    """
    arrays: Arrays = {}
    for table, own, (merged, shared) in zip(tables, least, merged_counts(fields, counted)):
        keys, counts = ordered(merged[0], merged[1], own)
        most, rare = max_rows - 1 if max_rows else len(keys), merged[1] < own
        arrays |= {f"keys_{table}": keys[:most], f"counts_{table}": counts[:most]}
        arrays[f"left_keys_{table}"] = np.concatenate([keys[most:], merged[0][rare]])
        arrays[f"left_counts_{table}"] = np.concatenate([counts[most:], merged[1][rare]])
        arrays[f"shared_{table}"] = np.array(shared)
    return arrays


def merged_counts(fields: Sequence[Sequence[int]], counted: Sequence[Path]) -> list[tuple[Counts, int]]:
    """Keys and counts over all files of tables that these fields use, and how many of the keys several texts have."""
    return [(one[:2], shared_keys(one)) for one in _merged(("keys", "counts", "checks"), fields, merge, counted)]


def merge_columns(columns: range, counted: Sequence[Path]) -> Arrays:
    """Some numeric columns' summaries, values_3, counts_3, ..., from the files of `count_rows`'s arrays."""
    arrays: Arrays = {}
    alone = [(column,) for column in columns]
    for column, merged in zip(columns, _merged(("values", "values_counts"), alone, numeric.merge, counted)):
        arrays |= {f"values_{column}": merged[0], f"counts_{column}": merged[1]}
    return arrays


def _merged(
    names: Sequence[str], groups: Sequence[Sequence[int]], merge_parts: Callable[[Sequence[Any]], Counts],
    counted: Sequence[Path],
) -> list[Counts]:  # fmt: skip
    """What the files hold under some names, of which the last one may lack, of groups of fields or columns, merged.

    Several at a time, for a file of a thousand fields takes longer to open than to read.
    """
    pending: list[list[Counts]] = [[] for _ in groups]
    for path in counted:
        with np.load(path) as arrays:
            for numbers, parts in zip(groups, pending):
                for number in numbers:
                    there = [f"{name}_{number}" for name in names]
                    parts.append(tuple(arrays[name] for name in there if name in arrays))
        for parts in pending:
            if len(parts) >= _MERGED_AT_ONCE:  # so that what waits stays of the size of the result
                parts[:] = [merge_parts(parts)]
    return [merge_parts(parts) for parts in pending]
