"""A training that is really stopped goes on where it was, and ends with the network of an undisturbed one."""

import json
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
from conftest import ROOT, preprocess_lines, raw_lines, write_raw
from mindspore.train import Callback
from runs import StopAt, rows_of, train_small

from src.base import events
from src.base.errors import InputError
from src.checkpoints.run_folder import Run, RunOptions
from src.dataset import RowBatches, Rows
from src.training import training

ms.set_context(mode=ms.GRAPH_MODE)
ms.set_device("CPU")

OPTIONS = [
    "--device_target=CPU", "--batch_size=8", "--epochs=3",
    "--bottom_mlp=[32,8]", "--emb_dim=8", "--top_mlp=[32,1]", "--optimizer=adam", "--lr=0.002",
    "--warmup_steps=50", "--lr_schedule=cosine", "--save_steps=10", "--eval_steps=20", "--log_steps=10",
]  # fmt: skip  # 214 steps an epoch


def bits(path):
    return {name: value.asnumpy().tobytes() for name, value in ms.load_checkpoint(str(path)).items()}


def losses_of(folder):
    """The last loss that was logged for each step."""
    return {row["step"]: row["loss"] for row in rows_of(folder / "metrics.jsonl", "loss")}


RULES = [
    {"lr": 0.1},
    {"lr": 0.1, "lr_schedule": "cosine", "warmup_steps": 9},
    {"lr": 0.1, "optimizer": "adagrad"},
    {"lr": 0.1, "optimizer": "rowwise_adagrad", "table_weight_decay": 0.01},
    {"lr": 0.01, "optimizer": "adam"},
    {"lr": 0.01, "optimizer": "adagrad", "mlp_optimizer": "adam", "mlp_weight_decay": 0.1,
     "lr_schedule": "polynomial", "decay_share": 0.6},
    {"lr": 0.01, "optimizer": "adagrad", "dropout": 0.4, "reset_tables_each_epoch": True, "average_share": 0.4},
]  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "stop", "with_kernels"),
    [(rule, 47, True) for rule in RULES]
    + [(rule, 17, False) for rule in RULES]
    + [(RULES[1], 26, True), (RULES[6] | {"save_steps": 13}, 28, True)],  # the latter goes on at an epoch's begin
)
def test_stopped_training_ends_with_the_bits_of_an_undisturbed_one(
    tiny_data, tmp_path, rule, stop, with_kernels, capsys
):
    """26 steps an epoch; saves behind every 5, so 2 or 1 steps are done again. Behind step 26 an epoch ends."""
    options = {"epochs": 2, "eval_steps": 10, "save_steps": 5, "log_steps": 1, "cpu_kernels": with_kernels} | rule
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir(), parts.mkdir()
    undisturbed = train_small(tiny_data, whole, **options)
    with pytest.raises(KeyboardInterrupt):
        train_small(tiny_data, parts, **options, callbacks=[StopAt(stop)])
    assert not (parts / "dlrm.ckpt").exists()
    capsys.readouterr()
    result = train_small(tiny_data, parts, **options)
    assert (
        f"going on from step {(stop - 1) // options['save_steps'] * options['save_steps']} of 52"
        in capsys.readouterr().out
    )
    assert bits(parts / "dlrm.ckpt") == bits(whole / "dlrm.ckpt")
    assert losses_of(parts) == losses_of(whole)
    assert (result.best, result.best_step, result.steps) == (
        undisturbed.best,
        undisturbed.best_step,
        undisturbed.steps,
    )
    assert not (parts / "unfinished").exists()
    names = {row["run"] for row in map(json.loads, (parts / "metrics.jsonl").read_text().splitlines())}
    assert len(names) == 1, "one run, though two processes worked on it"


@pytest.mark.parametrize("do_eval", [True, False])
def test_last_network_is_kept_across_a_stop_where_no_validation_rows_choose(tmp_path, do_eval):
    data = preprocess_lines(write_raw(tmp_path / "train.txt", raw_lines(2000)), tmp_path / "data", valid_fraction=0.0)
    options = {"eval_steps": 10, "save_steps": 5, "do_eval": do_eval}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir(), parts.mkdir()
    train_small(data, whole, **options)
    with pytest.raises(KeyboardInterrupt):
        train_small(data, parts, **options, callbacks=[StopAt(19)])
    train_small(data, parts, **options)
    assert bits(parts / "dlrm.ckpt") == bits(whole / "dlrm.ckpt")


