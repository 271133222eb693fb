"""Metrics against plain loops and scikit-learn, and that every row is scored."""

import math

import numpy as np
import pytest
from networks import (
    logits_of,
    make_batch,
    make_model,
)
from sklearn.metrics import roc_auc_score

from src.metrics.binary import accuracy, auc, logloss
from src.metrics.monitored import measured
from src.training.evaluation import evaluate, score


def plain_auc(labels, scores):
    """The definition: over all pairs of a click and no click, a tie counting half."""
    wins = [
        1.0 if click > other else 0.5 if click == other else 0.0
        for click in scores[labels == 1]
        for other in scores[labels == 0]
    ]
    return sum(wins) / len(wins)


def rows_with_ties(seed, rows=120, levels=7):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 2, rows).astype(np.float32), rng.integers(-levels, levels, rows).astype(np.float32) / 8


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("levels", [1, 3, 1000])
def test_auc_is_the_count_of_pairs(seed, levels):
    labels, scores = rows_with_ties(seed, levels=levels)
    assert auc(labels, scores) == pytest.approx(plain_auc(labels, scores), abs=1e-12)
    assert auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_auc_of_many_rows_with_many_ties(dtype):
    """Scores of float32 near 1, of which thousands round to one number."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 200_000)
    scores = (1 - 1e-5 * rng.random(200_000) + 2e-6 * labels).astype(dtype)
    assert len(np.unique(scores)) < 1000 or dtype is np.float64
    assert auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert 0.55 < auc(labels, scores) < 0.7


def test_auc_of_extreme_cases():
    labels = np.array([0, 0, 1, 1])
    assert auc(labels, np.array([1.0, 2, 3, 4])) == 1
    assert auc(labels, np.array([4.0, 3, 2, 1])) == 0
    assert auc(labels, np.zeros(4)) == 0.5
    assert auc(labels, np.array([-0.0, 0.0, -0.0, 0.0])) == 0.5
    assert auc(labels, np.array([1.0, 2, 2, 3])) == 0.875
    assert auc(np.array([1, 0]), np.array([1e-45, 0], np.float32)) == 1  # the least float32 above 0


@pytest.mark.parametrize("label", [0, 1])
def test_auc_of_a_single_class_is_not_a_number(label):
    assert math.isnan(auc(np.full(5, label), np.arange(5.0)))
    metrics = measured(np.full(5, label, np.float32), np.arange(5, dtype=np.float32) - 2)
    assert math.isnan(metrics["auc"])
    assert metrics["acc"] == (0.6 if label == 0 else 0.4)
    assert math.isfinite(metrics["logloss"])


def test_logloss_is_the_mean_of_the_rows():
    rng = np.random.default_rng(1)
    labels, logits = rng.integers(0, 2, 300).astype(np.float32), rng.normal(0, 3, 300).astype(np.float32)
    terms = []
    for label, logit in zip(labels.tolist(), logits.tolist()):
        probability = 1 / (1 + math.exp(-logit))
        terms.append(-math.log(probability if label else 1 - probability))
    assert logloss(labels, logits) == pytest.approx(sum(terms) / 300, rel=1e-12)


def test_logloss_of_extreme_logits_is_exact():
    logits = np.array([1000, -1000, 1000, -1000, 40], np.float32)
    assert logloss(np.array([1, 0, 1, 0, 1.0]), logits) == pytest.approx(math.exp(-40) / 5, rel=1e-12)
    assert logloss(np.array([0, 1, 0, 1, 1.0]), logits) == pytest.approx(800, rel=1e-12)
    assert logloss(np.array([0.0]), np.array([1e30], np.float32)) == pytest.approx(1e30, rel=1e-6)


def test_logloss_sums_in_float64():
    """A million equal terms, where float32 sums would drift."""
    logits = np.full(1_000_000, 0.1, np.float32)
    assert logloss(np.zeros(1_000_000, np.float32), logits) == pytest.approx(np.log1p(np.exp(np.float64(logits[0]))))


def test_accuracy_counts_rows_on_the_right_side():
    labels = np.array([1, 1, 0, 0, 1, 0], np.float32)
    logits = np.array([2, -1, -3, 0.5, 1e-30, 0], np.float32)
    assert accuracy(labels, logits) == 4 / 6


def test_metrics_by_their_names_in_the_order_of_the_logs():
    labels, logits = rows_with_ties(3)
    metrics = measured(labels, logits)
    assert metrics == {
        "acc": accuracy(labels, logits),
        "auc": auc(labels, logits),
        "logloss": logloss(labels, logits),
    }
    assert list(metrics) == ["acc", "auc", "logloss"]
    assert {type(value) for value in metrics.values()} == {float}  # np.float64 would show its type in logs


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logit_that_is_not_finite_is_refused(value):
    labels, logits = rows_with_ties(3)
    logits[[5, 9]] = value
    with pytest.raises(ValueError, match="120 rows, 2 of whose logits are not finite"):
        measured(labels, logits)


def test_no_rows_are_refused():
    with pytest.raises(ValueError, match="0 rows"):
        measured(np.zeros(0, np.float32), np.zeros(0, np.float32))


@pytest.mark.parametrize("batch_size", [1, 7, 10, 50, 64])
def test_every_row_is_scored_whatever_the_batch_size(batch_size):
    """50 rows in batches of 7: the last one has a single row."""
    model = make_model(seed=3)
    dense, ids, labels = make_batch(model, 5, 50)
    whole = logits_of(model, dense, ids)[:, 0]
    batches = [
        (dense[start : start + batch_size], ids[start : start + batch_size], labels[start : start + batch_size])
        for start in range(0, 50, batch_size)
    ]
    got_labels, got = score(model, batches, batch_size)
    np.testing.assert_array_equal(got_labels, labels[:, 0])
    np.testing.assert_allclose(got, whole, rtol=0, atol=1e-6)
    assert evaluate(model, batches, batch_size)["auc"] == pytest.approx(plain_auc(labels[:, 0], got), abs=1e-12)
