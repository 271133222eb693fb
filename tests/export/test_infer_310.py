"""The C++ program, really built: its scores are those of Python."""

import os
import shutil
import subprocess

import numpy as np
import pytest
from conftest import CPU, ORIGINAL
from mindspore.train.mind_ir_pb2 import ModelProto
from program_310 import (
    ENVIRONMENT,
    bins_of,
    metrics_of,
    replaced_graph,
    run,
    scored,
    scores_in,
    times,
    write_like,
)

import export as export_program
import postprocess as postprocess_program
import preprocess as preprocess_program
from src.export.scored_files import RowFiles
from src.scorer import Scorer


@pytest.mark.parametrize("kind", ["graph", "fp32", "fp16", "int8"])
def test_scores_are_those_of_the_python_scorer(scored_once, exports, coded, kind):
    """Raw rows with categories never seen, missing values and other line ends among them."""
    found = scores_in(scored_once(kind), coded / "rows")
    assert times(scored_once(kind))["batch_size"] == 8  # which the model was exported for
    expected = Scorer(exports[kind]).score_lines((coded / "raw.txt").read_text().split("\n"), has_labels=True)
    assert np.abs(found - expected).max() < 1e-6
    assert len(np.unique(found)) > 100


@pytest.mark.parametrize(("interaction", "placement"), [("dcnv2", "graph"), ("dcnv2", "host"), ("cat", "host")])
def test_other_interactions_are_scored(program, tiny_data, coded, here, interaction, placement):
    """Also in batches of other sizes than the one it was exported for, where the tables are on the host."""
    import train

    sizes = ["--emb_dim=4", "--bottom_mlp=[4]", "--top_mlp=[8,1]", f"--interaction={interaction}"]
    train.main([CPU, ORIGINAL, f"--dataset_path={tiny_data.path}", "--batch_size=343", "--do_eval=False", *sizes])
    export_program.main([CPU, f"--table_placement={placement}", "--export_batch_size=64"])
    found = scored(program, "export", coded / "rows")
    expected = Scorer("export").score_lines((coded / "raw.txt").read_text().split("\n"), has_labels=True)
    assert np.abs(found - expected).max() < 1e-6
    assert len(np.unique(found)) > 100


@pytest.mark.parametrize("kind", ["fp32", "graph"])
def test_inputs_are_found_by_their_names_in_whatever_order(program, scored_once, exports, coded, here, kind):
    expected = scores_in(scored_once(kind), coded / "rows")
    shutil.copytree(exports[kind], here / "e")
    graph = ModelProto()
    graph.ParseFromString((here / "e/dlrm.mindir").read_bytes())
    graph.graph.input.reverse()
    assert [one.name.rpartition(":")[2] for one in graph.graph.input][1] == "dense"
    replaced_graph(here, graph.SerializeToString())
    assert np.array_equal(scored(program, here / "e", coded / "rows"), expected)


@pytest.mark.parametrize(("batch_size", "requests"), [(1, 203), (7, 29), (8, 26), (203, 1), (1500, 1)])
def test_any_batch_gives_the_same_scores(program, scored_once, exports, coded, here, batch_size, requests):
    expected = scores_in(scored_once("fp32"), coded / "rows")
    for kind in ("fp32", "graph"):
        found = scored(program, exports[kind], coded / "rows", f"--batch_size={batch_size}", "--threads=1")
        assert np.abs(found - expected).max() < 1e-6
    seen = times()
    assert (seen["rows"], seen["batch_size"], seen["requests"]) == (203, batch_size, requests)
    assert 0 < seen["p50_ms"] <= seen["p99_ms"]
    assert 0 < seen["load_s"] <= seen["first_score_s"]
    assert seen["rows_per_s"] > 0 < seen["peak_memory_mb"]


LEAKS = ENVIRONMENT | {"ASAN_OPTIONS": "detect_leaks=1", "LSAN_OPTIONS": "exitcode=0"}


def finds_nothing_of_ours(done):
    """No allocation of our own code is among the memory that a run with `LEAKS` left behind."""
    return not any(words in done.stderr for words in ("dlrm::", "runtime error", "ERROR: AddressSanitizer"))


