"""What is wrong at first sight is told before MindSpore is loaded, and leaves what an earlier good run wrote."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, raw_lines, write_raw

from src.base.errors import InputError
from src.base.files import whole_folder
from src.checkpoints.names import file_of
from src.export.exported import check_export_place
from src.export.options import ExportSpec

# Of each command line that it reads, what refuses it, if any does, and whether MindSpore was loaded by then.
MAIN = """
import sys, importlib, json
sys.path.insert(0, {root!r})
from src.base.errors import InputError
for argv in json.load(sys.stdin):
    refused = ""
    try:
        importlib.import_module(argv[0]).main(argv[1:])
    except InputError as error:
        refused = str(error)
    print(json.dumps([refused, "mindspore" in sys.modules]))
"""
REFUSED = [
    (["preprocess"], "export is no exported model"),
    (["preprocess", "--export_path=fp32", "--dataset_path=nothing.txt"], "there is no file nothing.txt"),
    (["preprocess", "--export_path=fp32", "--dataset_path=odd.txt"], "odd.txt line 1: 1 columns instead of 40"),
    (["postprocess"], "preprocess_path preprocess_Result holds no index"),
    (["export"], "checkpoint_path checkpoint/dlrm.ckpt is not a file: name a checkpoint that train.py wrote"),
    (["export", "--checkpoint_path=stopped"], "checkpoint_path stopped/dlrm.ckpt is not there, since its "),
    (["eval"], "dataset_path ./dataset is not a folder"),
    (["train", "--device_target=CPU", "--dataset_path=data", "--ckpt_path=done"],
     "ckpt_path done already holds dlrm.ckpt: name another"),
    (["src.launch", "2", "--device_target=CPU", "--parallel_mode=data", "--dataset_path=data", "--ckpt_path=done"],
     "ckpt_path done already holds dlrm.ckpt: name another"),
]  # fmt: skip


def said_by(*lines):
    """Of each command line, all in one process, the lines that it printed, what refused it, and whether it loads."""
    command = [sys.executable, "-c", MAIN.format(root=str(ROOT))]
    done = subprocess.run(command, input=json.dumps(lines), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_mindspore_is_not_loaded_for_a_refusal(exports, tiny_data, here):
    """One process for all: none of them has a reason to load it for the next."""
    (here / "done").mkdir()
    (here / "done/dlrm.ckpt").touch()
    (here / "data").symlink_to(tiny_data.path)
    (here / "stopped/unfinished").mkdir(parents=True)
    (here / "stopped/unfinished/best-1.ckpt").touch()
    (here / "fp32").symlink_to(exports["fp32"])
    write_raw(here / "odd.txt", ["odd"])
    write_raw(here / "rows.txt", raw_lines(5))
    good = ["preprocess", "--export_path=fp32", "--dataset_path=rows.txt"]  # nor for rows that are coded
    *found, coded, last = said_by(*(argv for argv, _ in REFUSED), good)
    assert len(found) == len(REFUSED)
    for (argv, message), line in zip(REFUSED, found):
        refused, loaded = json.loads(line)
        assert message in refused, argv
        assert not loaded, argv
    assert "5 rows of rows.txt" in coded
    assert json.loads(last) == ["", False]


def test_a_checkpoint_is_named_by_itself_or_its_folder(run_folder):
    path = run_folder / "checkpoint/dlrm.ckpt"
    assert file_of(str(path)) == file_of(str(path.parent)) == path


def test_what_came_into_the_place_since_the_first_look_is_not_replaced(tmp_path):
    spec = ExportSpec(export_path=str(tmp_path / "export"))
    check_export_place(spec)
    (tmp_path / "export").mkdir()
    (tmp_path / "export/dlrm.model").write_text("dlrm\tmodel\t1\n")
    writing = whole_folder(Path(spec.export_path), lambda: check_export_place(spec))
    with pytest.raises(InputError, match="already holds an earlier result"):
        writing.__enter__()
    assert (tmp_path / "export/dlrm.model").read_text() == "dlrm\tmodel\t1\n"
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


def logged(here, *command):
    script = f'set -euo pipefail; . {ROOT}/scripts/common.sh; run_logged ms_log/output.log "$@"'
    return subprocess.run(
        ["bash", "-c", script, "bash", *command], cwd=here, capture_output=True, text=True, check=False
    )


def test_a_refused_start_leaves_the_log_of_an_earlier_run(here):
    assert logged(here, "echo", "good").stdout == "good\n"
    done = logged(here, "bash", "-c", "echo refused >&2; exit 2")
    assert (done.returncode, done.stdout) == (2, "refused\n")
    assert (here / "ms_log/output.log").read_text() == "good\n"
    assert logged(here, "echo", "nothing to do: it is there").returncode == 0
    assert (here / "ms_log/output.log").read_text() == "good\n"
    assert logged(here, "bash", "-c", "echo failed; exit 1").returncode == 1
    assert (here / "ms_log/output.log").read_text() == "failed\n"
    assert [path.name for path in (here / "ms_log").iterdir()] == ["output.log"]
    (here / "ms_log/output.log").unlink()
    assert logged(here, "bash", "-c", "echo first refusal; exit 2").returncode == 2
    assert (here / "ms_log/output.log").read_text() == "first refusal\n"


def test_a_refused_start_leaves_the_log_of_a_run_that_was_killed(here):
    logged(here, "echo", "good")
    killed = "echo ten hours; until [ -s ms_log/output.log ]; do sleep 0.01; done; kill -9 $PPID"  # when it is written
    assert logged(here, "bash", "-c", killed).returncode == -9
    assert logged(here, "bash", "-c", "echo refused >&2; exit 2").returncode == 2
    assert (here / "ms_log/output.log").read_text() == "ten hours\n"


@pytest.mark.parametrize(("arguments", "message"), [
    (["dlrm.mindir", "rows.txt", "y"], "there is no *.model beside it"),
    (["fp32/dlrm.mindir", "nothing.txt", "y"], "DATASET_PATH nothing.txt is not there"),
    (["lr[1]/dlrm.mindir", "nothing.txt", "y"], "DATASET_PATH nothing.txt is not there"),
    (["fp32/dlrm.mindir", "rows.txt", "n"], "preprocess_Result holds no index"),
])  # fmt: skip
def test_the_script_refuses_before_it_builds(exports, here, arguments, message):
    for name in ("fp32", "lr[1]"):
        (here / name).symlink_to(exports["fp32"])
    (here / "dlrm.mindir").touch()
    command = ["bash", str(ROOT / "scripts/run_infer_310.sh"), *arguments]
    done = subprocess.run(
        command, env={"DEVICE_TYPE": "CPU", "PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
