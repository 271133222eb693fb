"""Memory, bytes and speed of training on several CPU processes of this machine, beside one process, in one run.

    python benchmarks/parallel.py --ranks 2 --quick    1,000,000 table rows; ends within 60 s on 2 cores
    python benchmarks/parallel.py --ranks 4            33,762,577, all of Criteo's

Rows are random, their ids uniform. Every run goes through scripts/run_distribute_train_cpu.sh. Bytes are counted at the
loopback interface between two steps, headers included, so nothing else should use it. The last line is
`max_relative_difference=.. memory_fraction=.. bytes_per_step=.. planned_bytes_per_step=..`: of the weights to those of
one process after 50 steps (the larger of both modes), and hybrid's memory and bytes of a rank.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np

from benchmarks import results
from benchmarks.workers import FULL_ROWS, SMALL_ROWS, make_batches, table_rows
from src import records
from src.checkpoint import TABLE, Parts
from src.embedding import joint_rows, whole_fields
from src.manifest import VOCABULARY, DataFolder, File, Manifest, Part, find
from src.npz import save_arrays
from src.placement import Piece, dense_all_reduce_bytes, place, step_bytes
from src.preprocess_steps import write_records

STEPS, BATCH, WIDTH = 50, 256, 16
MLP_VALUES = 475_985
_COUNTED = (5, 49)  # steps between which bytes are counted


@dataclass(frozen=True)
class Measured:
    """What a run showed; memory is the largest of its ranks."""

    memory_mb: float
    bytes_per_step: float
    samples_per_s: float


def random_data(folder: Path, rows_of_fields: tuple[int, ...], steps: int) -> DataFolder:
    """A data folder of random rows, enough for so many steps."""
    names = tuple(f"C{field + 1}" for field in range(len(rows_of_fields)))
    path = folder / "train" / "part-00000.mindrecord"
    path.parent.mkdir(parents=True)
    batches = make_batches(rows_of_fields, BATCH, "uniform", steps)
    write_records(path, [records.pack(dense, ids, labels[:, 0]) for dense, ids, labels in batches])
    save_arrays(folder / VOCABULARY, {name: np.empty(0, np.uint64) for name in names})
    files = [File.of(folder, place) for place in (folder / VOCABULARY, path, path.with_name(path.name + ".db"))]
    rows = steps * BATCH
    part = Part(rows, 1, rows, 0.25, (0.0,) * len(names), (files[1].name,), (rows,))
    dense_names = tuple(f"I{column + 1}" for column in range(13))
    Manifest(dense_names, names, rows_of_fields, {"train": part}, tuple(files), 0, {}, {}).save(folder)
    return find(str(folder))


def received_bytes() -> int:
    """What the loopback interface has received so far."""
    lines = Path("/proc/self/net/dev").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.strip().startswith("lo:")).split(":")[1].split()[0])


def run(folder: Path, data: DataFolder, mode: str, ranks: int) -> Measured:
    """Train once in a new folder; its checkpoint stays there."""
    folder.mkdir()
    options = [f"--batch_size={BATCH}", "--do_eval=False", "--save_steps=1000", "--log_steps=1", "--lr=0.01"]
    if mode == "none":
        command = ["bash", str(ROOT / "scripts/run_standalone_train_cpu.sh"), str(data.path), *options]
        log = folder / "ms_log/output.log"
    else:
        command = ["bash", str(ROOT / "scripts/run_distribute_train_cpu.sh"), str(ranks), str(data.path), *options,
                   f"--parallel_mode={mode}"]  # fmt: skip
        log = folder / "log0/output.log"
    environment = os.environ | {"PYTHON": sys.executable}
    seen: list[tuple[int, int]] = []
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL) as child:
        while child.poll() is None:
            time.sleep(0.01)
            text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
            steps = re.findall(r"step: (\d+)/", text)
            if steps and _COUNTED[0] <= int(steps[-1]) <= _COUNTED[1]:
                seen.append((int(steps[-1]), received_bytes()))
    if child.returncode:
        print(log.read_text(encoding="utf-8") if log.is_file() else "", file=sys.stderr)
        raise SystemExit(f"{' '.join(command)} ended with {child.returncode}")
    ends = [
        re.search(r"(\d+) steps, (\d+) samples/s, peak memory (\d+) MB", path.read_text(encoding="utf-8"))
        for path in ([log] if mode == "none" else sorted(folder.glob("log*/output.log")))
    ]
    found = [match for match in ends if match]
    bytes_per_step = 0.0
    if mode != "none":  # the slope, since a step's line and its bytes are not seen at the same moment
        bytes_per_step = float(np.polyfit(*np.array(seen, float).T, 1)[0]) / ranks
    memory_mb = max(int(match[3]) for match in found)
    return Measured(memory_mb, bytes_per_step, float(found[0][2]))


def difference(folder: Path, other: Path, data: DataFolder) -> float:
    """The largest difference of two checkpoints' values, relative to the largest value of each parameter.

    The tables are one parameter, and are read a million rows at a time.
    """
    manifest = data.manifest
    one, two = (Parts(path / "checkpoint/dlrm.ckpt", manifest.categorical, manifest.table_rows)
                for path in (folder, other))  # fmt: skip
    apart = largest = 0.0
    for whole in whole_fields(manifest.table_rows):
        for low in range(0, whole.rows, 1 << 20):
            piece = Piece(whole.field, low, min(whole.rows, low + (1 << 20)))
            a, b = (joint_rows([piece], WIDTH, parts.fill(TABLE)) for parts in (one, two))
            apart, largest = max(apart, float(np.abs(a - b).max())), max(largest, float(np.abs(a).max()))
    ratios = [apart / largest]
    for name, shape in one.shapes().items():
        if not name.startswith(TABLE):
            a, b = one.value(name, shape), two.value(name, shape)
            ratios.append(float(np.abs(a - b).max() / np.abs(a).max()))
    return max(ratios)


def main() -> None:
    """Measure, write the result file, and print the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    ranks, rows = arguments.ranks, SMALL_ROWS if arguments.quick else FULL_ROWS
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data = random_data(folder / "rows", table_rows(rows), STEPS)
        table, differences = [], []
        measured: dict[str, Measured] = {}
        for mode in ("none", "data", "hybrid"):
            measured[mode] = run(folder / mode, data, mode, ranks)
            print(mode, measured[mode], flush=True)
            count = 1 if mode == "none" else ranks
            planned = step_bytes(place(table_rows(rows), mode, count), BATCH, WIDTH, MLP_VALUES, on_cpu=True)
            if mode != "none":
                differences.append(difference(folder / "none", folder / mode, data))
            table.append({
                "mode": mode, "ranks": count, "peak memory of a rank, MB": f"{measured[mode].memory_mb:.0f}",
                "beside one process": f"{measured[mode].memory_mb / measured['none'].memory_mb:.2f}",
                "bytes a step and rank": f"{measured[mode].bytes_per_step:,.0f}", "planned": f"{planned:,}",
                "samples/s": f"{measured[mode].samples_per_s:,.0f}",
            })  # fmt: skip
    dense = dense_all_reduce_bytes(table_rows(rows), WIDTH, MLP_VALUES, ranks, on_cpu=True)
    table.append({"mode": "dense all-reduce, as the original (computed)", "ranks": ranks,
                  "peak memory of a rank, MB": "", "beside one process": "", "bytes a step and rank": "",
                  "planned": f"{dense:,}", "samples/s": ""})  # fmt: skip
    results.save("parallel_quick" if arguments.quick else "parallel", table, max_relative_difference=max(differences))
    fraction = measured["hybrid"].memory_mb / measured["none"].memory_mb
    print(f"max_relative_difference={max(differences):.1e} memory_fraction={fraction:.2f} "
          f"bytes_per_step={measured['hybrid'].bytes_per_step:.0f} planned_bytes_per_step={planned}")  # fmt: skip


if __name__ == "__main__":
    main()
