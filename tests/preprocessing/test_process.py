"""The program as its users start it: exit codes, and one line on stderr."""

import json
import subprocess
import sys

from conftest import ROOT, raw_lines, write_raw

from src.data.manifest import MANIFEST


def run_program(*flags: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "src" / "preprocess_data.py"), *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd="/", check=False)


def check_refusal(done: subprocess.CompletedProcess, message: str) -> None:
    """Exit code 2, and one line on stderr, which is no traceback."""
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ")
    assert message in done.stderr


def test_process_preprocesses_and_refuses_to_do_it_again(tmp_path):
    write_raw(tmp_path / "train.txt", raw_lines(200))
    done = run_program(f"--data_path={tmp_path}/", "--dense_dim=13", "--slot_dim=26", "--train_line_count=140")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "train: 120 rows, label mean 0." in done.stdout
    assert json.loads((tmp_path / "dataset" / MANIFEST).read_text())["source"]["lines"] == 140
    check_refusal(run_program(f"--data_path={tmp_path}"), "already holds preprocessed data")


def test_process_refuses_bad_rows_in_one_line(tmp_path):
    """One number is beyond float32, over which NumPy likes to warn."""
    lines = raw_lines(20)
    lines[2] = lines[2].replace("\t", "x\t", 1)
    lines[7] = "1\t1e39\t" + lines[7].split("\t", 2)[2]
    write_raw(tmp_path / "train.txt", lines)
    done = run_program(f"--data_path={tmp_path}")
    check_refusal(done, "train.txt has 2 bad rows, 0 are allowed: line 3: label is ")
    assert "line 8: I1 is '1e39', which is not a number" in done.stderr
    assert not (tmp_path / "dataset" / MANIFEST).exists()


def test_process_refuses_a_missing_folder(tmp_path):
    check_refusal(run_program(f"--data_path={tmp_path / 'none'}"), f"data_path {tmp_path / 'none'}: there is no file")


def test_process_refuses_a_misspelt_option():
    check_refusal(run_program("--slot_dims=26"), "no option '--slot_dims=26'; did you mean --slot_dim?")


def test_process_reports_a_folder_it_can_not_make(tmp_path):
    write_raw(tmp_path / "train.txt", raw_lines(9))
    (tmp_path / "file").write_text("in the way")
    done = run_program(f"--data_path={tmp_path}", f"--output_path={tmp_path / 'file' / 'dataset'}")
    check_refusal(done, f"error: {tmp_path / 'file'}")


def test_more_files_than_may_be_open_at_once_are_read(tmp_path):
    for number in range(350):
        write_raw(tmp_path / "parts" / f"part-{number:05d}", raw_lines(1))
    names = ",".join(str(path) for path in sorted((tmp_path / "parts").iterdir()))
    (tmp_path / "options.yaml").write_text(f"data_path: {names}\nshuffle_rows: true\n")
    flags = f"--config_path={tmp_path}/options.yaml --output_path={tmp_path}/dataset"
    command = f"ulimit -n 128; exec {sys.executable} {ROOT}/src/preprocess_data.py {flags}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "train: 300 rows" in done.stdout
    assert "part-00002 and 347 files more: 350 rows; train 1-300" in done.stdout.splitlines()[0]
