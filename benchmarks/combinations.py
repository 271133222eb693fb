"""Random combinations of options, each trained, killed, gone on with and evaluated: `--count=200 [--seed=1]`.

    python benchmarks/combinations.py --count=200 [--seed=1] [--only=NUMBER] [--folder=FOLDER]

A combination is drawn of towers, interaction, mixed_dims, optimizer, mlp_optimizer, weight decay, dropout,
average_share, reset_tables_each_epoch, one or two ranks, and stock or compiled operators. It trains 20 steps, and then

- again, until its process is killed, really, behind some step or in some moment in which its files change, and gone on
  with by another process, from the last state that was whole: the network must be the same to the bit;
- on one rank with the other kind of operators: losses and scores must agree to 1e-4;
- and its checkpoint, read again, must score validation rows as the run said.

A line tells each fault, with the number that --only takes to repeat it. The last one is `combinations=N faults=N`. With
--folder what was found stays there, and the same command goes on behind it.

Compiling takes nearly all of the time. So a process, or a pair of ranks, does all that it can before it is killed: it
goes on with the combination whose process was killed before it, and trains the next one, which it is killed with. It
is forked where MindSpore is imported already, and an undisturbed training and that to be killed share a graph.
"""

import argparse
import faulthandler
import gc
import json
import multiprocessing
import multiprocessing.connection
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import mindspore as ms
import numpy as np
from mindspore.train import Callback
from tqdm import tqdm

from src import run
from src.base import events
from src.base.errors import InputError
from src.base.workers import die_with_parent
from src.checkpoints import checkpoint
from src.checkpoints.names import CHECKPOINT, UNFINISHED
from src.checkpoints.place import PROGRESS
from src.data.manifest import find
from src.dataset import batches_of
from src.metrics.monitored import measured
from src.network.options import ComputeSpec, NetworkSpec
from src.preprocessing.options import PreprocessingSpec
from src.preprocessing.run import preprocess
from src.ranks.cluster import Cluster, free_port
from src.ranks.options import ParallelSpec
from src.rows.columns import Columns
from src.synthetic import generate
from src.training.evaluation import finite_score
from src.training.options import DataSpec, EvaluationSpec, KeptSpec, OptimizationSpec, ScheduleSpec
from src.training.prepare import Runtime, start
from src.training.step import TrainStep

ROWS, BATCH, EPOCHS, STEPS = 380, 32, 2, 20
WIDTH, TOLERANCE = 8, 1e-4
RATES = {"sgd": 0.1, "adagrad": 0.02, "rowwise_adagrad": 0.02, "adam": 0.002}
SECONDS_OF_A_LIFE = 600
# Moments of src/base/events.py, and how often each comes at least in these trainings, on rank 0 of any number.
MOMENTS = {"a state is to be saved": 6, "an entry of a checkpoint is written": 30, "a state is whole": 6,
           "the progress names another state": 6, "a network is to be kept": 1, "a network is kept": 1,
           "the files are to go to their places": 1, "manifest.json is in its place": 1,
           "all files are in their places": 1}  # fmt: skip

_context = multiprocessing.get_context("forkserver")


@dataclass(frozen=True)
class Combination:
    """What is trained.

    Attributes:
        network, optimization, schedule: as in src/options.py.
        mode: parallel_mode; none for one rank, else for two.
        compiled: whether by compiled operators.
        moment, count: when it is killed: in this moment for so many times, or behind that step where there is none.
        victim: the rank that is killed.
    """

    network: NetworkSpec
    optimization: OptimizationSpec
    schedule: ScheduleSpec
    mode: str
    compiled: bool
    moment: str
    count: int
    victim: int

    @property
    def ranks(self) -> int:
        """How many."""
        return 1 if self.mode == "none" else 2

    def __str__(self) -> str:
        own = []
        for spec in (self.network, self.optimization, self.schedule):
            default = type(spec)()
            own += [f"{name}={value}" for name, value in vars(spec).items() if value != getattr(default, name)]
        when = f"in '{self.moment}' number {self.count}" if self.moment else f"behind step {self.count}"
        own += [f"parallel_mode={self.mode}", f"cpu_kernels={self.compiled}", f"rank {self.victim} killed {when}"]
        return ", ".join(own)