@pytest.mark.parametrize("kind", ["fp32", "int8", "graph"])
def test_any_number_of_threads_gives_the_same_scores(sanitized_program, scored_once, exports, coded, here, kind):
    """They share out a request's rows, in blocks of which the last is not full; sanitizers find nothing of ours."""
    expected = scores_in(scored_once(kind), coded / "rows")
    dense, ids = bins_of(coded / "rows")
    # Enough for one, two and three networks; of tables in the graph there is one, whatever there is to do.
    for name, copies in {"few": 11, "more": 82, "many": 162}.items():
        write_like(coded / "rows", here / name, ((dense, ids) for _ in range(copies)))
    for name, threads, batch_size, environment in (("few", 1, 300, ENVIRONMENT), ("more", 2, 257, ENVIRONMENT),
                                                   ("many", 3, 10_000, ENVIRONMENT), ("few", 100, 1001, LEAKS),
                                                   ("few", 2, 20, LEAKS)):  # fmt: skip
        name = "few" if kind == "graph" else name
        done = run(sanitized_program, f"--model={exports[kind]}", f"--input={name}", "--device_type=CPU",
                   f"--threads={threads}", f"--batch_size={batch_size}", environment=environment)  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert finds_nothing_of_ours(done) if environment is LEAKS else done.stderr == "", done.stderr
        assert np.abs(scores_in(here, here / name).reshape(-1, 203) - expected).max() < 1e-6
        # Networks of their own for two threads and three, and for one network no more threads than processors.
        used = {"more": 2, "many": 3}.get(name, 1 if batch_size == 20 else min(threads, os.cpu_count() or 1))
        assert times()["threads"] == used


def test_several_files_of_rows(program, exports, tiny_data, here, monkeypatch):
    monkeypatch.setattr("src.export.scored_files._ROWS", 50)
    argv = [f"--dataset_path={tiny_data.path}", f"--export_path={exports['fp32']}"]
    preprocess_program.main(argv)
    found = scored(program, exports["fp32"], here / "preprocess_Result")
    assert sorted(path.name for path in (here / "result_Files").iterdir()) == ["000000.bin", "000001.bin", "000002.bin",
                                                                              "index"]  # fmt: skip
    monkeypatch.undo()
    monkeypatch.chdir(here)
    preprocess_program.main([*argv, "--overwrite=True"])
    assert np.array_equal(found, scored(program, exports["fp32"], here / "preprocess_Result"))


def test_memory_of_a_table_behind_a_link_is_reported(program, exports, coded, here):
    os.symlink(exports["fp32"], "link")
    scored(program, "link", coded / "rows")
    size = (exports["fp32"] / "dlrm.tables").stat().st_size / 1e6
    assert 0 < times()["table_memory_mb"] < size + 0.01
    assert times()["table_memory_mb"] * 1e6 % 4096 == pytest.approx(0, abs=10)  # whole pages


def test_sanitizers_find_nothing_of_ours(sanitized_program, exports, coded, here):
    """Be a run good or refused; good ones of the other kinds are those of threads above."""
    symbols = subprocess.run(["nm", "-C", sanitized_program], capture_output=True, text=True, check=True).stdout
    assert "__asan_report_load4" in symbols
    assert "__ubsan_handle" in symbols
    for kind in exports:
        good = [([], 0), (["--batch_size=300", "--threads=3"], 0)] if kind == "fp16" else []
        for arguments, code in (*good, (["--device_id=1"], 2)):
            done = run(sanitized_program, f"--model={exports[kind]}", f"--input={coded}/rows", "--device_type=CPU",
                       *arguments, environment=LEAKS)  # fmt: skip
            assert done.returncode == code
            assert ("scores of" in done.stdout) == (code == 0)
            assert finds_nothing_of_ours(done), done.stderr


def test_metrics_of_the_program_equal_those_of_python(scored_once, exports, coded, here):
    result = scored_once("fp32") / "result_Files"
    postprocess_program.main([f"--preprocess_path={coded}/rows", f"--result_path={result}"])
    found = metrics_of(here / "acc.log")
    labels = RowFiles.load(coded / "rows").labels()
    scores = Scorer(exports["fp32"]).score_lines((coded / "raw.txt").read_text().split("\n"), has_labels=True)
    from sklearn.metrics import roc_auc_score

    assert found["auc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-6)


def test_export_for_another_batch(program, scored_once, run_folder, coded, here):
    export_program.main([CPU, f"--checkpoint_path={run_folder}/checkpoint", "--table_placement=host",
                         "--export_batch_size=1500"])  # fmt: skip
    found = scored(program, "export", coded / "rows")
    assert (times()["batch_size"], times()["threads"]) == (1500, 1)
    expected = scores_in(scored_once("fp32"), coded / "rows")
    assert np.abs(found - expected).max() < 1e-6
    # The same graph as if it were large, for which several threads are worth it.
    (here / "export").rename("e")
    graph = ModelProto()
    graph.ParseFromString((here / "e/dlrm.mindir").read_bytes())
    graph.graph.doc_string = "x" * (1 << 20)
    replaced_graph(here, graph.SerializeToString())
    assert np.abs(scored(program, "e", coded / "rows") - expected).max() < 1e-6
    assert times()["threads"] == (os.cpu_count() or 1)
