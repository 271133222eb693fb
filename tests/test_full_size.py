"""How benchmarks/full_size.py finds memory that grows."""

import numpy as np

from benchmarks.full_size import Peaks


def test_an_early_peak_hides_no_growth():
    peaks, mb = Peaks(), 1 << 17  # values of 8 bytes
    np.ones(300 * mb)
    peaks.look("early")
    np.ones(50 * mb)
    peaks.look("usual")
    kept = np.ones(100 * mb)
    peaks.look("late")
    peaks.look("early")  # which it was already
    assert len(kept)
    assert peaks.found["early"] - peaks.found["late"] > 150
    assert 30 < peaks.growth("usual") < 70
