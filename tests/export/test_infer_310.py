"""The C++ program, really built: what it scores, and how it refuses what is wrong."""

import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from conftest import CPU, ROOT, raw_lines, write_raw
from program_310 import ENVIRONMENT, run, scored
from runs import METRIC_LINE

import eval as eval_program
import export as export_program
import postprocess as postprocess_program
import preprocess as preprocess_program
from src.base.sealed import read_facts, write_facts
from src.export.scored_files import INDEX, RowFiles, RowSource
from src.scorer import Scorer

ms.set_context(mode=ms.GRAPH_MODE)
ms.set_device("CPU")


@pytest.fixture(scope="module")
def rows(exports, tmp_path_factory):
    """The test rows, as preprocess.py writes them. Do not change its files."""
    folder = tmp_path_factory.mktemp("rows")
    lines = raw_lines(203, seed=11)
    lines[5] = "0" + "\t" * 39
    lines[6] = "\t".join([*lines[6].split("\t")[:38], "never seen", "neither"])
    text = "\r\n".join(lines)  # and no end of the last line
    (folder / "raw.txt").write_text(text, newline="")
    preprocess_program.main([f"--dataset_path={folder}/raw.txt", f"--export_path={exports['fp32']}",
                             f"--preprocess_path={folder}/rows"])  # fmt: skip
    return folder


def table_rows_of(folder):
    return [int(rows) for (rows,) in read_facts(folder / INDEX, "rows")["field"]]


def bins_of(folder):
    """Numbers [203, 13] and ids [203, 26] of the test rows."""
    return tuple(np.fromfile(folder / name / "000000.bin", kind).reshape(203, -1)
                 for name, kind in (("dense", "<f4"), ("ids", "<i4")))  # fmt: skip


def write_like(old, new, blocks):
    """Rows of given numbers and ids, with checksums that are right, for the model that other rows are for."""
    new.mkdir()
    source = RowSource((dense, ids, np.zeros(len(ids), np.uint8)) for dense, ids in blocks)
    vocabulary = read_facts(old / INDEX, "rows")["vocabulary"][0][0]
    RowFiles.write(new, source, table_rows_of(old), vocabulary, RowFiles.load(old).has_labels)


def metrics_of(path):
    line = METRIC_LINE.fullmatch(path.read_text().splitlines()[-1])
    return {name: float(value) for name, value in line.groupdict().items()}


def times():
    text = Path("time_Result/test_perform_static.txt").read_text()
    return {name: float(value) for name, value in (line.split(": ") for line in text.splitlines())}


@pytest.mark.parametrize("kind", ["graph", "fp32", "fp16", "int8"])
def test_scores_are_those_of_the_python_scorer(program, exports, rows, here, kind):
    """Raw rows with categories never seen, missing values and other line ends among them."""
    found = scored(program, exports[kind] / "dlrm.mindir", rows / "rows")
    expected = Scorer(exports[kind]).score_lines((rows / "raw.txt").read_text().split("\n"), has_labels=True)
    assert np.abs(found - expected).max() < 1e-6
    assert len(np.unique(found)) > 100


@pytest.mark.parametrize(("interaction", "placement"), [("dcnv2", "graph"), ("dcnv2", "host"), ("cat", "host")])
def test_other_interactions_are_scored(program, tiny_data, rows, here, interaction, placement):
    """Also in batches of other sizes than the one it was exported for, where the tables are on the host."""
    import train

    sizes = ["--emb_dim=4", "--bottom_mlp=[4]", "--top_mlp=[8,1]", f"--interaction={interaction}"]
    train.main([CPU, f"--dataset_path={tiny_data.path}", "--batch_size=343", "--do_eval=False", *sizes])
    export_program.main([CPU, f"--table_placement={placement}", "--export_batch_size=64"])
    found = scored(program, "export", rows / "rows")
    expected = Scorer("export").score_lines((rows / "raw.txt").read_text().split("\n"), has_labels=True)
    assert np.abs(found - expected).max() < 1e-6
    assert len(np.unique(found)) > 100


