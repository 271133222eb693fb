"""Memory, bytes and speed of training on several CPU processes of this machine, beside one process, in one run.

    python benchmarks/parallel.py --ranks 2 --quick    1,000,000 table rows, hybrid alone; some minutes on 2 cores
    python benchmarks/parallel.py --ranks 4            33,762,577, all of Criteo's

    ... --optimizer adagrad                            the optimizer's states are all touched, as after long training

Rows are random, their ids uniform. Memory is the largest proportional set size of a rank, pages shared by processes
counted once. Every run goes through scripts/run_distribute_train_cpu.sh. Bytes are counted at the loopback interface
between two steps, headers included, so nothing else should use it (`ip netns exec NAME` gives a program its own);
UCX is told to use it too, though ranks of one machine would share memory. Speed is then measured without that, by
rank_speed.py.

The last line is `max_relative_difference=.. memory_fraction=.. speed_fraction=.. bytes_per_step=..
planned_bytes_per_step=..`: of the weights to those of one process after 50 steps (the larger of both modes), hybrid's
memory, its samples/s beside those of one process on the same cores, the least of all batch sizes, and bytes of a rank.
With Adagrad single values are far apart: its first update has the size of the rate, and rounding can switch the sign of
a gradient near 0.
"""

import argparse
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np

# MindSpore is imported by processes of its own alone: it would share its libraries' pages with those that are measured.
from benchmarks import rank_speed, results
from benchmarks.preprocess import memory_kb
from benchmarks.workers import FULL_ROWS, SMALL_ROWS, make_batches, table_rows
from src.base.npz import save_arrays
from src.data import records
from src.data.manifest import VOCABULARY, DataFolder, Manifest, find
from src.data.parts import File, Part
from src.ranks.options import ucx_folder
from src.ranks.placement import Piece, place, plan, step_bytes

STEPS, BATCH, WIDTH = 50, 256, 16
MLP_VALUES = 475_985
STATE_VALUES = {"sgd": 0, "rowwise_adagrad": 1, "adagrad": WIDTH, "adam": 2 * WIDTH}  # of a row
SPEED_STEPS = 200  # of rank_speed's smaller batch: what it trains on
_COUNTED = (5, 49)  # steps between which bytes are counted


@dataclass(frozen=True)
class Measured:
    """What a run showed; memory is the largest of its ranks."""

    memory_mb: float
    bytes_per_step: float
    samples_per_s: float


def random_data(folder: Path, rows_of_fields: tuple[int, ...], steps: int, batch: int = BATCH) -> DataFolder:
    """A data folder of random rows, enough for so many steps."""
    names = tuple(f"C{field + 1}" for field in range(len(rows_of_fields)))
    path = folder / "train" / "part-00000.mindrecord"
    path.parent.mkdir(parents=True)
    batches = make_batches(rows_of_fields, batch, "uniform", steps)
    records.write(path, [records.pack(dense, ids, labels[:, 0]) for dense, ids, labels in batches])
    save_arrays(folder / VOCABULARY, {name: np.empty(0, np.uint64) for name in names})
    files = [File.of(folder, place) for place in (folder / VOCABULARY, path, path.with_name(path.name + ".db"))]
    rows = steps * batch
    part = Part(rows, 1, rows, 0.25, (0.0,) * len(names), (files[1].name,), (rows,))
    dense_names = tuple(f"I{column + 1}" for column in range(13))
    Manifest(dense_names, names, rows_of_fields, {"train": part}, tuple(files), 0, {}, {}).save(folder)
    return find(str(folder))


def received_bytes() -> int:
    """What the loopback interface has received so far."""
    lines = Path("/proc/self/net/dev").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.strip().startswith("lo:")).split(":")[1].split()[0])


