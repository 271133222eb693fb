"""Step time and memory with all of Criteo's rows in the tables beside those with a million: one run, in turns.

    python benchmarks/table_size.py [--batch_size 128] [--steps 400]

The last line is `ratio=<large / small, median of the turns> peak_mb=<of the process>`. Ids are uniform, the hardest
case for caches.
"""

import argparse
import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from mindspore import Tensor

from benchmarks import results
from src.dlrm import DLRM
from src.embedding import EmbeddingTables, initial_rows
from src.model_utils.device_target import set_device
from src.train_step import TrainStep

# Rows of each field of the full data set, 33,762,577 in all.
CRITEO_ROWS = (1460, 583, 10131227, 2202608, 305, 24, 12517, 633, 3, 93145, 5683, 8351593, 3194, 27, 14992, 5461306, 10,
               5652, 2173, 4, 7046547, 18, 15, 286181, 105, 142572)  # fmt: skip
_BATCHES = 32
_TURNS = 8


def scaled(total: int) -> tuple[int, ...]:
    """Criteo's fields shrunk alike to `total` rows in all, none below one."""
    rows = [max(1, round(size * total / sum(CRITEO_ROWS))) for size in CRITEO_ROWS]
    rows[2] += total - sum(rows)
    return tuple(rows)


class Candidate:
    """A training step over tables of a size, with its batches."""

    def __init__(self, table_rows: tuple[int, ...], batch_size: int):
        rng = np.random.default_rng(1)
        self.rows = sum(table_rows)
        tables = EmbeddingTables(table_rows, initial_rows(table_rows, 16, 1))
        self.step = TrainStep(DLRM(13, tables), 0.1)
        self.batches = [
            (Tensor(rng.random((batch_size, 13), dtype=np.float32)),
             Tensor(np.stack([rng.integers(0, rows, batch_size) for rows in table_rows], 1).astype(np.int32)),
             Tensor((rng.random((batch_size, 1)) < 0.25).astype(np.float32)))
            for _ in range(_BATCHES)
        ]  # fmt: skip
        self.ms_per_step: list[float] = []
        self.step(*self.batches[0]).asnumpy()

    def turn(self, steps: int) -> None:
        """Time some steps."""
        begin = time.perf_counter()
        for index in range(steps):
            loss = self.step(*self.batches[index % _BATCHES])
        loss.asnumpy()
        self.ms_per_step.append((time.perf_counter() - begin) / steps * 1e3)


def main() -> None:
    """Time both sizes and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=400)
    arguments = parser.parse_args()
    set_device("CPU", 0)
    small, large = (Candidate(rows, arguments.batch_size) for rows in (scaled(1_000_000), CRITEO_ROWS))
    for _ in range(_TURNS + 1):
        for candidate in (small, large):
            candidate.turn(arguments.steps // _TURNS)
    ratios = [b / a for a, b in zip(small.ms_per_step[1:], large.ms_per_step[1:])]  # the first turn warms up
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    table = [
        {"rows in the tables": f"{candidate.rows:,}", "batch": arguments.batch_size,
         "ms a step": f"{np.median(candidate.ms_per_step[1:]):.2f}",
         "beside 1,000,000 rows": f"{np.median(ratios) if candidate is large else 1:.2f}",
         "peak memory of the process, MB": f"{peak_mb:.0f}" if candidate is large else "(the same process)"}
        for candidate in (small, large)
    ]  # fmt: skip
    results.save("table_size", table, ratios=ratios)
    print(f"ratio={np.median(ratios):.3f} peak_mb={peak_mb:.0f}")


if __name__ == "__main__":
    main()
