"""train.py and eval.py as users call them, on generated data."""

import os
import re
import signal
import subprocess
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
import yaml
from conftest import CPU, ORIGINAL, ROOT, SMALL, preprocess_lines, raw_lines, write_raw
from networks import loaded
from runs import LOSS_LINE, METRIC_LINE, rows_of
from sklearn.metrics import roc_auc_score

import eval as eval_program
import train as train_program
from src.base.errors import InputError
from src.options import ExportOptions, PreprocessDataOptions, resolve

QUIET = {name: value for name, value in os.environ.items() if name != "GLOG_v"}  # by which MindSpore says more


def last_metrics(path):
    line = METRIC_LINE.fullmatch(Path(path).read_text().splitlines()[-1])
    return {name: float(value) for name, value in line.groupdict().items()}


def checkpoint_bits(path):
    return {name: value.asnumpy().tobytes() for name, value in ms.load_checkpoint(str(path)).items()}


@pytest.fixture
def evaluated(run_folder, here):
    """Call eval.py on the run's checkpoint with more arguments, and return the metrics of acc.log."""

    def call(*argv):
        eval_program.main([f"--checkpoint_path={run_folder}/checkpoint/dlrm.ckpt", CPU, *argv])
        return last_metrics("acc.log")

    return call


def test_training_writes_its_files(run_folder, tiny_data):
    assert sorted(os.listdir(run_folder)) == ["auc.log", "checkpoint", "loss.log", "metrics.jsonl"]
    later = {"evaluations.json"}  # of other tests' eval.py
    assert sorted(set(os.listdir(run_folder / "checkpoint")) - later) == [
        "counts.npz",
        "dlrm.ckpt",
        "dlrm.yaml",
        "finished",
        "manifest.json",
        "report.html",
        "report.json",
        "scores.npz",
        "vocabulary.npz",
    ]
    for name in ("counts.npz", "manifest.json", "vocabulary.npz"):
        assert (run_folder / "checkpoint" / name).read_bytes() == (tiny_data.path / name).read_bytes()
    saved = yaml.safe_load((run_folder / "checkpoint" / "dlrm.yaml").read_text())
    assert (saved["top_mlp"], saved["lr"], saved["batch_size"], saved["seed"]) == ([32, 1], 0.3, 32, 1)
    assert (run_folder / "checkpoint" / "dlrm.ckpt").stat().st_mode & 0o777 == 0o644


