"""A training at Criteo's full size, 33.8 M rows of the tables: its memory, and what its saves cost.

    python benchmarks/full_size.py --folder=FOLDER [--optimizer=sgd] [--steps=48] [--batch_size=16384]

Trains some steps on random rows, with all that a run does by default: evaluations, best networks, states, the report.
Half way a state is saved that shares its file with the best network; the other ones are written in full. The disk's own
speed is measured beside it, by a file of 2 GB, before and behind. FOLDER, on the disk that is meant, needs some 20 GB
for sgd, 35 GB for adam, and is emptied again. The last line is `memory_growth_mb=.. save_s=.. saves_share=..`: the
process's largest memory in the second half and the report less that in the second quarter, when all that comes once is
done, and which has an evaluation and saves of all kinds, too; the seconds of a state written in full; and the share of
an epoch that its saves take: a state for each save_minutes of it, and a best network at each evaluation.
"""

import argparse
import multiprocessing
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks import results
from benchmarks.epoch import memory_mb
from benchmarks.workers import FULL_ROWS, make_batches, table_rows
from src.data import records
from src.data.encoder import Encoder
from src.data.manifest import VOCABULARY, Manifest
from src.data.parts import File, Part
from src.data.vocabulary import Vocabulary
from src.run import train
from src.training.options import DataSpec, EvaluationSpec, KeptSpec, OptimizationSpec
from src.training.prepare import start
from src.training.training import Training

EPOCH_ROWS = 45_840_617 * 6 // 7  # that train
EVALUATIONS = 10  # of an epoch
RECORD_ROWS, DISK_BYTES = 512, 2 << 30
KINDS = {"save_state": "state", "save_network": "network"}


