"""Calibration of exported scores: against scikit-learn, in Python and in the C++ program, and what can't calibrate."""

import re

import numpy as np
import pytest
from conftest import CPU, preprocess_lines, raw_lines, write_raw
from hypothesis import given
from hypothesis import strategies as st
from networks import loaded
from program_310 import scored
from sklearn.linear_model import LogisticRegression

import export as export_program
import preprocess as preprocess_program
from src.base.errors import InputError
from src.base.sealed import read_facts
from src.dataset import batches_of
from src.export import calibration
from src.metrics.binary import logloss, scores_of
from src.scorer import Scorer
from src.training.evaluation import score


def logits_of(run_folder, data, part):
    """Labels and logits of a part by the run's checkpoint itself."""
    model = loaded(run_folder / "checkpoint/dlrm.ckpt", data)
    return score(model, batches_of(data, part, 64), 64)


def by_scikit_learn(labels, logits):
    """Slope and bias by logistic regression without a penalty."""
    found = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(logits.astype(np.float64)[:, None], labels)
    return found.coef_[0, 0], found.intercept_[0]


def test_fit_of_weighted_rows_is_weighted_logistic_regression():
    rng = np.random.default_rng(9)
    logits, weights = rng.normal(0, 1.5, 2000).astype(np.float32), rng.exponential(1, 2000).astype(np.float32)
    labels = (rng.random(2000) < scores_of(0.5 * logits - 1)).astype(np.float32)
    found, columns = calibration.fit(labels, logits, weights), logits.astype(np.float64)[:, None]
    expected = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(columns, labels, weights)
    assert (1 / found.temperature, found.bias) == pytest.approx((expected.coef_[0, 0], *expected.intercept_), abs=1e-4)
    calibrated = logits / found.temperature + found.bias
    assert found.after == pytest.approx(logloss(labels, calibrated, weights), abs=1e-6)
    assert abs(1 / found.temperature - by_scikit_learn(labels, logits)[0]) > 1e-3


def test_rows_of_weight_0_do_not_calibrate():
    """Were all clicks of weight 0, scores would all become 0."""
    rng = np.random.default_rng(0)
    logits = rng.normal(-2, 1, 500).astype(np.float32)
    labels = (rng.random(500) < scores_of(logits)).astype(np.float32)
    with pytest.raises(InputError, match="rows of one label or of one score can't calibrate"):
        calibration.fit(labels, logits, np.where(labels > 0, 0, 1).astype(np.float32))
    some = rng.integers(0, 2, 500).astype(np.float32)
    found, alone = calibration.fit(labels, logits, some), calibration.fit(labels[some > 0], logits[some > 0])
    assert (found.temperature, found.bias) == pytest.approx((alone.temperature, alone.bias))
    assert found.rows == 500


@given(st.integers(0, 10_000), st.floats(0.2, 5), st.floats(-3, 3))
def test_fit_is_logistic_regression(seed, slope, bias):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, 2000).astype(np.float32)
    labels = (rng.random(2000) < scores_of(slope * logits + bias)).astype(np.float32)
    found = calibration.fit(labels, logits)
    expected = by_scikit_learn(labels, logits)
    assert (1 / found.temperature, found.bias) == pytest.approx(expected, abs=1e-4)
    assert found.after == pytest.approx(logloss(labels, logits / found.temperature + found.bias), abs=1e-6)
    assert found.after <= found.before


def test_fit_of_far_too_sure_scores_is_logistic_regression():
    """A whole step of Newton's method from slope 1 would go too far and never come back."""
    rng = np.random.default_rng(3)
    logits = rng.normal(0, 60, 2000).astype(np.float32)
    labels = (rng.random(2000) < scores_of(0.02 * logits)).astype(np.float32)
    found = calibration.fit(labels, logits)
    assert (1 / found.temperature, found.bias) == pytest.approx(by_scikit_learn(labels, logits), abs=1e-4)


@pytest.mark.parametrize(("labels", "logits", "message"), [
    ([1, 1, 1], [0, 1, 2], "rows of one label or of one score"),
    ([0, 1, 1], [2, 2, 2], "rows of one label or of one score"),
    ([0, 0, 1, 1], [0, 1, 2, 3], "their scores tell nothing or everything"),
    ([1, 1, 0, 0], [0, 1, 2, 3], "their scores tell nothing or everything"),
    ([1, 0, 1, 0, 0], [0, 1, 2, 3, 4], "with a slope of -"),
])  # fmt: skip
def test_rows_that_cannot_calibrate_are_refused(labels, logits, message):
    with pytest.raises(InputError, match=message):
        calibration.fit(np.array(labels, np.float32), np.array(logits, np.float32))


@pytest.fixture(scope="module", params=["graph", "host"])
def calibrated(request, run_folder, tiny_data, tmp_path_factory):
    """The run's model, exported with calibration."""
    folder = tmp_path_factory.mktemp("calibrated") / request.param
    export_program.main([CPU, f"--checkpoint_path={run_folder}/checkpoint", f"--export_path={folder}",
                         "--export_batch_size=8", f"--table_placement={request.param}", "--calibrate=True",
                         f"--dataset_path={tiny_data.path}", "--eval_batch_size=64"])  # fmt: skip
    return folder


