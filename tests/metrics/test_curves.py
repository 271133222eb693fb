"""Metrics beside accuracy, AUC and logloss, against scikit-learn and plain loops; ties and single labels included."""

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics
from sklearn.calibration import calibration_curve

from src.metrics import binary as metrics
from src.metrics import bootstrap
from src.metrics import curves as score_curves
from src.metrics.slices import Sliced, field_slices


def drawn(draw, shares):
    """Labels, a share of them clicks, float32 logits, many of them equal where few levels are drawn, and what drew."""
    rows = draw(st.integers(2, 200))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    levels = draw(st.sampled_from([1, 2, 5, 1000]))
    logits = (rng.integers(-levels, levels + 1, rows) * (4 / levels)).astype(np.float32)
    labels = (rng.random(rows) < draw(st.sampled_from(shares))).astype(np.float32)
    return labels, logits, rng


@st.composite
def labelled(draw, both=True):
    labels, logits, _ = drawn(draw, [0.0, 0.1, 0.5, 1.0])
    if both:
        labels[:2] = 0, 1
    return labels, logits


@given(labelled())
def test_metrics_equal_scikit_learn(rows):
    labels, logits = rows
    scores = metrics.scores_of(logits)
    close = {"rel": 1e-9, "abs": 1e-12}
    assert metrics.auc(labels, logits) == pytest.approx(sklearn_metrics.roc_auc_score(labels, logits), **close)
    assert metrics.logloss(labels, logits) == pytest.approx(sklearn_metrics.log_loss(labels, scores), **close)
    assert metrics.accuracy(labels, logits) == sklearn_metrics.accuracy_score(labels, logits > 0)
    assert metrics.brier(labels, scores) == pytest.approx(sklearn_metrics.brier_score_loss(labels, scores), **close)
    expected = sklearn_metrics.average_precision_score(labels, logits)
    assert metrics.average_precision(labels, logits) == pytest.approx(expected, **close)
    mean_only = sklearn_metrics.log_loss(labels, np.full(len(labels), labels.mean(dtype=np.float64)))
    expected = sklearn_metrics.log_loss(labels, scores) / mean_only
    assert metrics.normalised_entropy(labels, logits) == pytest.approx(expected, **close)
    assert metrics.calibration(labels, scores) == pytest.approx(np.mean(scores) / np.mean(labels), rel=1e-6)


@given(labelled(both=False), st.integers(1, 20))
def test_reliability_bins_equal_scikit_learn(rows, bins):
    labels, logits = rows
    scores = metrics.scores_of(logits)
    found = score_curves.reliability(labels, scores, bins)
    label, score = calibration_curve(labels, scores, n_bins=bins, strategy="quantile", pos_label=1)
    np.testing.assert_allclose(found.label, label, rtol=1e-9)
    np.testing.assert_allclose(found.score, score, rtol=1e-9)
    assert found.rows.sum() == len(labels)
    expected = sum(n * abs(s - y) for n, s, y in zip(found.rows, score, label)) / len(labels)
    assert found.error() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("label", [0, 1])
def test_one_label_leaves_what_needs_two_undefined(label):
    labels, logits = np.full(9, label, np.float32), np.arange(9, dtype=np.float32) - 4
    found = score_curves.quality(labels, logits)
    assert math.isnan(found["normalised_entropy"])
    assert math.isnan(found["calibration"]) == (label == 0)
    assert math.isnan(found["average_precision"]) == (label == 0)
    assert math.isfinite(found["ece"])
    assert math.isfinite(found["brier"])
    assert score_curves.curves(labels, logits)["roc"] == []
    assert math.isnan(bootstrap.intervals(labels, logits)["auc"].low)
    assert math.isfinite(bootstrap.intervals(labels, logits)["logloss"].low)


def test_scores_of_extreme_logits():
    found = metrics.scores_of(np.array([-1e30, -800, 0, 800, 1e30], np.float32))
    assert found.tolist() == [0, 0, 0.5, 1, 1]


