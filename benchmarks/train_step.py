"""This repository's training step beside PyTorch's, in turns within one run.

    pip install -r benchmarks/requirements.txt
    python benchmarks/train_step.py [--quick]

Bare steps at batch sizes 128, 1280 and 16384 over 1,000,000 and 33,762,577 rows, with uniform and with skewed ids, and
whole epochs from files: MindRecord here, memory-mapped arrays and a DataLoader there. PyTorch is the faster of its two
ways to hold the tables, for each line. The last line gives the smallest ratio of samples/s at each batch size, ours to
PyTorch's, and the share of the machine's peak in matrix products that the whole step reaches at batch size 1280.
--quick measures the small tables with uniform ids alone, and writes no result files.
"""

import argparse
import sys
import tempfile
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks import results
from benchmarks.workers import FLOP_A_SAMPLE, FULL_ROWS, SMALL_ROWS, Sgemm, Worker, table_rows

STEPS, QUICK_STEPS = {128: 120, 1280: 16, 16384: 2}, {128: 100, 1280: 12, 16384: 1}
OURS, STOCK, JOINT, BAGS = "ours", "ours_stock", "pytorch_joint", "pytorch_bags"
SEEN = {OURS: "ours", STOCK: "ours, stock operators", JOINT: "PyTorch, joint table", BAGS: "PyTorch, 26 bags"}


def _shown(last: dict[str, list[float]], unit: str) -> str:
    return ", ".join(f"{SEEN[name]} {values[-1]:.2f} {unit}" for name, values in last.items())


def bare(
    workers: dict[str, Worker], sgemm: Worker, total: int, kinds: list[str], turns: int, counts: dict[int, int]
) -> list[dict]:
    """A row of the table for each kind of ids and batch size, with tables of `total` rows.

    In each turn every worker runs as many steps as `counts` says for the batch size.
    """
    for worker in workers.values():
        worker.ask(lay_out=table_rows(total))
    table = []
    for ids, (batch, steps) in product(kinds, counts.items()):
        times: dict[str, list[float]] = {name: [] for name in workers}
        peaks = []
        for turn in range(turns + 1):  # the first one warms up
            for name, worker in workers.items():
                times[name].append(worker.ask(batch=batch, ids=ids, steps=steps)["ms"])
            ms = sgemm.ask(batch=1, ids="uniform", steps=4)["ms"]
            peaks.append(2 * Sgemm.SIZE**3 / ms / 1e6)
            print(f"{total:,} rows, {ids} ids, batch {batch}, turn {turn}: "
                  + _shown(times, "ms"), flush=True)  # fmt: skip
        turn_ms = {name: np.array(values[1:]) for name, values in times.items()}
        best = min((JOINT, BAGS), key=lambda name: np.median(turn_ms[name]))
        share = FLOP_A_SAMPLE * batch / turn_ms[OURS] / 1e6 / np.array(peaks[1:])
        table.append(
            {"rows": f"{total:,}", "ids": ids, "batch": batch,
             **{f"{SEEN[name]}, ms": f"{np.median(values):.2f}" for name, values in turn_ms.items()},
             "ratio": f"{np.median(turn_ms[best] / turn_ms[OURS]):.2f}",
             "share of sgemm peak": f"{np.median(share):.0%}"}
        )  # fmt: skip
    return table


def end_to_end(workers: dict[str, Worker], turns: int) -> list[dict]:
    """A row of the table for each batch size: epochs over 300,000 generated rows."""
    from src.data.manifest import find
    from src.dataset import RowBatches, Rows
    from src.preprocess_data import main as preprocess
    from src.synthetic import main as generate

    table = []
    with tempfile.TemporaryDirectory() as folder:
        generate([f"--data_path={folder}"])
        preprocess([f"--data_path={folder}"])
        data = find(f"{folder}/dataset")
        shards, counts = data.shards("train")
        rows = sum(counts)
        columns = next(iter(RowBatches(Rows(shards, rows, 13, 26), rows)))
        for name, column in zip(("dense", "ids", "labels"), columns):
            np.save(f"{folder}/{name}.npy", column)
        for worker in workers.values():
            worker.ask(lay_out=data.manifest.table_rows)
        for batch in STEPS:
            seconds: dict[str, list[float]] = {name: [] for name in workers}
            for turn in range(turns + 1):
                for name, worker in workers.items():
                    place = f"{folder}/dataset" if name == OURS else folder
                    seconds[name].append(worker.ask(folder=place, batch=batch)["s"])
                print(f"epoch of {rows:,} rows, batch {batch}, turn {turn}: "
                      + _shown(seconds, "s"), flush=True)  # fmt: skip
            turn_s = {name: np.array(values[1:]) for name, values in seconds.items()}
            best = min((JOINT, BAGS), key=lambda name: np.median(turn_s[name]))
            trained = rows // batch * batch
            speeds = {name: trained / np.median(values) for name, values in turn_s.items()}
            table.append(
                {"batch": batch,
                 **{f"{SEEN[name]}, samples/s": f"{speed:,.0f}" for name, speed in speeds.items()},
                 "ratio": f"{np.median(turn_s[best] / turn_s[OURS]):.2f}"}
            )  # fmt: skip
    return table


def main() -> None:
    """Measure, write the result files, and print the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    sgemm = Worker("sgemm")
    workers = {name: Worker(name) for name in ((OURS, JOINT, BAGS) if quick else (OURS, STOCK, JOINT, BAGS))}
    try:
        sgemm.ask(lay_out=table_rows(SMALL_ROWS))
        table: list[dict] = []
        if quick:
            table = bare(workers, sgemm, SMALL_ROWS, ["uniform"], 2, QUICK_STEPS)
        else:
            for total in (SMALL_ROWS, FULL_ROWS):
                table += bare(workers, sgemm, total, ["uniform", "skewed"], 5, STEPS)
            results.save("train_step", table)
            workers.pop(STOCK).close()
            results.save("end_to_end", end_to_end(workers, 2))
    finally:
        for worker in [sgemm, *workers.values()]:
            worker.close()
    ratios = {batch: min(float(row["ratio"]) for row in table if row["batch"] == batch) for batch in STEPS}
    share = min(float(row["share of sgemm peak"].rstrip("%")) for row in table if row["batch"] == 1280) / 100
    print(*(f"batch_{batch}={ratio:.2f}" for batch, ratio in ratios.items()), f"sgemm_share_1280={share:.2f}")


if __name__ == "__main__":
    main()