def draw(seed: int, number: int) -> Combination:
    """A combination that the options' rules allow."""
    rng = np.random.default_rng([seed, number])

    def one_of(*choices: Any) -> Any:
        return choices[rng.integers(len(choices))]

    while True:
        towers, rule, mlp_rule = one_of(1, 1, 1, 2, 2, 4), one_of(*RATES), one_of("", "sgd", "adagrad", "adam")
        interaction = one_of("dot", "cat", "dcnv2")
        network: dict[str, Any] = {"dcn_layers": 1, "dcn_rank": 3} if interaction == "dcnv2" else {}
        try:
            shape = NetworkSpec(
                WIDTH, (*one_of((), (), (6,)), WIDTH // towers), (7, 1), interaction,
                interaction == "dot" and one_of(True, False), towers=towers, mixed_dims=one_of(0.0, 0.4), **network,
            )  # fmt: skip
            optimization = OptimizationSpec(
                rule, mlp_rule, RATES[mlp_rule or rule], RATES[rule], one_of(0.0, 0.01), one_of(0.0, 0.1),
                one_of(0.0, 0.2), one_of(0.0, 0.1),
            )  # fmt: skip
            optimization.check_network(shape)
            schedule = ScheduleSpec(
                EPOCHS, reset_tables_each_epoch=one_of(True, False), average_share=one_of(0.0, 0.5),
                warmup_steps=one_of(0, 3), lr_schedule=one_of("constant", "cosine"),
            )  # fmt: skip
        except InputError:
            continue
        mode, compiled = one_of(*["none"] * 4, "data", "hybrid"), one_of(True, True, True, False, False)
        moment = one_of("", one_of(*MOMENTS))
        count = int(rng.integers(1, MOMENTS[moment] + 1) if moment else rng.integers(2, STEPS + 1))
        victim = 0 if moment or mode == "none" else int(rng.integers(2))
        return Combination(shape, optimization, schedule, mode, compiled, moment, count, victim)


class Killed(Callback):
    """Kills its process when a combination says so."""

    def __init__(self, one: Combination):
        super().__init__()
        self.moment, self.left = one.moment, one.count

    def on_train_step_end(self, run_context: Any) -> None:
        if not self.moment and run_context.original_args().cur_step_num == self.left:
            os.kill(os.getpid(), signal.SIGKILL)

    def __call__(self, moment: str) -> None:
        self.left -= moment == self.moment
        if self.moment and not self.left:
            os.kill(os.getpid(), signal.SIGKILL)


def train(one: Combination, data: Path, folder: Path, runtime: Runtime, callbacks: Sequence[Callback] = ()) -> None:
    """Train or go on."""
    kept = KeptSpec(
        str(folder), save_steps=3, report=False, log_steps=1, loss_file_name=str(folder / "loss.log"),
        eval_file_name=str(folder / "auc.log"), metrics_file_name=str(folder / "metrics.jsonl"), compare_linear=False,
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    run.train(
        DataSpec(str(data), BATCH), one.network, one.optimization, one.schedule,
        EvaluationSpec(eval_steps=7, eval_batch_size=BATCH), kept, runtime, callbacks,
    )  # fmt: skip


@contextmanager
def one_graph() -> Iterator[list[TrainStep]]:
    """Trainings within share the first one's step, which takes the values that the step of another one began with."""
    steps: list[TrainStep] = []

    def step_of(*arguments: Any) -> TrainStep:
        new = TrainStep(*arguments)
        if not steps:
            steps.append(new)
        taken = steps[0].row_values() | steps[0].other_values()
        for name, value in (new.row_values() | new.other_values()).items():
            taken[name].set_data(ms.Tensor(value.asnumpy().copy()))
        return steps[0]

    with mock.patch.object(run, "TrainStep", step_of):
        yield steps


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics file."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def go_on_from_state(
    one: Combination, data: Path, folder: Path, runtime: Runtime, callbacks: Sequence[Callback] = ()
) -> None:
    """Go on with a run that was killed, and see that it begins behind its last state, if it had any."""
    committed = folder / UNFINISHED / PROGRESS
    step = json.loads(committed.read_text(encoding="utf-8"))["step"] if committed.exists() else 0
    train(one, data, folder, runtime, callbacks)
    if runtime.ranks.rank:
        return
    rows = rows_of(folder)
    places = [place for place, row in enumerate(rows) if row["kind"] == "resume"]
    begun = rows[places[-1]]["step"] if places else 0
    if begun != step:
        raise AssertionError(f"going on began behind step {begun}, the last state is that of step {step}")
    own = rows[places[-1] :] if places else []
    first = next((row["step"] for row in own if row["kind"] == "loss"), step + 1)
    if first != step + 1:
        raise AssertionError(f"going on from step {step} began with step {first}")


class Outcome:
    """What a run left: losses and evaluations by step, and the parts of the network that is kept, by name."""

    def __init__(self, folder: Path):
        rows = rows_of(folder)
        self.losses = {row["step"]: row["loss"] for row in rows if row["kind"] == "loss"}
        self.evaluations = {row["step"]: row["logloss"] for row in rows if row["kind"] == "eval"}
        self.best_step = next(row["best_step"] for row in rows if row["kind"] == "end")
        self.parts = {path.name: path.read_bytes() for path in folder.glob("dlrm*.ckpt")}

    def check_close(self, other: "Outcome", what: str) -> None:
        """See that losses are those of another run, within the tolerance, and so are the evaluations."""
        if set(self.losses) != set(other.losses) or len(self.losses) != STEPS:
            raise AssertionError(f"{what} has other steps: {len(self.losses)} and {len(other.losses)}")
        if set(self.evaluations) != set(other.evaluations) or not self.evaluations:
            raise AssertionError(f"{what} has other evaluations: {len(self.evaluations)} and {len(other.evaluations)}")
        pairs = [(loss, other.losses[step]) for step, loss in self.losses.items()]
        pairs += [(loss, other.evaluations[step]) for step, loss in self.evaluations.items()]
        apart = np.abs(np.diff(np.array(pairs, float))).max()  # nan where any is none, which "max" would pass over
        if not apart <= TOLERANCE:
            raise AssertionError(f"{what} differs in losses by {apart:.2g}")

    def check_same(self, other: "Outcome", what: str) -> None:
        """See that network and losses are those of another run, to the bit."""
        if self.losses != other.losses:
            raise AssertionError(f"{what} has other losses")
        if CHECKPOINT not in self.parts:
            raise AssertionError(f"{what} has left no {CHECKPOINT}")
        names = sorted(self.parts.keys() | other.parts.keys())
        if different := [name for name in names if self.parts.get(name) != other.parts.get(name)]:
            raise AssertionError(f"{what} has other values in {', '.join(different)}")


@dataclass(frozen=True)
class Work:
    """What a process does: goes on with one combination, and trains another one until it is killed; None for neither.

    Attributes:
        seed: of the draw.
        data, folder: of the rows, and of all runs.
        killed, fresh: the numbers of the two.
    """

    seed: int
    data: Path
    folder: Path
    killed: int | None
    fresh: int | None

    def go_on(self, number: int, runtime: Runtime) -> None:
        """Go on with a combination, and compare what its runs left."""
        one, own, kinds = draw(self.seed, number), self.folder / str(number), ("stock", "compiled")
        with one_graph() as steps:
            go_on_from_state(one, self.data, own / "killed", _on(one, runtime))
        if runtime.ranks.rank:
            return
        straight, other, killed = (Outcome(own / name) for name in ("straight", "other", "killed"))
        killed.check_same(straight, "going on")
        other.check_close(straight, f"one rank with {kinds[not one.compiled]} operators")
        found, path = find(str(self.data)), own / "killed/dlrm.ckpt"
        if one.ranks == 1:  # into a network whose graph is compiled
            checkpoint.restore(model := steps[0].model, path, found.manifest.fields)
        else:
            model = checkpoint.load(path, found.manifest, one.network)
        logloss = measured(*finite_score(model, batches_of(found, "valid", BATCH), BATCH))["logloss"]
        said = straight.evaluations[straight.best_step]
        if not abs(logloss - said) <= TOLERANCE:
            raise AssertionError(f"the checkpoint's logloss is {logloss}, the run said {said}")

    def begin(self, number: int, runtime: Runtime) -> None:
        """Train a combination without a stop, also with the other kind of operators, and until this process dies."""
        one, own = draw(self.seed, number), self.folder / str(number)
        if not runtime.ranks.rank:
            other = replace(one, mode="none", compiled=not one.compiled)
            train(other, self.data, own / "other", _on(other, Runtime()))
        with one_graph():
            train(one, self.data, own / "straight", _on(one, runtime))
            kill = Killed(one)
            if runtime.ranks.rank == one.victim:
                events.listeners.append(kill)
            train(one, self.data, own / "killed", _on(one, runtime), [kill] if runtime.ranks.rank == one.victim else [])
        raise AssertionError("it was not killed")


def _on(one: Combination, runtime: Runtime) -> Runtime:
    return replace(runtime, compute=ComputeSpec(cpu_kernels=one.compiled), parallel=ParallelSpec(one.mode))


def live(work: Work, environment: dict[str, str], log: Path, is_scheduler: bool) -> None:
    """A process: a rank, or MindSpore's scheduler, by which ranks find each other."""
    os.environ |= environment
    die_with_parent()
    with log.open("wb") as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)
    faulthandler.enable(2)  # one that hangs is aborted, and its log tells where it was
    tqdm.set_lock(threading.RLock())  # else one of all processes, which nobody would clear away
    gc.freeze()  # what the import left, which MindSpore walks before each compilation
    runtime = start(parallel=ParallelSpec("data" if environment else "none"))
    if is_scheduler:
        return
    for number, act in ((work.killed, work.go_on), (work.fresh, work.begin)):
        if number is not None:
            try:
                act(number, runtime)
            except Exception as error:
                # No fault where it is that of a rank whose partner is killed, which `search` knows.
                words = (str(error).strip() or "?").splitlines()[0]
                tell(work.folder / "log", number, f"{type(error).__name__}: {words}")
                raise
            if not runtime.ranks.rank:
                tell(work.folder, number, "")
    if environment:  # a process of multiprocessing ends at once, and what is not yet sent would never be
        ms.communication.release()