def make_data(folder: Path, total: int, rows: int) -> Path:
    """A data folder of random rows of so many table rows in all, with a vocabulary that nobody looks into."""
    sizes = table_rows(total)
    dense, fields = (tuple(f"{kind}{i + 1}" for i in range(count)) for kind, count in (("I", 13), ("C", 26)))
    parts, files = {}, []
    for part, count in (("train", rows), ("valid", rows // 8), ("test", RECORD_ROWS)):
        (batch,) = make_batches(sizes, count, "uniform", 1)
        path = folder / part / "rows.mindrecord"
        path.parent.mkdir(parents=True)
        pieces = [slice(low, low + RECORD_ROWS) for low in range(0, count, RECORD_ROWS)]
        records.write(path, [records.pack(batch[0][one], batch[1][one], batch[2][one, 0]) for one in pieces])
        files += [File.of(folder, one) for one in sorted(path.parent.iterdir())]
        parts[part] = Part(count, 1, count, float(batch[2].mean()), (0.0,) * 26, (f"{part}/rows.mindrecord",), (count,))
    keys = [np.arange(1, 3, dtype=np.uint64) for _ in fields]
    Encoder(dense, Vocabulary(fields, keys)).save(folder / VOCABULARY)
    Manifest(dense, fields, sizes, parts, (File.of(folder, folder / VOCABULARY), *files), 0, {}, {}).save(folder)
    return folder


def disk_mb_s(folder: Path) -> float:
    """MB a second of writing a file, and getting it to the disk."""
    path, block = folder / "disk", np.random.default_rng(1).bytes(64 << 20)
    begin = time.perf_counter()
    with path.open("wb") as file:
        for _ in range(DISK_BYTES // len(block)):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    seconds = time.perf_counter() - begin
    path.unlink()
    return DISK_BYTES / 1e6 / seconds


class Peaks:
    """The largest memory of this process, MB, from one look to the next, by the names of these; the kernel keeps it."""

    def __init__(self) -> None:
        self.found: dict[str, float] = {}
        self._begin()

    def look(self, name: str) -> None:
        """Note the largest memory since the last look, and begin anew; nothing where it was done by this name."""
        if name not in self.found:
            status = Path("/proc/self/status").read_text(encoding="ascii")
            self.found[name] = int(status.partition("VmHWM:")[2].split()[0]) / 1024
            self._begin()

    def _begin(self) -> None:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")

    def growth(self, before: str) -> float:
        """How much larger the largest one behind a look is than what that found."""
        return max(list(self.found.values())[list(self.found).index(before) + 1 :]) - self.found[before]


class Saves:
    """Seconds and MB of each save of a run, by kind; its memory half way, MB, and the peaks.

    Peaks end in front of the first save of a state, behind the one half way, and behind that of the last step.

    Without a callback, as a run with those of a user's looks at its values more often.

    Args:
        folder: of the checkpoint.
        middle: the step behind which a state is saved half way, when all kinds of saves and an evaluation are done.
    """

    def __init__(self, folder: Path, middle: int):
        self.folder, self.middle, self.known = folder, middle, set[int]()
        self.found: list[tuple[str, float, float]] = []
        self.now, self.peaks = 0.0, Peaks()

    def timed(self, kind: str, save: Callable) -> Callable:
        """The function, whose calls are noted."""

        def call(*arguments: Any) -> None:
            if kind == "state":
                self.peaks.look("until the first state")
            begin = time.perf_counter()
            save(*arguments)
            seconds = time.perf_counter() - begin
            new = {one.st_ino: one.st_size for one in map(Path.stat, self.folder.glob("unfinished/*.ckpt"))}
            written = sum(size for inode, size in new.items() if inode not in self.known) / 1e6
            self.known = set(new)
            self.found.append((kind, seconds, written))
            if kind == "state" and arguments[1] == self.middle:
                self.now = memory_mb()
                self.peaks.look("in the second quarter")
            if kind == "state" and arguments[1] == 2 * self.middle:
                self.peaks.look("in the second half")
            print(f"{kind}: {seconds:.2f} s, {written:,.0f} MB written, memory {memory_mb():,.0f} MB", flush=True)

        return call

    def seconds(self, kind: str) -> float:
        """The longest save of a kind that wrote files."""
        return max((seconds for name, seconds, written in self.found if name == kind and written > 1), default=0.0)


def make_data_apart(folder: Path, total: int, rows: int) -> None:
    """Make it in a process of its own, whose memory is none of the training's."""
    process = multiprocessing.get_context("spawn").Process(target=make_data, args=(folder, total, rows))
    process.start()
    process.join()
    if process.exitcode:
        raise RuntimeError(f"the data folder could not be made: exit code {process.exitcode}")


def measure(folder: Path, total: int, optimizer: str, steps: int, batch_size: int) -> dict[str, Any]:
    """Train, and give what was measured."""
    data, checkpoint = folder / "dataset", folder / "checkpoint"
    make_data_apart(data, total, steps * batch_size)
    print(f"data folder made; memory {memory_mb():,.0f} MB", flush=True)
    speeds, saves = [disk_mb_s(folder)], Saves(checkpoint, steps // 2)
    kept = KeptSpec(str(checkpoint), save_steps=steps // 4, loss_file_name=str(folder / "loss.log"), log_steps=8,
                    eval_file_name=str(folder / "auc.log"), metrics_file_name=str(folder / "log.jsonl"))  # fmt: skip
    timed = {name: saves.timed(kind, getattr(Training, name)) for name, kind in KINDS.items()}
    with mock.patch.multiple(Training, **timed):
        result = train(DataSpec(str(data), batch_size), optimization=OptimizationSpec(optimizer, lr=0.01),
                       evaluation=EvaluationSpec(eval_steps=steps // 2), kept=kept, runtime=start())  # fmt: skip
    now, peaks = memory_mb(), saves.peaks
    peaks.look("in the report")
    speeds.append(disk_mb_s(folder))
    epoch_s = EPOCH_ROWS / result.samples_per_s
    state_s, network_s = saves.seconds("state"), saves.seconds("network")
    states = epoch_s / (60 * KeptSpec().save_minutes)
    return {
        "optimizer": optimizer, "batch": batch_size, "table rows": f"{total:,}",
        "MB in the middle": f"{saves.now:,.0f}", "largest until then": f"{max(list(peaks.found.values())[:2]):,.0f}",
        "MB at the end": f"{now:,.0f}", "largest of all": f"{max(peaks.found.values()):,.0f}",
        **{f"largest {name}": f"{mb:,.0f}" for name, mb in peaks.found.items()},
        "samples/s": f"{result.samples_per_s:,.0f}", "s an epoch": f"{epoch_s:,.0f}",
        "s a state": f"{state_s:.1f}", "MB": f"{max(mb for _, _, mb in saves.found):,.0f}",
        "s a best network": f"{network_s:.1f}",
        "disk, MB/s": " and ".join(f"{speed:,.0f}" for speed in speeds),
        "saves, share of an epoch": f"{(states * state_s + EVALUATIONS * network_s) / epoch_s:.1%}",
        "growth": peaks.growth("in the second quarter"),
    }  # fmt: skip


def main() -> None:
    """Measure, write the result file, and print the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--optimizer", default="sgd")
    for name, value in (("--steps", 48), ("--batch_size", 16384), ("--table_rows", FULL_ROWS)):
        parser.add_argument(name, type=int, default=value)
    options = parser.parse_args()
    folder = options.folder / "full_size"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        row = measure(folder, options.table_rows, options.optimizer, options.steps, options.batch_size)
    finally:
        shutil.rmtree(folder)
    growth = row.pop("growth")
    print("\n".join(f"{name}: {value}" for name, value in row.items()))
    if options.table_rows == FULL_ROWS:
        results.save(f"full_size_{options.optimizer}", [row])
    print(f"memory_growth_mb={growth:.0f} save_s={row['s a state']} saves_share={row['saves, share of an epoch']}")


if __name__ == "__main__":
    main()
