"""Checks of which columns rows have: their names, their coding, and whether each holds what it should."""

from collections import Counter

import numpy as np

from src.data.transforms import TRANSFORMS
from src.data.vocabulary import UNSEEN
from src.doctor.check import Check, Found, are, some_of
from src.doctor.evidence import Evidence, columns_differ
from src.doctor.order import BETTER
from src.metrics.drift import MUCH

FIELD_MOVED = 0.5  # of PSI: what is shown changes faster than what is measured; Criteo's last day moved by at most 0.06
_FEWEST = 3  # columns that make a shift


def _names(evidence: Evidence) -> Found | None:
    known, columns = evidence.trained.manifest, evidence.columns
    if not columns_differ(columns, known):
        return None
    expected, found = ((*one.dense, *one.categorical) for one in (known, columns))
    if (place := next((i for i, pair in enumerate(zip(expected, found)) if pair[0] != pair[1]), None)) is not None:
        what = f"column {place + 1} of {len(found)} is {found[place]!r}, expected {expected[place]!r}"
    elif len(found) != len(expected):
        what = f"there are {len(found)} columns, expected {len(expected)}"
    else:
        what = "numbers and categories, lists or shared tables are others, expected those of training"
    same = " (the same names in another order)" if sorted(found) == sorted(expected) and found != expected else ""
    return Found(
        what + same,
        f"name dense: [{', '.join(known.dense)}] and categorical: [{', '.join(known.categorical)}] in this order in "
        f"the schema, then {evidence.code_by_schema}",
    )


def _vocabulary(evidence: Evidence) -> Found | None:
    if evidence.is_coded_alike or columns_differ(evidence.columns, evidence.trained.manifest):
        return None
    trained, own = evidence.trained.manifest, evidence.manifest
    rows = [sum(one.rows_of_tables) for one in (own, trained)]
    other = [f"{name} {own.options.get(name)!r}, expected {value!r}" for name, value in trained.options.items()
             if name in ("numeric_transform", "min_count", "hash_rows", "missing_indicators", "numeric_buckets",
                         "category_counts", "max_rows_per_field") and own.options.get(name) != value]  # fmt: skip
    again = ""
    if evidence.trained.reported and str(evidence.data and evidence.data.path) == evidence.trained.reported:
        again = "; the folder was made anew since the model was trained on it"
    return Found(
        f"the rows are coded by another vocabulary of {rows[0]:,} table rows, the model's has {rows[1]:,}"
        f"{'; ' + '; '.join(other) if other else ''}{again}: ids stand for other categories",
        evidence.code_again,
    )


def _offsets(evidence: Evidence) -> Counter[int]:
    """How many columns lie how far from the one whose values they hold."""
    order = {name: place for place, name in enumerate((*evidence.numbers, *evidence.categories))}
    return Counter(order[other] - order[name] for name, other in evidence.assigned.items())


def _is_shift(evidence: Evidence) -> bool:
    offsets = _offsets(evidence)
    most = max(offsets.values(), default=0)
    return most >= _FEWEST and 2 * most > sum(offsets.values())


def _shifted(evidence: Evidence) -> Found | None:
    if not _is_shift(evidence):
        return None
    offset, count = _offsets(evidence).most_common(1)[0]
    pairs = evidence.assigned
    shown = some_of([f"{name} holds {other}'s values" for name, other in pairs.items()])
    odd = [one.field for one in evidence.unmatched]  # those that ran over the end hold what no column had
    odd += [name for name in evidence.categories if evidence.drift.columns[name].beyond(FIELD_MOVED)]
    odd += [name for name in evidence.numbers if evidence.drift.columns[name].beyond(MUCH)]
    return Found(
        f"{count} columns hold values of the column {abs(offset)} place{'s' if abs(offset) > 1 else ''} "
        f"{'behind' if offset > 0 else 'before'} them: {shown}",
        f"name the columns in the order of the file in a schema, then {evidence.code_by_schema}",
        tuple(dict.fromkeys([*pairs, *odd])),
    )


def _swapped(evidence: Evidence) -> Found | None:
    pairs = evidence.assigned
    if not pairs or _is_shift(evidence):
        return None
    shown = some_of([f"{name} holds {other}'s values" for name, other in pairs.items()])
    return Found(
        f"{len(pairs)} column{'s' if len(pairs) > 1 else ''} {are(list(pairs))} like another one, expected each in its "
        f"place: {shown}",
        f"name the columns in the order of the file in a schema, then {evidence.code_by_schema}",
        tuple(pairs),
    )


def _constant(evidence: Evidence) -> Found | None:
    new, old = evidence.pair
    raw, ids, old_ids = evidence.raw is not None, evidence.leading(new), evidence.leading(old)
    found: dict[str, str] = {}
    for name, place in evidence.numbers.items():
        empty = TRANSFORMS[evidence.trained.encoder.learned.transform].empty
        values = new.numbers[:, place] if raw else new.dense[:, place]
        if _is_one_value(values) and not _is_mostly_one(old.dense[:, place]):
            is_empty = np.isnan(values[0]) if raw else values[0] == empty
            found[name] = "empty" if is_empty else f"{values[0]:g}"
    for name, place in evidence.categories.items():
        if evidence.manifest.layout.pools[place]:
            continue
        values = new.keys[place] if raw else ids[:, place]
        is_unseen = not raw and values[0] == UNSEEN
        if not is_unseen and _is_one_value(values) and not _is_mostly_one(old_ids[:, place]):
            found[name] = "empty" if raw and values[0] == 0 else "one value"
    if not found:
        return None
    shown = some_of([f"{name} is always {value}" for name, value in found.items()])
    return Found(
        f"{shown} in {new.rows:,} rows, expected {'it' if len(found) == 1 else 'them'} to vary as in training",
        f"look for the lost column{'s' if len(found) > 1 else ''} where the rows are written, then "
        f"{evidence.code_again}",
        tuple(found),
    )


def _is_one_value(values: np.ndarray) -> bool:
    alike = np.isnan(values).all() if values.dtype.kind == "f" and np.isnan(values[0]) else (values == values[0]).all()
    return len(values) >= _LEAST_ROWS and bool(alike)


def _is_mostly_one(values: np.ndarray) -> bool:
    return bool(np.unique(values, return_counts=True)[1].max() > _MOSTLY * len(values))


_LEAST_ROWS, _MOSTLY = 100, 0.9  # 0.9 ** 100 is below one in ten thousand
_ROWS = ("rows", "coding", "training rows")
_NEAR = (
    f"values {BETTER:g} times nearer another column's (PSI), and not far from these: columns of one kind alone may be"
)
CHECKS_OF_NAMES = (
    Check("other columns", "names and order of the columns", "any difference: columns are taken by their place", (),
          _names),
    Check("another vocabulary", "the checksum of what codes the rows", "any difference: ids mean other categories", (),
          _vocabulary),
)  # fmt: skip
CHECKS_OF_ORDER = (
    Check("empty column", "columns of one value", f"{_LEAST_ROWS} rows of one value, in a column of which training had "
          f"at most {_MOSTLY:.0%} alike", _ROWS, _constant),
    Check("shifted columns", "values of each column, beside all others'", f"{_FEWEST} columns, and most of those with "
          f"{_NEAR}", _ROWS, _shifted),
    Check("swapped columns", "values of each column, beside all others'", _NEAR, _ROWS, _swapped),
)  # fmt: skip
