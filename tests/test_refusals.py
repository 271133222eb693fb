"""train.py and eval.py refuse what is wrong, and leave nothing that looks whole."""

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
from conftest import CPU, ORIGINAL, ROOT, SMALL, preprocess_lines, raw_lines, write_raw

import eval as eval_program
import train as train_program
from src.base import errors
from src.base.errors import InputError


def damaged(data, folder, change):
    """A copy of a data folder with one change."""
    shutil.copytree(data.path, folder)
    change(folder)
    return folder


def run_program(folder, program, *argv):
    """Exit code, stdout and lines of stderr of a program run in the folder."""
    environment = {name: value for name, value in os.environ.items() if name != "GLOG_v"}
    done = subprocess.run(
        [sys.executable, str(ROOT / f"{program}.py"), *argv],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr.splitlines()


@pytest.fixture
def run_here(interrupting, monkeypatch, capfd):
    """As `run_program`, in this process, where nothing depends on which it is: MindSpore is imported already."""

    def run(folder, program, *argv):
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", [program, *argv])
        with pytest.raises(SystemExit) as ended:
            errors.run({"train": train_program, "eval": eval_program}[program].main)
        out, err = capfd.readouterr()
        return ended.value.code, out, err.splitlines()

    return run


QUICK = [*SMALL, "--compare_linear=False"]  # which takes a second to import what it needs
DIVERGING = ["train", CPU, *QUICK, "--lr=3e38", "--log_steps=2", "--eval_steps=99"]
# The programs as users start them: refused before MindSpore is imported, by MindSpore, and while its threads run.
IN_OWN_PROCESS = (["train", "--batchsize=3"], ["train"], DIVERGING)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["train"], r"error: device_target Ascend with device_id 0: .*none on this machine; .*--device_target=CPU"),
        (
            ["eval", "--device_target=GPU", "--checkpoint_path=garbage.ckpt"],
            r"error: device_target GPU with device_id 0: .*--device_target=CPU",
        ),
        (["train", "--batchsize=3"], r"error: .*no option '--batchsize=3'; did you mean --batch_size\?"),
        (
            ["eval", CPU, "--checkpoint_path=garbage.ckpt"],
            r"error: garbage\.ckpt is not a MindSpore .*",
        ),
        (
            DIVERGING,
            r"error: the loss is .*: training diverged; .*--lr.*",
        ),
        (["train", CPU, "--batch_size=9999"], r"error: batch_size is 9999, but there are only 1715 training rows.*"),
    ],
)
def test_refusal_is_one_line_and_exit_code_2(tiny_data, tmp_path, run_here, argv, message):
    (tmp_path / "dataset").symlink_to(tiny_data.path)
    (tmp_path / "garbage.ckpt").write_bytes(b"not a checkpoint\n" * 50)
    code, _, said = (run_program if argv in IN_OWN_PROCESS else run_here)(tmp_path, *argv)
    assert code == 2
    assert len(said) == 1, said
    assert re.fullmatch(message, said[0])
    assert not list(tmp_path.glob("**/dlrm*.ckpt"))


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
        train_program.main(["--dataset_path=dataset", CPU, ORIGINAL, *SMALL])
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
        train_program.main(["--dataset_path=dataset", CPU, ORIGINAL, *SMALL])
    assert not Path("checkpoint/dlrm.ckpt").exists()


def test_checkpoint_of_other_sizes_is_refused(run_folder, here, tiny_data):
    argv = [f"--dataset_path={tiny_data.path}", CPU, f"--checkpoint_path={run_folder}/checkpoint/dlrm.ckpt"]
    with pytest.raises(InputError, match=r"has \[32, 359\] for .*, the model needs \[16, 359\]: give the options"):
        eval_program.main([*argv, "--top_mlp=[16,1]"])
    with pytest.raises(InputError, match=r"for embedding\.C1, the model needs \[\d+, 4\]"):
        eval_program.main([*argv, "--emb_dim=4", "--bottom_mlp=[16,4]"])
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


@pytest.mark.parametrize("argv", [["--batch_size=9999"], ["--device_target=Ascend"]])
def test_run_that_cannot_begin_keeps_the_checkpoint_it_would_overwrite(tiny_data, here, argv):
    Path("checkpoint").mkdir()
    Path("checkpoint/dlrm.ckpt").write_bytes(b"dear")
    device = [] if argv[0].startswith("--device") else [CPU]
    with pytest.raises(InputError):
        train_program.main([f"--dataset_path={tiny_data.path}", "--overwrite=True", *device, *argv])
    assert Path("checkpoint/dlrm.ckpt").read_bytes() == b"dear"


def test_keyboard_stops_training_in_one_line_and_nothing_looks_whole(tiny_data, here):
    command = [
        sys.executable,
        "-u",
        str(ROOT / "train.py"),
        f"--dataset_path={tiny_data.path}",
        CPU,
        ORIGINAL,
        *QUICK,
        "--epochs=500",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        next(line for line in child.stdout if "EvalCallBack" in line)
        child.send_signal(signal.SIGINT)
        _, said = child.communicate()
    assert child.returncode == 130
    assert said.startswith("stopped by the keyboard")
    assert len(said.splitlines()) == 1
    assert os.listdir("checkpoint") == ["unfinished"]
