"""What values of 16 bits on the way between two CPU ranks cost in AUC: one epoch of generated rows, several seeds.

    python benchmarks/wire.py             300,000 rows, 3 seeds

Each seed trains with --wire_dtype=float32, bfloat16 and float16, in hybrid mode, from the same initial values and on
the same batches, so differences are those of the rounding alone.
"""

import argparse
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np

from benchmarks import results
from benchmarks.accuracy import run, trained_metrics
from src.data.manifest import find
from src.ranks.options import WIRE_DTYPES

_RANKS = 2


def main() -> None:
    """Train all, and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--lr", type=float, default=0.15)
    arguments = parser.parse_args()
    aucs: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run("src/synthetic.py", f"--data_path={folder}", f"--rows={arguments.rows}")
        run("src/preprocess_data.py", f"--data_path={folder}", f"--output_path={folder / 'dataset'}")
        data = find(str(folder / "dataset"))
        for wire in WIRE_DTYPES:
            (folder / wire).mkdir()
            more = [f"--lr={arguments.lr}", "--parallel_mode=hybrid", "--transport=ucx", f"--wire_dtype={wire}"]
            aucs[wire] = [
                {part: metrics["auc"] for part, metrics in
                 trained_metrics(folder / wire, data, seed, more, _RANKS).items()}
                for seed in range(1, arguments.seeds + 1)
            ]  # fmt: skip
    table = []
    for wire, found in aucs.items():
        row: dict[str, str | int] = {"on the wire": wire, "seeds": len(found)}
        for part in ("valid", "test"):
            own = np.array([one[part] for one in found])
            change = own - [one[part] for one in aucs["float32"]]
            row[f"{part} AUC"] = f"{own.mean():.5f}"
            row[f"{part}: change, by seed"] = " ".join(f"{one:+.5f}" for one in change)
        table.append(row)
        print(row)
    results.save("wire", table)


if __name__ == "__main__":
    main()
