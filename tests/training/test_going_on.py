"""What may change when a training goes on, and trainings that go on though they had ended."""

import contextlib
import json
import re
import shutil

import mindspore as ms
import numpy as np
import pytest
from mindspore.train import Callback
from runs import StopAt, bits, rows_of, train_small

from src.base import events
from src.base.errors import AlreadyDone, InputError
from src.report.files import load_report

EPOCH = {"save_steps": 5, "eval_steps": 5, "log_steps": 1}  # 26 steps
SAID = re.compile(r"going on from step (\d+) of (\d+), which \S+ holds(?:, with (.*))?\n")


class Weights(Callback):
    """The MLPs' values behind each step."""

    def __init__(self):
        super().__init__()
        self.seen = {}

    def on_train_step_end(self, run_context):
        args = run_context.original_args()
        values = args.train_network.model.mlp_parameters()
        self.seen[args.cur_step_num] = {value.name: value.asnumpy().copy() for value in values}


@pytest.fixture(scope="module")
def stopped_once(tiny_data, tmp_path_factory):
    """A folder with a training that was stopped at step 17, the last save behind step 15. Do not change its files."""
    folder = tmp_path_factory.mktemp("stopped")
    with pytest.raises(KeyboardInterrupt):
        train_small(tiny_data, folder, **EPOCH, report=True, importance_rows=0, callbacks=[StopAt(17)])
    return folder


@pytest.fixture(scope="module")
def ended_once(tiny_data, tmp_path_factory):
    """A folder with a training that ended well after one epoch. Do not change its files."""
    folder = tmp_path_factory.mktemp("ended")
    train_small(tiny_data, folder, **EPOCH)
    return folder


@pytest.fixture
def stopped(stopped_once, tmp_path):
    """A copy of it."""
    return shutil.copytree(stopped_once, tmp_path / "stopped")


@pytest.fixture
def ended(ended_once, tmp_path):
    """A copy of it."""
    return shutil.copytree(ended_once, tmp_path / "ended")


def read(progress):
    """What the file holds but for its checksum, with which no other content could be written."""
    content = json.loads(progress.read_text())
    del content["crc32"]
    return content


def test_what_leaves_network_and_data_alone_may_change_and_is_named(tiny_data, stopped, capsys):
    changed = {
        "lr": 0.05, "table_lr": 0.2, "lr_schedule": "cosine", "warmup_steps": 3, "lr_end_factor": 0.1, "epochs": 2,
        "eval_batch_size": 32, "eval_steps": 7, "early_stopping": 100, "cpu_kernels": False, "log_steps": 2,
        "save_steps": 6, "keep_states": 3, "on_nonfinite": "back",
    }  # fmt: skip
    result = train_small(tiny_data, stopped, **changed, report=True, importance_rows=0)
    assert result.steps == 52
    step, steps, what = SAID.search(capsys.readouterr().out).groups()
    assert (step, steps) == ("15", "52")
    words = dict(one.split(" ", 1) for one in what.split(", "))
    assert set(words) == set(changed)
    assert (words["lr"], words["epochs"], words["cpu_kernels"]) == (
        "0.05 instead of 0.1", "2 instead of 1", "False instead of True")  # fmt: skip
    (row,) = rows_of(stopped / "metrics.jsonl", "resume")
    assert sorted(row["changes"]) == sorted(f"{name} {value}" for name, value in words.items())
    curves = load_report(stopped)["curves"]
    assert [(one["step"], one["what"]) for one in curves["changes"]] == [(15, change) for change in row["changes"]]
    rates = {step: rate for step, rate, _ in curves["rate"]}
    assert (rates[15], rates[16]) == (pytest.approx(0.1), pytest.approx(0.05, rel=0.3))
    assert rates[52] < rates[30] < rates[16]


def test_nothing_is_named_where_nothing_changed(tiny_data, stopped, capsys):
    train_small(tiny_data, stopped, **EPOCH, report=True, importance_rows=0)
    assert SAID.search(capsys.readouterr().out).groups() == ("15", "26", None)
    assert load_report(stopped)["curves"]["changes"] == []


