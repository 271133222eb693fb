"""Runs of the C++ program, what it read and left, and ways to change that."""

import os
import shutil
import subprocess
import zlib
from pathlib import Path

import numpy as np
from runs import METRIC_LINE

from src.base.sealed import read_facts, write_facts
from src.export.scored_files import INDEX, RowFiles, RowSource, Scores

# MindSpore Lite leaves memory behind, which is not ours to mend. Where memory was taken is told in few words: to look
# for each caller takes a tenth of the time.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in ("GLOG_v", "LITE_HOME")} | {
    "ASAN_OPTIONS": "detect_leaks=0:malloc_context_size=1"
}


def run(program, *arguments, environment=ENVIRONMENT, **more):
    return subprocess.run([str(program), *map(str, arguments)], capture_output=True, text=True, env=environment,
                          check=False, **more)  # fmt: skip


def scored(program, model, rows, *arguments):
    """The program's scores of rows, into the working folder."""
    done = run(program, f"--model={model}", f"--input={rows}", "--device_type=CPU", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return scores_in(Path(), rows)


def scores_in(folder, rows):
    """The scores that the program left in a folder."""
    return Scores.load(folder / "result_Files", RowFiles.load(rows)).values


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
    line = METRIC_LINE.fullmatch(path.read_text().splitlines()[-1].partition("; model ")[0])
    return {name: float(value) for name, value in line.groupdict().items()}


def times(folder=Path()):
    text = (folder / "time_Result/test_perform_static.txt").read_text()
    return {name: float(value) for name, value in (line.split(": ") for line in text.splitlines())}


def changed(path, place, flip=1):
    data = bytearray(path.read_bytes())
    data[place] ^= flip
    path.write_bytes(data)


def with_ids(folder, change):
    """Rows whose ids were changed, with checksums that are right."""
    dense, ids = bins_of(folder / "rows")
    change(ids)
    (folder / "rows").rename(folder / "before")
    write_like(folder / "before", folder / "rows", [(dense, ids)])
    shutil.rmtree(folder / "before")


def put(row, field, value):
    """A change for `with_ids`."""

    def change(ids):
        ids[row, field] = value

    return change


def replaced_graph(folder, data):
    """A graph that is not what it was, described as if it were."""
    (folder / "e/dlrm.mindir").write_bytes(data)
    resealed(folder / "e/dlrm.model", "model", "file", ("dlrm.mindir", len(data), f"{zlib.crc32(data):08x}"))


def resealed(path, kind, key, *values):
    """A file of facts with other values of a key, and a checksum that is right."""
    facts = read_facts(path, kind) | {key: list(values)}
    write_facts(path, kind, [(name, *line) for name, lines in facts.items() for line in lines])
