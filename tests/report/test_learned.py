"""How a run does beside the label mean and a linear model, and what it is told to try."""

import dataclasses
import sys
import tracemalloc

import numpy as np
import pytest
from runs import rows_of, train_small

from src.base.errors import InputError
from src.dataset import batches_of
from src.metrics import linear
from src.metrics.binary import auc, logloss
from src.metrics.linear import LinearModel
from src.report import learned as report_learned
from src.report.files import load_report
from src.report.learned import learned

BOTH = {"report": True, "importance_rows": 0, "compare_linear": True}


def additive(rows, seed):
    """Rows whose logits are a sum of one number's and two fields' effects: dense, ids, labels and true logits."""
    rng = np.random.default_rng(seed)
    dense, ids = rng.normal(3, 2, (rows, 2)).astype(np.float32), rng.integers(0, 30, (rows, 2)).astype(np.int32)
    effects = np.random.default_rng(7).normal(0, 1, (2, 30))
    logits = 0.5 * (dense[:, 0] - 3) + effects[0][ids[:, 0]] + effects[1][ids[:, 1]] - 1
    return dense, ids, (rng.random(rows) < 1 / (1 + np.exp(-logits))).astype(np.float32), logits


def test_the_linear_model_finds_what_is_linear():
    model, (dense, ids, labels, logits) = LinearModel(*additive(5000, 1)[:3]), additive(5000, 2)
    found = model.logits(dense, ids)
    assert auc(labels, found) > auc(labels, logits) - 0.01
    assert logloss(labels, found) < logloss(labels, logits) + 0.02
    np.testing.assert_array_equal(found, LinearModel(*additive(5000, 1)[:3]).logits(dense, ids))


def test_the_linear_model_takes_hardly_more_than_its_matrix(monkeypatch):
    """12 bytes a cell. At the end of a training it comes on top of the tables."""
    dense, ids, labels, _ = additive(50_000, 1)
    dense, ids = np.tile(dense, 6), np.tile(ids, 12)
    monkeypatch.setattr(linear, "_STEPS", 1)
    matrix_bytes = 12 * (dense.size + ids.size)
    model = LinearModel(dense[:100], ids[:100], labels[:100])  # which imports what it needs
    for work, most in ((lambda: LinearModel(dense, ids, labels), 2), (lambda: model.logits(dense, ids), 0.5)):
        tracemalloc.start()
        try:
            work()
            assert tracemalloc.get_traced_memory()[1] < most * matrix_bytes
        finally:
            tracemalloc.stop()


def test_too_few_rows_of_a_label_give_no_linear_model():
    dense, ids, labels, _ = additive(100, 1)
    with pytest.raises(InputError, match="too few of its training rows have one of the labels"):
        LinearModel(dense, ids, np.sort(labels))


@pytest.fixture
def sources(tiny_data):
    """Training and validation rows."""
    return tuple(batches_of(tiny_data, part, 64).source for part in ("train", "valid"))


def told(tiny_data, sources, part=None, **metrics):
    """What is said of a network with these metrics on the validation rows, which may be said to be others."""
    manifest = tiny_data.manifest
    if part:
        part = dataclasses.replace(manifest.parts["valid"], **part)
        manifest = dataclasses.replace(manifest, parts=manifest.parts | {"valid": part})
    return learned({"auc": 0.9, "logloss": 0.4} | metrics, "valid", manifest, 0.15, sources)


def test_a_network_behind_the_linear_model_is_told_what_to_try(tiny_data, sources):
    found = told(tiny_data, sources, auc=0.68, logloss=0.66)
    assert found.linear.auc > 0.75
    assert (found.linear.train_rows, found.linear.rows) == (1715, 143)
    first, second = found.lines()
    assert f"AUC 0.6800 (linear {found.linear.auc:.4f}), logloss 0.6600 (label mean 0.6" in first
    assert "a linear model fitted to 1,715 training rows, on 143 valid rows" in first
    assert f"AUC is {found.linear.auc - 0.68:.4f} below the linear model's" in second
    assert "try --config_path=best_config.yaml" in second