@pytest.mark.parametrize(("batch_size", "requests"), [(1, 203), (7, 29), (8, 26), (203, 1), (1500, 1)])
def test_any_batch_gives_the_same_scores(program, exports, rows, here, batch_size, requests):
    expected = scored(program, exports["fp32"], rows / "rows")
    assert times()["batch_size"] == 8
    for kind in ("fp32", "graph"):
        found = scored(program, exports[kind], rows / "rows", f"--batch_size={batch_size}", "--threads=1")
        assert np.abs(found - expected).max() < 1e-6
    seen = times()
    assert (seen["rows"], seen["batch_size"], seen["requests"]) == (203, batch_size, requests)
    assert 0 < seen["p50_ms"] <= seen["p99_ms"]
    assert 0 < seen["load_s"] <= seen["first_score_s"]
    assert seen["rows_per_s"] > 0 < seen["peak_memory_mb"]


@pytest.mark.parametrize("kind", ["fp32", "int8", "graph"])
def test_any_number_of_threads_gives_the_same_scores(sanitized_program, exports, rows, here, kind):
    """They share out a request's rows, in blocks of which the last is not full."""
    expected = scored(sanitized_program, exports[kind], rows / "rows", "--threads=1", "--batch_size=203")
    dense, ids = bins_of(rows / "rows")
    write_like(rows / "rows", here / "many", ((dense, ids) for _ in range(250)))  # enough for networks of 3 threads
    for threads, batch_size in ((1, 300), (2, 257), (3, 10_000), (100, 1001), (2, 20)):
        arguments = [f"--threads={threads}", f"--batch_size={batch_size}"]
        found = scored(sanitized_program, exports[kind], here / "many", *arguments)
        assert np.abs(found.reshape(-1, 203) - expected).max() < 1e-6


@pytest.mark.parametrize("try_number", range(5))
def test_damage_that_one_of_several_threads_finds_is_refused_in_a_line(program, exports, rows, here, try_number):
    """Of 32 blocks one touches the damaged page; whichever thread takes it, nothing is published."""
    table_rows = table_rows_of(rows / "rows")
    field, number = 2, table_rows[2] // 2
    page = (sum(table_rows[:field]) + number) * 32 // 4096
    samples = 65_536
    ids = np.zeros((samples, 26), np.int32)
    starts = np.cumsum([0, *table_rows[:-1]])
    assert page not in starts * 32 // 4096
    ids[samples - 8192 + 300 * try_number, field] = number  # in the last of the requests
    write_like(rows / "rows", here / "many", [(np.zeros((samples, 13), np.float32), ids)])
    shutil.copytree(exports["fp32"], here / "e")
    changed(here / "e/dlrm.tables", 4096 * (1 + page) + 40)
    done = run(program, "--model=e", "--input=many", "--device_type=CPU", "--output=out", "--batch_size=8192",
               "--threads=4")  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(rf"error: [^\n]*the checksum of page {page} of its rows differs[^\n]*\n", done.stderr), (
        done.stderr
    )
    assert not list(here.glob("out/*"))


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


def chain(model, dataset, *arguments, device="CPU"):
    command = ["bash", str(ROOT / "scripts/run_infer_310.sh"), str(model), str(dataset), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT | {"DEVICE_TYPE": device},
                          check=False)  # fmt: skip


def test_chain_gives_the_metrics_of_eval(program, run_folder, exports, tiny_data, here):
    done = chain(exports["fp32"] / "dlrm.mindir", tiny_data.path / "test", "y")
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
    assert len((here / "acc.log").read_text().splitlines()) == 2
    assert metrics_of(here / "acc.log") == pytest.approx(found, abs=1e-6)
    again = np.loadtxt("scores.csv", delimiter=",", skiprows=1)
    assert again.shape == scores.shape == (142, 3)
    assert np.abs(again - scores).max() < 1e-6


