"""What a stopped training leaves, and which runs in its folder are refused."""

import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from conftest import preprocess_lines, raw_lines, write_raw
from mindspore import Tensor
from networks import make_batch, make_model, make_step
from runs import StopAt, bits, rows_of, train_small

from src.base import events
from src.base.errors import InputError
from src.checkpoints.run_folder import Run, RunOptions
from src.training.evaluation import score


@pytest.fixture
def stopped(tiny_data, made_once, tmp_path):
    """A folder with a training that was stopped at step 17, the last save behind step 15."""

    def make(folder):
        with pytest.raises(KeyboardInterrupt):
            train_small(tiny_data, folder, save_steps=5, callbacks=[StopAt(17)])

    return shutil.copytree(made_once("stopped", make), tmp_path / "stopped")


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
    saved.write_text("\n".join(line for line in lines[1:] if not line.startswith("monitor: ")))
    with pytest.raises(InputError, match="stopped, with monitor auc instead of logloss"):
        train_small(tiny_data, stopped, monitor="logloss")
    train_small(tiny_data, stopped)
    assert "going on from step 15" in capsys.readouterr().out


def test_options_that_were_lost_are_refused(tiny_data, stopped):
    (stopped / "unfinished/dlrm.yaml").write_text("")
    with pytest.raises(InputError, match="stopped, with no options in its file"):
        train_small(tiny_data, stopped)


@pytest.mark.parametrize("content", [b"a: [1", b"no options: \xff", b"- lr: 1", b"emb_dim: 8", b"lr"])
def test_damaged_options_are_refused(tiny_data, stopped, content):
    """With a checksum, which they then do not have, and without one, as older versions wrote them."""
    path = stopped / "unfinished/dlrm.yaml"
    seal = path.read_bytes().partition(b"\n")[0]
    for damaged in (seal + b"\n" + content, content) if content != b"emb_dim: 8" else (seal + b"\n" + content,):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"dlrm\.yaml is damaged.*: start afresh, with --resume=False"):
            train_small(tiny_data, stopped)


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
    left = [".lock", "counts.npz", "dlrm.yaml", "manifest.json", "vocabulary.npz"]
    assert sorted(os.listdir(tmp_path / "unfinished")) == left


def interrupted(ran, masks, output):
    """A graph that is interrupted while it runs, and says whether it ran to its end, where no signal came to it."""

    def graph(*_, **__):
        masks.append(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        os.kill(os.getpid(), signal.SIGINT)
        ran.append(True)
        return output

    return graph


def test_a_step_that_is_interrupted_runs_to_its_end(interrupting, monkeypatch):
    """Left half way, MindSpore's graph now and then aborts the process; and a signal's frame may overwrite the heap."""
    ran, masks = [], []
    step = make_step(model := make_model())
    batch = [Tensor(column) for column in make_batch(model, 5)]
    step(*batch)
    monkeypatch.setattr("src.training.step._cell_graph_executor", interrupted(ran, masks, None))
    with pytest.raises(KeyboardInterrupt):
        step(*batch)
    assert ran == masks == [True]


def test_a_batch_that_is_evaluated_when_it_is_interrupted_runs_to_its_end(interrupting):
    ran, masks = [], []

    class Network:
        def set_train(self, _):
            pass

        def __call__(self, *batch):
            return interrupted(ran, masks, Tensor(np.zeros((4, 1), np.float32)))()

    batch = np.zeros((4, 5), np.float32), np.zeros((4, 8), np.int32), np.zeros((4, 1), np.float32)
    with pytest.raises(KeyboardInterrupt):
        score(Network(), [batch, batch], 4)
    assert ran == masks == [True]
