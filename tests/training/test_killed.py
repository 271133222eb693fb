"""A training that is really killed, in any moment in which its files change, ends as an undisturbed one."""

import json
import os
import re
import shutil
import signal
from pathlib import Path

import pytest
from conftest import ORIGINAL
from runs import bits, losses_of
from stopping import Comes, run_program

OPTIONS = [
    "--device_target=CPU", ORIGINAL, "--batch_size=64", "--epochs=3",
    "--bottom_mlp=[8]", "--emb_dim=8", "--top_mlp=[1]", "--optimizer=adam", "--lr=0.002",
    "--warmup_steps=12", "--lr_schedule=cosine", "--save_steps=2", "--eval_steps=4", "--log_steps=2",
    "--compare_linear=False", "--importance_rows=0",
]  # fmt: skip  # 26 steps an epoch
KILLS = [
    ("a state is to be saved", 1),  # nothing is saved yet
    ("an entry of a checkpoint is written", 20),  # the first state is half written
    ("a state is whole", 3),  # but not the one to go on from yet
    ("a network is to be kept", 1),
    ("a network is kept", 1),  # a best network that the state does not know of
    ("the progress names another state", 2),  # two states, two best networks, the progress has the newer ones
    ("a state is to be saved", 5),
    ("a state is to be saved", 12),  # the second epoch
    ("the files are to go to their places", 1),
    ("manifest.json is in its place", 1),  # half of the files
]


def train(folder: Path, data, kill=None):
    """Exit code and output of train.py in a folder, killed in a moment if one is named."""
    return run_program("train", folder, f"--dataset_path={data.path}", *OPTIONS, kill=Comes(*kill) if kill else None)


def first_step(text):
    found = re.search(r"going on from step (\d+) of 78", text)
    return int(found[1]) if found else 0


@pytest.fixture(scope="session")
def killed(tiny_data, made_once):
    """A folder with a training that was killed in each moment in turn; steps.json says where each of these runs began.

    Do not change its files.
    """

    def make(folder):
        steps = []
        for kill in KILLS:
            code, text = train(folder, tiny_data, kill)
            assert code == -signal.SIGKILL, (kill, text)
            assert not (folder / "checkpoint" / "dlrm.ckpt").exists(), kill
            steps.append(first_step(text))
        (folder / "steps.json").write_text(json.dumps(steps))

    return made_once("killed", make)


def test_killed_again_and_again_it_ends_as_if_undisturbed(killed, tiny_data, tmp_path):
    whole, parts = tmp_path / "whole", shutil.copytree(killed, tmp_path / "parts")
    whole.mkdir()
    code, text = train(whole, tiny_data)
    assert (code, first_step(text)) == (0, 0), text
    steps = json.loads((killed / "steps.json").read_text())
    assert steps == sorted(steps)
    assert (steps[0], steps[3] > 0, steps[-1]) == (0, True, 78)
    code, text = train(parts, tiny_data)
    assert (code, first_step(text)) == (0, 78), text
    assert bits(parts / "checkpoint/dlrm.ckpt") == bits(whole / "checkpoint/dlrm.ckpt")
    assert losses_of(parts) == losses_of(whole)
    assert sorted(os.listdir(parts / "checkpoint")) == sorted(os.listdir(whole / "checkpoint"))


def test_killed_when_it_had_ended_but_for_its_folder(killed, tiny_data, tmp_path):
    """Twice: the same command ends it, and what is in its place already is in nobody's way."""
    folder = shutil.copytree(killed, tmp_path / "parts")
    for moment in ("all files are in their places", "no other state is left beside them"):
        code, text = train(folder, tiny_data, (moment, 1))
        assert code == -signal.SIGKILL, text
        assert (folder / "checkpoint" / "dlrm.ckpt").is_file()
    before = (folder / "checkpoint" / "dlrm.ckpt").read_bytes()
    code, text = train(folder, tiny_data)
    assert (code, first_step(text)) == (0, 78), text
    assert (folder / "checkpoint" / "dlrm.ckpt").read_bytes() == before
    code, text = train(folder, tiny_data)
    assert (code, "nothing to do: " in text) == (0, True)
