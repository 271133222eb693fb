"""Weighted metrics against scikit-learn's sample_weight, and against rows that come several times."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from src.metrics import binary as metrics
from src.metrics import bootstrap
from src.metrics import curves as score_curves
from src.metrics.linear import LinearModel
from src.metrics.monitored import LOGGED, MONITORED, measured
from src.metrics.slices import Sliced, field_slices
from tests.metrics.test_curves import drawn

CLOSE = {"rel": 1e-9, "abs": 1e-12}


@st.composite
def weighted(draw, whole=False):
    """Labels of both kinds, logits with ties, and weights, some of them 0 but of the first two rows; float32."""
    labels, logits, rng = drawn(draw, [0.1, 0.5, 0.9])
    rows = len(labels)
    labels[:2] = 0, 1
    weights = rng.integers(0, 5, rows) if whole else rng.exponential(3, rows) * (rng.random(rows) < 0.8)
    weights[:2] = 1, 2
    return labels, logits, weights.astype(np.float32)


@given(weighted())
def test_metrics_equal_scikit_learn(rows):
    labels, logits, weights = rows
    scores, by = metrics.scores_of(logits), {"sample_weight": weights.astype(np.float64)}
    loss = sklearn_metrics.log_loss(labels, scores, **by)
    assert metrics.auc(*rows) == pytest.approx(sklearn_metrics.roc_auc_score(labels, logits, **by), **CLOSE)
    assert metrics.logloss(*rows) == pytest.approx(loss, **CLOSE)
    expected = sklearn_metrics.accuracy_score(labels, logits > 0, **by)
    assert metrics.accuracy(*rows) == pytest.approx(expected, **CLOSE)
    expected = sklearn_metrics.brier_score_loss(labels, scores, **by)
    assert metrics.brier(labels, scores, weights) == pytest.approx(expected, **CLOSE)
    expected = sklearn_metrics.average_precision_score(labels, logits, **by)
    assert metrics.average_precision(*rows) == pytest.approx(expected, **CLOSE)
    mean = np.average(labels, weights=weights.astype(np.float64))
    expected = loss / sklearn_metrics.log_loss(labels, np.full(len(labels), mean), **by)
    assert metrics.normalised_entropy(*rows) == pytest.approx(expected, **CLOSE)
    expected = np.average(scores, weights=weights.astype(np.float64)) / mean
    assert metrics.calibration(labels, scores, weights) == pytest.approx(expected, **CLOSE)
    assert measured(*rows) == {name: MONITORED[name].of(*rows) for name in LOGGED}


@given(weighted())
def test_curves_equal_scikit_learn(rows):
    labels, logits, weights = rows
    by = {"sample_weight": weights.astype(np.float64)}
    found = score_curves.curves(labels, logits, points=10_000, weights=weights)
    x, y, _ = sklearn_metrics.roc_curve(labels, logits, drop_intermediate=False, **by)
    there = set(zip(x.round(9).tolist(), y.round(9).tolist()))
    assert {(round(x, 9), round(y, 9)) for x, y in found["roc"]} <= there
    points = np.array(found["roc"])
    area = np.sum(np.diff(points[:, 0]) * (points[1:, 1] + points[:-1, 1]) / 2)
    assert area == pytest.approx(metrics.auc(*rows), abs=1e-3)
    precision, recall, _ = sklearn_metrics.precision_recall_curve(labels, logits, **by)
    there = set(zip(recall.round(9).tolist(), precision.round(9).tolist()))
    assert {(round(x, 9), round(y, 9)) for x, y in found["precision_recall"]} <= there


@given(weighted(), st.integers(1, 20))
def test_reliability_is_of_weighted_means(rows, bins):
    labels, logits, weights = rows
    scores = metrics.scores_of(logits)
    found, plain = (score_curves.reliability(labels, scores, bins, one) for one in (weights, None))
    assert found.rows.sum() == pytest.approx(weights.sum(dtype=np.float64))
    assert np.dot(found.rows, found.score) == pytest.approx(np.dot(scores, weights), rel=1e-6)
    assert np.dot(found.rows, found.label) == pytest.approx(np.dot(labels, weights), rel=1e-6)
    assert len(found.rows) <= len(plain.rows)
    expected = np.sum(found.rows * np.abs(found.score - found.label)) / weights.sum(dtype=np.float64)
    assert found.error() == pytest.approx(expected, abs=1e-6)


@given(weighted(whole=True))
def test_whole_weights_stand_for_rows_that_come_so_often(rows):
    labels, logits, weights = rows
    often = np.repeat(np.arange(len(labels)), weights.astype(int))
    again = labels[often], logits[often]
    for name, one in MONITORED.items():
        assert one.value(*rows) == pytest.approx(one.value(*again), **CLOSE), name
    found = score_curves.histogram(labels, metrics.scores_of(logits), weights=weights)
    expected = score_curves.histogram(again[0], metrics.scores_of(again[1]))
    np.testing.assert_allclose(found["click"], expected["click"], atol=1e-12)
    ids = (np.arange(len(labels)) % 3)[:, None]
    (one,), (other,) = (field_slices(*given, ["C1"], weights=by) for *given, by in (
        (labels, logits, ids, weights), (*again, ids[often], None)
    ))  # fmt: skip
    assert one["unseen_share"] == pytest.approx(np.mean(ids == 0))  # of rows, whatever they weigh
    for kind in ("unseen", "seen"):
        for figure in ("label_mean", "score_mean", "auc", "logloss"):
            if weights[(ids[:, 0] == 0) == (kind == "unseen")].any():
                assert one[kind][figure] == pytest.approx(other[kind][figure], nan_ok=True, **CLOSE)


@given(weighted())
def test_equal_weights_are_none(rows):
    labels, logits, _ = rows
    same = np.full(len(labels), 2.5, np.float32)
    for name, one in MONITORED.items():
        assert one.value(labels, logits, same) == pytest.approx(one.value(labels, logits), **CLOSE), name
    plain, weighted = (score_curves.quality(labels, logits, one) for one in (None, same))
    assert weighted == pytest.approx(plain, **CLOSE)


def test_intervals_are_of_weighted_metrics():
    """Rows of weight 0 leave the intervals those of the others; a few heavy rows make them wide."""
    rng = np.random.default_rng(5)
    logits = rng.normal(0, 1.5, 4000).astype(np.float32)
    labels = (rng.random(4000) < metrics.scores_of(logits)).astype(np.float32)
    weights = (np.arange(4000) < 1000).astype(np.float32)
    found = bootstrap.intervals(labels, logits, weights=weights)
    expected = bootstrap.intervals(labels[:1000], logits[:1000])
    heavy = bootstrap.intervals(labels, logits, weights=np.where(np.arange(4000) < 40, 1000, 1).astype(np.float32))
    for name in ("auc", "logloss"):
        assert found[name].value == pytest.approx(expected[name].value, rel=1e-9)
        width, other = (one[name].high - one[name].low for one in (found, expected))
        assert width == pytest.approx(other, rel=0.25)
        assert heavy[name].high - heavy[name].low > 2 * width
        assert heavy[name].value == pytest.approx(MONITORED[name].of(
            labels, logits, np.where(np.arange(4000) < 40, 1000, 1)
        ))  # fmt: skip
    worse = logits + rng.normal(0, 1, 4000).astype(np.float32)
    apart = bootstrap.differences(labels, worse, logits, weights=weights)["auc"]
    assert apart.value == metrics.auc(labels, logits, weights) - metrics.auc(labels, worse, weights)
    assert apart.low < apart.value < apart.high


def test_slices_of_no_weight_have_no_figures():
    sliced = Sliced(np.array([0, 1, 0, 1]), np.array([1.0, 2, 3, 4]), np.array([1.0, 1, 0, 0]))
    none = sliced.by_value(np.array([1, 1, 2, 2]))[2]
    assert none.rows == 2
    assert all(map(math.isnan, (none.label_mean, none.score_mean, none.auc, none.logloss)))


def test_linear_model_learns_from_weights():
    """Rows of weight 0 say the opposite."""
    rng = np.random.default_rng(7)
    dense = rng.normal(0, 1, (6000, 1)).astype(np.float32)
    ids = np.zeros((6000, 1), np.int32)
    counts = rng.random(6000) < 0.5
    labels = ((rng.random(6000) < metrics.scores_of(2 * dense[:, 0])) == counts).astype(np.float32)
    model = LinearModel(dense, ids, labels, weights=100 * counts.astype(np.float32))
    assert metrics.auc(labels[counts], model.logits(dense, ids)[counts]) > 0.8
    plain = LinearModel(dense, ids, labels).logits(dense, ids)[counts]
    assert metrics.auc(labels[counts], plain) < 0.7 or abs(np.corrcoef(plain, dense[counts, 0])[0, 1]) < 0.9