@given(labelled())
def test_curves_are_points_of_scikit_learns(rows):
    labels, logits = rows
    found = score_curves.curves(labels, logits, points=10_000)
    x, y, _ = sklearn_metrics.roc_curve(labels, logits, drop_intermediate=False)
    np.testing.assert_allclose(found["roc"], np.stack([x, y], 1))
    precision, recall, _ = sklearn_metrics.precision_recall_curve(labels, logits)
    every = {(round(r, 9), round(p, 9)) for r, p in zip(recall, precision)}
    assert {(round(r, 9), round(p, 9)) for r, p in found["precision_recall"]} <= every


def test_thinned_curves_keep_their_shape_and_ends():
    rng = np.random.default_rng(1)
    logits = rng.normal(size=50_000).astype(np.float32)
    labels = (rng.random(50_000) < metrics.scores_of(logits)).astype(np.float32)
    found = {name: np.array(points) for name, points in score_curves.curves(labels, logits).items()}
    assert all(len(points) <= 202 for points in found.values())
    assert (found["roc"][0].tolist(), found["roc"][-1].tolist()) == ([0, 0], [1, 1])
    area = sklearn_metrics.auc(found["roc"][:, 0], found["roc"][:, 1])
    assert area == pytest.approx(metrics.auc(labels, logits), abs=1e-4)
    assert found["precision_recall"][-1].tolist() == pytest.approx([1, labels.mean()], rel=1e-6)


def test_histogram_counts_each_label_for_itself():
    labels, scores = np.array([1, 1, 0, 0, 0]), np.array([0.05, 1.0, 0.0, 0.5, 0.49])
    found = score_curves.histogram(labels, scores, bins=2)
    assert found == {"edges": [0, 0.5, 1], "click": [0.5, 0.5], "other": [2 / 3, 1 / 3]}


@given(labelled(both=False), st.integers(0, 100))
def test_a_resample_has_the_metrics_of_the_rows_it_stands_for(rows, seed):
    """Rows are really repeated, and measured by the plain functions."""
    labels, logits = rows
    counts = np.random.default_rng(seed).integers(0, 4, len(labels)).astype(np.uint8)
    area, loss = bootstrap._Ranked(labels, logits).figures(counts)
    again = np.repeat(np.arange(len(labels)), counts)
    if not len(again):
        assert math.isnan(area)
        return
    assert area == pytest.approx(metrics.auc(labels[again], logits[again]), abs=1e-12, nan_ok=True)
    assert loss == pytest.approx(metrics.logloss(labels[again], logits[again]), rel=1e-12)


def test_counts_are_poissons():
    counts = np.bincount(bootstrap._poisson_table()) / (1 << 16)
    expected = [math.exp(-1) / math.factorial(count) for count in range(8)]
    assert counts.tolist() == pytest.approx(expected, abs=2e-5)


@pytest.fixture(scope="module")
def normal_rows():
    """Labels drawn from logits, and other logits that know a little less."""
    rng = np.random.default_rng(5)
    logits = rng.normal(-1, 1.2, 4000).astype(np.float32)
    labels = (rng.random(4000) < metrics.scores_of(logits)).astype(np.float32)
    return labels, logits, (logits + rng.normal(0, 0.4, 4000)).astype(np.float32)


def test_interval_is_that_of_drawing_rows_with_replacement(normal_rows):
    labels, logits, _ = normal_rows
    found = bootstrap.intervals(labels, logits, resamples=400)
    rng = np.random.default_rng(9)
    drawn = []
    for _ in range(400):
        rows = rng.integers(0, 4000, 4000)
        drawn.append((metrics.auc(labels[rows], logits[rows]), metrics.logloss(labels[rows], logits[rows])))
    for name, values in zip(("auc", "logloss"), np.transpose(drawn)):
        low, high = np.quantile(values, [0.025, 0.975])
        assert found[name].low < found[name].value < found[name].high
        assert found[name].high - found[name].low == pytest.approx(high - low, rel=0.2)
        assert (found[name].low, found[name].high) == pytest.approx((low, high), abs=0.2 * (high - low))


