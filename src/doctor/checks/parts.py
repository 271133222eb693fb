"""Checks of rows beside training's: rows in both, time that runs backwards, columns that give labels away."""

import math

import numpy as np

from src.doctor.check import Check, Found, some_of
from src.doctor.checks.labels import alone
from src.doctor.evidence import Evidence
from src.doctor.gathering import Gathered
from src.metrics.alone import LEAK, LEAST_ROWS

_MORE, _DEVIATIONS, _FEWEST = 0.01, 5.0, 10  # of rows that are in both parts: share, standard deviations, rows
_OLDER = 0.05  # share of rows from before the middle of training
_LEAST_CLICKS = 20


def _leak(evidence: Evidence) -> Found | None:
    told: dict[str, float] = {}
    for rows in (evidence.old, evidence.new):
        told |= {name: area for name, area in _leaks(evidence, rows).items() if name not in told}
    if not told:
        return None
    now = _leaks(evidence, evidence.new)
    lost = "" if set(told) <= set(now) else ", in training alone, where the model has learned from it"
    shown = some_of([f"{name} (AUC {area:.3f})" for name, area in told.items()])
    return Found(
        f"{shown} alone tell{'s' if len(told) == 1 else ''} the label, expected below {LEAK:g}: it is made of the "
        f"label, or known only after the click{lost}",
        "leave it away in a schema, then preprocess and train again: python src/preprocess_data.py "
        "--data_path=RAW_FILE --schema=SCHEMA.yaml",
        tuple(told),
    )


def _leaks(evidence: Evidence, rows: Gathered | None) -> dict[str, float]:
    if rows is None or len(rows.labels) < LEAST_ROWS:
        return {}
    clicks = rows.labels.sum()
    if min(clicks, len(rows.labels) - clicks) < _LEAST_CLICKS:
        return {}
    return {name: area for name, area in alone(evidence, rows).items() if area > LEAK}


def _twice(evidence: Evidence) -> Found | None:
    new, old = evidence.pair
    bound = min(new.bound, old.bound)
    (hashes, times), (old_hashes, old_times) = new.within(bound), old.within(bound)
    total = int(times.sum())
    both = int(times[np.isin(hashes, old_hashes)].sum())
    usual = old_times[old_times > 1].sum() / max(old_times.sum(), 1)
    if both < _FEWEST:
        return None
    share = both / total
    by_chance = max(usual * (1 - usual), 1 / total) / total
    if share - usual < max(_MORE, _DEVIATIONS * math.sqrt(by_chance)):
        return None
    said = f" ({both:,} of {total:,} looked at)" if total < new.rows else f" ({both:,})"
    return Found(
        f"{share:.1%} of the {new.rows:,} rows{said} stand among the rows that were trained on, expected some "
        f"{usual:.1%}, as many as training has twice: their AUC is too good, or is of training",
        "name rows that are not training's, such as the folder's test part; else drop rows that come twice, preprocess "
        "and train again",
    )


def _time(evidence: Evidence) -> Found | None:
    new, old = evidence.pair
    rule = str(evidence.manifest.options.get("split", ""))
    if evidence.data and rule and not any(rule.startswith(f"{one}:") for one in _time_columns(evidence)):
        return None  # split as the user wanted it
    for name, place in evidence.times.items():
        middle = np.median(old.dense[:, place])
        share = float(np.mean(new.dense[:, place] < middle))
        if share > _OLDER and len(new.dense) * share >= _FEWEST:
            return Found(
                f"{share:.0%} of the rows are older than half of the training rows by {name}, expected rows that came "
                f"after training",
                "sort the raw rows by time, or split by it: python src/preprocess_data.py --data_path=RAW_FILE "
                "--order_by=COLUMN, or --split=DAY:FIRST_VALID,FIRST_TEST; then train again",
                (name,),
            )
    return None


def _time_columns(evidence: Evidence) -> list[str]:
    return [one.name for one in evidence.columns.timestamps]


LEAK_CHECK = Check(
    "label leak", "the AUC of each column alone", f"above {LEAK:g}, which no honest column of a click log has",
    ("rows", "labels"), _leak,
)  # fmt: skip
CHECKS = (
    Check("test rows in training", "hashes of rows", f"{_MORE:.0%} of the rows more than come twice in training "
          f"itself, and {_DEVIATIONS:g} standard deviations", ("rows", "training rows"), _twice),
    Check("time travel", "points in time", f"{_OLDER:.0%} of the rows lie before the middle of training",
          ("rows", "training rows", "times"), _time),
)  # fmt: skip
