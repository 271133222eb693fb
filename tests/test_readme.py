"""README.md as a new user pastes it: every command, one after another, in one folder, on few rows."""

import os
import runpy
import shlex
import subprocess
import sys

import pytest
import yaml
from conftest import ROOT
from pages import commands
from program_310 import ENVIRONMENT

# What is not run, by some of its words, and why.
EXCEPTED = {
    "bash scripts/run_quickstart.sh": "makes an environment; its programs are run below",
    "bash scripts/run_tests.sh": "runs these tests",
    ". .venv/bin/activate": "this process is in an environment",
    "--ckpt_path=./checkpoint/ranks": "real ranks train in tests/ranks",
    "bash scripts/run_distribute_train_ascend.sh": "needs cards",
    "bash scripts/run_distribute_train_gpu.sh": "needs cards",
}  # fmt: skip
# What is less than README has it, so that it takes seconds: the rows, and the network of the best recipe.
ROWS = ("--rows=300000", "--rows=2000")
NARROW = {"emb_dim": 16, "towers": 2, "bottom_mlp": [16, 8], "top_mlp": [16, 1], "epochs": 1}
CAN_FAIL = {"src.report": (0, 1)}  # a run is worse than allowed, as it may be of so few rows
# What a clone has that commands use; what they make stands beside it.
CLONED = ("src", "scripts", "ascend310_infer", "build", "train.py", "eval.py", "export.py", "preprocess.py",
          "postprocess.py", "cpu_config.yaml", "npu_config.yaml", "gpu_config.yaml")  # fmt: skip


def excepted(command):
    """The exception that a command is, or nothing."""
    return next((name for name in EXCEPTED if name in command), None)


def exit_code(words, monkeypatch):
    """Of a Python program that runs in this process."""
    module = words[1] == "-m"
    name, arguments = (words[2], words[3:]) if module else (words[1], words[2:])
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    found = runpy.run_module(f"{name}.__main__") if module else runpy.run_path(str(ROOT / name))
    return found["main"](arguments) or 0


def paste(command, monkeypatch):
    """Run a command as README has it, in this process where it is Python's."""
    if command.startswith("\n"):
        exec(compile(command, "README.md", "exec"), {})
        return
    words = shlex.split(command)
    if words[0] == "python":
        assert exit_code(words, monkeypatch) in CAN_FAIL.get(words[2], (0,)), command
        return
    done = subprocess.run(["bash", "-euc", command], capture_output=True, text=True, check=False,
                          env=ENVIRONMENT | {"PYTHON": sys.executable})  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stderr}"


@pytest.fixture
def clone(here):
    """A folder like a fresh clone's."""
    for name in CLONED:
        os.symlink(ROOT / name, here / name)
    recipe = yaml.safe_load((ROOT / "best_config.yaml").read_text())
    (here / "best_config.yaml").write_text(yaml.safe_dump(recipe | NARROW))
    return here


def test_every_command_works_behind_those_before_it(clone, compiled, program, monkeypatch, capfd):
    pasted = commands(ROOT / "README.md")
    assert {excepted(command) for command in pasted} == {None, *EXCEPTED}
    assert any(ROWS[0] in command for command in pasted)
    for command in pasted:
        if excepted(command) is None:
            paste(command.replace(*ROWS), monkeypatch)
    assert len((clone / "scores.csv").read_text().splitlines()) == 1001
    assert {"best", "dlrm.ckpt", "report.html"} <= set(os.listdir("checkpoint"))


def test_a_command_that_is_refused_is_seen(clone, monkeypatch, capfd):
    for command in ("python eval.py --no_such=1", "tail -1 data/train.txt", "\nraise ValueError"):
        with pytest.raises(Exception, match="no_such|tail|^$"):
            paste(command, monkeypatch)