def test_paired_difference_is_narrower_than_that_of_two_samples(normal_rows):
    labels, better, worse = normal_rows
    found, alone = bootstrap.differences(labels, worse, better), bootstrap.intervals(labels, better)
    assert found["auc"].value == metrics.auc(labels, better) - metrics.auc(labels, worse)
    assert 0 < found["auc"].low < found["auc"].high
    assert found["logloss"].low < found["logloss"].high < 0
    assert found["auc"].high - found["auc"].low < 0.6 * (alone["auc"].high - alone["auc"].low)
    same = bootstrap.differences(labels, better, better)["auc"]
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_intervals_follow_from_the_seed(normal_rows):
    labels, logits, _ = normal_rows
    first, again, other = (bootstrap.intervals(labels, logits, 20, seed) for seed in (1, 1, 2))
    assert first == again != other


def test_large_sets_have_fewer_resamples():
    assert [bootstrap.resamples_for(rows) for rows in (0, 10_000, 1_300_000, 5_000_000, 10**9)] == [
        200, 200, 200, 53, 20,
    ]  # fmt: skip


def plain_slice(labels, logits, mask):
    labels, logits = labels[mask], logits[mask]
    return (len(labels), labels.mean(), metrics.scores_of(logits).mean(), metrics.auc(labels, logits),
            metrics.logloss(labels, logits))  # fmt: skip


@given(labelled(both=False), st.integers(1, 12))
def test_slices_by_value_are_those_of_the_rows_alone(rows, values):
    labels, logits = rows
    ids = np.random.default_rng(values).integers(0, values, len(labels)).astype(np.int32)
    sliced = Sliced(labels, logits)
    found = sliced.by_value(ids, top=5)
    counts = np.bincount(ids)
    assert [one.rows for one in found.values()] == sorted(counts[counts > 0], reverse=True)[:5]
    for value, one in found.items():
        expected = plain_slice(labels, logits, ids == value)
        assert tuple(one.as_dict().values()) == pytest.approx(expected, rel=1e-6, abs=1e-9, nan_ok=True)
    for one, mask in zip(sliced.unseen(ids), (ids == 0, ids != 0)):
        assert one.rows == mask.sum()
        if one.rows:
            expected = plain_slice(labels, logits, mask)
            assert tuple(one.as_dict().values()) == pytest.approx(expected, rel=1e-6, abs=1e-9, nan_ok=True)


def test_slices_take_memory_by_the_rows_whatever_a_table_has():
    """And are the same ones for the same groups of rows, by whatever ids."""
    rng = np.random.default_rng(4)
    labels, logits = rng.integers(0, 2, 2000).astype(np.float32), rng.normal(size=2000).astype(np.float32)
    small = rng.integers(0, 12, (2000, 1)).astype(np.int32)
    (few,) = field_slices(labels, logits, small, ["C1"])
    tracemalloc.start()
    try:
        (many,) = field_slices(labels, logits, small * 1_000_000, ["C1"])
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    assert [one.pop("id") for one in many["by_value"]] == [one.pop("id") * 1_000_000 for one in few["by_value"]]
    assert many == few


def test_slices_by_label_rate_rise_and_leave_out_rare_values():
    rng = np.random.default_rng(2)
    ids = np.concatenate([rng.integers(0, 20, 6000), np.arange(1000, 1100)]).astype(np.int32)
    labels = (rng.random(len(ids)) < (ids % 20 + 1) / 25).astype(np.float32)
    found = Sliced(labels, rng.normal(size=len(ids)).astype(np.float32)).by_label_rate(ids)
    assert len(found) == 5
    means = [one.label_mean for one in found]
    assert means == sorted(means)
    assert means[-1] - means[0] > 0.5
    assert sum(one.rows for one in found) == 6000


def test_field_slices_name_each_field():
    rng = np.random.default_rng(3)
    labels, logits = rng.integers(0, 2, 500).astype(np.float32), rng.normal(size=500).astype(np.float32)
    ids = np.stack([rng.integers(0, 3, 500), rng.integers(1, 9, 500)], 1).astype(np.int32)
    first, second = field_slices(labels, logits, ids, ["C1", "C2"])
    assert (first["field"], second["field"]) == ("C1", "C2")
    assert first["unseen_share"] == np.mean(ids[:, 0] == 0)
    assert (second["unseen_share"], second["unseen"]["rows"], second["seen"]["rows"]) == (0, 0, 500)
    assert math.isnan(second["unseen"]["auc"])
    assert len(first["by_value"]) == 3
    assert first["by_label_rate"]
