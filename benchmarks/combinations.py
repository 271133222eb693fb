"""Random combinations of options, each trained, stopped, gone on with and evaluated: `--count=200 [--seed=1]`.

    python benchmarks/combinations.py --count=200 [--seed=1] [--only=NUMBER]

A combination is drawn of towers, interaction, mixed_dims, optimizer, mlp_optimizer, weight decay, dropout,
average_share, reset_tables_each_epoch, one or two ranks, and stock or compiled operators. It trains 20 steps, and then

- again, stopped at some step and gone on with: the network must be the same to the bit;
- with the other kind of operators: losses and scores must agree to 1e-4;
- on one rank, if it is one for two: as well;
- and its checkpoint, read again, must score validation rows as the run said.

A line tells each fault, with the number that --only takes to repeat it. The last one is `combinations=N faults=N`.
"""

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from src.base.errors import InputError
from src.data.manifest import find
from src.network.options import ComputeSpec, NetworkSpec
from src.preprocessing.options import PreprocessingSpec
from src.preprocessing.run import preprocess
from src.ranks.options import ParallelSpec
from src.rows.columns import Columns
from src.synthetic import generate
from src.training.options import DataSpec, EvaluationSpec, KeptSpec, OptimizationSpec, ScheduleSpec

ROWS, BATCH, EPOCHS, STEPS = 380, 32, 2, 20
WIDTH, TOLERANCE = 8, 1e-4
RATES = {"sgd": 0.1, "adagrad": 0.02, "rowwise_adagrad": 0.02, "adam": 0.002}
IN_ONE_PROCESS = 10  # combinations, since MindSpore keeps the memory of each graph
SECONDS_A_RUN = 300


@dataclass(frozen=True)
class Combination:
    """What is trained.

    Attributes:
        network, optimization, schedule: as in src/options.py.
        mode: parallel_mode; none for one rank, else for two.
        compiled: whether by compiled operators.
        stop: the step at which it is stopped.
    """

    network: NetworkSpec
    optimization: OptimizationSpec
    schedule: ScheduleSpec
    mode: str
    compiled: bool
    stop: int

    def __str__(self) -> str:
        own = []
        for spec in (self.network, self.optimization, self.schedule):
            default = type(spec)()
            own += [f"{name}={value}" for name, value in vars(spec).items() if value != getattr(default, name)]
        return f"{', '.join(own)}, parallel_mode={self.mode}, cpu_kernels={self.compiled}, stopped at {self.stop}"


