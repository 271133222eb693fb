"""Logs, evaluations on the way, and which checkpoint is kept."""

import json
import math
import re
from pathlib import Path
from types import SimpleNamespace

import mindspore as ms
import numpy as np
import pytest
from conftest import preprocess_lines, raw_lines, write_raw
from mindspore import Tensor
from mindspore.train import Callback
from networks import loaded
from runs import LOSS_LINE, METRIC_LINE, SMALL, Recorder, Watch, rows_of, train_small

from src import callback
from src.base.errors import InputError
from src.base.logs import MetricsFile, append_line, evaluation_line
from src.callback import EvalCallBack, LossCallBack, TrainingClock
from src.dataset import batches_of
from src.metrics.monitored import BestSoFar
from src.network.embedding import initial_values, joint_rows, whole_fields
from src.network.stock import STOCK
from src.training import training

ms.set_context(mode=ms.GRAPH_MODE)
ms.set_device("CPU")


def context(step, batch_num=10, epoch_num=2, loss=0.5):
    """What MindSpore hands to a callback's hooks after a step, counted from 1 over all epochs."""
    args = SimpleNamespace(
        cur_step_num=step,
        cur_epoch_num=(step - 1) // batch_num + 1,
        batch_num=batch_num,
        epoch_num=epoch_num,
        net_outputs=Tensor(np.float32(loss)),
    )
    return SimpleNamespace(original_args=lambda: args)


def walk(hooks, batch_num=10, epoch_num=2, losses=None):
    """Call a callback's hooks as a training would."""
    hooks.on_train_begin(context(0, batch_num, epoch_num))
    for step in range(1, batch_num * epoch_num + 1):
        hooks.on_train_step_end(context(step, batch_num, epoch_num, losses[step - 1] if losses else 0.5))
    hooks.on_train_end(context(batch_num * epoch_num, batch_num, epoch_num))


@pytest.fixture
def logs(tmp_path):
    return SimpleNamespace(
        loss=str(tmp_path / "logs" / "loss.log"),
        auc=str(tmp_path / "logs" / "auc.log"),
        metrics=MetricsFile(str(tmp_path / "logs" / "metrics.jsonl"), "run"),
    )


def scripted(logs, aucs, eval_steps, part="valid", monitor="auc", patience=0):
    """An EvalCallBack whose evaluations give these AUCs in turn; `saved_after` counts evaluations at each save."""
    waiting = list(aucs)
    saved_after = []
    hooks = EvalCallBack(
        lambda: {"acc": 0.5, "auc": waiting.pop(0), "logloss": 0.7},
        lambda step: saved_after.append(len(aucs) - len(waiting)),
        BestSoFar(part, monitor, patience),
        logs.auc,
        logs.metrics,
        eval_steps,
        TrainingClock(),
    )
    return hooks, saved_after


def test_lines_are_those_of_the_public_original(tmp_path):
    path = tmp_path / "new" / "auc.log"
    append_line(str(path), evaluation_line({"acc": 0.787175917087641, "auc": 0.79, "logloss": 0.45}, 893.6))
    append_line(str(path), "epoch: 1, step: 76742, loss is 0.3277069926261902")
    lines = path.read_text().splitlines()
    assert (
        lines[0][19:] == " EvalCallBack metric {'acc': 0.787175917087641, 'auc': 0.79, 'logloss': 0.45}; eval_time 894s"
    )
    assert METRIC_LINE.fullmatch(lines[0])
    assert LOSS_LINE.fullmatch(lines[1])


