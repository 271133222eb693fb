"""What stands in the folder of a run while it works, and when it is written."""

import os
import time

import numpy as np
import pytest
from conftest import CPU, ORIGINAL
from mindspore.train import Callback
from runs import StopAt, bits, train_small

import train as train_program
from src.base import events
from src.base.errors import InputError
from src.callback import SaveTimes, TrainingClock
from src.checkpoints import checkpoint
from src.ranks.group import Ranks


class Folder(Callback):
    """The states and networks in a run's folder behind each step."""

    def __init__(self, folder):
        super().__init__()
        self.folder, self.seen = folder / "unfinished", {}

    def on_train_step_end(self, run_context):
        names = {path.stem for path in self.folder.glob("*-*.ckpt")}
        self.seen[run_context.original_args().cur_step_num] = names


def rising(monkeypatch, values):
    """Let evaluations give these AUCs in turn."""
    waiting = list(values)
    monkeypatch.setattr(
        "src.training.training.evaluate", lambda *_: {"acc": 0.5, "auc": waiting.pop(0), "logloss": 0.5}
    )


def test_best_networks_do_not_pile_up(tiny_data, tmp_path, monkeypatch):
    """Where each evaluation is better than the one before, and saves are far between."""
    rising(monkeypatch, [step / 100 for step in range(1, 27)])
    folder = Folder(tmp_path)
    train_small(tiny_data, tmp_path, eval_steps=1, save_steps=1000, callbacks=[folder])
    assert [folder.seen[step] for step in range(1, 27)] == [{f"best-{step}"} for step in range(1, 27)]


@pytest.mark.parametrize("keep_states", [1, 2, 3])
def test_as_many_states_are_kept_as_asked_and_the_networks_that_go_with_them(
    tiny_data, tmp_path, monkeypatch, keep_states
):
    """And the newest network, which no state goes with yet."""
    rising(monkeypatch, [0.1, 0.4, 0.2, 0.5, 0.3, 0.6, 0.7, 0.7, 0.7])  # better at steps 3, 6, 12, 18, 21
    folder = Folder(tmp_path)
    train_small(tiny_data, tmp_path, optimizer="adagrad", eval_steps=3, save_steps=4, keep_states=keep_states,
                callbacks=[folder])  # fmt: skip
    states = {9: [8, 4], 17: [16, 12, 8], 21: [20, 16, 12], 22: [20, 16, 12]}
    networks = {9: {8: 6, 4: 3}, 17: {16: 12, 12: 12, 8: 6}, 21: {20: 18, 16: 12, 12: 12}}
    networks[22], newest = networks[21], {9: 6, 17: 12, 21: 21, 22: 21}
    for step, saved in states.items():
        kept = saved[:keep_states]
        bests = {networks[step][state] for state in kept} | {newest[step]}
        expected = {f"{kind}-{state}" for state in kept for kind in ("state", "rest")}
        assert folder.seen[step] == expected | {f"best-{best}" for best in bests}, step


@pytest.mark.parametrize("can_link", [True, False])
def test_a_state_and_the_best_network_of_its_step_are_one_file(tiny_data, tmp_path, monkeypatch, can_link):
    """Or two that are alike, where the file system has no links."""
    rising(monkeypatch, [0.1, 0.2, 0.1, 0.1, 0.1, 0.1])
    if not can_link:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(1, "no links here")))
    with pytest.raises(KeyboardInterrupt):
        train_small(tiny_data, tmp_path, eval_steps=5, save_steps=5, optimizer="adagrad", callbacks=[StopAt(17)])
    path = tmp_path / "unfinished"
    assert not (path / "state-15.ckpt").samefile(path / "best-10.ckpt")
    assert (path / "state-10.ckpt").samefile(path / "best-10.ckpt") == can_link
    assert bits(path / "state-10.ckpt") == bits(path / "best-10.ckpt")
    assert {name.split(".")[0] for name in bits(path / "state-10.ckpt")} == {"embedding", "bottom", "top"}
    assert all(".sum" in name for name in bits(path / "rest-10.ckpt"))


def test_an_averaged_network_is_not_taken_for_a_state(tiny_data, tmp_path, monkeypatch):
    rising(monkeypatch, [step / 100 for step in range(1, 27)])
    with pytest.raises(KeyboardInterrupt):
        train_small(tiny_data, tmp_path, eval_steps=5, save_steps=5, average_share=0.9, callbacks=[StopAt(17)])
    path = tmp_path / "unfinished"
    assert bits(path / "state-15.ckpt") != bits(path / "best-15.ckpt")