def test_a_network_ahead_of_it_is_told_nothing(tiny_data, sources):
    assert told(tiny_data, sources).hint == ""


def test_an_auc_that_may_be_chance_is_told_likely_causes(tiny_data, sources):
    hint = told(tiny_data, sources, auc=0.53).hint
    assert "may be chance, 0.5 ± 0.0984" in hint
    assert "yet the rows can be learned from: --lr=0.15 may be too high or too low" in hint
    hint = told(tiny_data, None, auc=0.53).hint
    for cause in ("is --lr=0.15 too high", "labels shuffled", "columns shifted against the manifest's (I1, I2 ..)",
                  "unseen in training ("):  # fmt: skip
        assert cause in hint
    many = {"rows": 143_000, "shard_rows": (143_000,)}  # so many that no chance gives such an AUC
    assert "chance" not in told(tiny_data, None, many, auc=0.53).hint


def test_a_known_interval_says_what_chance_may_do(tiny_data):
    for interval, words in (((0.49, 0.6), "its interval, 0.4900 to 0.6000, holds 0.5"), ((0.51, 0.55), "")):
        hint = learned({"auc": 0.53, "logloss": 0.4}, "valid", tiny_data.manifest, 0.15, None, interval).hint
        assert (words in hint, "chance" in hint) == (True, bool(words))


def test_scores_further_off_than_the_label_mean_are_told(tiny_data, sources):
    assert "further off than the label mean; try fewer --epochs" in told(tiny_data, sources, logloss=0.7).hint


def test_rows_of_one_label_are_compared_with_nothing(tiny_data, sources):
    found = told(tiny_data, sources, {"label_mean": 0.0}, auc=np.nan)
    assert found.lines() == ["not compared with others: all 143 valid rows have label 0, so they have no AUC"]
    assert found.content()["auc"] is None


def test_without_scikit_learn_the_run_says_so_and_ends_well(tiny_data, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    train_small(tiny_data, tmp_path, **BOTH)
    assert "no linear model: scikit-learn is not installed: pip install scikit-learn" in capsys.readouterr().out
    assert load_report(tmp_path)["learned"]["linear"] is None


def test_a_linear_model_that_fails_costs_no_training(tiny_data, sources, monkeypatch):
    monkeypatch.setattr(report_learned, "LinearModel", lambda *_: 1 / 0)
    assert told(tiny_data, sources).why_none == "it failed with ZeroDivisionError: division by zero"


def test_large_data_gives_a_sample_that_is_told(tiny_data, sources, monkeypatch):
    monkeypatch.setattr(report_learned, "SAMPLE_ROWS", 130)
    first, *_ = told(tiny_data, sources).lines()
    assert "fitted to 115 of 1,715 training rows, measured on 79, on 143 valid rows" in first


def test_a_run_that_learned_little_says_so_in_log_and_report_and_is_no_other_run(tiny_data, tmp_path, capsys):
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir(), other.mkdir()
    train_small(tiny_data, one, lr=1e-6, **BOTH)
    out = capsys.readouterr().out
    assert "learned little: AUC 0." in out
    (line,) = rows_of(one / "metrics.jsonl", "learned")
    assert line["hint"] in out
    report = load_report(one)
    content, interval = report["learned"], report["evaluation"]["intervals"]["auc"]
    assert f"its interval, {interval['low']:.4f} to {interval['high']:.4f}, holds 0.5" in out
    assert content == {key: value for key, value in line.items() if key not in ("run", "kind")}
    page = (one / "report.html").read_text()
    assert "AUC of a linear model" in page
    assert "may be chance" in page
    train_small(tiny_data, other, lr=1e-6)
    assert (one / "dlrm.ckpt").read_bytes() == (other / "dlrm.ckpt").read_bytes()


def test_a_run_stopped_while_it_compares_goes_on(tiny_data, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(report_learned, "LinearModel", stop)
        with pytest.raises(KeyboardInterrupt):
            train_small(tiny_data, tmp_path, **BOTH)
    result = train_small(tiny_data, tmp_path, **BOTH)
    assert (result.steps, load_report(tmp_path)["learned"]["rows"]) == (26, 143)
