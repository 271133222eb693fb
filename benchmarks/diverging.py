"""Trainings at rates far too high: each ends in one line, or comes back, and its folder goes on by the line's advice.

    python benchmarks/diverging.py

All optimizers, both kinds of operators, stop and back, on generated rows. A run that is stopped is started again with
the rate that its line names, until it ends well. A state that is not finite, another error, or a folder that can't be
gone on from makes the exit code 1.
"""

import contextlib
import io
import itertools
import re
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import mindspore as ms

import train
from src import preprocess_data, synthetic
from src.base import events
from src.base.errors import InputError
from src.base.finite import first_not_finite
from src.training.rules import RULES

RATES = (2.0, 1e3, 1e6)
MOST_STARTS = 12
SIZES = [
    "--emb_dim=8",
    "--bottom_mlp=[16,8]",
    "--top_mlp=[16,1]",
    "--batch_size=64",
    "--eval_steps=9",
    "--save_steps=4",
]
ADVICE = re.compile(r"at step \d+: training diverged; .*: the same command with --lr=(\S+) ")


def not_finite(folder: Path) -> str:
    """The first value of any state in a run's folder that is not finite; "" for none."""
    for path in folder.glob("unfinished/*-*.ckpt"):
        values = {name: value.asnumpy() for name, value in ms.load_checkpoint(str(path)).items()}
        if name := first_not_finite(values):
            return f"{path.name}: {name}"
    return ""


def run(data: Path, folder: Path, rate: float, *options: str) -> tuple[int, str]:
    """Starts until a training ended well, 0 if it never did, and what went wrong."""
    found: list[str] = []

    def check(moment: str) -> None:
        if moment == "the progress names another state":
            found.append(not_finite(folder / "checkpoint"))

    logs = [f"--{name}={folder / name}" for name in ("loss_file_name", "eval_file_name", "metrics_file_name")]
    argv = ["--device_target=CPU", f"--dataset_path={data}", f"--ckpt_path={folder / 'checkpoint'}", *logs, *SIZES,
            "--report=False", *options]  # fmt: skip
    events.listeners.append(check)
    try:
        for start in range(1, MOST_STARTS + 1):
            try:
                with contextlib.redirect_stdout(io.StringIO()):
                    train.main([*argv, f"--lr={rate!r}"])
                return start, next(filter(None, found), "")
            except InputError as error:
                advised = ADVICE.search(str(error))
                if not advised:
                    return 0, str(error)
                rate = float(advised[1])
        return 0, "it diverged at every rate"
    finally:
        events.listeners.remove(check)


def main() -> int:
    """Run all, print a line for each, and say how many went wrong."""
    wrong = 0
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        synthetic.main([f"--data_path={place}", "--rows=4000"])
        preprocess_data.main([f"--data_path={place}", "--record_rows=64", "--shard_rows=1024"])
        cases = itertools.product(RULES, ("True", "False"), ("stop", "back"), RATES)
        for number, (optimizer, kernels, policy, rate) in enumerate(cases):
            folder = place / str(number)
            options = (f"--optimizer={optimizer}", f"--cpu_kernels={kernels}", f"--on_nonfinite={policy}")
            starts, fault = run(place / "dataset", folder, rate, *options)
            wrong += not starts or bool(fault)
            print(f"{optimizer}, lr {rate:g}, kernels {kernels}, {policy}: {starts} starts {fault}", flush=True)
    print(f"{number + 1} trainings, {wrong} went wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
