"""Step time and memory of every optimizer, with all of Criteo's rows in the tables beside a million: in turns.

    python benchmarks/optimizers.py

Ids are uniform, in batches that come again, so that the caches hold some of their rows. Each pair of optimizer and size
has a process of its own; the two or three of an optimizer's turn, with SGD's to compare with, run one at a time. The
last line gives the largest ratios: full size to small, and an optimizer to SGD.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks import results
from benchmarks.workers import FULL_ROWS, SMALL_ROWS, Worker, table_rows

STEPS = {128: 120, 1280: 16}
OPTIMIZERS = ("sgd", "adagrad", "rowwise_adagrad", "adam")
TURNS = 6


def measure(optimizer: str) -> list[dict]:
    """Rows of the table for an optimizer, one for each batch size."""
    cases = {("sgd", FULL_ROWS), (optimizer, SMALL_ROWS), (optimizer, FULL_ROWS)}
    workers = {case: Worker("ours") for case in sorted(cases)}
    table = []
    try:
        for (rule, total), worker in workers.items():
            worker.ask(lay_out=table_rows(total), optimizer=rule)
        for batch, steps in STEPS.items():
            times: dict[tuple[str, int], list[float]] = {case: [] for case in workers}
            for _ in range(TURNS + 1):  # the first one warms up
                for case, worker in workers.items():
                    answer = worker.ask(batch=batch, ids="uniform", steps=steps)
                    times[case].append(answer["ms"])
            turn_ms = {case: np.array(values[1:]) for case, values in times.items()}
            full, small, sgd = (turn_ms[case] for case in ((optimizer, FULL_ROWS), (optimizer, SMALL_ROWS),
                                                           ("sgd", FULL_ROWS)))  # fmt: skip
            peak_mb = workers[optimizer, FULL_ROWS].ask(batch=batch, ids="uniform", steps=1)["peak_mb"]
            table.append(
                {"optimizer": optimizer, "batch": batch,
                 "ms a step, 1,000,000 rows": f"{np.median(small):.2f}",
                 "ms a step, 33,762,577 rows": f"{np.median(full):.2f}",
                 "full size / small": f"{np.median(full / small):.2f}",
                 "beside sgd": f"{np.median(full / sgd):.2f}",
                 "peak memory at full size, MB": f"{peak_mb:.0f}"}
            )  # fmt: skip
            print(table[-1], flush=True)
    finally:
        for worker in workers.values():
            worker.close()
    return table


def main() -> None:
    """Measure all, write the result file, and print the last line."""
    table = [row for optimizer in OPTIMIZERS for row in measure(optimizer)]
    results.save("optimizers", table)
    size, rule = (max(float(row[column]) for row in table) for column in ("full size / small", "beside sgd"))
    print(f"full_to_small={size:.2f} to_sgd={rule:.2f}")


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    main()