def test_best_network_of_before_the_stop_is_kept(tiny_data, tmp_path, monkeypatch):
    """The evaluations behind the stop are worse, so the checkpoint comes from before it."""
    real = training.evaluate

    def worse_from_now_on(*args):
        metrics = real(*args)
        return metrics | {"auc": metrics["auc"] / 2}

    options = {"eval_steps": 5, "save_steps": 5}
    with pytest.raises(KeyboardInterrupt):
        train_small(tiny_data, tmp_path, **options, callbacks=[StopAt(17)])
    before = json.loads((tmp_path / "unfinished" / "progress.json").read_text())
    best = bits(tmp_path / "unfinished" / f"best-{before['best_step']}.ckpt")
    monkeypatch.setattr(training, "evaluate", worse_from_now_on)
    result = train_small(tiny_data, tmp_path, **options)
    assert (result.best, result.best_step) == (before["best"], before["best_step"])
    assert bits(tmp_path / "dlrm.ckpt") == best


def test_evaluations_that_were_waited_for_before_the_stop_count(tiny_data, tmp_path, monkeypatch):
    """The AUC never rises above the first; the end comes with the fourth evaluation, though one stop lies between."""
    monkeypatch.setattr(training, "evaluate", lambda *_: {"acc": 0.5, "auc": 0.5, "logloss": 0.5})
    options = {"eval_steps": 5, "save_steps": 4, "early_stopping": 3, "log_steps": 1}
    with pytest.raises(KeyboardInterrupt):
        train_small(tiny_data, tmp_path, **options, callbacks=[StopAt(14)])
    result = train_small(tiny_data, tmp_path, **options)
    assert [row["step"] for row in rows_of(tmp_path / "metrics.jsonl", "eval")] == [5, 10, 15, 20]
    assert (result.steps, result.best_step) == (20, 5)
    (end,) = rows_of(tmp_path / "metrics.jsonl", "end")
    assert end["ended_by"] == "early_stopping: no higher AUC in 3 evaluations"


