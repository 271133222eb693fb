"""Several ranks in real processes: trainings of theirs, one process's for comparison, and what they left.

Run as a program, by `together`, this file is a rank: it does several trainings one after the other, so that the start
of processes, which takes most of the time of a small training, is paid once.
"""

import contextlib
import dataclasses
import gc
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from mindspore import Tensor
from mindspore.train import Callback

ROOT = Path(__file__).resolve().parents[2]
ORIGINAL = f"--config_path={ROOT / 'npu_config.yaml'}"  # as in conftest, which a rank need not import
SMALL = ["--emb_dim=8", "--bottom_mlp=[32,8]", "--top_mlp=[32,1]"]
# 53 steps of 32, or 26 of 64; 143 validation rows in batches of 50, so that the last turn of two ranks has one batch,
# which is not full.
TRAINING = [ORIGINAL, *SMALL, "--eval_batch_size=50", "--eval_steps=20", "--save_steps=10",
            "--log_steps=1", "--compare_linear=False"]  # fmt: skip
RATE = ["--batch_size=32", "--lr=0.05"]
SGD = ["--batch_size=64", "--lr=0.05", "--optimizer=sgd"]
EVALUATED = ("lists-hybrid", "lists-data", "more-hybrid")  # again, from what the training has left
ENVIRONMENT = os.environ | {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}


COLLECTIVES = ("AllGather", "AllReduce", "AlltoAll", "RanksMean", "RanksLookup", "RanksGradients", "RanksAllGradients")


def merged(*options):
    """Options, of which a later one takes the place of an earlier one of its name."""
    return list({option.partition("=")[0]: option for option in options}.values())


def processes_in(folder):
    """Processes whose working folder this is."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            found += [process.name] if (process / "cwd").readlink() == folder else []
    return found


def script(*arguments, device="cpu"):
    """The command of a script that starts ranks."""
    return ["bash", str(ROOT / f"scripts/run_distribute_train_{device}.sh"), *map(str, arguments)]


def start(folder, data, ranks, *options, rate=RATE):
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(script(ranks, data.path, *merged(*TRAINING, *rate, *options)), cwd=folder, env=ENVIRONMENT,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip


def fork(folder, data, ranks, *options, rate=RATE):
    """As `start`, by processes that need not import MindSpore."""
    from forked import Launcher

    folder.mkdir(exist_ok=True)
    given = merged("--device_target=CPU", f"--dataset_path={data.path}", *TRAINING, *rate, *options)
    return Launcher(folder, [str(ranks), *given])


def single(folder, data, *options, rate=RATE):
    """One process's training, in this process."""
    import train

    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        given = merged(f"--dataset_path={data.path}", *TRAINING, *rate, *options)
        train.main(["--device_target=CPU", *given])


def alone_of(made_once, data, name, options):
    """The folder of a recipe's run by one process, made once for all tests."""
    return made_once(f"alone_{name}", lambda folder: single(folder, data, *options, rate=[]))


def together(folder, data, ranks, trainings, code=0):
    """Several trainings, one after the other, by the same ranks: options by the name of their folders.

    The launcher ends with this code; what it says of an error is in error.txt.
    """
    from forked import Launcher

    folder.mkdir(exist_ok=True)
    commands = {
        name: ["--device_target=CPU", *merged(f"--dataset_path={data.path}", *TRAINING, *options)]
        for name, options in trainings.items()
    }
    (folder / "trainings.json").write_text(json.dumps(commands))
    launcher = Launcher(folder, [str(ranks)], launch_trainings)
    _, said = launcher.communicate()
    (folder / "error.txt").write_text(said)
    assert launcher.returncode == code, said + (folder / "log0/output.log").read_text()


def launch_trainings(argv):
    """What `together` launches, in a process of its own."""
    from src.launch import Launch
    from src.ranks.cluster import cluster_of

    return Launch(cluster_of({}, int(argv[0])), [sys.executable, __file__, "trainings.json"]).wait()


def collective_of(node):
    """The operator of a node of a graph, by the function's name where it is a compiled one."""
    functions = [one.value.str_val for one in node.attribute if one.name == "func_name"]
    return functions[0].rpartition(":")[2] if functions else node.op_type


def collectives_of(cell):
    """The collective operations of a compiled cell in their order, and whether each waits for the one before it."""
    from mindspore.train import anf_ir_pb2

    graph = anf_ir_pb2.ModelProto()
    graph.ParseFromString(cell.get_func_graph_proto())
    before, found = {}, []  # the collective operations that a node waits for
    for node in graph.graph.node:
        waits = set().union(*(before.get(one.name, set()) for one in node.input))
        if (name := collective_of(node)) in COLLECTIVES:
            found.append([name, waits >= set(range(len(found)))])
            waits = waits | {len(found) - 1}
        before[node.name] = waits
    return found


