"""Processes that train in turns, one at a time, so that all see the same machine: `python benchmarks/workers.py KIND`.

A worker reads a JSON object a line: rows of the tables to lay out, or a batch size, kind of ids and number of steps to
run, and answers with one: milliseconds a step, and its own peak memory. While others run it is stopped by SIGSTOP,
since the threads of both frameworks go on spinning for a while after their work.
"""

import argparse
import functools
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

# MindSpore is imported by its own workers alone: its import limits PyTorch to one thread.

# Rows of each field of the full data set, 33,762,577 in all.
CRITEO_ROWS = (1460, 583, 10131227, 2202608, 305, 24, 12517, 633, 3, 93145, 5683, 8351593, 3194, 27, 14992, 5461306, 10,
               5652, 2173, 4, 7046547, 18, 15, 286181, 105, 142572)  # fmt: skip
FULL_ROWS = sum(CRITEO_ROWS)
SMALL_ROWS = 1_000_000
# 2 operations for each weight and sample in the forward pass and twice that in the backward pass, which leaves out
# the gradient of the first layer's input; the products of pairs of vectors once and twice in the same way.
_LAYERS = ((13, 512), (512, 256), (256, 64), (64, 16), (367, 512), (512, 256), (256, 1))
FLOP_A_SAMPLE = 2 * (3 * sum(a * b for a, b in _LAYERS) - 13 * 512) + 3 * 2 * 16 * 351
KINDS = ("ours", "ours_stock", "pytorch_joint", "pytorch_bags", "sgemm", "eager", "script", "compiled")


def table_rows(total: int) -> tuple[int, ...]:
    """Rows of each field, `total` in all: Criteo's shrunk alike, none below one."""
    rows = [max(1, round(size * total / FULL_ROWS)) for size in CRITEO_ROWS]
    rows[2] += total - sum(rows)
    return tuple(rows)


def make_batches(table_rows: Sequence[int], batch_size: int, ids: str, count: int) -> list[tuple[np.ndarray, ...]]:
    """Batches of random rows; ids "uniform", or "skewed": rank by rank less frequent, as 1 / rank (Zipf's law)."""
    rng = np.random.default_rng(1)
    batches = []
    for _ in range(count):
        if ids == "uniform":
            columns = [rng.integers(0, rows, batch_size) for rows in table_rows]
        else:
            columns = [(rows ** rng.random(batch_size)).astype(np.int64) - 1 for rows in table_rows]
        batches.append((rng.random((batch_size, 13), dtype=np.float32), np.stack(columns, 1).astype(np.int32),
                        (rng.random((batch_size, 1)) < 0.25).astype(np.float32)))  # fmt: skip
    return batches


class Ours:
    """This repository's step; `kernels` says whether with its compiled operators."""

    def __init__(self, kernels: bool):
        from src.model_utils.device_target import set_device
        from src.network.compiled import operators_for

        set_device("CPU", 0)
        self.operators = operators_for("CPU", kernels)

    def lay_out(self, rows: Sequence[int], optimizer: str = "sgd") -> None:
        """Tables of so many rows, and a step over them."""
        from src.dlrm import DLRM
        from src.network.embedding import EmbeddingTables, initial_rows
        from src.network.options import NetworkSpec
        from src.training.options import OptimizationSpec
        from src.training.step import TrainStep

        self.model = DLRM(13, EmbeddingTables(rows, initial_rows(rows, 16, 1), self.operators), NetworkSpec())
        self.step = TrainStep(self.model, OptimizationSpec(optimizer, lr=0.01))

    def batch(self, *columns: np.ndarray) -> tuple:
        """Tensors of a batch."""
        from mindspore import Tensor

        return tuple(map(Tensor, columns))

    def run(self, *batch: Any) -> Any:
        """A step; gives the loss."""
        return self.step(*batch)

    def epoch_s(self, folder: str, batch_size: int) -> float:
        """Seconds of an epoch from MindRecord, by Model.train with the callback of train.py that logs the loss."""
        from mindspore.train import Model

        from src.base.logs import MetricsFile
        from src.callback import LossCallBack, TrainingClock
        from src.data.manifest import find
        from src.dataset import TrainingDataset, batches_of

        data = find(folder)
        batches = batches_of(data, "train", batch_size, shuffle=True, drop_last=True, seed=1)
        log = LossCallBack(os.devnull, MetricsFile(os.devnull, "benchmark"), 100, batch_size, TrainingClock())
        begin = time.perf_counter()
        Model(self.step).train(1, TrainingDataset(batches), callbacks=[log], dataset_sink_mode=False)
        return time.perf_counter() - begin


