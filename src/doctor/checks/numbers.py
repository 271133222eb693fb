"""Checks of numeric columns: units, logarithms, and where their values lie.

Legend: S rows kept, N numeric columns.
"""

from collections.abc import Callable
from functools import partial

import numpy as np

from src.data.transforms import TRANSFORMS
from src.doctor.check import Check, Found, some_of
from src.doctor.evidence import Evidence
from src.doctor.gathering import Gathered
from src.metrics.drift import MUCH, Moved, moved_number

_FACTORS = (1e6, 3600, 1000, 100, 86_400, 60, 24, 10, 7)
_LARGEST = float(np.finfo(np.float32).max)
_BETTER = 4.0  # times nearer, so that it explains what is wrong
Change = Callable[[np.ndarray], np.ndarray]
# What was done to numbers, in words, and what undoes it.
_UNITS: dict[str, Change] = {
    **{f"{factor:,.0f} times what {{}} training": partial(np.multiply, 1 / factor) for factor in _FACTORS},
    **{f"1/{factor:,.0f} of what {{}} training": partial(np.multiply, factor) for factor in _FACTORS},
    "of the other sign than in training": np.negative,
}
_LOGS: dict[str, Change] = {
    "logarithms already, log(x + 1), where training had plain numbers": np.expm1,
    "logarithms already, log(x), where training had plain numbers": np.exp,
    "plain numbers where training had logarithms, log(x + 1)": lambda x: np.log1p(np.maximum(x, 0)),
}


def numbers_of(evidence: Evidence, rows: Gathered) -> np.ndarray | None:
    """Numbers as they are written, [S, N] float64, nan for empty cells; None where what codes them can't be undone."""
    learned = evidence.trained.encoder.learned
    places = slice(0, len(evidence.manifest.dense))
    if rows.numbers.shape[1]:
        return rows.numbers.astype(np.float64)
    coded = rows.dense[:, places].astype(np.float64)
    coded[coded == TRANSFORMS[learned.transform].empty] = np.nan
    if learned.transform == "standard_log":
        means, deviations = np.stack([scale for (scale,) in learned.columns], axis=1)
        coded = coded * deviations + means
    if learned.transform in ("log", "standard_log"):
        return np.expm1(coded)
    return np.copysign(np.expm1(np.abs(coded)), coded) if learned.transform == "signed_log" else None


def _moved(evidence: Evidence) -> dict[str, Moved]:
    """Columns that have moved, and are not explained."""
    moved = evidence.drift.columns
    return {name: moved[name] for name in evidence.unexplained(list(evidence.numbers)) if moved[name].beyond(MUCH)}


def _changed(evidence: Evidence, changes: dict[str, Change], others: dict[str, Change]) -> dict[str, str]:
    """Columns that one of the changes brings back, and no other one better: the words for it."""
    (new, old), learned = evidence.pair, evidence.trained.encoder.learned
    numbers, found = numbers_of(evidence, new), {}
    for name, moved in _moved(evidence).items() if numbers is not None else ():
        place = evidence.numbers[name]

        def distance(change: Change, place: int = place) -> Moved:
            assert numbers is not None
            with np.errstate(all="ignore"):
                values = change(numbers[:, [place]])
            values = np.clip(values, -_LARGEST, _LARGEST)
            coded = TRANSFORMS[learned.transform](values.astype(np.float32), learned.columns[place : place + 1])
            return moved_number(old.dense[:, place], coded[:, 0])

        distances = {words: distance(change) for words, change in {**changes, **others}.items()}
        words = min(distances, key=lambda one: distances[one].psi)
        if words in changes and not distances[words].beyond(MUCH) and distances[words].psi * _BETTER < moved.psi:
            found[name] = words
    return found


def _medians(evidence: Evidence, name: str) -> str:
    """The middle of a column's values now and then."""
    place = evidence.numbers[name]
    values = [numbers_of(evidence, rows) for rows in evidence.pair]
    with np.errstate(all="ignore"):
        middles = [float(np.nanmedian(one[:, place])) if one is not None else np.nan for one in values]
    return (
        f"median {middles[0]:.6g}, expected {middles[1]:.6g}"
        if np.isfinite(middles).all()
        else "PSI " + (f"{evidence.drift.columns[name].psi:.2f}")
    )


def _told(evidence: Evidence, found: dict[str, str], remedy: str) -> Found | None:
    if not found:
        return None
    shown = some_of([f"{name} ({_medians(evidence, name)})" for name in found])
    first = next(iter(found.values())).format("they were in")
    more = "" if len(set(found.values())) == 1 else ", or the like"
    return Found(f"numbers are {first}{more}: {shown}", f"{remedy}, then {evidence.code_again}", tuple(found))


def _units(evidence: Evidence) -> Found | None:
    return _told(evidence, _changed(evidence, _UNITS, _LOGS), "write them in training's unit")


def _logs(evidence: Evidence) -> Found | None:
    found = _changed(evidence, _LOGS, _UNITS)
    return _told(evidence, found, "write them as in training, which takes the logarithm by itself" if any(
        "already" in words for words in found.values()) else "write their logarithms, as in training")  # fmt: skip


def _distributed(evidence: Evidence) -> Found | None:
    found = _moved(evidence)
    worst = sorted(found, key=lambda name: -found[name].psi)
    if not worst:
        return None
    shown = some_of([f"{name} PSI {found[name].psi:.2f} ({_medians(evidence, name)})" for name in worst])
    return Found(
        f"numbers lie elsewhere than in training: {shown}, expected PSI below {MUCH:g}",
        "look at how these columns are made; if the world has changed, train again with these rows",
        tuple(worst),
    )


_NEEDS = ("rows", "coding", "training rows")
_THRESHOLD = f"PSI of {MUCH:g}, the rule of thumb for much, and beyond what one of a million samples has"
CHECKS = (
    Check("another unit", "numbers by factors and signs", f"{_THRESHOLD}; a factor brings them back", _NEEDS, _units),
    Check("logarithms of numbers", "numbers beside their logarithms", f"{_THRESHOLD}; log or exp brings them back",
          _NEEDS, _logs),
    Check("moved numbers", "where numbers lie (PSI)", _THRESHOLD, _NEEDS, _distributed),
)  # fmt: skip
