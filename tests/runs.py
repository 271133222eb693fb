"""Short training runs in this process, their logs, and callbacks that watch or stop them."""

import dataclasses
import json
import re
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore.train import Callback

from src import run as training
from src.network.options import ComputeSpec, NetworkSpec
from src.training.options import DataSpec, EvaluationSpec, KeptSpec, OptimizationSpec, ScheduleSpec
from src.training.prepare import start

TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"


NUMBER = r"\d+\.\d+(e-\d+)?"


LOSS_LINE = re.compile(rf"{TIME} epoch: (\d+), step: (\d+), loss is ({NUMBER})")


METRIC_LINE = re.compile(
    rf"{TIME} EvalCallBack metric "
    rf"{{'acc': (?P<acc>{NUMBER}), 'auc': (?P<auc>{NUMBER}), 'logloss': (?P<logloss>{NUMBER})}}; eval_time \d+s"
)


SMALL = {"emb_dim": 16, "bottom_mlp": (16,), "top_mlp": (8, 1)}


def rows_of(path, kind):
    rows = [json.loads(line) for line in Path(path).read_text().splitlines()]
    return [row for row in rows if row["kind"] == kind]


def bits(path):
    return {name: value.asnumpy().tobytes() for name, value in ms.load_checkpoint(str(path)).items()}


def losses_of(folder):
    """The last loss that was logged for each step."""
    return {row["step"]: row["loss"] for row in rows_of(folder / "metrics.jsonl", "loss")}


def specs_of(**options):
    """The specs of a training, by the options' own names."""
    found = []
    for spec in (DataSpec, NetworkSpec, OptimizationSpec, ScheduleSpec, EvaluationSpec, KeptSpec, ComputeSpec):
        own = {one.name: options.pop(one.name) for one in dataclasses.fields(spec) if one.name in options}
        found.append(spec(**own))
    assert not options
    return found


def train_small(data, folder, callbacks=(), **changed):
    """A real training of 26 steps an epoch, logs and checkpoint in the folder."""
    options = {
        "dataset_path": str(data.path), "batch_size": 64, "eval_steps": 1000, "eval_batch_size": 64, "log_steps": 10,
        "loss_file_name": str(folder / "loss.log"), "eval_file_name": str(folder / "auc.log"),
        "metrics_file_name": str(folder / "metrics.jsonl"), "ckpt_path": str(folder), **SMALL, "lr": 0.1,
        "report": False, "compare_linear": False,
    }  # fmt: skip
    *specs, compute = specs_of(**(options | changed))
    return training.train(*specs, start(compute=compute), callbacks)


class Recorder(Callback):
    """A user's own callback, in the manner of MindSpore."""

    def __init__(self, stop_at=None):
        super().__init__()
        self.calls, self.losses, self.stop_at = [], [], stop_at

    def on_train_begin(self, run_context):
        self.calls.append("begin")

    def on_train_step_end(self, run_context):
        args = run_context.original_args()
        self.calls.append(args.cur_step_num)
        self.losses.append(float(args.net_outputs.asnumpy()))
        if args.cur_step_num == self.stop_at:
            run_context.request_stop()

    def on_train_end(self, run_context):
        self.calls.append("end")


class Watch(Callback):
    """Copies all values that change after some steps."""

    def __init__(self, *steps):
        super().__init__()
        self.steps, self.seen = steps, {}

    def on_train_step_end(self, run_context):
        args = run_context.original_args()
        if args.cur_step_num in self.steps:
            step = args.train_network
            values = {name: value.asnumpy().copy() for name, value in (step.row_values() | step.other_values()).items()}
            ids = args.train_dataset_element[1].asnumpy() + step.tables.starts.asnumpy()
            self.seen[args.cur_step_num] = values, np.unique(ids)


class StopAt(Callback):
    """Stops like Ctrl-C in the middle of a run, once."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def on_train_step_end(self, run_context):
        if run_context.original_args().cur_step_num == self.step:
            raise KeyboardInterrupt