class Perturb(Callback):
    """Changes all values behind a step, as sums in another order would: by a share of each."""

    def __init__(self, step, share):
        super().__init__()
        self.step, self.share = step, share

    def on_train_step_end(self, run_context):
        args = run_context.original_args()
        if args.cur_step_num == self.step:
            step, rng = args.train_network, np.random.default_rng(1)
            for name, value in (step.row_values() | step.other_values()).items():
                if name != "steps_done":
                    noise = 1 + self.share * rng.uniform(-1, 1, value.shape)
                    value.set_data(Tensor((value.asnumpy() * noise).astype(np.float32)))


def main(argv):
    """A rank of `together`."""
    from src.base.errors import InputError
    from src.options import TrainOptions, resolve
    from src.ranks.options import ParallelSpec
    from src.run import train
    from src.training.prepare import start as join
    from src.training.step import TrainStep
    from tests.graphs import share

    gc.freeze()  # as in conftest
    share()
    runtime = join(parallel=ParallelSpec("data"))
    here, call = Path.cwd(), TrainStep.__call__

    def call_and_look(step, *batch):
        loss = call(step, *batch)
        path = Path(f"collectives_{runtime.ranks.rank}.json")
        if not path.exists():
            path.write_text(json.dumps(collectives_of(step)))
        return loss

    TrainStep.__call__ = call_and_look
    for name, own_argv in json.loads(Path(argv[0]).read_text()).items():
        with contextlib.suppress(FileExistsError):
            (here / name).mkdir()
        os.chdir(here / name)
        options = resolve(TrainOptions, own_argv)
        own = dataclasses.replace(runtime, parallel=options.parallel, compute=options.compute)
        callbacks = [Perturb(5, 3e-7)] if name.startswith("perturbed") and runtime.ranks.rank else []
        try:
            train(options.data, options.network, options.optimization, options.schedule, options.evaluation,
                  options.kept, own, callbacks)  # fmt: skip
        except InputError as error:
            if not name.startswith("refused"):
                raise
            Path(f"refused_{runtime.ranks.rank}.txt").write_text(str(error))
        if name in EVALUATED and (found := evaluation_of(options, own)):
            Path("evaluated.json").write_text(json.dumps(found.metrics | found.beside))


def evaluation_of(options, runtime):
    """What a training's checkpoint in the working folder is worth on the test rows."""
    from src.data.manifest import find
    from src.training.evaluation import evaluate_checkpoint

    path, data = Path("checkpoint/dlrm.ckpt"), find(options.data.dataset_path)
    return evaluate_checkpoint(path, data, "test", options.network, runtime, options.evaluation.eval_batch_size)


def values(folder, data, **network):
    """The parameters of a run's checkpoint; the tables are one."""
    from networks import loaded

    model = loaded(folder / "checkpoint/dlrm.ckpt", data, **({"bottom_mlp": (32, 8)} | network))
    return {"tables": model.tables.table.asnumpy()} | {v.name: v.asnumpy() for v in model.mlp_parameters()}


def apart(one, other):
    """The largest difference of two sets of parameters, relative to the largest value of each."""
    return max(np.abs(one[name] - other[name]).max() / np.abs(one[name]).max() for name in one)


def evaluations(folder):
    from runs import rows_of

    return [
        {key: row[key] for key in ("step", "acc", "auc", "logloss")}
        for row in rows_of(folder / "metrics.jsonl", "eval")
    ]


def check_as_one_process(folder, data, one, **network):
    assert apart(values(one, data, **network), values(folder, data, **network)) < 1e-5
    for mine, expected in zip(evaluations(folder), evaluations(one), strict=True):
        assert mine == pytest.approx(expected, abs=1e-6)


def wait_for(condition, child):
    deadline = time.monotonic() + 120
    while not condition():
        assert child.poll() is None, child.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def step_saved(folder):
    try:
        return json.loads((folder / "checkpoint/unfinished/progress.json").read_text())["step"]
    except FileNotFoundError:
        return 0


def pid_of(folder, rank):
    """The process of a rank of a run."""
    return int((folder / f"launch_log/from_rank_0/alive/rank_{rank}.pid").read_text())


if __name__ == "__main__":
    from src.base.errors import run

    run(main)
