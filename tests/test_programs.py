"""train.py and eval.py as users call them, on generated data, and how they refuse what is wrong."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
import yaml
from conftest import CPU, ROOT, SMALL, preprocess_lines, raw_lines, write_raw
from networks import loaded
from runs import LOSS_LINE, METRIC_LINE, rows_of
from sklearn.metrics import roc_auc_score

import eval as eval_program
import train as train_program
from src.base.errors import InputError

ms.set_context(mode=ms.GRAPH_MODE)
ms.set_device("CPU")


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


def damaged(data, folder, change):
    """A copy of a data folder with one change."""
    shutil.copytree(data.path, folder)
    change(folder)
    return folder


def test_training_writes_its_files(run_folder, tiny_data):
    assert sorted(os.listdir(run_folder)) == ["auc.log", "checkpoint", "loss.log", "metrics.jsonl"]
    assert sorted(os.listdir(run_folder / "checkpoint")) == [
        "dlrm.ckpt",
        "dlrm.yaml",
        "manifest.json",
        "report.html",
        "report.json",
        "scores.npz",
        "vocabulary.npz",
    ]
    for name in ("manifest.json", "vocabulary.npz"):
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
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train_program.main(
            [f"--dataset_path={tiny_data.path}/train", CPU, *SMALL, f"--ckpt_path={name}", f"--seed={seed}"]
        )
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
    train_program.main(["--dataset_path=dataset", CPU, *SMALL, "--batch_size=100"])
    evaluations = rows_of("metrics.jsonl", "eval")
    best = max(evaluations, key=lambda row: row["auc"])
    last = evaluations[-1]
    assert (last["part"], last != best) == ("test", True)  # test rows choose nothing
    eval_program.main(["--dataset_path=dataset", CPU, "--eval_batch_size=64"])
    assert last_metrics("acc.log") == {name: last[name] for name in ("acc", "auc", "logloss")}
    with pytest.raises(InputError, match="dataset/valid is not a folder|has no valid rows"):
        eval_program.main(["--dataset_path=dataset/valid", CPU])


def test_other_numbers_of_columns_train_and_evaluate(here):
    from src.data.lines import Columns

    lines = ["\t".join([*line.split("\t")[:6], *line.split("\t")[14:22]]) for line in raw_lines(700)]
    preprocess_lines(write_raw(here / "train.txt", lines), here / "dataset", Columns.numbered(5, 8))
    for more in (["--interaction=cat"], ["--self_interaction", "--overwrite"]):
        train_program.main(["--dataset_path=dataset", CPU, *SMALL, "--batch_size=32", *more])
        eval_program.main(["--dataset_path=dataset", CPU, "--eval_batch_size=64"])
    assert len(Path("acc.log").read_text().splitlines()) == 2


def run_program(folder, program, *argv):
    """Exit code, stdout and lines of stderr of a program run in the folder."""
    environment = {name: value for name, value in os.environ.items() if name != "GLOG_v"}
    done = subprocess.run(
        [sys.executable, str(ROOT / f"{program}.py"), *argv],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr.splitlines()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["train"], r"error: device_target Ascend with device_id 0: .*none on this machine; .*--device_target=CPU"),
        (["eval", "--device_target=GPU"], r"error: device_target GPU with device_id 0: .*--device_target=CPU"),
        (["train", "--batchsize=3"], r"error: .*no option '--batchsize=3'; did you mean --batch_size\?"),
        (
            ["eval", CPU, "--checkpoint_path=garbage.ckpt"],
            r"error: garbage\.ckpt is not a MindSpore .*",
        ),
        (
            ["train", CPU, *SMALL, "--lr=3e38", "--log_steps=2", "--eval_steps=99"],
            r"error: the loss is .*: training diverged; .*--lr",
        ),
        (["train", CPU, "--batch_size=9999"], r"error: batch_size is 9999, but there are only 1715 training rows.*"),
    ],
)
def test_refusal_is_one_line_and_exit_code_2(tiny_data, tmp_path, argv, message):
    (tmp_path / "dataset").symlink_to(tiny_data.path)
    (tmp_path / "garbage.ckpt").write_bytes(b"not a checkpoint\n" * 50)
    code, _, errors = run_program(tmp_path, *argv)
    assert code == 2
    assert len(errors) == 1, errors
    assert re.fullmatch(message, errors[0])
    assert not list(tmp_path.glob("**/dlrm*.ckpt"))


def test_good_run_is_silent_on_stderr(tiny_data, tmp_path):
    (tmp_path / "dataset").symlink_to(tiny_data.path)
    code, out, errors = run_program(tmp_path, "train", CPU, *SMALL, "--log_steps=5")
    assert (code, errors) == (0, [])
    assert re.search(r"^epoch: 1, step: 5/13, loss is \d\.\d{4}, \d+ samples/s, \d+ s left$", out, re.MULTILINE)
    assert out.splitlines()[-1] == "checkpoint: checkpoint/dlrm.ckpt"


@pytest.mark.parametrize("program", [train_program, eval_program])
@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--no_such_thing=1"], "knows no option '--no_such_thing=1'"),
        (["--dataset_pth=x"], r"did you mean --dataset_path\?"),
        (["--eval_batch_size=0"], "eval_batch_size is 0: it must be a finite number above 0"),
        (["--bottom_mlp=[8,"], "it must be a list of whole numbers"),
        (["--top_mlp=8,1"], "top_mlp is '8,1': it must be a list of whole numbers"),
        (["--self_interaction=perhaps"], "self_interaction is 'perhaps': it must be True or False"),
        (["--device_target=cpu"], "must be one of Ascend, GPU, CPU"),
        (["--dataset_path=nowhere"], "dataset_path nowhere is not a folder: name the data folder that"),
        (["--dataset_path=empty"], r"dataset_path empty holds no manifest\.json, .*run src/preprocess_data\.py"),
        (["--config_path=twice.yaml"], "twice.yaml line 3: option 'emb_dim' is given twice: keep one"),
        (["--config_path=unknown.yaml"], r"unknown.yaml: unknown option 'embdim'; did you mean emb_dim\?"),
        (["--config_path=none.yaml"], "none.yaml is not a file"),
    ],
)
def test_bad_argument_of_either_program_is_refused(here, program, argv, message):
    Path("empty").mkdir()
    Path("twice.yaml").write_text("emb_dim: 16\ndevice_target: CPU\nemb_dim: 16\n")
    Path("unknown.yaml").write_text("embdim: 16\n")
    with pytest.raises(InputError, match=message) as caught:
        program.main(argv if argv[0].startswith(("--device", "--config")) else [CPU, *argv])
    assert "\n" not in str(caught.value)
    assert sorted(os.listdir()) == ["empty", "twice.yaml", "unknown.yaml"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--batch_size=0"], "batch_size is 0: it must be a finite number above 0"),
        (["--lr=nan"], "lr is nan: it must be a finite number above 0"),
        (["--lr=inf"], "lr is inf: it must be a finite number above 0"),
        (["--do_eval=maybe"], "do_eval is 'maybe': it must be True or False"),
        (["--epochs=0"], "epochs is 0: it must be a finite number above 0"),
        (["--compute_dtype=float16"], "compute_dtype float16 is for Ascend and GPU"),
    ],
)
def test_bad_argument_of_training_is_refused(here, tiny_data, argv, message):
    with pytest.raises(InputError, match=message):
        train_program.main([CPU, f"--dataset_path={tiny_data.path}", *argv])
    assert os.listdir() == []


def test_part_that_is_not_for_training_is_refused(here, tiny_data):
    with pytest.raises(InputError, match="is the test part: train.py trains on the train part, so give"):
        train_program.main([CPU, f"--dataset_path={tiny_data.path}/test"])
    assert os.listdir() == []


def test_shard_that_was_cut_short_is_refused_by_both_programs(here, tiny_data, run_folder):
    def cut(folder):
        for part in ("train", "test"):
            shard = sorted((folder / part).glob("*.mindrecord"))[0]
            shard.write_bytes(shard.read_bytes()[:-1])

    damaged(tiny_data, here / "dataset", cut)
    with pytest.raises(InputError, match=r"train/.*\.mindrecord has \d+ bytes, manifest\.json says \d+: preprocess"):
        train_program.main(["--dataset_path=dataset", CPU, *SMALL])
    assert not Path("checkpoint/dlrm.ckpt").exists()
    with pytest.raises(InputError, match=r"test/.*\.mindrecord has \d+ bytes, manifest\.json says \d+: preprocess"):
        eval_program.main(["--dataset_path=dataset", CPU, f"--checkpoint_path={run_folder}/checkpoint/dlrm.ckpt"])
    assert not Path("acc.log").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "manifest.json").unlink(), "holds no manifest.json"),
        (lambda folder: (folder / "manifest.json").write_text("{}"), "is not a manifest of this program"),
        (lambda folder: (folder / "manifest.json").write_text("[1"), "is not a manifest of this program"),
        (lambda folder: (folder / "vocabulary.npz").write_bytes(b"x"), r"vocabulary\.npz has 1 bytes"),
        (lambda folder: sorted((folder / "train").iterdir())[0].unlink(), r"is missing, though manifest\.json lists"),
    ],
)
def test_data_folder_that_is_not_whole_is_refused(here, tiny_data, change, message):
    damaged(tiny_data, here / "dataset", change)
    with pytest.raises(InputError, match=message):
        train_program.main(["--dataset_path=dataset", CPU, *SMALL])
    assert not Path("checkpoint/dlrm.ckpt").exists()


def test_checkpoint_of_other_sizes_is_refused(evaluated, tiny_data):
    data = f"--dataset_path={tiny_data.path}"
    with pytest.raises(InputError, match=r"has \[32, 359\] for .*, the model needs \[16, 359\]: give the options"):
        evaluated(data, "--top_mlp=[16,1]")
    with pytest.raises(InputError, match=r"for embedding\.C1, the model needs \[\d+, 4\]"):
        evaluated(data, "--emb_dim=4", "--bottom_mlp=[16,4]")
    assert not Path("acc.log").exists()


def test_checkpoint_of_other_data_is_refused(run_folder, here):
    preprocess_lines(write_raw(here / "train.txt", raw_lines(300, seed=2)), here / "dataset")
    argv = ["--dataset_path=dataset", CPU]
    with pytest.raises(InputError, match="was trained with another vocabulary than that of dataset"):
        eval_program.main([*argv, f"--checkpoint_path={run_folder}/checkpoint/dlrm.ckpt"])
    Path("alone").mkdir()
    shutil.copy(run_folder / "checkpoint" / "dlrm.ckpt", "alone")
    with pytest.raises(InputError, match=r"has \[\d+, 8\] for embedding\.C\d+, the model needs \[\d+, 8\]"):
        eval_program.main([*argv, *SMALL, "--checkpoint_path=alone/dlrm.ckpt"])
    with pytest.raises(InputError, match="checkpoint_path none.ckpt is not a file"):
        eval_program.main([*argv, "--checkpoint_path=none.ckpt"])


def test_checkpoint_whose_logits_are_not_finite_is_refused(run_folder, here, tiny_data):
    """What divergence leaves where nothing was evaluated while training."""
    entries = ms.load_checkpoint(str(run_folder / "checkpoint" / "dlrm.ckpt"))
    name = list(entries)[[name.startswith("top") for name in entries].index(True) + 3]  # the last layer's bias
    assert entries[name].shape == (1,)
    entries[name].set_data(ms.Tensor(np.array([np.nan], np.float32)))
    Path("nan").mkdir()
    ms.save_checkpoint([{"name": key, "data": value} for key, value in entries.items()], "nan/dlrm.ckpt")
    with pytest.raises(InputError, match="not finite"):
        eval_program.main([f"--dataset_path={tiny_data.path}", CPU, *SMALL, "--checkpoint_path=nan/dlrm.ckpt"])


def test_existing_checkpoint_is_replaced_only_by_overwrite(tiny_data, here):
    argv = [f"--dataset_path={tiny_data.path}", CPU, *SMALL, "--do_eval=False"]
    train_program.main(argv)
    first = Path("checkpoint/dlrm.ckpt").read_bytes()
    with pytest.raises(InputError, match=r"ckpt_path checkpoint already holds dlrm\.ckpt: .*--overwrite=True"):
        train_program.main([*argv, "--seed=2"])
    assert Path("checkpoint/dlrm.ckpt").read_bytes() == first
    train_program.main([*argv, "--seed=2", "--overwrite=True"])
    assert Path("checkpoint/dlrm.ckpt").read_bytes() != first
    assert yaml.safe_load(Path("checkpoint/dlrm.yaml").read_text())["seed"] == 2


@pytest.mark.parametrize("argv", [["--batch_size=9999"], ["--device_target=Ascend"]])
def test_run_that_cannot_begin_keeps_the_checkpoint_it_would_overwrite(tiny_data, here, argv):
    Path("checkpoint").mkdir()
    Path("checkpoint/dlrm.ckpt").write_bytes(b"dear")
    device = [] if argv[0].startswith("--device") else [CPU]
    with pytest.raises(InputError):
        train_program.main([f"--dataset_path={tiny_data.path}", "--overwrite=True", *device, *argv])
    assert Path("checkpoint/dlrm.ckpt").read_bytes() == b"dear"


def test_quickstart_goes_on_where_it_was_stopped(here):
    command = ["bash", str(ROOT / "scripts/run_quickstart.sh"), "--rows", "20000", "--output", "out"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          start_new_session=True) as child:  # fmt: skip
        for line in child.stdout:
            if line.startswith("step:") or " step: " in line:  # it trains
                os.killpg(child.pid, signal.SIGKILL)
    assert not Path("out/checkpoint/dlrm.ckpt").exists()
    before = Path("out/dataset/manifest.json").stat().st_mtime_ns
    other = subprocess.run([*command, "--rows=30000"], capture_output=True, text=True, check=False)
    assert other.returncode != 0
    assert "already holds an earlier run" in other.stderr
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "going on with the run that was stopped in out" in done.stdout
    assert "preprocess_data.py" not in done.stdout
    assert Path("out/dataset/manifest.json").stat().st_mtime_ns == before
    assert last_metrics("out/acc.log")["auc"] > 0.5
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "already holds an earlier run: give --overwrite" in again.stderr


def test_keyboard_stops_training_in_one_line_and_nothing_looks_whole(tiny_data, here):
    command = [sys.executable, "-u", str(ROOT / "train.py"), f"--dataset_path={tiny_data.path}", CPU, "--epochs=500"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        next(line for line in child.stdout if "EvalCallBack" in line)
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate()
    assert child.returncode == 130
    assert errors.startswith("stopped by the keyboard")
    assert len(errors.splitlines()) == 1
    assert os.listdir("checkpoint") == ["unfinished"]
