"""How well a column alone tells the label."""

import math

import numpy as np
import pytest

from src.metrics.alone import LEAK, alone_of_category, alone_of_number
from src.metrics.binary import auc

RNG = np.random.default_rng(1)
LABELS = (RNG.random(4000) < 0.3).astype(np.float32)


def test_what_is_made_of_the_label_tells_it():
    assert alone_of_number(LABELS, 3 - LABELS) == 1
    assert alone_of_category(LABELS, np.where(LABELS > 0, 7, 3)) > LEAK


def test_what_has_nothing_to_do_with_it_does_not():
    assert alone_of_number(LABELS, RNG.normal(size=4000)) < 0.55
    assert alone_of_category(LABELS, RNG.integers(0, 50, 4000)) < 0.56


def test_values_of_their_own_do_not_tell_labels_of_other_rows():
    assert alone_of_category(LABELS, np.arange(4000)) == pytest.approx(0.5)


def test_it_is_the_auc_of_the_second_half():
    numbers = LABELS + RNG.normal(size=4000)
    assert alone_of_number(LABELS, numbers) == auc(LABELS[2000:], numbers[2000:])


def test_one_label_is_told_by_none():
    assert math.isnan(alone_of_number(np.zeros(10, np.float32), np.arange(10)))
    assert math.isnan(alone_of_category(np.zeros(10, np.float32), np.arange(10)))
