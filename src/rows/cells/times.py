"""Points in time: text to seconds since 1970, and these to what a network can take.

Legend: B rows.
"""

from collections.abc import Sequence

import numpy as np

from src.rows.columns import Timestamp

_DAY = 86_400
_EPOCH_WEEKDAY = 3  # 1970 began on a Thursday
UNITS = {"seconds": 1.0, "milliseconds": 1e-3}
_NEAREST, _FURTHEST = -62_135_596_800, 253_402_300_800  # the years 1 to 9999


def of_texts(texts: Sequence[str], form: str) -> np.ndarray:
    """Seconds since 1970, float64 [B], of cells in a `Timestamp`'s form, without a time zone UTC; nan for others."""
    import pandas as pd  # late: rows without points in time need none

    if form in UNITS:
        seconds = pd.to_numeric(pd.Series(texts, dtype=object), errors="coerce").to_numpy(np.float64) * UNITS[form]
        return bounded(seconds)
    distinct = pd.Series(list(dict.fromkeys(texts)), dtype=object)
    found = pd.to_datetime(distinct, format="ISO8601" if form == "iso" else form, errors="coerce", utc=True)
    seconds = seconds_of(found.dt.tz_localize(None).to_numpy("datetime64[us]"))
    known = dict(zip(distinct.tolist(), seconds.tolist()))
    return np.array([known[text] for text in texts], np.float64)


def seconds_of(moments: np.ndarray) -> np.ndarray:
    """Seconds since 1970, float64 [B], of datetime64[us]; nan for one that is missing."""
    return np.where(np.isnat(moments), np.nan, moments.astype(np.int64) / 1e6)


def bounded(seconds: np.ndarray) -> np.ndarray:
    """The same, but nan for what is no point in time."""
    return np.where((seconds >= _NEAREST) & (seconds < _FURTHEST), seconds, np.nan)


def day_of(text: str) -> float:
    """The first second of a day such as 2014-10-21, nan if it is none."""
    return float(of_texts([text], "%Y-%m-%d")[0])


def numbers_of(seconds: np.ndarray, timestamp: Timestamp) -> np.ndarray:
    """Hour of the day, weekday and age in days, float32 [B, 3], nan where the second is."""
    days = np.floor(seconds / _DAY)
    hours = np.floor((seconds - days * _DAY) / 3600)
    weekdays = (days + _EPOCH_WEEKDAY) % 7
    ages = (seconds - day_of(timestamp.since)) / _DAY
    return np.stack([hours, weekdays, ages], axis=1).astype(np.float32) + np.float32(0)
