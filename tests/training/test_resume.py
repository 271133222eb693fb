"""A training that is really stopped goes on where it was, and ends with the network of an undisturbed one."""

import json
import os
import signal

import numpy as np
import pytest
from conftest import preprocess_lines, raw_lines, write_raw
from mindspore.train import Callback
from runs import StopAt, bits, losses_of, rows_of, train_small

from src.dataset import RowBatches, Rows
from src.training import training

# By either operators each rule of the tables, every other option with its default and without, and each stop: within
# the first epoch, and the second; at an epoch's end, behind step 13; and where the run goes on at an epoch's begin.
SECOND, FIRST, END, BEGIN = ({"stop": 24}, {"stop": 9}, {"stop": 13}, {"stop": 14, "save_steps": 13})
DECAYS = {"mlp_weight_decay": 0.1, "lr_schedule": "polynomial", "decay_share": 0.6}
ROWWISE = {"optimizer": "rowwise_adagrad", "table_weight_decay": 0.01}
COSINE = {"lr_schedule": "cosine", "warmup_steps": 9}
STOPPED = {
    True: [
        {"lr": 0.1} | COSINE | END,
        {"lr": 0.01, "optimizer": "adagrad", "mlp_optimizer": "adam"} | DECAYS | FIRST,
        {"lr": 0.1, "dropout": 0.4, "average_share": 0.4} | ROWWISE | SECOND,
        {"lr": 0.01, "optimizer": "adam", "reset_tables_each_epoch": True} | BEGIN,
    ],
    False: [
        {"lr": 0.01, "optimizer": "sgd", "mlp_optimizer": "adam"} | SECOND,
        {"lr": 0.01, "optimizer": "adagrad", "dropout": 0.4, "reset_tables_each_epoch": True, "average_share": 0.4}
        | BEGIN,
        {"lr": 0.1} | ROWWISE | COSINE | FIRST,
        {"lr": 0.01, "optimizer": "adam"} | DECAYS | END,
    ],
}


@pytest.mark.parametrize(
    ("with_kernels", "rule"), [(kernels, rule) for kernels, rules in STOPPED.items() for rule in rules]
)
def test_stopped_training_ends_with_the_bits_of_an_undisturbed_one(tiny_data, tmp_path, rule, with_kernels, capsys):
    """13 steps an epoch; saves behind every 5 or 13, so 1 to 4 steps are done again; few saves are at evaluations."""
    options = {"epochs": 2, "batch_size": 128, "eval_steps": 7, "save_steps": 5, "log_steps": 1} | rule
    options["cpu_kernels"] = with_kernels
    stop = options.pop("stop")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir(), parts.mkdir()
    undisturbed = train_small(tiny_data, whole, **options)
    with pytest.raises(KeyboardInterrupt):
        train_small(tiny_data, parts, **options, callbacks=[StopAt(stop)])
    assert not (parts / "dlrm.ckpt").exists()
    capsys.readouterr()
    result = train_small(tiny_data, parts, **options)
    assert (
        f"going on from step {(stop - 1) // options['save_steps'] * options['save_steps']} of 26"
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
def test_a_signal_while_a_graph_is_compiled_counts_afterwards(
    tiny_data, tmp_path, interrupting, own_graphs, step, number
):
    callback = SignalIn(step, number)
    with pytest.raises(KeyboardInterrupt):
        train_small(tiny_data, tmp_path, callbacks=[callback])
    assert callback.done == {1: [], 3: [1, 2]}[step]  # the user's callbacks come last
    for one in (signal.SIGTERM, signal.SIGINT):
        assert signal.getsignal(one) is signal.default_int_handler