def test_exported_scores_are_calibrated(calibrated, run_folder, tiny_data):
    (fact,) = read_facts(calibrated / "dlrm.model", "model")["calibration"]
    temperature, bias = map(float, fact)
    slope, intercept = by_scikit_learn(*logits_of(run_folder, tiny_data, "valid"))
    assert (1 / temperature, bias) == pytest.approx((slope, intercept), abs=1e-4)
    assert abs(slope - 1) + abs(intercept) > 0.01  # so that it is seen
    dense, ids, _ = (np.concatenate(column) for column in zip(*batches_of(tiny_data, "test", 64)))
    _, logits = logits_of(run_folder, tiny_data, "test")
    found = Scorer(calibrated).score_ids(dense, ids)
    assert np.abs(found - scores_of(logits / temperature + bias)).max() < 1e-6
    assert np.abs(found - scores_of(logits)).max() > 1e-3


def test_cpp_program_gives_calibrated_scores(program, calibrated, tiny_data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    preprocess_program.main([f"--dataset_path={tiny_data.path}", f"--export_path={calibrated}",
                             f"--preprocess_path={tmp_path}/rows"])  # fmt: skip
    dense, ids, _ = (np.concatenate(column) for column in zip(*batches_of(tiny_data, "test", 64)))
    found = scored(program, calibrated / "dlrm.mindir", tmp_path / "rows")
    assert np.abs(found - Scorer(calibrated).score_ids(dense, ids)).max() < 1e-6


@pytest.mark.parametrize(("rows", "part"), [
    ("test", "test"), ("{}:test", "test"), ("{}/test", "test"), ("{}", "valid"),
])  # fmt: skip
def test_named_rows_calibrate(run_folder, tiny_data, tmp_path, rows, part):
    own = [f"--dataset_path={tiny_data.path}"] if rows == "test" else []
    export_program.main([CPU, f"--checkpoint_path={run_folder}/checkpoint", f"--export_path={tmp_path}/e", *own,
                         f"--calibrate={rows.format(tiny_data.path)}", "--eval_batch_size=64"])  # fmt: skip
    (fact,) = read_facts(tmp_path / "e/dlrm.model", "model")["calibration"]
    slope, intercept = by_scikit_learn(*logits_of(run_folder, tiny_data, part))
    assert (1 / float(fact[0]), float(fact[1])) == pytest.approx((slope, intercept), abs=1e-4)


def test_export_without_calibration_has_none(exports):
    assert "calibration" not in read_facts(exports["fp32"] / "dlrm.model", "model")


def test_data_that_may_not_calibrate_are_refused(run_folder, tiny_data, tmp_path):
    other = preprocess_lines(write_raw(tmp_path / "raw/train.txt", raw_lines(300, seed=2)), tmp_path / "other")
    none = preprocess_lines(write_raw(tmp_path / "n/train.txt", raw_lines(300)), tmp_path / "none", valid_fraction=0.0)
    argv = [CPU, f"--checkpoint_path={run_folder}/checkpoint", f"--export_path={tmp_path}/e"]
    for data, message in [
        (f"{tiny_data.path}/test", "calibrate True asks for the valid rows, and test is another part"),
        (f"{tiny_data.path}/train", "calibrate True asks for the valid rows, and train is another part"),
        (other.path, "was trained with another vocabulary than that of"),
        (none.path, "has no valid rows to calibrate with, only train, test"),
    ]:
        with pytest.raises(InputError, match=re.escape(message)):
            export_program.main([*argv, "--calibrate=True", f"--dataset_path={data}"])
    for rows, message in [
        (f"{tiny_data.path}:train", "a network knows its training rows too well to be calibrated by them"),
        (f"{tiny_data.path}/train", "a network knows its training rows too well to be calibrated by them"),
        ("train", "a network knows its training rows too well to be calibrated by them"),
        (f"{tiny_data.path}/test:valid", "asks for the valid rows, and test is another part"),
        (f"{other.path}", "was trained with another vocabulary than that of"),
        (f"{other.path}:test", "was trained with another vocabulary than that of"),
        (f"{tiny_data.path}:nothing", "is neither valid nor test, the parts of dataset_path, nor a data folder"),
        ("vaild", "calibrate vaild is neither valid nor test"),
    ]:
        more = [f"--dataset_path={tiny_data.path}"] if rows == "train" else []
        with pytest.raises(InputError, match=re.escape(message)):
            export_program.main([*argv, f"--calibrate={rows}", *more])
    with pytest.raises(InputError, match="dataset_path has no effect with calibrate"):
        export_program.main([*argv, f"--calibrate={tiny_data.path}", f"--dataset_path={tiny_data.path}"])
    for flag in (f"--dataset_path={tiny_data.path}", "--eval_batch_size=64"):
        with pytest.raises(InputError, match="has no effect without calibrate"):
            export_program.main([*argv, flag])
    assert not (tmp_path / "e").exists()
