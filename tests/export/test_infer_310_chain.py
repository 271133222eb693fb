"""scripts/run_infer_310.sh: from raw rows to metrics by the C++ program, and how it refuses what is wrong."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import CPU, ROOT, write_raw
from program_310 import ENVIRONMENT, metrics_of, scored

import eval as eval_program
import export as export_program
from src.scorer import Scorer


def chain(model, dataset, *arguments, device="CPU", python=sys.executable):
    """The script with an interpreter that it need not look for, unless it is ""."""
    command = ["bash", str(ROOT / "scripts/run_infer_310.sh"), str(model), str(dataset), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False,
                          env=ENVIRONMENT | {"DEVICE_TYPE": device, "PYTHON": python})  # fmt: skip


def test_chain_gives_the_metrics_of_eval(program, run_folder, exports, tiny_data, here):
    done = chain(exports["fp32"] / "dlrm.mindir", tiny_data.path / "test", "y", python="")
    assert done.returncode == 0, done.stderr
    found = metrics_of(here / "acc.log")
    eval_program.main([CPU, f"--dataset_path={tiny_data.path}", f"--checkpoint_path={run_folder}/checkpoint",
                       "--eval_file_name=eval.log"])  # fmt: skip
    assert found == pytest.approx(metrics_of(here / "eval.log"), abs=1e-6)
    assert "p99_ms: " in (here / "infer.log").read_text()
    names = ["acc.log", "infer.log", "metrics.jsonl", "preprocess_Result", "result_Files", "scores.csv", "time_Result"]
    assert sorted(path.name for path in here.iterdir()) == [names[0], "eval.log", *names[1:]]
    scores = np.loadtxt("scores.csv", delimiter=",", skiprows=1)
    (here / "scores.csv").unlink()
    done = chain(exports["graph"] / "dlrm.mindir", "unused", "n", "0")
    assert done.returncode == 0, done.stderr
    models = [line.partition("; model ")[2] for line in (here / "acc.log").read_text().splitlines()]
    assert models == [str(exports[name] / "dlrm.mindir") for name in ("fp32", "graph")]
    assert metrics_of(here / "acc.log") == pytest.approx(found, abs=1e-6)
    again = np.loadtxt("scores.csv", delimiter=",", skiprows=1)
    assert again.shape == scores.shape == (142, 3)
    assert np.abs(again - scores).max() < 1e-6


def test_chain_on_rows_without_labels(program, exports, coded, here):
    lines = (coded / "raw.txt").read_text().split("\n")
    write_raw(here / "new.txt", [line.split("\t", 1)[1] for line in lines])
    done = chain(exports["fp32"] / "dlrm.mindir", "new.txt", "y", "--has_labels=False")
    assert done.returncode == 0, done.stderr
    assert "so there are no metrics" in done.stdout
    assert not (here / "acc.log").exists()
    found = np.loadtxt("scores.csv", delimiter=",", skiprows=1)
    assert found[:, 0].tolist() == list(range(1, 204))
    assert np.abs(found[:, 1] - Scorer(exports["fp32"]).score_lines(lines, has_labels=True)).max() < 1e-6


@pytest.mark.parametrize(("arguments", "message"), [
    (["nothing.mindir", "d", "y"], "MINDIR_PATH nothing.mindir is not a file"),
    (["e/dlrm.mindir", "d"], "2 arguments instead of 3; usage: bash scripts/run_infer_310.sh MINDIR_PATH"),
    (["e/dlrm.mindir", "d", "maybe"], "NEED_PREPROCESS is maybe: it must be y or n"),
    (["e/dlrm.mindir", "d", "n", "--has_labels=False"], "--has_labels=False has no effect with NEED_PREPROCESS n"),
    (["e/dlrm.mindir", "d", "y", "0", "1"], "1 is one argument too many"),
    (["e/dlrm.mindir", "d", "y", "3"], "DEVICE_ID 3 has no effect with DEVICE_TYPE=CPU: drop it"),
    (["e/dlrm.model", "d", "y"], "MINDIR_PATH e/dlrm.model is no MindIR, which alone the program reads"),
    (["e/dlrm.mindir", "d", "y", "--preprocess_path=x"], "--preprocess_path=x: the script gives this option itself"),
    (["e/dlrm.mindir", "d", "y"], "DATASET_PATH d is not there"),
])  # fmt: skip
def test_chain_refuses_what_is_wrong(program, exports, here, arguments, message):
    os.symlink(exports["fp32"], "e")
    done = chain(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (here / "result_Files").exists()
    assert not (here / "acc.log").exists()


def test_the_programs_error_is_on_stderr_and_in_the_log(program, exports, here):
    (here / "preprocess_Result").mkdir()
    (here / "preprocess_Result/index").write_text("odd")
    done = chain(exports["fp32"] / "dlrm.mindir", "d", "n")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "error: preprocess_Result/index is damaged" in done.stderr
    assert "error" not in done.stdout
    assert (here / "infer.log").read_text() == done.stderr


def test_chain_on_ascend_needs_its_library(exports, coded, here):
    done = chain(exports["fp32"] / "dlrm.mindir", coded / "raw.txt", "y", device="Ascend")
    assert done.returncode == 2
    assert (
        done.stderr
        == "error: LITE_HOME is not set: name the folder of MindSpore Lite for Ascend, or set DEVICE_TYPE=CPU\n"
    )
    assert "it must be Ascend or CPU" in chain(exports["fp32"] / "dlrm.mindir", "d", "y", device="GPU").stderr


def test_names_with_blanks_and_accents(program, run_folder, coded, here):
    folder = here / "mes modèles, 2"
    export_program.main([CPU, f"--checkpoint_path={run_folder}/checkpoint", f"--export_path={folder}"])
    shutil.copytree(coded / "rows", here / "mes lignes")
    found = scored(program, folder / "dlrm.mindir", here / "mes lignes")
    expected = Scorer(folder).score_lines((coded / "raw.txt").read_text().split("\n"), has_labels=True)
    assert np.abs(found - expected).max() < 1e-6
    done = chain(folder / "dlrm.mindir", coded / "raw.txt", "y")
    assert done.returncode == 0, done.stderr
