"""Damaged models and rows, and wrong options, which the C++ program refuses in a line."""

import os
import re
import shutil
import zlib

import numpy as np
import pytest
from conftest import write_raw
from mindspore.train.mind_ir_pb2 import ModelProto
from program_310 import changed, put, replaced_graph, resealed, run, table_rows_of, with_ids, write_like

from src.base.sealed import read_facts


@pytest.mark.parametrize("try_number", range(5))
def test_damage_that_one_of_several_threads_finds_is_refused_in_a_line(program, exports, coded, here, try_number):
    """Of 32 blocks, three networks', one touches the damaged page; whichever takes it, nothing is published."""
    table_rows = table_rows_of(coded / "rows")
    field, number = 2, table_rows[2] // 2
    page = (sum(table_rows[:field]) + number) * 32 // 4096
    samples = 40_960
    ids = np.zeros((samples, 26), np.int32)
    starts = np.cumsum([0, *table_rows[:-1]])
    assert page not in starts * 32 // 4096
    ids[samples - 8192 + 300 * try_number, field] = number  # in the last of the requests
    write_like(coded / "rows", here / "many", [(np.zeros((samples, 13), np.float32), ids)])
    shutil.copytree(exports["fp32"], here / "e")
    changed(here / "e/dlrm.tables", 4096 * (1 + page) + 40)
    done = run(program, "--model=e", "--input=many", "--device_type=CPU", "--output=out", "--batch_size=8192",
               "--threads=4")  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(rf"error: [^\n]*the checksum of page {page} of its rows differs[^\n]*\n", done.stderr), (
        done.stderr
    )
    assert not list(here.glob("out/*"))


def cut(path, size):
    path.write_bytes(path.read_bytes()[:size])


def other_file(folder):
    data = (folder / "e/manifest.json").read_bytes()
    resealed(folder / "e/dlrm.model", "model", "file", ("manifest.json", len(data), f"{zlib.crc32(data):08x}"))


def as_if_in_graph(folder):
    resealed(folder / "e/dlrm.model", "model", "placement", ("graph",))


def other_inputs(folder):
    """A graph whose first input has another name."""
    graph = ModelProto()
    graph.ParseFromString((folder / "e/dlrm.mindir").read_bytes())
    old = graph.graph.input[0].name
    data = graph.SerializeToString().replace(old.encode(), old.replace("dense", "other").encode())
    replaced_graph(folder, data)


DAMAGE = {
    "input of another name": (other_inputs, "dlrm.mindir takes 'other', 'vectors', not 'dense': export the"),
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
    "ids for vectors": (as_if_in_graph, r"dlrm.mindir takes 'dense', 'vectors', not 'ids': export the"),
    "onnx": (lambda f: resealed(f / "e/dlrm.model", "model", "format", ("ONNX",)), "is ONNX, and this program takes"),
    "wrong width": (lambda f: resealed(f / "e/dlrm.model", "model", "width", (9,)), "is of another export|takes"),
    "wrong batch": (lambda f: resealed(f / "e/dlrm.model", "model", "batch_size", (9,)),
                    r"input 'dense' takes values of type 43 and shape \[8, 13\], its desc"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_refused_in_a_line(sanitized_program, exports, coded, here, name):
    shutil.copytree(exports["fp32"], here / "e")
    shutil.copytree(coded / "rows", here / "rows")
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
def test_wrong_options_are_refused_in_a_line(sanitized_program, exports, coded, here, arguments, message):
    os.symlink(exports["fp32"], "e")
    os.symlink(coded / "rows", "rows")
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


def test_only_touched_pages_of_the_table_are_checked(program, exports, coded, here):
    """Damage in a page that no row touches is not seen, and need not be; in one that a row touches it is refused."""
    shutil.copytree(exports["fp32"], here / "e")
    table = here / "e/dlrm.tables"
    table_rows = [int(rows) for _, rows in read_facts(here / "e/dlrm.model", "model")["field"]]
    used = np.fromfile(coded / "rows/ids/000000.bin", "<i4").reshape(-1, 26)
    touched = set((((used + np.cumsum([0, *table_rows[:-1]])) * 32) // 4096).reshape(-1).tolist())
    untouched = sorted(set(range(sum(table_rows) * 32 // 4096)) - touched)
    changed(table, 4096 * (1 + untouched[0]) + 40)
    done = run(program, "--model=e", f"--input={coded}/rows", "--device_type=CPU")
    assert (done.returncode, done.stderr) == (0, "")
    changed(table, 4096 * (1 + min(touched)) + 40)
    done = run(program, "--model=e", f"--input={coded}/rows", "--device_type=CPU")
    assert done.returncode == 2
    assert f"the checksum of page {min(touched)} of its rows differs" in done.stderr