def test_logs_agree_with_the_metrics_file(run_folder):
    steps = [*range(20, 212, 20), 212]
    losses = [LOSS_LINE.fullmatch(line) for line in (run_folder / "loss.log").read_text().splitlines()]
    assert [(int(line[1]), int(line[2])) for line in losses] == [((s - 1) // 53 + 1, (s - 1) % 53 + 1) for s in steps]
    rows = rows_of(run_folder / "metrics.jsonl", "loss")
    assert [row["step"] for row in rows] == steps
    assert [row["loss"] for row in rows] == [float(line[3]) for line in losses]

    evaluations = [METRIC_LINE.fullmatch(line) for line in (run_folder / "auc.log").read_text().splitlines()]
    rows = rows_of(run_folder / "metrics.jsonl", "eval")
    assert [row["step"] for row in rows] == [30, 53, 60, 90, 106, 120, 150, 159, 180, 210, 212]
    assert [row["auc"] for row in rows] == [float(line["auc"]) for line in evaluations]
    (end,) = rows_of(run_folder / "metrics.jsonl", "end")
    best = max(rows, key=lambda row: row["auc"])
    assert (end["steps"], end["best_step"]) == (212, best["step"])
    assert end["peak_memory_mb"] > 50


def test_training_learns(run_folder):
    rows = rows_of(run_folder / "metrics.jsonl", "eval")
    assert max(row["auc"] for row in rows) > 0.75
    assert rows[-1]["logloss"] < 0.6  # label mean alone: about 0.68
    losses = [row["loss"] for row in rows_of(run_folder / "metrics.jsonl", "loss")]
    assert np.mean(losses[-3:]) < np.mean(losses[:3]) - 0.05


def test_checkpoint_scores_as_the_best_evaluation_while_training(run_folder, evaluated, tiny_data):
    best = max(rows_of(run_folder / "metrics.jsonl", "eval"), key=lambda row: row["auc"])
    metrics = evaluated(f"--dataset_path={tiny_data.path}/valid", "--eval_batch_size=64")
    assert metrics == {name: best[name] for name in ("acc", "auc", "logloss")}


def test_evaluation_needs_no_sizes_beside_the_checkpoint_path(evaluated, tiny_data, capsys):
    metrics = evaluated(f"--dataset_path={tiny_data.path}")
    assert metrics["auc"] > 0.75
    assert 0.6 < metrics["acc"] <= 1
    row = rows_of("metrics.jsonl", "eval")[0]
    assert {name: row[name] for name in metrics} == metrics
    assert (row["part"], row["rows"]) == ("test", 142)
    assert "test: 142 rows, EvalCallBack metric {'acc': " in capsys.readouterr().out


def test_parts_are_named_by_their_folder_and_test_is_the_default(evaluated, tiny_data):
    sizes = [f"--eval_batch_size={size}" for size in (142, 1, 100)]
    whole, test = evaluated(f"--dataset_path={tiny_data.path}", sizes[0]), f"--dataset_path={tiny_data.path}/test"
    for argv in ([test, sizes[0]], [test + "/", sizes[1]], [test, sizes[2]]):
        assert evaluated(*argv) == pytest.approx(whole, abs=1e-6)
    assert evaluated(f"--dataset_path={tiny_data.path}/train") != whole
    assert [row["rows"] for row in rows_of("metrics.jsonl", "eval")] == [142, 142, 142, 142, 1715]


def test_evaluation_is_that_of_scikit_learn_over_all_rows(run_folder, evaluated, tiny_data):
    from src.dataset import batches_of
    from src.training.evaluation import score

    model = loaded(run_folder / "checkpoint" / "dlrm.ckpt", tiny_data)
    labels, logits = score(model, batches_of(tiny_data, "test", 50), 50)
    assert len(labels) == 142
    assert evaluated(f"--dataset_path={tiny_data.path}")["auc"] == pytest.approx(
        roc_auc_score(labels, logits), abs=1e-6
    )


def test_evaluation_logs_what_scikit_learn_has_beside_the_three_metrics(evaluated, tiny_data, capsys):
    from src.metrics.curves import quality

    metrics = evaluated(f"--dataset_path={tiny_data.path}")
    row = rows_of("metrics.jsonl", "eval")[0]
    assert row["auc_low"] < metrics["auc"] < row["auc_high"]
    assert set(quality(np.array([0, 1.0]), np.zeros(2))) <= set(row)
    label_mean = tiny_data.manifest.parts["test"].label_mean
    entropy = -label_mean * np.log(label_mean) - (1 - label_mean) * np.log(1 - label_mean)
    assert row["normalised_entropy"] == pytest.approx(metrics["logloss"] / entropy, rel=1e-6)
    assert f"normalised_entropy {row['normalised_entropy']:.4f}" in capsys.readouterr().out


def test_one_seed_gives_one_checkpoint_and_another_does_not(tiny_data, here):
    argv = [f"--dataset_path={tiny_data.path}/train", CPU, ORIGINAL, *SMALL, "--report=False", "--compare_linear=False"]
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train_program.main([*argv, f"--ckpt_path={name}", f"--seed={seed}"])
    first, same, other = (checkpoint_bits(here / name / "dlrm.ckpt") for name in "abc")
    assert first == same
    assert all(first[name] != other[name] for name in first)


def test_defaults_train_with_options_from_a_yaml(tiny_data, here):
    """Criteo's network, 1e-3 read as a number, no evaluation, a folder of logs that is not there yet."""
    Path("my.yaml").write_text("device_target: CPU\nlr: 1e-3\ndo_eval: no\nloss_file_name: logs/new/loss.log\n")
    train_program.main([f"--dataset_path={tiny_data.path}", "--config_path=my.yaml"])
    saved = yaml.safe_load(Path("checkpoint/dlrm.yaml").read_text())
    assert (saved["lr"], saved["top_mlp"], saved["do_eval"]) == (0.001, [512, 256, 1], False)
    assert not Path("auc.log").exists()
    assert LOSS_LINE.fullmatch(Path("logs/new/loss.log").read_text().strip())
    sizes = [value.size for name, value in ms.load_checkpoint("checkpoint/dlrm.ckpt").items() if name[0] != "e"]
    assert sum(sizes) == 475_985
    assert eval_program.main([f"--dataset_path={tiny_data.path}", CPU, "--eval_batch_size=64"]) is None
    assert METRIC_LINE.fullmatch(Path("acc.log").read_text().strip())


def test_without_validation_rows_test_rows_are_evaluated_while_training(here):
    data = preprocess_lines(write_raw(here / "train.txt", raw_lines(700)), here / "dataset", valid_fraction=0.0)
    assert "valid" not in data.manifest.parts
    train_program.main(["--dataset_path=dataset", CPU, ORIGINAL, *SMALL, "--batch_size=100"])
    evaluations = rows_of("metrics.jsonl", "eval")
    best = max(evaluations, key=lambda row: row["auc"])
    last = evaluations[-1]
    assert (last["part"], last != best) == ("test", True)  # test rows choose nothing
    eval_program.main(["--dataset_path=dataset", CPU, "--eval_batch_size=64"])
    assert last_metrics("acc.log") == {name: last[name] for name in ("acc", "auc", "logloss")}
    with pytest.raises(InputError, match="dataset/valid is not a folder|has no valid rows"):
        eval_program.main(["--dataset_path=dataset/valid", CPU])


def test_other_numbers_of_columns_train_and_evaluate(here):
    from src.rows.columns import Columns

    lines = ["\t".join([*line.split("\t")[:6], *line.split("\t")[14:22]]) for line in raw_lines(700)]
    preprocess_lines(write_raw(here / "train.txt", lines), here / "dataset", Columns.numbered(5, 8))
    for more in (["--interaction=cat"], ["--self_interaction", "--overwrite"]):
        train_program.main(["--dataset_path=dataset", CPU, ORIGINAL, *SMALL, "--batch_size=32", *more])
        eval_program.main(["--dataset_path=dataset", CPU, "--eval_batch_size=64"])
    assert len(Path("acc.log").read_text().splitlines()) == 2


def test_existing_checkpoint_is_replaced_only_by_overwrite(tiny_data, here):
    argv = [f"--dataset_path={tiny_data.path}", CPU, ORIGINAL, *SMALL, "--do_eval=False"]
    train_program.main(argv)
    first = Path("checkpoint/dlrm.ckpt").read_bytes()
    with pytest.raises(InputError, match=r"ckpt_path checkpoint already holds dlrm\.ckpt: .*--overwrite=True"):
        train_program.main([*argv, "--seed=2"])
    assert Path("checkpoint/dlrm.ckpt").read_bytes() == first
    train_program.main([*argv, "--seed=2", "--overwrite=True"])
    assert Path("checkpoint/dlrm.ckpt").read_bytes() != first
    assert yaml.safe_load(Path("checkpoint/dlrm.yaml").read_text())["seed"] == 2


def test_quickstart_goes_on_where_it_was_stopped(here):
    command = ["bash", str(ROOT / "scripts/run_quickstart.sh"), "--rows", "4000", "--output", "out"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          start_new_session=True) as child:  # fmt: skip
        for line in child.stdout:
            if line.startswith("step:") or " step: " in line:  # it trains
                os.killpg(child.pid, signal.SIGKILL)
    assert not Path("out/checkpoint/dlrm.ckpt").exists()
    before = Path("out/dataset/manifest.json").stat().st_mtime_ns
    other = subprocess.run([*command, "--rows=3000"], capture_output=True, text=True, check=False)
    assert other.returncode != 0
    assert "already holds an earlier run" in other.stderr
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=QUIET)
    assert (done.returncode, done.stderr) == (0, "")  # programs that do well say nothing there
    assert "going on with the run that was stopped in out" in done.stdout
    assert done.stdout.count("compiling the graph of an evaluation\n") == 2  # once by each program
    assert re.search(r"\nepoch: 4, step: 22/26, loss is \d\.\d{4}, \d+ samples/s, \d+ s left\n", done.stdout)
    assert re.search(r"\ncheckpoint: out/checkpoint/dlrm\.ckpt\n\+ python eval\.py ", done.stdout)
    assert not [line for line in done.stdout.splitlines() if line.startswith("+ ") and "preprocess_data.py" in line]
    assert Path("out/dataset/manifest.json").stat().st_mtime_ns == before
    assert last_metrics("out/acc.log")["auc"] > 0.5
    next_ones = [line.split() for line in done.stdout.splitlines()[-3:]]
    for program, options in (("export.py", ExportOptions), ("preprocess_data.py", PreprocessDataOptions)):
        (line,) = (words for words in next_ones if any(word.endswith(program) for word in words))
        resolve(options, [word for word in line if word.startswith("--")])
    assert any(Path(word).name == "run_infer_310.sh" and Path(word).is_file() for words in next_ones for word in words)
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "already holds an earlier run: give --overwrite" in again.stderr
