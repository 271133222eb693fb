"""Runs of the C++ program."""

import os
import subprocess
from pathlib import Path

from src.export.scored_files import RowFiles, Scores

# MindSpore Lite leaves memory behind, which is not ours to mend.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in ("GLOG_v", "LITE_HOME")} | {
    "ASAN_OPTIONS": "detect_leaks=0"
}


def run(program, *arguments, environment=ENVIRONMENT, **more):
    return subprocess.run([str(program), *map(str, arguments)], capture_output=True, text=True, env=environment,
                          check=False, **more)  # fmt: skip


def scored(program, model, rows, *arguments):
    """The program's scores of rows, into the working folder."""
    done = run(program, f"--model={model}", f"--input={rows}", "--device_type=CPU", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return Scores.load(Path("result_Files"), RowFiles.load(rows)).values