def test_saves_come_by_minutes_and_sooner_where_the_best_network_is_written(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    times = SaveTimes(0, 15)
    due = []
    for minute in range(1, 40):
        now[0] += 60
        if times.is_due(minute, kept_step=minute if minute in (3, 20, 26) else 0):
            times.saved()
            due.append(minute)
    assert due == [15, 26]  # at 20 only a third of the time is over
    assert [step for step in range(1, 10) if SaveTimes(3, 15).is_due(step, 0)] == [3, 6, 9]


def test_ranks_save_when_the_first_ones_clock_says_so():
    class Two(Ranks):
        def __init__(self, answer):
            super().__init__()
            self.rank, self.size, self.answer, self.asked = 1, 2, answer, []

        def gather(self, values):
            self.asked.append(values)
            return np.array([[self.answer], values], np.int32)

    for answer in (0, 1):
        ranks = Two(answer)
        assert SaveTimes(0, 15, ranks).is_due(200, 0) == bool(answer)
        assert not SaveTimes(0, 15, ranks).is_due(201, 0)
        assert len(ranks.asked) == 1


def test_a_training_saves_by_minutes(tiny_data, tmp_path, monkeypatch):
    """Real steps, of a clock that ticks four minutes a step."""
    now = [0.0]

    class Tick(Callback):
        def on_train_step_end(self, run_context):
            now[0] += 240

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    folder = Folder(tmp_path)
    train_small(tiny_data, tmp_path, eval_steps=1000, keep_states=1, callbacks=[Tick(), folder])
    states = [[name for name in folder.seen[step] if name.startswith("state")] for step in range(1, 27)]
    assert states == [[]] * 4 + [[f"state-{(step - 1) // 4 * 4}"] for step in range(5, 27)]


def test_states_and_networks_are_on_the_disk_before_the_progress_names_them(tiny_data, tmp_path, monkeypatch):
    """And so are their names in the folder; networks that are soon replaced need not be."""
    synced, at_commit, real = [], [], os.fsync

    def fsync(place):
        synced.append(os.readlink(f"/proc/self/fd/{place}").rsplit("/", 1)[1].removesuffix(".tmp"))
        real(place)

    def listen(moment):
        if moment == "the progress names another state":
            at_commit.append(list(synced))
            synced.clear()

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(events, "listeners", [listen])
    rising(monkeypatch, [0.1, 0.2, 0.3, 0.1, 0.1, 0.1, 0.1])
    train_small(tiny_data, tmp_path, eval_steps=4, save_steps=10, optimizer="adagrad", keep_finished=False)
    first, second = at_commit
    assert {"state-10.ckpt", "rest-10.ckpt", "best-8.ckpt", "progress.json", "unfinished"} == set(first)
    assert (first[-2:], first.index("best-8.ckpt") < first.index("progress.json")) == (
        ["progress.json", "unfinished"],
        1,
    )
    assert "best-12.ckpt" in second


def test_pauses_are_counted_by_what_they_are_for(monkeypatch):
    """A save within an evaluation counts as a save alone."""
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    clock = TrainingClock()
    now[0] += 3
    with clock.pause("evaluations"):
        now[0] += 50
        with clock.pause("saves"):
            now[0] += 10
    now[0] += 4
    assert clock.paused == {"evaluations": 50, "saves": 10}
    assert clock.seconds() == 7


def test_the_kept_network_is_read_in_the_place_of_the_last_one(tiny_data, tmp_path, monkeypatch):
    """A second table for the end of a training would need memory that no step before it took."""
    addresses, real = [], checkpoint.restore

    def restore(model, path, fields):
        for _ in range(2):
            addresses.append(model.tables.table.asnumpy().__array_interface__["data"][0])
            real(model, path, fields)

    monkeypatch.setattr(checkpoint, "restore", restore)
    rising(monkeypatch, [0.9, 0.1, 0.1, 0.1, 0.1, 0.1])
    train_small(tiny_data, tmp_path, eval_steps=5, report=True, importance_rows=0)
    assert len(set(addresses)) == 1
    assert len(addresses) == 2


def test_wall_time_is_told_beside_the_speed_of_steps(tiny_data, tmp_path):
    result = train_small(tiny_data, tmp_path, eval_steps=2, save_steps=2)
    assert result.wall_samples_per_s < result.samples_per_s


def test_a_plan_tells_what_saves_write(tiny_data, capsys):
    argv = [
        CPU,
        ORIGINAL,
        f"--dataset_path={tiny_data.path}",
        "--plan_only=True",
        "--optimizer=adagrad",
        "--keep_states=3",
    ]
    train_program.main(argv)
    said = capsys.readouterr().out.splitlines()[-1]
    values = sum(tiny_data.manifest.table_rows) * 16
    mlps = [(13, 512), (512, 256), (256, 64), (64, 16), (16 + 27 * 26 // 2, 512), (512, 256), (256, 1)]
    mb = 4 * (values + sum(i * o + o for i, o in mlps)) / 2**20
    assert said == (
        f"saves: a state of {2 * mb:,.1f} MB (every 15 minutes), a best network of {mb:,.1f} MB; at 200 MB/s they take "
        f"{2 * mb / 200:,.1f} and {mb / 200:,.1f} s; up to {13 * mb:,.0f} MB of disk with keep_states 3"
    )


@pytest.mark.parametrize("save_steps", [0, 5])
def test_a_run_that_ended_leaves_these_files(tiny_data, tmp_path, monkeypatch, save_steps):
    """The last state alone, whatever it would have gone back to: they would take the disk for good."""
    rising(monkeypatch, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    train_small(tiny_data, tmp_path, save_steps=save_steps, eval_steps=5)
    assert sorted(os.listdir(tmp_path)) == [
        "auc.log", "counts.npz", "dlrm.ckpt", "dlrm.yaml", "finished", "loss.log", "manifest.json", "metrics.jsonl",
        "vocabulary.npz",
    ]  # fmt: skip
    assert sorted(os.listdir(tmp_path / "finished")) == [
        "best-26.ckpt", "counts.npz", "dlrm.yaml", "manifest.json", "progress.json", "state-26.ckpt", "vocabulary.npz"
    ]  # fmt: skip
    assert (tmp_path / "dlrm.ckpt").samefile(tmp_path / "finished/state-26.ckpt")


def test_the_newest_network_of_a_stopped_run_is_named_to_who_asks_for_the_checkpoint(tmp_path):
    (tmp_path / "unfinished").mkdir()
    for name in ("best-9.ckpt", "best-10.ckpt", "best-10.rank_1.ckpt"):
        (tmp_path / "unfinished" / name).write_bytes(b"")
    with pytest.raises(InputError, match=r"was stopped: .* the best network so far, \S*unfinished/best-10\.ckpt$"):
        checkpoint.Parts(tmp_path / "dlrm.ckpt", [], [])
