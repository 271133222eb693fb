"""Trainings at rates far too high: each ends in one line, or comes back, and its folder goes on by the line's advice.

    python benchmarks/diverging.py

All optimizers; compiled operators, stock ones, and these with float16 products under a loss scale, which train.py
refuses on a CPU; stop and back; on generated rows. A run that is stopped is started again with the rates that its line
names, until it ends well. A state that is not finite, another error, or a folder that can't be gone on from makes the
exit code 1.
"""

import argparse
import contextlib
import io
import itertools
import re
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.combinations import one_graph
from src import preprocess_data, synthetic
from src.base import events
from src.base.errors import InputError
from src.base.finite import first_not_finite
from src.checkpoints.protobuf import CheckpointFile
from src.network.options import ComputeSpec
from src.options import TrainOptions, resolve
from src.run import train
from src.training.prepare import start
from src.training.rules import RULES

RATES = (2.0, 1e3, 1e6)
KINDS = {"compiled": ComputeSpec(), "stock": ComputeSpec(cpu_kernels=False),
         "float16": ComputeSpec("float16", cpu_kernels=False)}  # fmt: skip
MOST_STARTS = 20
SIZES = ["--emb_dim=8", "--bottom_mlp=[8]", "--top_mlp=[16,1]", "--batch_size=64", "--eval_steps=9", "--save_steps=4",
         "--report=False", "--compare_linear=False"]  # fmt: skip
ADVICE = re.compile(r"at step \d+: training diverged; .*: the same command with ((--\S+=\S+ )+)(goes on|begins)([^;]*)")


class States:
    """Looks at the states in a run's folder, each file once.

    Attributes:
        fault: the first value that was found not to be finite; "" for none.
    """

    def __init__(self, folder: Path):
        self.folder, self.fault = folder, ""
        self._seen: set[tuple[int, int]] = set()

    def look(self, moment: str) -> None:
        """Look at those that are new, in the moment in which they become what a run goes on from."""
        if moment != "the progress names another state":
            return
        for path in self.folder.glob("unfinished/*-*.ckpt"):
            facts = path.stat()
            if (key := (facts.st_ino, facts.st_mtime_ns)) in self._seen:
                continue
            self._seen.add(key)
            file = CheckpointFile(path)
            name = first_not_finite({name: file.read(name) for name in file.shapes})
            if name and not self.fault:
                self.fault = f"{path.name}: {name}"


def run(data: Path, folder: Path, rate: float, compute: ComputeSpec, *options: str) -> tuple[int, str]:
    """Starts until a training ended well, 0 if it never did, and what went wrong."""
    states = States(folder / "checkpoint")
    logs = [f"--{name}={folder / name}" for name in ("loss_file_name", "eval_file_name", "metrics_file_name")]
    rates = {"--lr": f"{rate!r}"}
    argv = ["--device_target=CPU", f"--dataset_path={data}", f"--ckpt_path={folder / 'checkpoint'}", *logs, *SIZES,
            *options]  # fmt: skip
    events.listeners.append(states.look)
    try:
        for number in range(1, MOST_STARTS + 1):
            given = resolve(TrainOptions, [*argv, *(f"{name}={value}" for name, value in rates.items())])
            runtime = replace(start(), compute=compute)
            try:
                with contextlib.redirect_stdout(io.StringIO()):
                    train(given.data, given.network, given.optimization, given.schedule, given.evaluation, given.kept,
                          runtime)  # fmt: skip
                return number, states.fault
            except InputError as error:
                advised = ADVICE.search(str(error))
                if not advised:
                    return 0, str(error)
                rates |= dict(flag.split("=") for flag in advised[1].split())
                rates["--resume"] = str("--resume=False" not in advised[4])
        return 0, "it diverged at every rate"
    finally:
        events.listeners.remove(states.look)


def main() -> int:
    """Run all, print a line for each, and say how many went wrong."""
    wrong = count = 0
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        synthetic.main([f"--data_path={place}", "--rows=4000"])
        preprocess_data.main([f"--data_path={place}", "--record_rows=64", "--shard_rows=1024"])
        for optimizer, (kind, compute) in itertools.product(RULES, KINDS.items()):
            with one_graph():  # which rates and policies do not change
                for policy, rate in itertools.product(("stop", "back"), RATES):
                    options = (f"--optimizer={optimizer}", f"--on_nonfinite={policy}")
                    starts, fault = run(place / "dataset", place / str(count), rate, compute, *options)
                    count += 1
                    wrong += not starts or bool(fault)
                    print(f"{optimizer}, lr {rate:g}, {kind}, {policy}: {starts} starts {fault}", flush=True)
    print(f"{count} trainings, {wrong} went wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    sys.exit(main())
