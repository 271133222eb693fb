"""How many rows a second a rank reads, by processor time: `python benchmarks/reading.py [--ranks 1,2,8]`.

Random rows of Criteo's columns in MindRecord files of 512 rows a record, shuffled, in batches of 16,384 of which each
rank takes its part: any of the rows, and with dropout those of its places, for which it reads all records. Of the
slowest part of that, `MindDataset` alone, there is a line of its own. Times are those of the processor, both threads
together, the best of three; the last line is `rows_per_cpu_s=..`, of the largest number of ranks without dropout.
"""

import argparse
import itertools
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import mindspore.dataset as ds
import numpy as np

from benchmarks.metrics import best_of
from benchmarks.workers import make_batches, table_rows
from src.data import records
from src.dataset import RowBatches, Rows

ROWS, RECORD_ROWS, BATCH, TURNS = 1 << 19, 512, 16384, 3


def main() -> None:
    """Measure, and print a line for each number of ranks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", default="1,2,8")
    numbers = [int(number) for number in parser.parse_args().ranks.split(",")]
    sizes = table_rows(1_000_000)
    ((dense, ids, labels),) = make_batches(sizes, ROWS, "uniform", 1)
    unpack = records.unpack
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.mindrecord"
        pieces = [slice(low, low + RECORD_ROWS) for low in range(0, ROWS, RECORD_ROWS)]
        records.write(path, [records.pack(dense[one], ids[one], labels[one, 0]) for one in pieces])
        tables = [(f"C{field}", rows, False) for field, rows in enumerate(sizes)]
        rows = Rows([str(path)], ROWS, 13, 26, (ROWS,), tables, record_rows=RECORD_ROWS)

        def read_all() -> None:
            order = np.random.default_rng(1).permutation(len(pieces)).tolist()
            found = ds.MindDataset([str(path)], sampler=ds.SubsetSampler(order), columns_list=[records.COLUMN],
                                   num_parallel_workers=1)  # fmt: skip
            for _ in found.create_tuple_iterator(num_epochs=1, output_numpy=True):
                pass

        print(f"MindDataset alone: {ROWS / best_of(TURNS, read_all):,.0f} rows a second")
        for ranks, deals in itertools.product(numbers, (False, True)):
            batches = RowBatches(rows, BATCH, shuffle=True, drop_last=True, ranks=ranks)
            if deals:
                batches.deal()
            read = 0

            def epoch(batches: RowBatches = batches) -> None:
                for _ in batches:
                    pass

            def unpacked(*given: Any) -> Any:
                nonlocal read
                read += 1
                return unpack(*given)

            with mock.patch.object(records, "unpack", unpacked):
                epoch()
            found = ROWS / best_of(TURNS, epoch)
            how = f"{read / len(pieces):.0%} of the records read" + ("" if deals else ", with dropout")
            print(f"rank 0 of {ranks}: {found:,.0f} rows of all ranks a second, {how}")
    print(f"rows_per_cpu_s={found:.0f}")


if __name__ == "__main__":
    main()