def tell(folder: Path, number: int, fault: str) -> None:
    """Keep what is wrong with a combination, "" for nothing, unless something was told before."""
    path = folder / f"{number}.json"
    if not path.exists():
        new = path.with_suffix(f".{os.getpid()}")
        new.write_text(json.dumps(fault), encoding="utf-8")
        new.rename(path)


def told(folder: Path, number: int | None) -> str | None:
    """What was told; None for nothing yet."""
    path = folder / f"{number}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def run_life(work: Work, ranks: int) -> str:
    """Let the processes of some work live; "" if one was killed, else how they ended."""
    (work.folder / "log").mkdir(exist_ok=True)
    cluster, processes = Cluster(ranks, ranks, 0, "127.0.0.1", free_port()), []
    for rank in range(0 if ranks == 1 else -1, ranks):
        environment = {} if ranks == 1 else cluster.environment(rank) | {"OMP_NUM_THREADS": "1"}
        log = work.folder / f"log/{work.killed}-{work.fresh}-{rank}.log"
        processes.append(_context.Process(target=live, args=(work, environment, log, rank < 0)))
        processes[-1].start()
    own = processes[-ranks:]
    deadline = time.monotonic() + SECONDS_OF_A_LIFE
    try:
        multiprocessing.connection.wait([process.sentinel for process in own], SECONDS_OF_A_LIFE)
        while any(process.exitcode == 0 for process in own) and time.monotonic() < deadline:
            if not (left := [process.sentinel for process in own if process.exitcode is None]):
                break
            multiprocessing.connection.wait(left, 1)
        codes = [process.exitcode for process in own if process.exitcode is not None]
        if time.monotonic() >= deadline:
            for process in own:
                if process.exitcode is None:
                    os.kill(process.pid or 0, signal.SIGABRT)
                    process.join(10)
    finally:
        for process in processes:
            process.kill()
            process.join()
    if -signal.SIGKILL in codes:
        return ""
    return f"ended with exit codes {codes}" if codes else f"hung for {SECONDS_OF_A_LIFE} s"