def test_fewer_epochs_than_were_done_are_refused(tiny_data, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train_small(tiny_data, tmp_path, **EPOCH, epochs=2, callbacks=[StopAt(33)])
    with pytest.raises(InputError, match="stopped behind step 30, and epochs 1 are 26 steps: give more --epochs, or"):
        train_small(tiny_data, tmp_path, **EPOCH)


def test_fewer_epochs_leave_an_average_of_steps_alone(tiny_data, tmp_path):
    """Not of the zeros before an averaging that would have begun earlier with them, nor of other steps after a stop."""
    options = EPOCH | {"average_share": 0.2}
    kept = [Weights(), Weights()]
    for stop, epochs, weights in ((49, 3, []), (51, 2, kept[:1]), (53, 2, kept[1:])):  # it would begin at 62, and 42
        with contextlib.suppress(KeyboardInterrupt):
            train_small(tiny_data, tmp_path, **options, epochs=epochs, callbacks=[*weights, StopAt(stop)])
    seen = kept[0].seen | kept[1].seen
    rest = ms.load_checkpoint(str(tmp_path / "finished/rest-52.ckpt"))
    assert sorted(seen) == list(range(46, 53))
    for name, last in seen[52].items():
        mean = np.mean([values[name] for values in seen.values()], 0)
        np.testing.assert_allclose(rest[f"average.{name}"].asnumpy(), mean, rtol=1e-4, atol=1e-6, err_msg=name)
        assert not np.array_equal(mean, last)


def test_a_refused_command_leaves_the_options_of_the_stopped_run(tiny_data, tmp_path, capsys):
    """Else the next one names changes against a run that never was, and leaves out those against the stopped one."""
    with pytest.raises(KeyboardInterrupt):
        train_small(tiny_data, tmp_path, **EPOCH, epochs=2, callbacks=[StopAt(33)])
    with pytest.raises(InputError, match="give more --epochs"):
        train_small(tiny_data, tmp_path, **EPOCH | {"lr": 0.05})
    train_small(tiny_data, tmp_path, **EPOCH | {"lr": 0.05}, epochs=2)
    assert SAID.search(capsys.readouterr().out).groups() == ("30", "52", "lr 0.05 instead of 0.1")


def test_a_run_that_ended_goes_on_with_more_epochs(tiny_data, ended, tmp_path, capsys):
    """As if it had had them at once; only its first epoch's network is kept meanwhile, and stands until the end."""
    whole = tmp_path / "whole"
    whole.mkdir()
    undisturbed = train_small(tiny_data, whole, **EPOCH, epochs=2)
    before = (ended / "dlrm.ckpt").read_bytes()
    with pytest.raises(KeyboardInterrupt):
        train_small(tiny_data, ended, **EPOCH, epochs=2, callbacks=[StopAt(44)])
    assert (ended / "dlrm.ckpt").read_bytes() == before
    capsys.readouterr()
    result = train_small(tiny_data, ended, **EPOCH, epochs=2)
    assert SAID.search(capsys.readouterr().out).groups() == ("40", "52", None)
    assert (result.best, result.best_step, result.steps) == (undisturbed.best, undisturbed.best_step, 52)
    for name in ("dlrm.ckpt", "finished/state-52.ckpt"):
        assert bits(ended / name) == bits(whole / name)
    assert not (ended / "unfinished").exists()


def test_a_kill_while_the_last_state_is_taken_back_loses_nothing(tiny_data, ended, capsys):
    """Half of its files are there again, and no progress."""
    (ended / "unfinished").mkdir()
    (ended / "unfinished/state-26.ckpt").write_text("half")
    (ended / "unfinished/state-26.ckpt.writing").write_text("half")
    train_small(tiny_data, ended, **EPOCH, epochs=2)
    assert SAID.search(capsys.readouterr().out).groups() == ("26", "52", "epochs 2 instead of 1")


@pytest.mark.parametrize("moment", ["all files are in their places", "no other state is left beside them"])
def test_a_kill_while_a_longer_run_takes_the_other_s_place_loses_nothing(tiny_data, ended, moment, capsys):
    """The state that the run went on from is gone then; another one stops on its way, and goes on too."""

    def stop(found):
        if found == moment:
            raise KeyboardInterrupt

    events.listeners.append(stop)
    try:
        with pytest.raises(KeyboardInterrupt):
            train_small(tiny_data, ended, **EPOCH, epochs=2)
    finally:
        events.listeners.remove(stop)
    with pytest.raises(InputError, match="already holds dlrm.ckpt"):
        train_small(tiny_data, ended, **EPOCH, epochs=2, resume=False)
    with pytest.raises(KeyboardInterrupt):
        train_small(tiny_data, ended, **EPOCH, epochs=3, callbacks=[StopAt(70)])
    capsys.readouterr()
    assert train_small(tiny_data, ended, **EPOCH, epochs=3).steps == 78
    assert int(SAID.search(capsys.readouterr().out)[1]) > 52


def test_a_run_that_ended_does_not_go_on_by_itself(tiny_data, ended):
    before = {path: path.stat().st_mtime_ns for path in ended.rglob("*")}
    with pytest.raises(AlreadyDone, match=r"dlrm.ckpt: the same command has made it; .*=True, or .* more --epochs"):
        train_small(tiny_data, ended, **EPOCH)
    assert {path: path.stat().st_mtime_ns for path in ended.rglob("*")} == before
    for other in ({"lr": 0.2}, {"seed": 2}):
        with pytest.raises(InputError, match=r"already holds dlrm.ckpt: name another --ckpt_path") as caught:
            train_small(tiny_data, ended, **EPOCH, **other)
        assert not isinstance(caught.value, AlreadyDone)
    with pytest.raises(InputError, match="holds a training that ended, with dropout 0.0 .* with --overwrite=True"):
        train_small(tiny_data, ended, **EPOCH, epochs=2, dropout=0.5)
    result = train_small(tiny_data, ended, **EPOCH, epochs=1, lr=0.2, overwrite=True)
    assert result.steps == 26
    assert len([row for row in rows_of(ended / "metrics.jsonl", "loss") if row["step"] == 1]) == 2


def test_without_its_last_state_a_run_that_ended_does_not_go_on(tiny_data, tmp_path):
    train_small(tiny_data, tmp_path, **EPOCH, keep_finished=False)
    assert not (tmp_path / "finished").exists()
    with pytest.raises(InputError, match=r"already holds dlrm.ckpt"):
        train_small(tiny_data, tmp_path, **EPOCH, epochs=2)


def test_another_stopped_run_beside_one_that_ended_is_not_taken_for_it(tiny_data, ended):
    with pytest.raises(KeyboardInterrupt):
        train_small(tiny_data, ended, **EPOCH, overwrite=True, callbacks=[StopAt(9)])
    progress = ended / "unfinished/progress.json"
    progress.write_text(json.dumps(read(progress) | {"run": "another"}))  # begun a second later
    with pytest.raises(InputError, match=r"already holds dlrm.ckpt"):
        train_small(tiny_data, ended, **EPOCH, epochs=2)


@pytest.mark.parametrize("older", [True, False])
def test_progress_of_another_version_is_read(tiny_data, stopped, older, capsys):
    """One that knew fewer fields, or more; with no field that has no default it is damaged."""
    progress = stopped / "unfinished/progress.json"
    content = read(progress)
    known = ("run", "step", "batch_size", "best", "best_step", "waited")
    other = {name: content[name] for name in known} if older else content | {"of_the_future": [1]}
    progress.write_text(json.dumps(other))
    train_small(tiny_data, stopped, **EPOCH)
    assert SAID.search(capsys.readouterr().out)[1] == "15"
    assert rows_of(stopped / "metrics.jsonl", "end")[0]["steps"] == 26


def test_progress_without_a_step_is_damaged(tiny_data, stopped):
    progress = stopped / "unfinished/progress.json"
    content = read(progress)
    for missing in ("step", "batch_size"):
        progress.write_text(json.dumps({name: value for name, value in content.items() if name != missing}))
        with pytest.raises(InputError, match=r"progress\.json is damaged .*start afresh with --resume=False"):
            train_small(tiny_data, stopped, **EPOCH)


def test_early_stopping_tells_what_may_not_begin(tiny_data, tmp_path, capsys):
    shares = {"lr_schedule": "cosine", "decay_share": 0.5, "average_share": 0.25}
    with pytest.raises(KeyboardInterrupt):
        train_small(tiny_data, tmp_path, epochs=4, early_stopping=2, **shares, callbacks=[StopAt(1)])
    assert (
        "early_stopping may end the training before: the decay of the rates begins behind step 52, the averaging of "
        "weights begins behind step 78 of 104\n" in capsys.readouterr().out
    )