def test_loss_is_logged_every_few_steps_and_at_the_end(logs):
    losses = [1 / step for step in range(1, 21)]
    walk(LossCallBack(logs.loss, logs.metrics, 3, 64, TrainingClock()), 10, 2, losses)
    steps = [3, 6, 9, 12, 15, 18, 20]
    lines = [LOSS_LINE.fullmatch(line) for line in Path(logs.loss).read_text().splitlines()]
    assert [(int(line[1]), int(line[2])) for line in lines] == [((s - 1) // 10 + 1, (s - 1) % 10 + 1) for s in steps]
    assert [float(line[3]) for line in lines] == pytest.approx([1 / step for step in steps], rel=1e-7)
    rows = rows_of(logs.metrics.path, "loss")
    assert [row["step"] for row in rows] == steps
    assert [row["loss"] for row in rows] == pytest.approx([1 / step for step in steps], rel=1e-7)
    assert all(row["samples_per_s"] > 0 for row in rows)


def test_log_step_at_the_end_is_logged_once(logs):
    walk(LossCallBack(logs.loss, logs.metrics, 5, 64, TrainingClock()))
    assert [row["step"] for row in rows_of(logs.metrics.path, "loss")] == [5, 10, 15, 20]


def test_progress_is_plain_lines_where_there_is_no_terminal(logs, capsys):
    walk(LossCallBack(logs.loss, logs.metrics, 5, 64, TrainingClock()), 10, 1)
    out, err = capsys.readouterr()
    assert err == ""
    assert len(out.splitlines()) == 2
    for line, step in zip(out.splitlines(), (5, 10)):
        assert re.fullmatch(rf"epoch: 1, step: {step}/10, loss is 0\.5000, \d+ samples/s, \d+ s left", line)


def test_single_step_has_no_throughput_but_valid_rows(logs):
    hooks = LossCallBack(logs.loss, logs.metrics, 1, 64, TrainingClock())
    walk(hooks, 1, 1)
    assert rows_of(logs.metrics.path, "loss")[0]["samples_per_s"] is None
    assert hooks.steps == 1
    assert math.isnan(hooks.mean_samples_per_s)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_loss_that_is_not_finite_stops_training_and_names_the_remedy(logs, loss):
    hooks = LossCallBack(logs.loss, logs.metrics, 2, 64, TrainingClock())
    with pytest.raises(InputError, match=rf"the loss is {loss} at step 4: training diverged; try a smaller --lr"):
        walk(hooks, 10, 1, [0.5, 0.5, 0.5, loss] + [0.5] * 6)
    assert len(Path(logs.loss).read_text().splitlines()) == 1


def test_metrics_file_is_valid_json_and_grows_over_runs(tmp_path):
    path = tmp_path / "new" / "metrics.jsonl"
    MetricsFile(str(path), "first").write("eval", auc=math.nan, logloss=math.inf, step=3, part="test")
    MetricsFile(str(path), "second").write("end", auc=0.5)
    rows = [json.loads(line, parse_constant=pytest.fail) for line in path.read_text().splitlines()]
    assert rows == [
        {"run": "first", "kind": "eval", "auc": None, "logloss": None, "step": 3, "part": "test"},
        {"run": "second", "kind": "end", "auc": 0.5},
    ]


def test_test_rows_choose_nothing(logs):
    hooks, saved_after = scripted(logs, [0.6, 0.8, 0.7], 10, part="test")
    walk(hooks, 10, 3)
    assert saved_after == [3]
    assert hooks.best.metrics["auc"] == 0.7


@pytest.mark.parametrize(
    ("eval_steps", "steps"), [(10, [10, 20]), (4, [4, 8, 10, 12, 16, 20]), (5, [5, 10, 15, 20]), (100, [10, 20])]
)
def test_evaluation_every_few_steps_and_once_at_the_end_of_an_epoch(logs, eval_steps, steps):
    hooks, _ = scripted(logs, [0.6] * 20, eval_steps)
    walk(hooks)
    rows = rows_of(logs.metrics.path, "eval")
    assert [row["step"] for row in rows] == steps
    assert [row["epoch"] for row in rows] == [(step - 1) // 10 + 1 for step in steps]
    assert {(row["acc"], row["auc"], row["logloss"]) for row in rows} == {(0.5, 0.6, 0.7)}
    lines = Path(logs.auc).read_text().splitlines()
    assert len(lines) == len(steps)
    assert all(METRIC_LINE.fullmatch(line) for line in lines)


@pytest.mark.parametrize(
    ("aucs", "saves", "best_step"),
    [
        ([0.6, 0.7, 0.65, 0.7], [1, 2], 10),
        ([0.9, 0.1, 0.2, 0.3], [1], 5),
        ([0.4, 0.3, 0.2, 0.5], [1, 4], 20),
    ],
)
def test_best_network_by_auc_is_kept(logs, aucs, saves, best_step):
    hooks, saved_after = scripted(logs, aucs, 5)
    walk(hooks)
    assert saved_after == saves
    assert hooks.best.step == best_step
    assert hooks.best.metrics["auc"] == max(aucs)


def test_last_network_is_kept_where_no_evaluation_has_an_auc(logs):
    """Validation rows of one class rank nothing: the network of the first evaluation is no better than the last."""
    hooks, saved_after = scripted(logs, [math.nan] * 4, 5)
    walk(hooks)
    assert saved_after[-1] == 4
    assert hooks.best.step == 20


@pytest.mark.parametrize(("aucs", "end"), [
    ([0.6, 0.7, 0.7, 0.65], 20), ([0.6, 0.5, 0.61, 0.5], None), ([0.6, 0.5, 0.5, 0.7], 15), ([math.nan] * 4, None),
])  # fmt: skip
def test_training_ends_when_the_auc_has_not_risen_for_some_evaluations(logs, aucs, end):
    """Two, of which the last is at step `end`; an AUC that does not exist has not fallen."""
    hooks, _ = scripted(logs, aucs, 5, patience=2)
    stops = []
    for step in range(1, 21):
        now = context(step)
        now.request_stop = lambda step=step: stops.append(step)
        hooks.on_train_step_end(now)
        if stops:
            break
    assert stops == ([end] if end else [])
    assert hooks.ended == bool(end)


def test_early_stopping_by_test_rows_is_refused(tmp_path):
    data = preprocess_lines(write_raw(tmp_path / "train.txt", raw_lines(300)), tmp_path / "data", valid_fraction=0.0)
    with pytest.raises(InputError, match="early_stopping 2 needs validation rows, and .* has only test rows"):
        train_small(data, tmp_path, early_stopping=2)


def test_network_that_is_kept_has_the_averaged_weights(tiny_data, tmp_path, operators):
    """And scores as the evaluation did that chose it; without evaluation too."""
    for do_eval in (True, False):
        watch = Watch(26)
        result = train_small(tiny_data, tmp_path, average_share=0.5, overwrite=True, do_eval=do_eval,
                             cpu_kernels=operators is not STOCK, callbacks=[watch])  # fmt: skip
        model = loaded(result.checkpoint, tiny_data, operators, emb_dim=4, **SMALL)
        values, _ = watch.seen[26]
        for parameter in model.mlp_parameters():
            np.testing.assert_array_equal(parameter.asnumpy(), values[f"average.{parameter.name}"])
            assert not np.array_equal(parameter.asnumpy(), values[parameter.name])
        if do_eval:
            found = training.evaluate(model, batches_of(tiny_data, "valid", 64), 64)
            assert found == result.best


def test_evaluations_do_not_count_as_training_time(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(callback.time, "perf_counter", lambda: now[0])
    clock = TrainingClock()
    now[0] += 3
    with clock.pause("saves"):
        now[0] += 50
    now[0] += 4
    assert clock.seconds() == pytest.approx(7)


def test_tables_begin_each_epoch_anew_and_mlps_go_on(tiny_data, tmp_path, operators):
    """After an epoch's first step only what it looked up differs from new initial values, and Adam's states from 0."""
    watch, rows = Watch(26, 27, 53), tiny_data.manifest.table_rows
    train_small(tiny_data, tmp_path, epochs=3, reset_tables_each_epoch=True, cpu_kernels=operators is not STOCK,
                callbacks=[watch], lr=0.001, optimizer="adam", dropout=0.3)  # fmt: skip
    for step, epoch in ((27, 1), (53, 2)):
        values, touched = watch.seen[step]
        expected = joint_rows(whole_fields(rows), 4, initial_values(rows, 1, epoch))
        differs = np.flatnonzero((values["embedding"] != expected).any(1))
        assert set(differs) <= set(touched)
        assert len(differs) > 0.9 * len(touched)
        assert np.abs(values["embedding"] - expected).max() < 0.02
        for state in ("tables.mean", "tables.square"):
            assert set(np.flatnonzero(values[state].any(1))) <= set(touched)
    before, after = watch.seen[26][0], watch.seen[27][0]
    assert int(after["steps_done"][0]) == 27
    for name in before.keys() - {"embedding", "tables.mean", "tables.square", "steps_done"}:
        assert 0 < np.abs(after[name] - before[name]).max() < 0.1, name


def test_callback_of_the_user_is_called(tiny_data, tmp_path):
    recorder = Recorder()
    result = train_small(tiny_data, tmp_path, callbacks=[recorder])
    assert recorder.calls == ["begin", *range(1, 27), "end"]
    assert result.steps == 26
    logged = {row["step"]: row["loss"] for row in rows_of(tmp_path / "metrics.jsonl", "loss")}
    assert list(logged) == [10, 20, 26]
    assert [logged[step] for step in logged] == [recorder.losses[step - 1] for step in logged]


class Rows(Callback):
    """The ids of the batches, as MindSpore shows them to callbacks."""

    def __init__(self):
        super().__init__()
        self.ids = []

    def on_train_step_end(self, run_context):
        self.ids.append(run_context.original_args().train_dataset_element[1].asnumpy().copy())


def test_seed_and_shuffle_reach_the_order_of_the_rows(tiny_data, tmp_path):
    orders = []
    for options in ({"seed": 1}, {"seed": 2}, {"shuffle": False}):
        rows = Rows()
        train_small(tiny_data, tmp_path, batch_size=343, do_eval=False, overwrite=True, callbacks=[rows], **options)
        orders.append(np.concatenate(rows.ids))
    (whole,) = [batch[1] for batch in batches_of(tiny_data, "train", 2000)]
    assert len(whole) == 1715
    assert [np.array_equal(order, whole) for order in orders] == [False, False, True]
    assert not np.array_equal(orders[0], orders[1])
    assert [sorted(order.tolist()) for order in orders] == [sorted(whole.tolist())] * 3


def test_training_that_a_callback_stops_ends_with_an_evaluation(tiny_data, tmp_path):
    """And so with a checkpoint, though no epoch ended."""
    result = train_small(tiny_data, tmp_path, callbacks=[Recorder(stop_at=5)])
    assert [row["step"] for row in rows_of(tmp_path / "metrics.jsonl", "eval")] == [5]
    assert (result.steps, result.best_step) == (5, 5)
    assert result.checkpoint.is_file()


def test_evaluations_stand_a_tenth_of_an_epoch_apart_by_default(tiny_data, tmp_path):
    train_small(tiny_data, tmp_path, eval_steps=0)
    assert [row["step"] for row in rows_of(tmp_path / "metrics.jsonl", "eval")] == list(range(2, 27, 2))


def test_checkpoint_kept_is_the_one_with_the_best_auc(tiny_data, tmp_path, monkeypatch):
    """Real evaluations, of which the third of seven is made out to be the best: its values are kept, not later ones."""
    real, measured, values = training.evaluate, [], []

    def evaluate(model, *arguments):
        measured.append(real(model, *arguments))
        values.append({value.name: value.asnumpy().tobytes() for value in model.get_parameters()})
        auc = 0.99 if len(measured) == 3 else 0.5
        return measured[-1] | {"auc": auc}

    monkeypatch.setattr(training, "evaluate", evaluate)
    result = train_small(tiny_data, tmp_path, eval_steps=10, epochs=2)
    assert [row["step"] for row in rows_of(tmp_path / "metrics.jsonl", "eval")] == [10, 20, 26, 30, 40, 50, 52]
    assert (result.best_step, result.best["auc"]) == (26, 0.99)
    assert len({metrics["logloss"] for metrics in measured}) == 7  # each saw other values
    model = loaded(result.checkpoint, tiny_data, emb_dim=4, **SMALL)
    kept = {value.name: value.asnumpy().tobytes() for value in model.get_parameters()}
    assert [kept == seen for seen in values] == [False, False, True, False, False, False, False]


class Poison(Callback):
    """Makes a weight of the top MLP not a number after a step, as divergence does."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def on_train_step_end(self, run_context):
        args = run_context.original_args()
        if args.cur_step_num == self.step:
            bias = args.train_network.model.mlp_parameters()[-1]
            bias.set_data(Tensor(np.full(bias.shape, np.nan, np.float32)))


@pytest.mark.parametrize("do_eval", [True, False])
def test_diverging_training_is_one_error_and_leaves_no_checkpoint(tiny_data, tmp_path, do_eval):
    with pytest.raises(InputError, match=r"the loss is (nan|inf) at step \d+: training diverged; try a smaller --lr"):
        train_small(tiny_data, tmp_path, lr=3e38, log_steps=2, do_eval=do_eval)
    assert not (tmp_path / "dlrm.ckpt").exists()


def test_evaluation_that_sees_the_divergence_first_is_the_same_error(tiny_data, tmp_path):
    """Between two lines of the loss."""
    with pytest.raises(InputError, match="the loss is nan at step 10: training diverged; .*--lr"):
        train_small(tiny_data, tmp_path, log_steps=100, eval_steps=10, callbacks=[Poison(9)])
    assert not (tmp_path / "dlrm.ckpt").exists()


def test_batch_larger_than_the_training_rows_is_refused(tiny_data, tmp_path):
    with pytest.raises(InputError, match="batch_size is 1716, but there are only 1715 training rows: lower it"):
        train_small(tiny_data, tmp_path, batch_size=1716)


def test_without_evaluation_the_last_network_is_kept(tiny_data, tmp_path):
    result = train_small(tiny_data, tmp_path, do_eval=False)
    assert (result.best, result.best_step) == (None, 0)
    assert result.checkpoint.is_file()
    assert not (tmp_path / "auc.log").exists()
    assert rows_of(tmp_path / "metrics.jsonl", "eval") == []
    assert rows_of(tmp_path / "metrics.jsonl", "end")[0]["steps"] == 26