def draw(seed: int, number: int) -> Combination:
    """A combination that the options' rules allow."""
    rng = np.random.default_rng([seed, number])

    def one_of(*choices: Any) -> Any:
        return choices[rng.integers(len(choices))]

    while True:
        towers, rule, mlp_rule = one_of(1, 2, 4), one_of(*RATES), one_of("", "sgd", "adagrad", "adam")
        interaction = one_of("dot", "cat", "dcnv2")
        network: dict[str, Any] = {"dcn_layers": 2, "dcn_rank": 3} if interaction == "dcnv2" else {}
        try:
            shape = NetworkSpec(
                WIDTH, (6, WIDTH // towers), (7, 1), interaction, interaction == "dot" and one_of(True, False),
                towers=towers, mixed_dims=one_of(0.0, 0.4), **network,
            )  # fmt: skip
            optimization = OptimizationSpec(
                rule, mlp_rule, RATES[mlp_rule or rule], RATES[rule], one_of(0.0, 0.01), one_of(0.0, 0.1),
                one_of(0.0, 0.2), one_of(0.0, 0.1),
            )  # fmt: skip
            optimization.check_network(shape)
            schedule = ScheduleSpec(
                EPOCHS, one_of(True, False), one_of(0.0, 0.5), one_of(0, 3), one_of("constant", "cosine")
            )
        except InputError:
            continue
        mode = one_of("none", "none", "data", "hybrid")
        return Combination(shape, optimization, schedule, mode, one_of(True, False), int(rng.integers(2, STEPS)))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """What trainings print goes nowhere."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def train(one: Combination, data: Path, folder: Path, runtime: Any, stop: int = 0) -> Any:
    """What `src.run.train` gives; None if it was stopped at a step."""
    from mindspore.train import Callback

    from src import run

    class Stop(Callback):
        """Like Ctrl-C."""

        def on_train_step_end(self, run_context: Any) -> None:
            if run_context.original_args().cur_step_num == stop:
                raise KeyboardInterrupt

    kept = KeptSpec(
        str(folder), save_steps=3, report=False, log_steps=1, loss_file_name=str(folder / "loss.log"),
        eval_file_name=str(folder / "auc.log"), metrics_file_name=str(folder / "metrics.jsonl"),
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    with quiet(), contextlib.suppress(KeyboardInterrupt):
        return run.train(
            DataSpec(str(data), BATCH), one.network, one.optimization, one.schedule,
            EvaluationSpec(eval_steps=7, eval_batch_size=16), kept, runtime, [Stop()] if stop else [],
        )  # fmt: skip
    return None


def twice(one: Combination, data: Path, folder: Path, runtime: Any) -> Any:
    """Train without a stop, whose result this is, and with one."""
    result = train(one, data, folder / "straight", runtime)
    train(one, data, folder / "stopped", runtime, one.stop)
    train(one, data, folder / "stopped", runtime)
    return result


class Outcome:
    """What a run left: losses by step, and the network's values and scores of validation rows."""

    def __init__(self, one: Combination, data: Path, folder: Path):
        from src.checkpoints import checkpoint
        from src.dataset import batches_of
        from src.metrics.monitored import measured
        from src.training.evaluation import finite_score

        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        self.losses = {row["step"]: row["loss"] for row in rows if row["kind"] == "loss"}
        self.evaluations = {row["step"]: row["logloss"] for row in rows if row["kind"] == "eval"}
        self.best_step = next(row["best_step"] for row in rows if row["kind"] == "end")
        found = find(str(data))
        model = checkpoint.load(folder / "dlrm.ckpt", found.manifest, one.network)
        self.values = {value.name: value.asnumpy().copy() for value in model.get_parameters()}
        labels, self.scores = finite_score(model, batches_of(found, "valid", 16), 16)
        self.logloss = measured(labels, self.scores)["logloss"]

    def check_evaluation(self) -> None:
        """See that the checkpoint scores as the run said when it kept it."""
        said = self.evaluations[self.best_step]
        if not abs(self.logloss - said) <= TOLERANCE:
            raise AssertionError(f"the checkpoint's logloss is {self.logloss}, the run said {said}")

    def check_close(self, other: "Outcome", what: str) -> None:
        """See that losses are those of another run, within the tolerance, and so the scores of the last step."""
        if set(self.losses) != set(other.losses) or len(self.losses) != STEPS:
            raise AssertionError(f"{what} has other steps: {len(self.losses)} and {len(other.losses)}")
        apart = max(abs(loss - other.losses[step]) for step, loss in self.losses.items())
        apart = max([apart, *(abs(loss - other.evaluations[step]) for step, loss in self.evaluations.items())])
        if not apart <= TOLERANCE:
            raise AssertionError(f"{what} differs in losses by {apart:.2g}")

    def check_same(self, other: "Outcome", what: str) -> None:
        """See that the network is that of another run, to the bit."""
        for name, value in self.values.items():
            if value.tobytes() != other.values[name].tobytes():
                apart = np.abs(value - other.values[name]).max()
                raise AssertionError(f"{what} has other values of {name}, by {apart:.2g}")


def check(one: Combination, data: Path, folder: Path, runtime: Any) -> str:
    """What is wrong with a combination, "" for nothing; runs on two ranks have been made."""

    def on(compiled: bool) -> Any:
        return replace(runtime, compute=ComputeSpec(cpu_kernels=compiled))

    try:
        own = folder if one.mode == "none" else folder / "ranks"
        if one.mode == "none":
            twice(one, data, own, on(one.compiled))
        elif (failed := own / "failed").is_file():
            return f"on two ranks: {failed.read_text(encoding='utf-8')}"
        straight, stopped = Outcome(one, data, own / "straight"), Outcome(one, data, own / "stopped")
        stopped.check_same(straight, "going on")
        straight.check_evaluation()
        kinds = [not one.compiled] if one.mode == "none" else [one.compiled, not one.compiled]
        for compiled in kinds:
            name = "compiled" if compiled else "stock"
            alone = replace(one, mode="none")
            train(alone, data, folder / name, on(compiled))
            what = f"a run with {name} operators" + (" on one rank" if one.mode != "none" else "")
            Outcome(alone, data, folder / name).check_close(straight, what)
    except Exception as error:
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
    return ""


def _check_chunk(work: tuple[int, list[int], Path, Path]) -> list[tuple[int, str]]:
    from src.training.prepare import start

    (seed, numbers, data, folder), runtime = work, start()
    return [(number, check(draw(seed, number), data, folder / str(number), runtime)) for number in numbers]


def rank_main(seed: int, numbers: Sequence[int], data: Path, folder: Path) -> None:
    """The runs of combinations for two ranks, in one of these."""
    from src.training.prepare import start

    runtime = start(parallel=ParallelSpec("data"))
    for number in numbers:
        one, own = draw(seed, number), folder / str(number) / "ranks"
        try:
            compute, parallel = ComputeSpec(cpu_kernels=one.compiled), ParallelSpec(one.mode)
            twice(one, data, own, replace(runtime, compute=compute, parallel=parallel))
        except Exception as error:
            own.mkdir(parents=True, exist_ok=True)
            (own / "failed").write_text(f"{type(error).__name__}: {str(error).strip()[:300]}", encoding="utf-8")


def run_on_ranks(seed: int, numbers: Sequence[int], data: Path, folder: Path) -> None:
    """Start two ranks that run the combinations which are for two."""
    from src.launch import free_port

    command = [
        str(Path(sys.executable).with_name("msrun")), "--worker_num=2", "--local_worker_num=2",
        f"--master_port={free_port()}", f"--log_dir={folder / 'msrun_log'}", "--join=True", str(Path(__file__)),
        f"--seed={seed}", f"--ranks_of={','.join(map(str, numbers))}", f"--folder={folder}", f"--data={data}",
    ]  # fmt: skip
    path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"
    with (folder / "msrun.log").open("w", encoding="utf-8") as log:
        subprocess.run(command, stdout=log, stderr=log, env=os.environ | {"PATH": path}, check=False,
                       timeout=SECONDS_A_RUN * len(numbers))  # fmt: skip


def make_data(folder: Path) -> Path:
    """A small data folder with a planted signal."""
    with quiet():
        generate(folder / "train.txt", rows=ROWS, workers=1)
        chosen = PreprocessingSpec(record_rows=16, shard_rows=128)
        return preprocess([folder / "train.txt"], folder / "dataset", Columns.numbered(), chosen, False).path


def search(seed: int, numbers: Sequence[int], folder: Path) -> int:
    """Check combinations; prints a line for each fault, and gives how many there are."""
    data = make_data(folder)
    faults = 0
    for begin in range(0, len(numbers), IN_ONE_PROCESS):
        chunk = list(numbers[begin : begin + IN_ONE_PROCESS])
        if on_ranks := [number for number in chunk if draw(seed, number).mode != "none"]:
            run_on_ranks(seed, on_ranks, data, folder)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            for number, fault in pool.apply(_check_chunk, ((seed, chunk, data, folder),)):
                if fault:
                    faults += 1
                    print(f"fault: {number}: {fault} ({draw(seed, number)})", flush=True)
        print(f"{begin + len(chunk)} of {len(numbers)} combinations, {faults} faults", flush=True)
    return faults


def main(argv: Sequence[str]) -> int:
    """As the command line says; 1 if there are faults."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200, help="combinations")
    parser.add_argument("--seed", type=int, default=1, help="of the draw")
    parser.add_argument("--only", type=int, help="the number of the one combination to check")
    for name in ("--ranks_of", "--folder", "--data"):  # of the ranks that this program starts
        parser.add_argument(name, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.ranks_of:
        numbers = [int(number) for number in options.ranks_of.split(",")]
        rank_main(options.seed, numbers, Path(options.data), Path(options.folder))
        return 0
    numbers = range(options.count) if options.only is None else [options.only]
    with tempfile.TemporaryDirectory() as folder:
        faults = search(options.seed, list(numbers), Path(folder))
    print(f"combinations={len(numbers)} faults={faults}")
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