def own_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """The result of a function that runs in a process which is gone afterwards."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def rank_processes(folder: Path, alone: int) -> list[int]:
    """The processes that train: those that were started in the folder, or the one that was started alone."""
    signs = [sign.read_text(encoding="ascii") for sign in folder.glob("launch_log/*/alive/rank_*.pid")]
    return [int(sign) for sign in signs if sign] or ([] if alone == 0 else [alone])


def run(folder: Path, data: DataFolder, mode: str, ranks: int, optimizer: str, stop: bool = False) -> Measured | None:
    """Train once; the checkpoint stays in the folder. With `stop`, to the first save, where the next run goes on."""
    folder.mkdir(exist_ok=True)
    options = [f"--batch_size={BATCH}", "--do_eval=False", f"--save_steps={STEPS // 2}", "--log_steps=1", "--lr=0.01",
               f"--optimizer={optimizer}", f"--dataset_path={data.path}", "--device_target=CPU",
               results.ORIGINAL]  # fmt: skip
    command = [sys.executable, "-u", str(ROOT / "train.py"), *options]
    log = folder / "output.log"
    if mode != "none":
        command = [sys.executable, str(ROOT / "src/launch.py"), str(ranks), *options, f"--parallel_mode={mode}"]
        log = folder / "log0/output.log"
    seen: list[tuple[int, int]] = []
    peak_kb: dict[int, int] = {}
    with (folder / "output.log").open("w", encoding="utf-8") as output:
        child = subprocess.Popen(
            command, cwd=folder, stdout=output, stderr=subprocess.STDOUT, env=os.environ | {"UCX_TLS": "tcp,self"}
        )
    while child.poll() is None:
        time.sleep(0.1)
        text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
        steps = re.findall(r"step: (\d+)/", text)
        if steps and _COUNTED[0] <= int(steps[-1]) <= _COUNTED[1]:
            seen.append((int(steps[-1]), received_bytes()))
        for pid in rank_processes(folder, child.pid if mode == "none" else 0):
            peak_kb[pid] = max(peak_kb.get(pid, 0), memory_kb(pid))
        if stop and (folder / "checkpoint/unfinished/progress.json").is_file():
            child.send_signal(signal.SIGTERM)
            child.wait()
            return None
    if child.returncode:
        print(log.read_text(encoding="utf-8"), file=sys.stderr)
        raise SystemExit(f"{' '.join(command)} ended with {child.returncode}")
    speed = re.search(r"steps, (\d+) samples/s", log.read_text(encoding="utf-8"))
    bytes_per_step = 0.0
    if mode != "none":  # the slope, since a step's line and its bytes are not seen at the same moment
        bytes_per_step = float(np.polyfit(*np.array(seen, float).T, 1)[0]) / ranks
    return Measured(max(peak_kb.values()) / 1024, bytes_per_step, float(speed[1]) if speed else 0.0)


def difference(folder: Path, other: Path, data: DataFolder) -> float:
    """The largest difference of two checkpoints' values, relative to the largest value of each parameter.

    The tables are one parameter, and are read a million rows at a time.
    """
    from src.checkpoints.checkpoint import TABLE, Parts
    from src.network.embedding import joint_rows, whole_fields

    manifest = data.manifest
    one, two = (Parts(path / "checkpoint/dlrm.ckpt", manifest.fields, manifest.table_rows)
                for path in (folder, other))  # fmt: skip
    apart = largest = 0.0
    for whole in whole_fields(manifest.table_rows):
        for low in range(0, whole.rows, 1 << 20):
            piece = Piece(whole.table, low, min(whole.rows, low + (1 << 20)))
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
    parser.add_argument("--optimizer", choices=STATE_VALUES, default="sgd")
    arguments = parser.parse_args()
    ranks, optimizer = arguments.ranks, arguments.optimizer
    rows = table_rows(SMALL_ROWS if arguments.quick else FULL_ROWS)
    table, differences = [], [0.0]
    measured: dict[str, Measured] = {}
    speeds: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data = own_process(random_data, folder / "rows", rows, STEPS)
        for mode in ("none", "hybrid") if arguments.quick else ("none", "data", "hybrid"):
            if optimizer != "sgd":
                run(folder / mode, data, mode, ranks, optimizer, stop=True)
            found = measured[mode] = run(folder / mode, data, mode, ranks, optimizer)
            print(mode, found, flush=True)
            count = 1 if mode == "none" else ranks
            planned = plan(place(rows, mode, count), BATCH, WIDTH, MLP_VALUES, STATE_VALUES[optimizer], "CPU",
                           wire_bytes=4 if ucx_folder() else 0)  # fmt: skip
            if mode != "none":
                differences.append(own_process(difference, folder / "none", folder / mode, data))
            table.append({
                "mode": mode, "ranks": count, "optimizer": optimizer,
                "peak memory of a rank, MB": f"{found.memory_mb:.0f}",
                "planned, MB": f"{max(planned.memory_mb):.0f}",
                "beside one process": f"{found.memory_mb / measured['none'].memory_mb:.2f}",
                "bytes a step and rank": f"{found.bytes_per_step:,.0f}",
                "planned, bytes": f"{mean(planned.bytes_per_step):,.0f}", "samples/s": f"{found.samples_per_s:,.0f}",
            })  # fmt: skip
        if optimizer == "sgd":
            own_rows = own_process(random_data, folder / "speed_rows", rows, SPEED_STEPS, rank_speed.BATCHES[0])
            speeds = rank_speed.compare(folder, own_rows.path, ranks, arguments.quick)
            results.save(f"parallel_speed{'_quick' if arguments.quick else ''}", speeds)
    # All gradients averaged as dense ones: what data parallel sends of MLPs as large as tables and MLPs together.
    dense = step_bytes(place([0], "data", ranks), 0, WIDTH, sum(rows) * WIDTH + MLP_VALUES, "CPU")
    table.append(dict.fromkeys(table[0], "") | {
        "mode": "dense tables averaged, as in the original: computed", "ranks": ranks, "planned, bytes": f"{dense:,}",
    })  # fmt: skip
    name = "parallel_quick" if arguments.quick else "parallel" if optimizer == "sgd" else f"parallel_{optimizer}"
    results.save(name, table, max_relative_difference=max(differences))
    own = [float(row["fraction"]) for row in speeds if row["they send by"] == rank_speed.FIRST]
    speed_words = f"speed_fraction={min(own):.2f} " if own else ""
    fraction = measured["hybrid"].memory_mb / measured["none"].memory_mb
    print(
        f"max_relative_difference={max(differences):.1e} memory_fraction={fraction:.2f} {speed_words}"
        f"bytes_per_step={measured['hybrid'].bytes_per_step:.0f} "
        f"planned_bytes_per_step={mean(planned.bytes_per_step):.0f}"
    )


if __name__ == "__main__":
    main()
