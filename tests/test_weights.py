"""Weights and sampled negatives through all programs, and that scores mean clicks of the full data."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import CPU, ORIGINAL
from program_310 import scored
from runs import rows_of
from sklearn import metrics as sklearn_metrics

import eval as eval_program
import export as export_program
import postprocess as postprocess_program
import preprocess as preprocess_program
import train as train_program
from src.data.manifest import find
from src.doctor import __main__ as doctor_program
from src.doctor.trained import Trained
from src.export.scored_files import RowFiles
from src.network.options import NetworkSpec
from src.preprocess_data import main as preprocess_data
from src.report import __main__ as report_program
from src.scorer import Scorer
from tests.weights import weighted_data, weighted_lines

SMALL = ["--emb_dim=4", "--bottom_mlp=[4]", "--top_mlp=[8,1]", "--eval_batch_size=4096"]
# Large batches and rates that end at 0, so that the network is as its rows say, and not as the last steps were.
LEARNS = ["--batch_size=2000", "--epochs=40", "--optimizer=adam", "--lr=0.02", "--lr_schedule=cosine",
          "--decay_share=0.8", "--eval_steps=epoch", "--save_minutes=9"]  # fmt: skip
ROWS, FEW, KEPT = 30_000, 2_000, 0.3


@pytest.fixture(scope="module")
def chain(made_once):
    """The folder of a run on rows with weights, of whose negatives some are kept; all rows again, coded anew."""

    def make(folder):
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            weighted_data(
                folder, ROWS, keep_negatives=KEPT, record_rows=512, shard_rows=4096, valid_fraction=0.0
            )  # without validation rows the last network is kept
            train_program.main([CPU, ORIGINAL, "--dataset_path=dataset", *SMALL, *LEARNS])
            preprocess_data(["--data_path=rows.txt", "--schema=schema.yaml", "--output_path=all",
                             "--vocab_path=checkpoint"])  # fmt: skip
            export_program.main([CPU, "--export_path=export"])

    return made_once("chain_of_weights", make)


@pytest.fixture
def here(chain, tmp_path, monkeypatch):
    for path in chain.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def raw_rows():
    """Labels, weights and lines of the raw rows."""
    lines = Path("rows.txt").read_text().splitlines()
    cells = [line.split("\t") for line in lines]
    return np.array([int(row[0]) for row in cells]), np.array([float(row[1]) for row in cells]), lines


def test_scores_mean_clicks_of_the_full_data(here):
    """Of training rows: by weight, within 1 %; without the correction they are far too high."""
    labels, weights, lines = raw_rows()
    train = slice(0, find("dataset").manifest.parts["train"].last_line)
    scores = Scorer("export").score_lines(lines, has_labels=True)[train].astype(np.float64)
    labels, weights = labels[train], weights[train]
    assert np.average(scores, weights=weights) == pytest.approx(np.average(labels, weights=weights), rel=0.01)
    uncorrected = scores / (scores + (1 - scores) * KEPT)
    assert np.average(uncorrected, weights=weights) > 1.5 * np.average(labels, weights=weights)


def test_all_say_the_same_of_weighted_rows(here, program, capsys):
    """eval.py, Scorer and C++ program with postprocess.py, of a few rows, and scikit-learn of their scores."""
    labels, weights, lines = (column[:FEW] for column in raw_rows())
    Path("few.txt").write_text("\n".join(lines))
    preprocess_data(["--data_path=few.txt", "--schema=schema.yaml", "--output_path=few", "--vocab_path=checkpoint"])
    capsys.readouterr()
    eval_program.main([CPU, "--dataset_path=few", "--checkpoint_path=checkpoint", "--metrics_file_name=eval.jsonl"])
    assert f"test: {FEW} rows weighted by column w, " in capsys.readouterr().out
    (found,) = rows_of(here / "eval.jsonl", "eval")
    scores = Scorer("export").score_lines(lines, has_labels=True).astype(np.float64)
    by, mean = {"sample_weight": weights}, np.average(labels, weights=weights)
    assert found["auc"] == pytest.approx(sklearn_metrics.roc_auc_score(labels, scores, **by), abs=1e-5)
    assert found["logloss"] == pytest.approx(sklearn_metrics.log_loss(labels, scores, **by), abs=1e-5)
    assert found["acc"] == pytest.approx(sklearn_metrics.accuracy_score(labels, scores > 0.5, **by), abs=1e-3)
    assert found["brier"] == pytest.approx(sklearn_metrics.brier_score_loss(labels, scores, **by), abs=1e-5)
    assert found["calibration"] == pytest.approx(np.average(scores, weights=weights) / mean, abs=1e-4)
    assert found["auc_low"] < found["auc"] < found["auc_high"]
    assert abs(found["logloss"] - sklearn_metrics.log_loss(labels, scores)) > 1e-4  # so that weights are seen
    for path, rows in (("few.txt", "raw"), ("few", "part")):
        preprocess_program.main([f"--dataset_path={path}", "--export_path=export", f"--preprocess_path={rows}"])
        assert np.abs(scored(program, "export/dlrm.mindir", Path(rows)) - scores).max() < 1e-5
        capsys.readouterr()
        postprocess_program.main([f"--preprocess_path={rows}", f"--metrics_file_name={rows}.jsonl"])
        assert "weighted by column w: the metrics are weighted means" in capsys.readouterr().out
        (infer,) = rows_of(here / f"{rows}.jsonl", "infer")
        for name in ("acc", "auc", "logloss"):
            assert infer[name] == pytest.approx(found[name], abs=1e-5), (path, name)
        table = pd.read_csv("scores.csv")
        assert table.weight.to_numpy() == pytest.approx(weights, rel=1e-6)
        assert (table.label == labels).all()


def test_a_vocabulary_grows_by_weighted_rows_of_which_some_are_kept(here, program):
    """And a training that begins with the earlier network: by its weights, and scores mean clicks of all new rows."""
    lines = [line.replace("b5", "new") for line in weighted_lines(6000, seed=9, base=-1.5)]
    Path("next.txt").write_text("\n".join(lines))
    preprocess_data(["--data_path=next.txt", "--schema=schema.yaml", "--vocab_path=checkpoint", "--grow=True",
                     "--output_path=next", f"--keep_negatives={KEPT}", "--valid_fraction=0.0"])  # fmt: skip
    before, after = find("dataset").manifest, find("next").manifest
    assert after.table_rows == (before.table_rows[0], before.table_rows[1] + 1)
    assert after.weight == "w"
    learns = [option for option in LEARNS if not option.startswith("--batch_size")]
    train_program.main([CPU, ORIGINAL, "--dataset_path=next", "--from_checkpoint=checkpoint", "--ckpt_path=grown",
                        "--batch_size=500", *SMALL, *learns])  # fmt: skip
    export_program.main([CPU, "--checkpoint_path=grown", "--export_path=next_export"])
    labels, weights = (np.array([float(line.split("\t")[place]) for line in lines]) for place in (0, 1))
    scores = Scorer("next_export").score_lines(lines, has_labels=True).astype(np.float64)
    train = slice(0, after.parts["train"].last_line)
    mean, expected = (np.average(one[train], weights=weights[train]) for one in (scores, labels))
    old = Scorer("export").score_lines(lines, has_labels=True).astype(np.float64)
    assert mean == pytest.approx(expected, rel=0.02)
    assert np.average(old[train], weights=weights[train]) < 0.8 * expected  # rows whose law has changed
    preprocess_program.main(["--dataset_path=next.txt", "--export_path=next_export"])
    assert np.abs(scored(program, "next_export/dlrm.mindir", Path("preprocess_Result")) - scores).max() < 1e-5


def test_labelled_rows_may_lack_weights(here):
    """If a schema says so."""
    labels, _, lines = raw_rows()
    bare = ["\t".join([label, *rest]) for label, _, *rest in (line.split("\t") for line in lines[:50])]
    Path("bare.txt").write_text("\n".join(bare))
    Path("bare.yaml").write_text("label: y\ndense: [x]\ncategorical: [a, b]\n")
    preprocess_program.main(["--dataset_path=bare.txt", "--export_path=export", "--schema=bare.yaml"])
    rows = RowFiles.load(Path("preprocess_Result"))
    assert rows.labels().tolist() == labels[:50].tolist()
    assert rows.weights() is None


def test_report_and_comparison_are_weighted(here, chain, capsys):
    report = json.loads((chain / "checkpoint/report.json").read_text())
    evaluation, data = report["evaluation"], find("dataset")
    with np.load(chain / "checkpoint/scores.npz") as arrays:
        labels, logits, weights = (arrays[name] for name in ("labels", "logits", "weights"))
    by = {"sample_weight": weights.astype(np.float64)}
    assert evaluation["weighted_by"] == report["data"]["weighted_by"] == "column w"
    assert evaluation["metrics"]["auc"] == pytest.approx(sklearn_metrics.roc_auc_score(labels, logits, **by))
    assert evaluation["intervals"]["auc"]["value"] == pytest.approx(evaluation["metrics"]["auc"])
    assert evaluation["label_mean"] == pytest.approx(data.manifest.parts["test"].label_mean)
    assert evaluation["rows"] == len(weights) == data.manifest.parts["test"].rows
    assert report["data"]["negatives"]["kept"] == data.manifest.negatives.kept
    learned = report["learned"]
    assert learned["linear"]["logloss"] < learned["mean_logloss"]  # which it is not without the correction
    assert learned["logloss"] == pytest.approx(evaluation["metrics"]["logloss"], abs=1e-9)
    assert "column w" in (chain / "checkpoint/report.html").read_text()
    report_program.main(["checkpoint", "checkpoint", "--output=both.html"])
    assert "+0.00000" in capsys.readouterr().out


def test_calibration_by_other_rows(here, capsys):
    """Of all rows, by weight: little is left to mend."""
    export_program.main([CPU, "--export_path=mended", "--calibrate=all"])
    assert "calibrated by 30000 test rows of all weighted by column w: temperature " in capsys.readouterr().out
    labels, weights, lines = raw_rows()
    scores = Scorer("mended").score_lines(lines, has_labels=True)
    assert np.average(scores, weights=weights) == pytest.approx(np.average(labels, weights=weights), rel=1e-4)


@pytest.mark.parametrize("rows", [["--data_path=rows.txt", "--schema=schema.yaml"], ["--dataset_path=all"]])
def test_the_doctor_finds_nothing_in_rows_that_are_not_sampled(here, rows, capsys):
    """Label means, columns, and AUC by weight, beside those of training rows of which few negatives were kept."""
    doctor_program.main(["--checkpoint_path=checkpoint", *SMALL[:3], *rows])
    assert "nothing found: " in capsys.readouterr().out
    one = Trained("checkpoint", NetworkSpec())
    negatives, mean = one.manifest.negatives, one.manifest.parts["train"].label_mean
    labels, weights, _ = raw_rows()
    train = slice(0, one.manifest.parts["train"].last_line)
    expected = np.average(labels[train], weights=weights[train])
    assert mean > 1.5 * expected
    assert negatives.mean_of_all(mean) == pytest.approx(expected, rel=1e-6)
    assert one.rows.label_mean == pytest.approx(expected, rel=1e-6)
