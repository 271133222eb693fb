"""The C++ program follows deltas: rows are scored by the model of their vocabulary, each request by one model."""

import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import raw_lines, write_raw
from program_310 import ENVIRONMENT, bins_of, changed, run, scored, scores_in, times, write_like

import preprocess as preprocess_program
from src.base.sealed import read_facts, seal_of
from src.export.scored_files import RowFiles, Scores
from tests.deltas import lines_with_new_values, make_days


@pytest.fixture(scope="module")
def days(made_once, run_folder, exports):
    """What `make_days` makes. Do not change its files."""
    return made_once("days", lambda folder: make_days(folder, run_folder / "checkpoint", exports["fp32"]))


@pytest.fixture(scope="module")
def later_rows(made_once, days):
    """203 rows coded with the vocabulary of day 1, which is that of day 2, too."""

    def make(folder):
        write_raw(folder / "raw.txt", lines_with_new_values(raw_lines(203, seed=31)))
        preprocess_program.main([f"--dataset_path={folder}/raw.txt", f"--export_path={days}/export_1",
                                 f"--preprocess_path={folder}/rows"])  # fmt: skip

    return made_once("later_rows", make) / "rows"


def put(days, *names):
    """A folder of some deltas."""
    for name in names:
        shutil.copytree(days / name, Path("deltas") / name)
    return "--follow=deltas"


def models():
    return read_facts(Path("result_Files/index"), "scores").get("model")


def scores_of(program, model, rows, folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        found = scored(program, model, rows)
        assert models() is None
        return found


@pytest.fixture(scope="module")
def before(program, days, later_rows, tmp_path_factory):
    """The scores of day 1 of the later rows."""
    return scores_of(program, days / "export_1", later_rows, tmp_path_factory.mktemp("before"))


@pytest.fixture(scope="module")
def after(program, days, later_rows, tmp_path_factory):
    """Those of day 2, by the whole export."""
    return scores_of(program, days / "whole_2", later_rows, tmp_path_factory.mktemp("after"))


def test_deltas_that_are_there_lead_to_the_model_of_the_rows(sanitized_program, after, days, later_rows, here):
    """Over both days; the scores are to the bit those of the whole export."""
    found = scored(sanitized_program, days / "export_0", later_rows, put(days, "delta_1", "delta_2"))
    assert np.array_equal(found, after)
    assert models() == [(seal_of(days / "whole_2/dlrm.model"), "1")]
    assert times()["deltas"] == 0  # while rows were scored


def test_a_delta_of_another_vocabulary_waits(program, scored_once, days, coded, here):
    """Rows are never taken for those of a later vocabulary."""
    expected = scores_in(scored_once("fp32"), coded / "rows")  # of export_0, too
    assert np.array_equal(scored(program, days / "export_0", coded / "rows", put(days, "delta_1", "delta_2")), expected)
    assert models() == [(seal_of(days / "export_0/dlrm.model"), "1")]


def test_each_request_is_scored_by_one_model(program, before, after, days, later_rows, here, monkeypatch):
    """While rows are scored the model of the next day comes; from one request on all are its."""
    assert np.abs(before - after).min() > 1e-6
    monkeypatch.setattr("src.export.scored_files._ROWS", 8192)
    write_like(later_rows, here / "many", [bins_of(later_rows)] * 323)  # nine files
    Path("deltas").mkdir()
    command = [str(program), f"--model={days}/export_1", "--input=many", "--device_type=CPU", "--follow=deltas",
               "--batch_size=29"]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=ENVIRONMENT) as child:
        while not (here / "result_Files.writing/new/000000.bin").exists():
            assert child.poll() is None
            time.sleep(0.0005)
        child.send_signal(signal.SIGSTOP)  # a busy machine may be slower to copy than it is to score
        shutil.copytree(days / "delta_2", "coming")
        Path("coming").rename("deltas/delta_2")
        child.send_signal(signal.SIGCONT)
        assert child.communicate()[1] == b""
    found = Scores.load(here / "result_Files", RowFiles.load(here / "many")).values.reshape(-1, 203)
    (first, begin), (second, change) = models()
    assert (first, begin) == (seal_of(days / "export_1/dlrm.model"), "1")
    assert second == seal_of(days / "whole_2/dlrm.model")
    is_new = np.arange(found.size).reshape(found.shape) >= int(change) - 1
    assert 8192 <= int(change) - 1 < found.size
    assert np.abs(found - np.where(is_new, after, before)).max() < 5e-7
    assert (times()["deltas"], times()["rows"]) == (1, found.size)
    assert times()["apply_s"] > 0


@pytest.mark.parametrize(("name", "place", "message"), [
    ("dlrm.rows", 5, "dlrm.rows is damaged"),
    ("dlrm.tables", 4096 + 70, "the checksum of page 0 of its rows differs"),
    ("dlrm.tables", 20, "its header has values that are none|the checksum of its header differs"),
    ("dlrm.mindir", 3000, "dlrm.mindir is damaged"),
    ("dlrm.after", 30, "dlrm.after is damaged"),
    ("dlrm.delta", 30, ""),
])  # fmt: skip
def test_a_damaged_delta_is_told_and_passed_over(program, before, days, later_rows, here, name, place, message):
    put(days, "delta_2", "delta_1")  # one is damaged, and the other of another model
    changed(Path("deltas/delta_2") / name, place)
    done = run(program, f"--model={days}/export_1", f"--input={later_rows}", "--device_type=CPU", "--follow=deltas")
    assert done.returncode == 0
    lines = done.stderr.splitlines()
    assert len(lines) == bool(message)
    if message:
        assert lines[0].startswith("warning: the model stays as it is: deltas/delta_2")
        assert any(part in lines[0] for part in message.split("|"))
    found = Scores.load(here / "result_Files", RowFiles.load(later_rows)).values
    assert np.array_equal(found, before)


def test_following_needs_tables_in_a_file(program, exports, coded, here):
    done = run(program, f"--model={exports['graph']}", f"--input={coded}/rows", "--device_type=CPU", "--follow=deltas")
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr
        == "error: --follow takes a model with its tables in a file: export it with --table_placement=host\n"
    )
