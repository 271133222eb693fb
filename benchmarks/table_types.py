"""What smaller table files cost in accuracy: trains one epoch on a raw text file, then `src/table_accuracy.py`.

python benchmarks/table_types.py --data FILE       a raw text file in Criteo's format
"""

import argparse
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import results
from benchmarks.accuracy import run
from src import table_accuracy


def main() -> None:
    """Train, compare, and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    raw = parser.parse_args().data
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run("src/preprocess_data.py", f"--data_path={raw}", f"--output_path={folder / 'dataset'}")
        logs = [f"--{log}_file_name={folder / log}" for log in ("loss", "eval", "metrics")]
        run("train.py", "--device_target=CPU", results.ORIGINAL, f"--dataset_path={folder / 'dataset'}",
            f"--ckpt_path={folder / 'run'}", *logs)  # fmt: skip
        found = table_accuracy.evaluate(["--device_target=CPU", f"--dataset_path={folder / 'dataset/test'}",
                                         f"--checkpoint_path={folder / 'run'}"])  # fmt: skip
    table = table_accuracy.table_of(found)
    results.save("table_types", table)
    print("\n".join(str(row) for row in table))


if __name__ == "__main__":
    main()