def search(seed: int, numbers: Sequence[int], folder: Path, data: Path | None = None) -> int:
    """Check combinations that were not checked yet; prints a line for each fault, and gives how many there are."""
    data = data or make_data(folder)
    missing = [number for number in numbers if told(folder, number) is None]
    for ranks in (1, 2):
        waiting = [number for number in missing if draw(seed, number).ranks == ranks]
        killed: int | None = None
        while waiting or killed is not None:
            fresh = waiting[0] if waiting else None
            shutil.rmtree(folder / str(fresh), ignore_errors=True)  # of an earlier start
            how = run_life(Work(seed, data, folder, killed, fresh), ranks)
            if killed is not None:
                if told(folder, killed) is None:
                    tell(folder, killed, told(folder / "log", killed) or f"going on {how or 'was killed'}")
                _show(seed, folder, killed)
                if told(folder, killed):
                    killed = None  # and the fresh one gets a life of its own
                    continue
            killed = None
            if fresh is not None:
                waiting.pop(0)
                if how:
                    tell(folder, fresh, told(folder / "log", fresh) or f"its process {how}")
                    _show(seed, folder, fresh)
                else:
                    (folder / f"log/{fresh}.json").unlink(missing_ok=True)
                    killed = fresh
    return sum(bool(told(folder, number)) for number in numbers)


