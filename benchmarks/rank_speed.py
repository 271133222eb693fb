"""Samples a second of several ranks on the cores that one process has, beside that process, in pairs.

`python benchmarks/parallel.py` calls this. The ranks and the process train one after the other on the same rows, again
and again, so that what else the machine does meets both.
"""

import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import results
from src.ranks.options import ucx_folder

ROOT = Path(__file__).resolve().parents[1]
BATCHES = (1280, 16384)
FIRST = "UCX" if ucx_folder() else "MindSpore"
_WAYS: dict[str, list[str]] = {"UCX": [], "UCX, bfloat16": ["--wire_dtype=bfloat16"]} if ucx_folder() else {}
_WAYS["MindSpore"] = ["--transport=mindspore"]


def samples_per_s(folder: Path, data: Path, batch: int, ranks: int, *options: str) -> float:
    """What a training of some ranks, or of one process, says of its speed; the first steps, which compile, left out."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    own = [f"--batch_size={batch}", "--do_eval=False", "--report=False", "--save_steps=1000000", "--log_steps=1000000",
           "--lr=0.01", f"--dataset_path={data}", "--device_target=CPU", results.ORIGINAL, *options]  # fmt: skip
    program = ["train.py"] if ranks == 1 else ["src/launch.py", str(ranks)]
    command = [sys.executable, str(ROOT / program[0]), *program[1:], *own]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, env=os.environ
    )  # without what MindSpore has set in this process
    found = re.search(r"steps, (\d+) samples/s", done.stdout)
    if done.returncode or not found:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr or done.stdout}")
    return float(found[1])


def compare(folder: Path, data: Path, ranks: int, quick: bool) -> list[dict[str, Any]]:
    """A row of a table for each batch and way to send: its speed beside one process's, as the median of pairs.

    Args:
        folder: for what trainings leave.
        data: the data folder.
        ranks: how many.
        quick: whether what a user gets without options is all that is measured, in fewer pairs.
    """
    ways, rounds = (dict(list(_WAYS.items())[:1]), 2) if quick else (_WAYS, 3)
    table = []
    for batch in BATCHES:
        found: dict[str, list[float]] = {name: [] for name in ("one", *ways)}
        for _ in range(rounds):
            for name, speeds in found.items():
                count = 1 if name == "one" else ranks
                options = [] if name == "one" else ["--parallel_mode=hybrid", *ways[name]]
                speeds.append(samples_per_s(folder / "speed", data, batch, count, *options))
                print(f"batch {batch}, {name}: {speeds[-1]:,.0f} samples/s", flush=True)
                time.sleep(1)  # what the last one leaves to be done
        for name in ways:
            ratios = [own / one for own, one in zip(found[name], found["one"])]
            table.append({
                "samples a step": f"{batch:,}", "ranks": ranks, "they send by": name,
                "samples/s": " ".join(f"{speed:,.0f}" for speed in found[name]),
                "one process": " ".join(f"{speed:,.0f}" for speed in found["one"]),
                "fraction": f"{statistics.median(ratios):.2f}",
                "others' load": f"{os.getloadavg()[1]:.0f}",
            })  # fmt: skip
    return table