@pytest.mark.parametrize("step", [0, 1, 6, 7, 20, 27])
def test_batches_go_on_behind_any_step(tiny_data, step):
    def batches():
        shards, rows = tiny_data.shards("train")
        return RowBatches(Rows(shards, sum(rows), 13, 26), 256, shuffle=True, drop_last=True, seed=3)

    all_of_them, later = batches(), batches()
    assert len(all_of_them) == 6
    expected = [batch for _ in range(5) for batch in all_of_them][step:]
    later.go_to(step)
    found = [batch for _ in range(5 - step // 6) for batch in later]
    assert len(found) == len(expected) == 30 - step
    for one, other in zip(found, expected):
        assert all(np.array_equal(left, right) for left, right in zip(one, other))


# Runs train.py, which kills itself when a moment of src/base/events.py comes for the n-th time.
KILLED = """
import os, signal, sys
root, wanted, number = sys.argv[1:4]
sys.path.insert(0, root)
sys.argv = ["train.py", *sys.argv[4:]]
from src.base import events
came = []

def kill(moment):
    came.extend([moment] if moment == wanted else [])
    if len(came) == int(number):
        os.kill(os.getpid(), signal.SIGKILL)

events.listeners.append(kill)
import train
train.run(train.main)
"""
KILLS = [
    ("a state is to be saved", 1),  # nothing is saved yet
    ("an entry of a checkpoint is written", 20),  # the first state is half written
    ("a state is whole", 3),  # but not the one to go on from yet
    ("a network is to be kept", 1),
    ("a network is kept", 1),  # a best network that the state does not know of
    ("the progress names another state", 2),  # two states, two best networks, the progress has the newer ones
    ("a state is to be saved", 11),
    ("a state is to be saved", 37),  # the second epoch
    ("the files are to go to their places", 1),
    ("manifest.json is in its place", 1),  # half of the files
]


def train_program(folder, data, *killed):
    """Exit code and output of train.py in a folder, killed at a point if one is named."""
    begin = [
        sys.executable,
        "-u",
        *(["-c", KILLED, str(ROOT), *map(str, killed)] if killed else [str(ROOT / "train.py")]),
    ]
    child = subprocess.run([*begin, f"--dataset_path={data}", *OPTIONS], cwd=folder, stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, text=True, check=False)  # fmt: skip
    return child.returncode, child.stdout


def first_step(text):
    found = re.search(r"going on from step (\d+) of 642", text)
    return int(found[1]) if found else 0


def test_killed_again_and_again_it_ends_as_if_undisturbed(tiny_data, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir(), parts.mkdir()
    code, text = train_program(whole, tiny_data.path)
    assert (code, first_step(text)) == (0, 0), text
    steps = []
    for kill in KILLS:
        code, text = train_program(parts, tiny_data.path, *kill)
        assert code == -signal.SIGKILL, (kill, text)
        assert not (parts / "checkpoint" / "dlrm.ckpt").exists(), kill
        steps.append(first_step(text))
    assert steps == sorted(steps)
    assert (steps[0], steps[3] > 0, steps[-1]) == (0, True, 642)
    code, text = train_program(parts, tiny_data.path)
    assert (code, first_step(text)) == (0, 642), text
    assert bits(parts / "checkpoint/dlrm.ckpt") == bits(whole / "checkpoint/dlrm.ckpt")
    assert losses_of(parts) == losses_of(whole)
    assert sorted(os.listdir(parts / "checkpoint")) == sorted(os.listdir(whole / "checkpoint"))


def test_killed_when_it_had_ended_but_for_its_folder(tiny_data, tmp_path):
    code, _ = train_program(tmp_path, tiny_data.path, "all files are in their places", 1)
    assert code == -signal.SIGKILL
    assert (tmp_path / "checkpoint" / "dlrm.ckpt").is_file()
    code, text = train_program(tmp_path, tiny_data.path)
    assert (code, "already holds dlrm.ckpt" in text) == (2, True)


@pytest.fixture
def stopped(tiny_data, tmp_path):
    """A folder with a training that was stopped at step 17, the last save behind step 15."""
    with pytest.raises(KeyboardInterrupt):
        train_small(tiny_data, tmp_path, save_steps=5, callbacks=[StopAt(17)])
    return tmp_path


def test_other_options_are_refused_and_nothing_is_lost(tiny_data, stopped, capsys):
    state = stopped / "unfinished" / "state-15.ckpt"
    before = state.read_bytes()
    with pytest.raises(InputError, match=r"stopped, with dropout 0\.0 instead of 0\.2: go on .* --resume=False"):
        train_small(tiny_data, stopped, dropout=0.2)
    assert state.read_bytes() == before
    train_small(tiny_data, stopped, log_steps=7)
    assert "going on from step 15" in capsys.readouterr().out
    assert "log_steps: 7" in (stopped / "dlrm.yaml").read_text()


def test_options_that_are_new_since_the_stop_count_as_their_defaults(tiny_data, stopped, capsys):
    saved = stopped / "unfinished/dlrm.yaml"
    lines = saved.read_text().splitlines()
    saved.write_text("\n".join(line for line in lines if not line.startswith("monitor: ")))
    with pytest.raises(InputError, match="stopped, with monitor auc instead of logloss"):
        train_small(tiny_data, stopped, monitor="logloss")
    train_small(tiny_data, stopped)
    assert "going on from step 15" in capsys.readouterr().out


def test_options_that_were_lost_are_refused(tiny_data, stopped):
    (stopped / "unfinished/dlrm.yaml").write_text("")
    with pytest.raises(InputError, match="stopped, with no options in its file"):
        train_small(tiny_data, stopped)


class SignalIn(Callback):
    """Sends this process a signal before a step, which the first time compiles it, and notes the steps that end."""

    def __init__(self, step, number):
        super().__init__()
        self.step, self.number, self.done = step, number, []

    def on_train_step_begin(self, run_context):
        if run_context.original_args().cur_step_num == self.step:
            os.kill(os.getpid(), self.number)

    def on_train_step_end(self, run_context):
        self.done.append(run_context.original_args().cur_step_num)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", [1, 3])
def test_a_signal_while_a_graph_is_compiled_counts_afterwards(tiny_data, tmp_path, interrupting, step, number):
    callback = SignalIn(step, number)
    with pytest.raises(KeyboardInterrupt):
        train_small(tiny_data, tmp_path, callbacks=[callback])
    assert callback.done == {1: [], 3: [1, 2]}[step]  # the user's callbacks come last
    for one in (signal.SIGTERM, signal.SIGINT):
        assert signal.getsignal(one) is signal.default_int_handler


def test_other_data_are_refused(stopped, tmp_path_factory):
    folder = tmp_path_factory.mktemp("other")
    other = preprocess_lines(write_raw(folder / "train.txt", raw_lines(2000, 2)), folder / "dataset")
    with pytest.raises(InputError, match="stopped, with other data than .*--resume=False"):
        train_small(other, stopped)


def test_damaged_state_is_refused(tiny_data, stopped):
    state = stopped / "unfinished" / "state-15.ckpt"
    content = bytearray(state.read_bytes())
    content[len(content) // 2] ^= 1
    state.write_bytes(content)
    with pytest.raises(InputError, match=r"can't go on .*state-15\.ckpt is .* damaged .* --resume=False"):
        train_small(tiny_data, stopped)
    state.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"can't go on .*state-15\.ckpt is .* damaged .* --resume=False"):
        train_small(tiny_data, stopped)


def test_resume_false_starts_afresh(tiny_data, stopped, tmp_path_factory, capsys):
    whole = tmp_path_factory.mktemp("whole")
    train_small(tiny_data, whole)
    train_small(tiny_data, stopped, resume=False, save_steps=5)
    assert "going on" not in capsys.readouterr().out
    assert bits(stopped / "dlrm.ckpt") == bits(whole / "dlrm.ckpt")
    assert len([row for row in rows_of(stopped / "metrics.jsonl", "loss") if row["step"] == 10]) == 2


def test_second_run_in_the_same_folder_is_refused(tiny_data, tmp_path):
    with (
        Run(tmp_path, tiny_data, RunOptions("dlrm.yaml", "lr: 0.1\n")),
        pytest.raises(InputError, match="another run is at work there"),
    ):
        train_small(tiny_data, tmp_path)
    train_small(tiny_data, tmp_path)


def test_run_that_ended_but_for_its_folder_starts_afresh(tiny_data, stopped, capsys):
    """Killed between the last two operations of a run: the checkpoint stands, and so does the folder."""
    left = shutil.copytree(stopped / "unfinished", stopped.parent / f"{stopped.name}-left")
    train_small(tiny_data, stopped)
    shutil.copytree(left, stopped / "unfinished")
    with pytest.raises(InputError, match=r"already holds dlrm\.ckpt"):
        train_small(tiny_data, stopped)
    capsys.readouterr()
    train_small(tiny_data, stopped, overwrite=True)
    assert not (stopped / "unfinished").exists()


def test_damaged_progress_is_refused(tiny_data, stopped):
    (stopped / "unfinished" / "progress.json").write_text("{")
    with pytest.raises(InputError, match=r"progress\.json is damaged .* --resume=False"):
        train_small(tiny_data, stopped)


def test_state_on_a_full_disk_is_one_error_that_names_it(tiny_data, tmp_path, monkeypatch):
    def full(moment):
        if moment == "an entry of a checkpoint is written":
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(events, "listeners", [full])
    with pytest.raises(OSError, match="No space left") as caught:
        train_small(tiny_data, tmp_path, save_steps=5)
    assert Path(caught.value.filename).name == "state-5.ckpt"
    assert sorted(os.listdir(tmp_path / "unfinished")) == [".lock", "dlrm.yaml", "manifest.json", "vocabulary.npz"]