def test_chain_on_rows_without_labels(program, exports, rows, here):
    lines = (rows / "raw.txt").read_text().split("\n")
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
    (["e/dlrm.mindir", "d", "y"], "dataset_path d: there is no file"),
])  # fmt: skip
def test_chain_refuses_what_is_wrong(program, exports, here, arguments, message):
    os.symlink(exports["fp32"], "e")
    done = chain(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (here / "result_Files").exists()
    assert not (here / "acc.log").exists()


def test_the_programs_error_is_on_stderr_and_in_the_log(program, exports, here):
    done = chain(exports["fp32"] / "dlrm.mindir", "d", "n")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "error: input preprocess_Result holds no index" in done.stderr
    assert "error" not in done.stdout
    assert (here / "infer.log").read_text() == done.stderr


def test_chain_on_ascend_needs_its_library(exports, rows, here):
    done = chain(exports["fp32"] / "dlrm.mindir", rows / "raw.txt", "y", device="Ascend")
    assert done.returncode == 2
    assert (
        done.stderr
        == "error: LITE_HOME is not set: name the folder of MindSpore Lite for Ascend, or set DEVICE_TYPE=CPU\n"
    )
    assert "it must be Ascend or CPU" in chain(exports["fp32"] / "dlrm.mindir", "d", "y", device="GPU").stderr


def changed(path, place, flip=1):
    data = bytearray(path.read_bytes())
    data[place] ^= flip
    path.write_bytes(data)


def cut(path, size):
    path.write_bytes(path.read_bytes()[:size])


def replaced_graph(folder, data):
    """A graph that is not what it was, described as if it were."""
    (folder / "e/dlrm.mindir").write_bytes(data)
    resealed(folder / "e/dlrm.model", "model", "file", ("dlrm.mindir", len(data), f"{zlib.crc32(data):08x}"))


def resealed(path, kind, key, *values):
    """A file of facts with other values of a key, and a checksum that is right."""
    facts = read_facts(path, kind) | {key: list(values)}
    write_facts(path, kind, [(name, *line) for name, lines in facts.items() for line in lines])


def other_file(folder):
    data = (folder / "e/manifest.json").read_bytes()
    resealed(folder / "e/dlrm.model", "model", "file", ("manifest.json", len(data), f"{zlib.crc32(data):08x}"))


def as_if_in_graph(folder):
    resealed(folder / "e/dlrm.model", "model", "placement", ("graph",))


def with_ids(folder, change):
    """Rows whose ids were changed, with checksums that are right."""
    dense, ids = bins_of(folder / "rows")
    change(ids)
    (folder / "rows").rename(folder / "before")
    write_like(folder / "before", folder / "rows", [(dense, ids)])
    shutil.rmtree(folder / "before")


def put(row, field, value):
    def change(ids):
        ids[row, field] = value

    return change


DAMAGE = {
    "graph cut": (lambda f: cut(f / "e/dlrm.mindir", 1000), "dlrm.mindir is missing or has not its"),
    "graph changed": (lambda f: changed(f / "e/dlrm.mindir", 3000), "dlrm.mindir is damaged"),
    "graph missing": (lambda f: (f / "e/dlrm.mindir").unlink(), "dlrm.mindir is not there: name what export.py wrote"),
    "graph of noise": (lambda f: replaced_graph(f, b"\x17" * 5000), "MindSpore Lite can't load"),
    "graph empty": (lambda f: replaced_graph(f, b""), "MindSpore Lite can't load"),
    "table cut": (lambda f: cut(f / "e/dlrm.tables", -1), "dlrm.tables is missing or has not its"),
    "table missing": (lambda f: (f / "e/dlrm.tables").unlink(), "dlrm.tables is missing"),
    "table header": (lambda f: changed(f / "e/dlrm.tables", 20), "its header has values|the checksum of its header"),
    "table magic": (lambda f: changed(f / "e/dlrm.tables", 0), "it does not begin as one of this program"),
    "table row": (lambda f: changed(f / "e/dlrm.tables", 4096 + 40), "the checksum of page 0 of its rows differs"),
    "table checksum": (lambda f: changed(f / "e/dlrm.tables", -2), "the checksum of its checksums differs"),
    "description changed": (lambda f: changed(f / "e/dlrm.model", 30), "dlrm.model is damaged"),
    "description cut": (lambda f: cut(f / "e/dlrm.model", 40), "dlrm.model is damaged"),
    "description missing": (lambda f: (f / "e/dlrm.model").unlink(), r"holds 0 files named \*.model"),
    "dense cut": (lambda f: cut(f / "rows/dense/000000.bin", 100), "000000.bin has 100 bytes, the index says 10556"),
    "ids cut": (lambda f: cut(f / "rows/ids/000000.bin", -4), "000000.bin has 21108 bytes, the index says 21112"),
    "ids longer": (lambda f: (f / "rows/ids/000000.bin").open("ab").write(b"x"), "has 21113 bytes"),
    "dense changed": (lambda f: changed(f / "rows/dense/000000.bin", 77), "dense/000000.bin is damaged"),
    "ids changed": (lambda f: changed(f / "rows/ids/000000.bin", 77), "ids/000000.bin is damaged"),
    "ids missing": (lambda f: (f / "rows/ids/000000.bin").unlink(), "ids/000000.bin is not a file"),
    "index changed": (lambda f: changed(f / "rows/index", 33), "index is damaged"),
    "index cut": (lambda f: cut(f / "rows/index", -20), "index is damaged"),
    "index missing": (lambda f: (f / "rows/index").unlink(), "holds no index"),
    "index of a model": (lambda f: shutil.copyfile(f / "e/dlrm.model", f / "rows/index"), "is no rows of this version"),
    "id too large": (lambda f: with_ids(f, put(9, 4, 999)), "row 10, field 5: id 999 is not among the"),
    "id below 0": (lambda f: with_ids(f, put(202, 0, -1)), "row 203, field 1: id -1 is not among the"),
    "other vocabulary": (lambda f: resealed(f / "rows/index", "rows", "vocabulary", ("0" * 64,)),
                         "was coded with another vocabulary than the model's"),
    "other columns": (lambda f: resealed(f / "rows/index", "rows", "dense", (12,)), "has other columns or tables"),
    "no rows": (lambda f: resealed(f / "rows/index", "rows", "file"), "holds no row"),
    "path in index": (lambda f: resealed(f / "rows/index", "rows", "file", ("../x", 1, "0", "0", "0")),
                      "names '../x', which is no file of rows"),
    "index in index": (lambda f: resealed(f / "rows/index", "rows", "file", ("index", 1, "0", "0", "0")),
                       "names 'index', which is no file of rows"),
    "many rows in index": (lambda f: resealed(f / "rows/index", "rows", "file", ("000000.bin", 1 << 24, "0", "0", "0")),
                           "dense/000000.bin has 10556 bytes, the index says 872415232"),
    "graph elsewhere": (lambda f: resealed(f / "e/dlrm.model", "model", "graph", ("../e/dlrm.mindir",)),
                        "is no file in an exported model's folder"),
    "file elsewhere": (lambda f: resealed(f / "e/dlrm.model", "model", "file", ("/etc/passwd", 1, "0")),
                       "/etc/passwd is no file in an exported model's folder"),
    "table elsewhere": (lambda f: resealed(f / "e/dlrm.model", "model", "table", ("x/../../t", 1, "0")),
                        "is no file in an exported model's folder"),
    "graph without checksum": (other_file, "dlrm.mindir is not among the files of its description"),
    "other placement": (lambda f: resealed(f / "e/dlrm.model", "model", "placement", ("moon",)),
                        "the placement of the tables is 'moon': export the model again"),
    "ids for vectors": (as_if_in_graph, r"input 'vectors' takes values of type 43 and shape \[8, 26, 8\]"),
    "onnx": (lambda f: resealed(f / "e/dlrm.model", "model", "format", ("ONNX",)), "is ONNX, and this program takes"),
    "wrong width": (lambda f: resealed(f / "e/dlrm.model", "model", "width", (9,)), "is of another export|takes"),
    "wrong batch": (lambda f: resealed(f / "e/dlrm.model", "model", "batch_size", (9,)),
                    r"input 'dense' takes values of type 43 and shape \[8, 13\], its desc"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_refused_in_a_line(sanitized_program, exports, rows, here, name):
    shutil.copytree(exports["fp32"], here / "e")
    shutil.copytree(rows / "rows", here / "rows")
    change, message = DAMAGE[name]
    change(here)
    done = run(sanitized_program, "--model=e/dlrm.mindir", "--input=rows", "--device_type=CPU", "--output=out")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(rf"error: [^\n]*({message})[^\n]*\n", done.stderr), done.stderr
    assert not list(here.glob("out/*"))


@pytest.mark.parametrize(("arguments", "message"), [
    ([], "--model and --input are needed"),
    (["--model=e", "--input=rows", "--batch=8"], "unknown option '--batch=8'"),
    (["--model=e", "--model=e", "--input=rows"], "option --model is given twice"),
    (["--model=e", "--input=rows", "--batch_size=0"], "--batch_size is '0': it must be a whole number above 0"),
    (["--model=e", "--input=rows", "--batch_size=00"], "--batch_size is '00': it must be a whole number above 0"),
    (["--model=e", "--input=rows", "--threads=00"], "--threads is '00': it must be a whole number above 0"),
    (["--model=e", "--input=rows", "--output"], "option --output is ''"),
    (["--model=e", "--input=rows", "--batch_size=1e3"], "--batch_size is '1e3': it must be a whole number"),
    (["--model=e", "--input=rows", "--batch_size=99999999999999999999"], "at most 16777216"),
    (["--model=e", "--input=rows", "--device_type=GPU"], "--device_type is 'GPU': it must be Ascend or CPU"),
    (["--model=e", "--input=rows", "--device_type=CPU", "--device_id=1"], "--device_id has no effect"),
    (["--model=e", "--input=rows", "--threads=2"], "--threads has no effect with --device_type=Ascend"),
    (["--model=e", "--input=rows", "--batch_size=4"], "the model was exported for 8, which is fixed on Ascend"),
    (["--model=e", "--input=rows"], "device_type Ascend with device_id 0: MindSpore Lite can't load .*is there a card"),
    (["--model=nothing", "--input=rows"], "model nothing is not there"),
    (["--model=e", "--input=nothing"], "input nothing holds no index"),
    (["--model=e", "--input=rows", "--device_type=CPU", "--output=rows/index"],
     "rows/index/result_Files can't be made: Not a directory; name another --output"),
    (["--model=e", "--input=rows", "--device_type=CPU", "--output=foreign"], "holds something else than earlier"),
    (["--model=e", "--input=rows", "--device_type=CPU", "--output=timed"],
     "test_perform_static.txt can't be made: Is a directory; move away what is there, or name another --output"),
    (["--model=e", "--input=rows", "--device_type=CPU", "--output=mine"], "holds something else than earlier results"),
])  # fmt: skip
def test_wrong_options_are_refused_in_a_line(sanitized_program, exports, rows, here, arguments, message):
    os.symlink(exports["fp32"], "e")
    os.symlink(rows / "rows", "rows")
    write_raw(here / "mine/result_Files/thesis.txt", ["years"])
    write_raw(here / "foreign/result_Files/index", ["of my thesis"])
    (here / "timed/time_Result/test_perform_static.txt").mkdir(parents=True)
    done = run(sanitized_program, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(rf"error: [^\n]*{message}[^\n]*\n", done.stderr), done.stderr
    assert sorted(path.name for path in here.iterdir()) == ["e", "foreign", "mine", "rows", "timed"]
    assert [path.name for path in (here / "timed").iterdir()] == ["time_Result"]
    assert (here / "foreign/result_Files/index").read_text() == "of my thesis\n"
    assert (here / "mine/result_Files/thesis.txt").read_text() == "years\n"


def test_a_full_disk_leaves_no_results(program, exports, rows, here):
    def small_files():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    done = run(program, f"--model={exports['fp32']}", f"--input={rows}/rows", "--device_type=CPU",
               preexec_fn=small_files)  # fmt: skip
    assert done.returncode == 2
    assert re.fullmatch(
        r"error: [^\n]*000000.bin can't be written: File too large; free some space[^\n]*\n", done.stderr
    )
    assert list(here.iterdir()) == []


def test_earlier_results_stay_until_new_ones_are_whole(program, exports, rows, here):
    scored(program, exports["fp32"], rows / "rows")
    before = (here / "result_Files/000000.bin").read_bytes()
    shutil.copytree(rows / "rows", here / "rows")
    with_ids(here, put(0, 0, 999))
    assert run(program, f"--model={exports['fp32']}", "--input=rows", "--device_type=CPU").returncode == 2
    assert (here / "result_Files/000000.bin").read_bytes() == before
    scored(program, exports["int8"], rows / "rows")
    assert (here / "result_Files/000000.bin").read_bytes() != before


def test_killed_program_leaves_no_results(program, exports, here):
    """Killed when a third of the scores are written."""
    table_rows = [int(rows) for _, rows in read_facts(exports["fp32"] / "dlrm.model", "model")["field"]]
    vocabulary = read_facts(exports["fp32"] / "dlrm.model", "model")["vocabulary"][0][0]
    block = (np.zeros((1 << 16, 13), np.float32), np.zeros((1 << 16, 26), np.int32), np.zeros(1 << 16, np.uint8))
    (here / "rows").mkdir()
    RowFiles.write(here / "rows", RowSource(iter([block] * 3)), table_rows, vocabulary, True)
    command = [str(program), f"--model={exports['fp32']}", "--input=rows", "--device_type=CPU", "--batch_size=1"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as child:
        while not (here / "result_Files.writing/new/000000.bin").exists():
            assert child.poll() is None
            time.sleep(0.01)
        second = run(program, *command[1:])
        child.kill()
    assert (second.returncode, second.stdout) == (2, "")
    assert "result_Files: another run is at work there: wait for it, or name another --output" in second.stderr
    assert not (here / "result_Files").exists()
    scored(program, exports["fp32"], here / "rows")
    assert sorted(path.name for path in here.iterdir()) == ["result_Files", "rows", "time_Result"]


@pytest.mark.parametrize("killed_at", ["between", "behind"])
def test_the_next_run_tidies_up_behind_a_killed_one(sanitized_program, exports, rows, here, killed_at):
    """As it is left by one that was killed between the two renames, or behind them."""
    scored(sanitized_program, exports["fp32"], rows / "rows")
    before = (here / "result_Files/000000.bin").read_bytes()
    (here / "result_Files.writing/new").mkdir(parents=True)
    (here / "result_Files.writing/new/x").write_bytes(b"")
    if killed_at == "between":
        (here / "result_Files").rename(here / "result_Files.writing/old")
    else:
        shutil.copytree(here / "result_Files", here / "result_Files.writing/old")
    shutil.copytree(rows / "rows", here / "rows")
    with_ids(here, put(0, 0, 999))
    assert run(sanitized_program, f"--model={exports['fp32']}", "--input=rows", "--device_type=CPU").returncode == 2
    assert (here / "result_Files/000000.bin").read_bytes() == before
    assert sorted(path.name for path in here.iterdir()) == ["result_Files", "rows", "time_Result"]


def test_of_a_linked_result_folder_the_target_is_replaced(sanitized_program, exports, rows, here):
    (here / "result_Files").symlink_to("disk/scores")  # where there is nothing yet
    (here / "disk").mkdir()
    for kind in ("fp32", "int8"):
        found = scored(sanitized_program, exports[kind], rows / "rows")
        assert (here / "result_Files").is_symlink()
        assert np.array_equal(np.fromfile("disk/scores/000000.bin", "<f4"), found.astype(np.float32))
    assert [path.name for path in (here / "disk").iterdir()] == ["scores"]


def test_memory_of_a_table_behind_a_link_is_reported(program, exports, rows, here):
    os.symlink(exports["fp32"], "link")
    scored(program, "link", rows / "rows")
    size = (exports["fp32"] / "dlrm.tables").stat().st_size / 1e6
    assert 0 < times()["table_memory_mb"] < size + 0.01
    assert times()["table_memory_mb"] * 1e6 % 4096 == pytest.approx(0, abs=10)  # whole pages


def test_sanitizers_find_nothing_of_ours(sanitized_program, exports, rows, here):
    """No allocation of our own code is among the memory that is left behind, be a run good or refused."""
    leaks = ENVIRONMENT | {"ASAN_OPTIONS": "detect_leaks=1", "LSAN_OPTIONS": "exitcode=0"}
    symbols = subprocess.run(["nm", "-C", sanitized_program], capture_output=True, text=True, check=True).stdout
    assert "__asan_report_load4" in symbols
    assert "__ubsan_handle" in symbols
    for kind in exports:
        for arguments, code in ([], 0), (["--batch_size=300", "--threads=3"], 0), (["--device_id=1"], 2):
            done = run(sanitized_program, f"--model={exports[kind]}", f"--input={rows}/rows", "--device_type=CPU",
                       *arguments, environment=leaks)  # fmt: skip
            assert done.returncode == code
            assert ("scores of" in done.stdout) == (code == 0)
            assert "dlrm::" not in done.stderr
            assert "runtime error" not in done.stderr
            assert "ERROR: AddressSanitizer" not in done.stderr


def test_help_and_build_options(program):
    assert "--model=PATH" in run(program, "--help").stdout
    build = ["bash", str(ROOT / "ascend310_infer/build.sh")]
    for arguments, environment, message in (
        (["--gpu"], {}, "unknown option --gpu"),
        (["--cpu"], {"CXX": "nothing++"}, "nothing++ is missing: install it"),
        ([], {}, "LITE_HOME is not set"),
        ([], {"LITE_HOME": "/nothing"}, "LITE_HOME /nothing is not a folder"),
        ([], {"LITE_HOME": str(ROOT / "src")}, "holds no include/api/model.h"),
    ):
        done = subprocess.run([*build, *arguments], capture_output=True, text=True, env=ENVIRONMENT | environment,
                              check=False)  # fmt: skip
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert message in done.stderr


def test_simultaneous_builds_wait_for_each_other(program):
    command = ["bash", str(ROOT / "ascend310_infer/build.sh"), "--cpu"]
    builds = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(6)]
    ends = [build.communicate() for build in builds]
    assert [build.returncode for build in builds] == [0] * 6, ends
    assert {out for out, _ in ends} == {f"built {program}\n"}


def test_a_python_without_pip_is_named(here):
    """In a copy of the scripts, for the library is there already."""
    for name in ("ascend310_infer/build.sh", "scripts/common.sh"):
        (here / name).parent.mkdir()
        shutil.copyfile(ROOT / name, here / name)
    (here / "python").write_text(f'#!/bin/bash\n[ "$1" = -c ] && exec {sys.executable} "$@"\nexit 1\n')
    (here / "python").chmod(0o755)
    done = subprocess.run(["bash", "ascend310_infer/build.sh", "--cpu"], capture_output=True, text=True, check=False,
                          env=ENVIRONMENT | {"PYTHON": str(here / "python")})  # fmt: skip
    assert done.returncode == 2
    assert re.fullmatch(
        r"error: \S*python has no pip, which fetches mindspore-lite 2.0.0: set PYTHON [^\n]*\n", done.stderr
    )


@pytest.mark.parametrize("native", ["ON", "OFF"])
def test_a_portable_program_uses_no_more_than_any_processor_has(program, here, native):
    lite = ROOT / "build/mindspore_lite-2.0.0/mindspore_lite"
    subprocess.run(["cmake", "-S", ROOT / "ascend310_infer", "-B", "b", f"-DLITE_HOME={lite}", f"-DNATIVE={native}"],
                   check=True, capture_output=True)  # fmt: skip
    flags = (here / "b/CMakeFiles/main.dir/flags.make").read_text()
    assert ("-march=native" in flags) == (native == "ON")


def test_a_package_for_ascend_is_linked_with_its_three_folders(program, here):
    """Laid out as a release's package is: the folders that its documentation puts in LD_LIBRARY_PATH."""
    lite = ROOT / "build/mindspore_lite-2.0.0/mindspore_lite"
    (here / "lite/runtime/lib").mkdir(parents=True)
    os.symlink(lite / "include", here / "lite/runtime/include")
    os.symlink(lite / "lib/libmindspore-extendrt_python.so", here / "lite/runtime/lib/libmindspore-lite.so")
    subprocess.run(["cmake", "-S", ROOT / "ascend310_infer", "-B", "b", f"-DLITE_HOME={here}/lite"], check=True,
                   capture_output=True)  # fmt: skip
    line = (here / "b/CMakeFiles/main.dir/link.txt").read_text()
    for name in ("runtime/lib", "runtime/third_party/dnnl", "tools/converter/lib"):
        assert f"-Wl,-rpath,{here}/lite/{name} " in line
        assert f"-Wl,-rpath-link,{here}/lite/{name} " in line


def test_only_touched_pages_of_the_table_are_checked(program, exports, rows, here):
    """Damage in a page that no row touches is not seen, and need not be; in one that a row touches it is refused."""
    shutil.copytree(exports["fp32"], here / "e")
    table = here / "e/dlrm.tables"
    table_rows = [int(rows) for _, rows in read_facts(here / "e/dlrm.model", "model")["field"]]
    used = np.fromfile(rows / "rows/ids/000000.bin", "<i4").reshape(-1, 26)
    touched = set((((used + np.cumsum([0, *table_rows[:-1]])) * 32) // 4096).reshape(-1).tolist())
    untouched = sorted(set(range(sum(table_rows) * 32 // 4096)) - touched)
    changed(table, 4096 * (1 + untouched[0]) + 40)
    done = run(program, "--model=e", f"--input={rows}/rows", "--device_type=CPU")
    assert (done.returncode, done.stderr) == (0, "")
    changed(table, 4096 * (1 + min(touched)) + 40)
    done = run(program, "--model=e", f"--input={rows}/rows", "--device_type=CPU")
    assert done.returncode == 2
    assert f"the checksum of page {min(touched)} of its rows differs" in done.stderr


def test_metrics_of_the_program_equal_those_of_python(program, exports, rows, here):
    scored(program, exports["fp32"], rows / "rows")
    postprocess_program.main([f"--preprocess_path={rows}/rows"])
    found = metrics_of(here / "acc.log")
    labels = RowFiles.load(rows / "rows").labels()
    scores = Scorer(exports["fp32"]).score_lines((rows / "raw.txt").read_text().split("\n"), has_labels=True)
    from sklearn.metrics import roc_auc_score

    assert found["auc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-6)


def test_export_for_another_batch(program, run_folder, exports, rows, here):
    export_program.main([CPU, f"--checkpoint_path={run_folder}/checkpoint", "--table_placement=host",
                         "--export_batch_size=1500"])  # fmt: skip
    found = scored(program, "export", rows / "rows")
    assert times()["batch_size"] == 1500
    assert np.abs(found - scored(program, exports["fp32"], rows / "rows")).max() < 1e-6


def test_names_with_blanks_and_accents(program, run_folder, rows, here):
    folder = here / "mes modèles, 2"
    export_program.main([CPU, f"--checkpoint_path={run_folder}/checkpoint", f"--export_path={folder}"])
    shutil.copytree(rows / "rows", here / "mes lignes")
    found = scored(program, folder / "dlrm.mindir", here / "mes lignes")
    expected = Scorer(folder).score_lines((rows / "raw.txt").read_text().split("\n"), has_labels=True)
    assert np.abs(found - expected).max() < 1e-6
    done = chain(folder / "dlrm.mindir", rows / "raw.txt", "y")
    assert done.returncode == 0, done.stderr