def _show(seed: int, folder: Path, number: int) -> None:
    if fault := told(folder, number):
        print(f"fault: {number}: {fault} ({draw(seed, number)})", flush=True)
    else:
        print(f"{number}: {draw(seed, number)}", flush=True)


def make_data(folder: Path) -> Path:
    """A small data folder with a planted signal, of some of the columns that are generated."""
    if not (folder / "dataset").exists():
        generate(folder / "train.txt", rows=ROWS, workers=1)
        chosen = PreprocessingSpec(record_rows=16, shard_rows=128)
        fields = ("C2", "C3", "C5", "C6", "C9", "C10")
        columns = Columns(("I1", "I2", "I3"), fields, order=Columns.numbered().names)
        preprocess([folder / "train.txt"], folder / "dataset", columns, chosen, False)
    return folder / "dataset"


def main(argv: Sequence[str]) -> int:
    """As the command line says; 1 if there are faults."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200, help="combinations")
    parser.add_argument("--seed", type=int, default=1, help="of the draw")
    parser.add_argument("--only", type=int, help="the number of the one combination to check")
    parser.add_argument("--folder", type=Path, help="for what is found, which a later start does not look for again")
    options = parser.parse_args(argv)
    numbers = list(range(options.count)) if options.only is None else [options.only]
    _context.set_forkserver_preload(["benchmarks.combinations"])
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that no process of a life is left
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        faults = search(options.seed, numbers, folder.resolve())
    print(f"combinations={len(numbers)} faults={faults}")
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