class PyTorch:
    """The PyTorch network; `joint` says how it holds its tables."""

    def __init__(self, joint: bool):
        self.joint = joint

    def lay_out(self, rows: Sequence[int]) -> None:
        """Tables of so many rows."""
        from benchmarks.pytorch_dlrm import Trainer

        self.trainer = Trainer(rows, self.joint)
        self.batch, self.run = self.trainer.batch, self.trainer.step

    def epoch_s(self, folder: str, batch_size: int) -> float:
        """Seconds of an epoch from memory-mapped arrays by PyTorch's DataLoader."""
        from benchmarks.pytorch_dlrm import epoch

        begin = time.perf_counter()
        for _ in epoch(self.trainer, Path(folder), batch_size):
            pass
        return time.perf_counter() - begin


class PyTorchScores:
    """PyTorch's network that gives probabilities, as it stands, as frozen TorchScript, or by torch.compile."""

    def __init__(self, form: str):
        self.form = form

    def lay_out(self, rows: Sequence[int], threads: int) -> None:
        """Tables of so many rows, and how many threads work."""
        import torch

        from benchmarks.pytorch_dlrm import DLRM

        torch.set_num_threads(threads)
        torch.manual_seed(1)
        self.model = DLRM(rows, True).eval()
        self.compiled = torch.compile(self.model, dynamic=False) if self.form == "compiled" else None
        self.scripts: dict[int, Any] = {}

    def batch(self, dense: np.ndarray, ids: np.ndarray, _: np.ndarray) -> tuple:
        """Tensors of a batch."""
        import torch

        return torch.from_numpy(dense), torch.from_numpy(ids.astype(np.int64))

    def run(self, *batch: Any) -> Any:
        """The scores of a batch; gives one of them."""
        import torch

        with torch.inference_mode():
            if self.form == "script" and len(batch[0]) not in self.scripts:
                self.scripts[len(batch[0])] = torch.jit.freeze(torch.jit.trace(self.model, batch))
            function = self.scripts.get(len(batch[0]), self.model) if self.compiled is None else self.compiled
            return torch.sigmoid(function(*batch))[0, 0]


class Sgemm:
    """A product of two square matrices in float32, large enough to run at the machine's peak."""

    SIZE = 2048

    def lay_out(self, rows: Sequence[int]) -> None:
        """Two matrices."""
        import torch

        self.factors = torch.rand(self.SIZE, self.SIZE), torch.rand(self.SIZE, self.SIZE)

    def batch(self, *columns: np.ndarray) -> tuple:
        """Nothing: the matrices are always the same."""
        return ()

    def run(self) -> Any:
        """A product; gives one value of it."""
        left, right = self.factors
        return (left @ right)[0, 0]


def _serve(kind: str) -> None:
    """Answer the commands on standard input."""
    makers: dict[str, Any] = {
        "ours": lambda: Ours(True), "ours_stock": lambda: Ours(False), "pytorch_joint": lambda: PyTorch(True),
        "pytorch_bags": lambda: PyTorch(False), "sgemm": Sgemm,
        **{form: functools.partial(PyTorchScores, form) for form in ("eager", "script", "compiled")},
    }  # fmt: skip
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever the frameworks print is no answer
    worker = makers[kind]()
    made: dict[tuple, list] = {}
    rows: list[int] = []
    for line in sys.stdin:
        command = json.loads(line)
        answer: dict[str, Any] = {}
        if "lay_out" in command:
            rows = command.pop("lay_out")
            made.clear()
            worker.lay_out(rows, **command)
        elif "folder" in command:
            answer["s"] = worker.epoch_s(command["folder"], command["batch"])
        else:
            key = command["batch"], command["ids"]
            if key not in made:
                count = max(4, min(32, 40_000 // command["batch"]))
                made[key] = [worker.batch(*batch) for batch in make_batches(rows, *key, count)]
                worker.run(*made[key][0])  # compiles
            batches = made[key]
            worker.run(*batches[-1])  # wakes the threads
            times, begin = [], time.perf_counter()
            for index in range(command["steps"]):
                result = worker.run(*batches[index % len(batches)])
                times.append(time.perf_counter())
            float(result)  # MindSpore may still be at work until then
            answer["ms"] = (time.perf_counter() - begin) / command["steps"] * 1e3
            # The least that half of all are not above, as the C++ program has it.
            answer["p50_ms"] = float(np.quantile(np.diff(times, prepend=begin), 0.5, method="inverted_cdf")) * 1e3
        answer["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(answer), file=answers, flush=True)


class Worker:
    """A worker's process, seen from the benchmark that starts it.

    Args:
        kind: one of KINDS.
    """

    def __init__(self, kind: str):
        self.kind = kind
        command = [sys.executable, __file__, kind]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, **command: Any) -> dict[str, Any]:
        """Have a command carried out, the process running only meanwhile."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.send_signal(signal.SIGCONT)
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"worker {self.kind} ended: see above")
        self.process.send_signal(signal.SIGSTOP)
        return json.loads(answer)

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind")
    _serve(parser.parse_args().kind)
