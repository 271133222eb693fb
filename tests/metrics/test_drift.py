"""How far columns have moved: by hand, beside the distribution that chance has, and of what a day's rows are."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import chi2

from src.metrics.drift import (
    MUCH,
    ColumnRows,
    deviations_apart,
    drift,
    moved,
    moved_category,
    moved_number,
    odds_ratio,
)


def test_the_index_is_that_of_the_formula():
    old, new = np.array([500, 300, 200, 0]), np.array([200, 300, 500, 0])
    p, q = (np.array(rows[:3]) / 1000 for rows in (old, new))
    expected = sum((b - a) * math.log(b / a) for a, b in zip(p, q))
    assert moved(old, new).psi == pytest.approx(expected, rel=0.01)
    assert moved(old, old).psi == 0


@pytest.mark.parametrize("bins", [2, 5, 12, 21])
def test_chance_is_one_in_a_million_of_a_chi_squared_variable(bins):
    old, new = np.full(bins, 400), np.full(bins, 100)
    scale = 1 / old.sum() + 1 / new.sum()
    assert 0.99 <= moved(old, new).chance / (scale * chi2.isf(1e-6, bins - 1)) <= 1.16


@pytest.mark.parametrize("rows", [40, 400, 4000])
def test_samples_of_one_law_have_not_moved(rows):
    rng = np.random.default_rng(rows)
    for _ in range(50):
        numbers = [np.where(rng.random(size) < 0.2, np.nan, rng.pareto(1, size) // 1) for size in (5000, rows)]
        ids = [np.minimum(rng.geometric(0.05, size), 90) for size in (5000, rows)]
        assert not moved_number(*numbers).beyond(0)
        assert not moved_category(*ids).beyond(0)


def test_the_mean_index_of_one_law_is_that_of_its_distribution():
    rng = np.random.default_rng(3)
    found = [moved(rng.multinomial(4000, [0.1] * 10), rng.multinomial(1000, [0.1] * 10)).psi for _ in range(300)]
    assert np.mean(found) / (1 / 4000 + 1 / 1000) == pytest.approx(9, rel=0.1)


def test_what_has_moved_is_told():
    rng = np.random.default_rng(4)
    old, new = rng.normal(size=3000).astype(np.float32), rng.normal(size=300).astype(np.float32)
    assert moved_number(old, new + 1).beyond(MUCH)
    assert moved_number(old, np.full(300, np.nan, np.float32)).psi > 3
    assert moved_number(old, old * 1000).psi > 3
    assert moved_number(np.zeros(100), np.ones(100)).beyond(MUCH)
    ids = rng.integers(1, 9, 3000)
    assert moved_category(ids, np.zeros(300, int)).beyond(MUCH)
    assert moved_category(ids, ids % 3 + 1).beyond(MUCH)


def test_unknown_values_lie_among_the_rare_ones():
    old = np.concatenate([np.repeat(np.arange(1, 21), 40), np.arange(100, 300)])
    later = np.concatenate([np.repeat(np.arange(1, 21), 4), np.zeros(20, int)])
    assert moved_category(old, later).psi < 0.002


def test_a_column_without_values_can_be_compared():
    nothing = np.full(50, np.nan)
    assert moved_number(nothing, nothing).psi == 0
    assert moved_number(nothing, np.ones(50)).beyond(MUCH)
    assert moved_category(np.zeros(50, int), np.ones(50, int)).psi == 0


def test_the_drift_of_a_day_is_by_name_and_has_the_label_means():
    rng = np.random.default_rng(5)

    def day(shift, share):
        return ColumnRows(
            {"price": rng.normal(shift, 1, 2000), "age": rng.normal(0, 1, 2000)},
            {"site": rng.integers(1, 5, 2000)},
            (np.arange(2000) < 2000 * share).astype(np.float32),
        )

    old, new = day(0, 0.2), day(2, 0.5)
    found = drift(old, new)
    assert list(found.columns) == ["price", "age", "site"]
    assert [one.beyond() for one in found.columns.values()] == [True, False, False]
    assert (found.old_mean, found.new_mean, found.odds) == pytest.approx((0.2, 0.5, 4.0))
    assert list(drift(old, ColumnRows({}, {"site": new.categories["site"]}, new.labels)).columns) == ["site"]


def test_label_means_are_compared():
    assert odds_ratio(0.2, 0.5) == pytest.approx(4)
    assert math.isnan(odds_ratio(0, 0.5))
    assert deviations_apart(0.5, 100, 0.5, 100) == 0
    assert deviations_apart(0.4, 100, 0.6, 100) == pytest.approx(0.2 / math.sqrt(0.25 * 0.02))
    assert deviations_apart(0, 10, 0, 10) == 0


def test_sampled_rows_that_count_for_all_have_not_moved():
    """Of rows whose negatives are a tenth, each of which counts ten times; unless it does, they have moved."""
    rng = np.random.default_rng(7)

    def rows(count):
        clicks = rng.random(count) < 0.2
        return rng.normal(2.0 * clicks, 1, count), 1 + clicks + 2 * (rng.random(count) < 0.5), clicks.astype(np.float32)

    numbers, ids, labels = rows(40_000)
    kept = (labels > 0) | (rng.random(40_000) < 0.1)
    weights = np.where(labels > 0, 1.0, 10.0)[kept]
    new_numbers, new_ids, new_labels = rows(10_000)
    new = ColumnRows({"price": new_numbers}, {"site": new_ids}, new_labels)
    sampled = ColumnRows({"price": numbers[kept]}, {"site": ids[kept]}, labels[kept])
    without = drift(sampled, new)
    assert all(one.beyond() for one in without.columns.values())
    assert without.old_mean > 0.6
    found = drift(replace(sampled, weights=weights), new)
    assert not any(one.beyond(0.0) for one in found.columns.values())
    assert found.old_mean == pytest.approx(0.2, abs=0.02)
    none = drift(replace(sampled, weights=np.ones(len(weights))), new)
    assert none.columns == without.columns
