"""What is wrong at first sight is told before MindSpore is loaded, and leaves what an earlier good run wrote."""

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

MAIN = """
import sys, importlib
sys.path.insert(0, {root!r})
from src.base.errors import InputError
try:
    importlib.import_module(sys.argv[1]).main(sys.argv[2:])
except InputError as error:
    print(error)
else:
    sys.exit("not refused")
sys.exit("MindSpore was loaded" if "mindspore" in sys.modules else 0)
"""


@pytest.mark.parametrize(("argv", "message"), [
    (["export"], "checkpoint_path checkpoint/dlrm.ckpt is not a file: name a checkpoint that train.py wrote"),
    (["export", "--checkpoint_path=stopped"], "checkpoint_path stopped/dlrm.ckpt is not there, since its "),
    (["eval"], "dataset_path ./dataset is not a folder"),
    (["preprocess"], "export is no exported model"),
    (["postprocess"], "preprocess_path preprocess_Result holds no index"),
    (["preprocess", "--export_path=fp32", "--dataset_path=nothing.txt"], "there is no file nothing.txt"),
    (["preprocess", "--export_path=fp32", "--dataset_path=odd.txt"], "odd.txt line 1: 1 columns instead of 40"),
    (["train", "--device_target=CPU", "--dataset_path=data", "--ckpt_path=done"],
     "ckpt_path done already holds dlrm.ckpt: name another"),
    (["src.launch", "2", "--device_target=CPU", "--parallel_mode=data", "--dataset_path=data", "--ckpt_path=done"],
     "ckpt_path done already holds dlrm.ckpt: name another"),
])  # fmt: skip
def test_mindspore_is_not_loaded_for_a_refusal(exports, tiny_data, here, argv, message):
    (here / "done").mkdir()
    (here / "done/dlrm.ckpt").touch()
    (here / "data").symlink_to(tiny_data.path)
    (here / "stopped/unfinished").mkdir(parents=True)
    (here / "stopped/unfinished/best-1.ckpt").touch()
    (here / "fp32").symlink_to(exports["fp32"])
    write_raw(here / "odd.txt", ["odd"])
    command = [sys.executable, "-c", MAIN.format(root=str(ROOT)), *argv]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert message in done.stdout


def test_raw_rows_are_coded_without_mindspore(exports, here):
    write_raw(here / "rows.txt", raw_lines(5))
    code = MAIN.format(root=str(ROOT)).replace("else:", "if False:")
    argv = ["preprocess", f"--export_path={exports['fp32']}", "--dataset_path=rows.txt"]
    done = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "5 rows of rows.txt" in done.stdout


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
