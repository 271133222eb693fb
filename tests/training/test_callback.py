"""Logs, evaluations on the way, and which checkpoint is kept."""

import contextlib
import json
import math
import re
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from mindspore import Tensor
from mindspore.train import Callback
from runs import LOSS_LINE, METRIC_LINE, rows_of, train_small
from tqdm import tqdm

from src import callback
from src.base.errors import InputError
from src.base.finite import NotFinite
from src.base.logs import MetricsFile, append_line, evaluation_line
from src.base.signs import SignOfLife
from src.callback import EvalCallBack, LossCallBack, TrainingClock
from src.metrics.monitored import BestSoFar


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
    spans = zip([0, *steps], steps)
    assert [row["mean_loss"] for row in rows] == pytest.approx([np.mean(losses[low:high]) for low, high in spans])


def test_means_are_of_finite_losses(logs):
    """Under a loss scale some may overflow; where all did, there is no mean."""
    losses = [1.0, math.inf, 3.0, math.nan, math.inf, math.nan]
    walk(LossCallBack(logs.loss, logs.metrics, 3, 64, TrainingClock(), skipped=lambda: 0), 6, 1, losses)
    assert [row["mean_loss"] for row in rows_of(logs.metrics.path, "loss")] == [2.0, None]


def test_a_clock_tells_phases_apart(monkeypatch):
    now = iter([0.0, 10.0, 20.0, 25.0, 30.0, 34.0, 40.0])
    monkeypatch.setattr("src.callback.time.perf_counter", lambda: next(now))
    clock = TrainingClock()
    clock.step_ended()  # at 10
    with clock.wait():  # from 20 to 25
        pass
    with clock.pause("saves"):  # from 30 to 34
        pass
    monkeypatch.setattr("src.callback.time.perf_counter", lambda: 40.0)
    assert clock.by_phase() == {"first step": 10.0, "reading": 5.0, "steps": 21.0, "saves": 4.0}


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


def test_under_a_loss_scale_a_loss_may_overflow_now_and_then(logs):
    """Such a step changes nothing, and is counted as one that was left out; many in a row are no training."""
    losses = [0.5] * 5 + [math.inf] * 50 + [0.5] + [math.nan] * 51
    hooks = LossCallBack(logs.loss, logs.metrics, 1, 64, TrainingClock(), skipped=lambda: 3)
    with pytest.raises(NotFinite, match="^the loss is nan, as in 50 steps before at step 107: training diverged"):
        walk(hooks, len(losses), 1, losses)
    rows = rows_of(logs.metrics.path, "loss")
    assert [row["loss"] for row in rows[4:7]] == [0.5, None, None]
    assert rows[5]["skipped_updates"] == 3


@pytest.mark.parametrize(("left_out", "step"), [(range(1, 200), 51), (range(102, 302), 201), (range(30, 80), 0)])
def test_gradients_that_overflow_in_many_steps_in_a_row_end_the_training(logs, left_out, step):
    """However seldom the losses, all finite, are read, it is known no later than a hundred steps on."""
    at, steps = [0], 400
    hooks = LossCallBack(logs.loss, logs.metrics, 1000, 64, TrainingClock(), 0,
                         lambda: sum(one <= at[0] for one in left_out))  # fmt: skip
    told = f"gradients overflow .*, as in 50 steps before at step {step}: training" if step else "^$"
    with contextlib.nullcontext() if not step else pytest.raises(NotFinite, match=told):
        for at[0] in range(1, steps + 1):
            hooks.on_train_step_end(context(at[0], steps, 1))
        hooks.overflows.check_end(steps)


@pytest.mark.parametrize(("left_out", "ends_well"), [
    ({40}, True), (set(range(37, 41)), True), (set(range(36, 41)), False), (set(range(1, 40)), True),
    (set(range(1, 41)), False),
])  # fmt: skip
def test_a_run_may_end_with_a_few_updates_left_out(logs, left_out, ends_well):
    """As behind a scale that has just grown; not with more of them, nor without any update at all."""
    at = [0]
    hooks = LossCallBack(logs.loss, logs.metrics, 1000, 64, TrainingClock(), 0,
                         lambda: sum(one <= at[0] for one in left_out))  # fmt: skip
    with contextlib.nullcontext() if ends_well else pytest.raises(NotFinite, match="gradients overflow .* at step 40"):
        for at[0] in range(1, 41):
            hooks.on_train_step_end(context(at[0], 40, 1))
        hooks.overflows.check_end(40)


def test_throughput_is_that_of_all_steps_also_those_that_were_done_again(logs, monkeypatch):
    """The first step compiles, 100 s; the others take 2 s. The way back takes 30 s, which count as no training."""
    now = [0.0]
    monkeypatch.setattr(callback.time, "perf_counter", lambda: now[0])
    clock, found = TrainingClock(), []
    for first, last in ((0, 7), (5, 10)):
        hooks = LossCallBack(logs.loss, logs.metrics, 3, 64, clock, first)
        hooks.on_train_begin(context(first))
        for step in range(first + 1, last + 1):
            now[0] += 2 if clock.steps else 100
            hooks.on_train_step_end(context(step))
        if last == 7:
            hooks.close()
            with clock.pause("going back"):
                now[0] += 30
    hooks.on_train_end(context(10))
    found = [(row["step"], row["samples_per_s"]) for row in rows_of(logs.metrics.path, "loss")]
    assert found == [(3, 32), (6, 32), (6, 32), (9, 32)]
    assert (hooks.mean_samples_per_s, hooks.wall_samples_per_s) == (32, pytest.approx(64 * 11 / 52))


def test_the_progress_line_ends_with_a_training_that_fails(tiny_data, tmp_path, monkeypatch):
    bars = []
    monkeypatch.setattr(callback, "tqdm", lambda **options: bars.append(tqdm(**options)) or bars[-1])

    class Fail(Callback):
        def on_train_step_end(self, run_context):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_small(tiny_data, tmp_path, callbacks=[Fail()], do_eval=False)
    assert [bar in tqdm._instances for bar in bars] == [False]


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
    assert hooks.best.is_over == bool(end)


def test_evaluations_do_not_count_as_training_time(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(callback.time, "perf_counter", lambda: now[0])
    clock = TrainingClock()
    now[0] += 3
    with clock.pause("saves"):
        now[0] += 50
    now[0] += 4
    assert clock.seconds() == pytest.approx(7)


class Late:
    """A loss that the device has not computed yet, which tells what its process is expected to do meanwhile."""

    def __init__(self, sign, value=0.5):
        self.sign, self.value, self.expected = sign, value, None

    def asnumpy(self):
        self.expected = self.sign.expects
        return np.float32(self.value)


@pytest.mark.parametrize("loss", [0.5, math.nan])
def test_a_rank_that_waits_for_a_step_does_not_work_by_itself(logs, tmp_path, loss):
    """A device goes on while Python does: a step that hangs is met where its loss is read, not where it was begun."""
    sign = SignOfLife(tmp_path / "rank_0.json")
    hooks = LossCallBack(logs.loss, logs.metrics, 10, 32, TrainingClock(), waiting=partial(sign.work, compiles=False))
    sign.end_step(1)
    late = Late(sign, loss)
    hooks._unread = [(1, late)]
    with contextlib.nullcontext() if math.isfinite(loss) else pytest.raises(NotFinite):
        hooks.look()
    assert (late.expected, sign.expects) == ("done", "beat")
    sign._expect_nothing()
