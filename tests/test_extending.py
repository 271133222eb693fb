"""docs/extending.md: its code, put where it says, into a copy of the repository that then trains with it."""

import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import CPU, ORIGINAL, ROOT, SMALL, raw_lines, write_raw

PLACE = re.compile(r'(?:#|//) (\S+)(?:, (above|behind) "(.+)")?')
MOST_FILES = {"optimizer": 2, "interaction": 2, "numeric transform": 2, "metric": 2, "callback": 1}
END = "the next program"
TRAIN = [CPU, ORIGINAL, "--dataset_path=dataset", *SMALL, "--batch_size=64", "--log_steps=5", "--report=False",
         "--compare_linear=False"]  # fmt: skip

# All programs in one process, which imports MindSpore once; the output of each ends with a line of its own.
PROGRAMS = f"""
import json, runpy, sys
import eval, export
from src import preprocess_data
from src.scorer import Scorer

preprocess_data.main(["--data_path=train.txt", "--numeric_transform=signed_root"])
for argv in json.loads(sys.argv[1]):
    print("{END}", flush=True)
    sys.argv = ["train_with_callback.py", *argv]
    runpy.run_path("train_with_callback.py", run_name="__main__")
print("{END}", flush=True)
eval.main(["{CPU}", "--dataset_path=dataset", "--checkpoint_path=compiled", "--eval_batch_size=64"])
export.main(["{CPU}", "--checkpoint_path=compiled", "--mindir_version=3"])
print(Scorer("export").score_lines(open("rows.txt")))
"""


def walks():
    """The code of each walk, by the last word of its heading: (file, where, line, code), ..."""
    found = {}
    for text in (ROOT / "docs/extending.md").read_text().split("\n## ")[1:]:
        name = next(name for name in MOST_FILES if name in text.splitlines()[0])
        pieces = re.findall(r"```(?:python|cpp)\n([^\n]*)\n(.*?)```", text, re.S)
        found[name] = [(*PLACE.fullmatch(first).groups(), code) for first, code in pieces]
    return found


def put(root, file, where, line, code):
    """Write a new file, or insert the code at the one line that begins so, blanks aside."""
    path = root / file
    if where is None:
        assert not path.exists()
        path.write_text(code)
        return
    lines = path.read_text().splitlines(keepends=True)
    (place,) = [number for number, text in enumerate(lines) if text.strip().startswith(line)]
    lines.insert(place + (where == "behind"), code)
    path.write_text("".join(lines))


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """A copy of the repository with all walks' code in it, and raw rows."""
    root = tmp_path_factory.mktemp("extended")
    shutil.copytree(ROOT / "src", root / "src", ignore=shutil.ignore_patterns("__pycache__"))
    for path in [*ROOT.glob("*.py"), *ROOT.glob("*_config.yaml")]:
        shutil.copy(path, root)
    for pieces in walks().values():
        for piece in pieces:
            put(root, *piece)
    (root / "build").mkdir()
    for library in (ROOT / "build").glob("*.so"):  # whose sources no walk changes; the kernels are compiled anew
        shutil.copy(library, root / "build")
    (root / "compiler").write_text('#!/bin/sh\nexec g++ "$@" -O0\n')  # in half the time
    (root / "compiler").chmod(0o755)
    write_raw(root / "train.txt", raw_lines(1400))
    return root


def run(root, *command):
    environment = os.environ | {"CXX": str(root / "compiler")}
    done = subprocess.run([sys.executable, *command], cwd=root, capture_output=True, text=True, check=False,
                          env=environment)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_each_walk_is_short_and_changes_few_files():
    assert set(walks()) == set(MOST_FILES)
    for name, pieces in walks().items():
        assert len({file for file, *_ in pieces}) <= MOST_FILES[name], name
        for file in {file for file, *_ in pieces}:
            assert sum(len(code.splitlines()) for other, *_, code in pieces if other == file) < 30, (name, file)


def test_all_of_them_work_together(extended):
    """Raw rows by the transform; optimizer, interaction, metric, callback in training; evaluation, export, scores."""
    write_raw(extended / "rows.txt", [line.partition("\t")[2] for line in raw_lines(3)])
    trainings = {
        folder: [*TRAIN, "--interaction=fm", "--optimizer=lion", "--lr=0.003", "--monitor=precision_of_the_top",
                 f"--ckpt_path={folder}", f"--metrics_file_name={folder}.jsonl", *more]
        for folder, more in {"compiled": [], "stock": ["--cpu_kernels=False"]}.items()
    }  # fmt: skip
    _, *outputs, others = run(extended, "-c", PROGRAMS, json.dumps([*trainings.values()])).split(f"{END}\n")
    with np.load(extended / "dataset/vocabulary.npz") as arrays:
        assert str(arrays["/inputs/transform"]) == "signed_root"
    losses = {}
    for folder, out in zip(trainings, outputs):
        assert re.search(r"18 losses, the last 0\.\d+; \S+dlrm\.ckpt", out)
        assert "MindSpore's own do all" not in out
        lines = [json.loads(line) for line in (extended / f"{folder}.jsonl").read_text().splitlines()]
        losses[folder] = [line["loss"] for line in lines if line["kind"] == "loss"]
        seen = [line["precision_of_the_top"] for line in lines if line["kind"] == "eval"]
        best = next(line["best_step"] for line in lines if line["kind"] == "end")
        assert best == next(line["step"] for line in lines if line.get("precision_of_the_top") == max(seen))
    assert losses["compiled"] == pytest.approx(losses["stock"], abs=1e-3)  # a sign may fall otherwise by rounding
    assert losses["compiled"][-1] < losses["compiled"][0]
    assert re.search(r"test: 100 rows.*\n(.*\n)*exported .*\n\[0\.\d+", others)
