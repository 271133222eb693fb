"""What an epoch of training takes beyond its steps, and whether memory grows in long runs.

    python benchmarks/epoch.py [--data FILE]     300,000 generated rows, or a raw text file in Criteo's format
    python benchmarks/epoch.py --steps 50000     epochs, one after the other

The first form times, in turns, the bare steps over batches that lie in memory, and an epoch by Model.train from
MindRecord with the callback that logs losses, at batch size 128. Its last line is `epoch_to_steps=..`. The second one
prints the memory of the process on the way; its last line is `growth_mb=..`, from a tenth of the steps to the end.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks import results
from benchmarks.workers import Ours
from src.data.manifest import DataFolder, find
from src.preprocess_data import main as preprocess
from src.synthetic import main as generate

BATCH = 128


def epoch_beside_steps(data: DataFolder, turns: int = 9) -> float:
    """The median of the turns' ratios; writes the result file."""
    from mindspore import Tensor

    from src.dataset import batches_of

    ours = Ours(kernels=True)
    ours.lay_out(data.manifest.table_rows)
    held = [tuple(map(Tensor, batch)) for batch in batches_of(data, "train", BATCH, shuffle=True, drop_last=True)]
    steps_s, epoch_s = [], []
    for turn in range(turns + 1):  # the first one warms up
        begin = time.perf_counter()
        for batch in held:
            loss = ours.run(*batch)
        float(loss)
        steps_s.append(time.perf_counter() - begin)
        epoch_s.append(ours.epoch_s(str(data.path), BATCH))
        print(f"turn {turn}: steps {steps_s[-1]:.2f} s, epoch {epoch_s[-1]:.2f} s", flush=True)
    ratio = float(np.median(np.array(epoch_s[1:]) / np.array(steps_s[1:])))
    row = {"training rows": f"{len(held) * BATCH:,}", "batch": BATCH,
           "ms a bare step": f"{np.median(steps_s[1:]) / len(held) * 1e3:.2f}",
           "ms a step of an epoch": f"{np.median(epoch_s[1:]) / len(held) * 1e3:.2f}",
           "epoch / bare steps": f"{ratio:.2f}"}  # fmt: skip
    results.save("epoch", [row])
    return ratio


def memory_mb() -> float:
    """Memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096 / 2**20


def growth_mb(data: DataFolder, steps: int) -> float:
    """Memory after so many steps, less what it was after a tenth of them; writes the result file."""
    ours = Ours(kernels=True)
    ours.lay_out(data.manifest.table_rows)
    rows = data.manifest.parts["train"].rows
    epochs = -(-steps // (rows // BATCH))
    seen = []
    for epoch in range(epochs):
        ours.epoch_s(str(data.path), BATCH)
        seen.append(memory_mb())
        print(f"{(epoch + 1) * (rows // BATCH):,} steps: {seen[-1]:.0f} MB", flush=True)
    early = seen[max(0, epochs // 10 - 1)]
    table = [{"steps": f"{epochs * (rows // BATCH):,}", "MB after a tenth of them": f"{early:.0f}",
              "MB at the end": f"{seen[-1]:.0f}"}]  # fmt: skip
    results.save("long_run", table)
    return seen[-1] - early


def main() -> None:
    """Measure, write the result file, and print the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--steps", type=int)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if not arguments.data:
            generate([f"--data_path={folder}"])
        preprocess([f"--data_path={arguments.data or folder}", f"--output_path={folder}/dataset"])
        data = find(f"{folder}/dataset")
        if arguments.steps:
            print(f"growth_mb={growth_mb(data, arguments.steps):.0f}")
        else:
            print(f"epoch_to_steps={epoch_beside_steps(data):.2f}")


if __name__ == "__main__":
    main()
