"""Several steps in one launch leave what the same steps do one by one."""

import pytest
from mindspore.train import Callback
from networks import make_model, make_step
from runs import bits, losses_of, rows_of, train_small

from src.base.errors import InputError
from src.network.compiled import operators_for
from src.options import TrainOptions, resolve
from src.training.sunk import SunkLoss, SunkSteps

HARD = {"epochs": 2, "dropout": 0.3, "reset_tables_each_epoch": True,
        "average_share": 0.4, "eval_steps": 11, "save_steps": 7, "log_steps": 9, "cpu_kernels": False}  # fmt: skip


class StopsAt(Callback):
    """Stops behind a step, and counts how many losses were not there when their step ended."""

    def __init__(self, step):
        super().__init__()
        self.step, self.waited = step, 0

    def on_train_step_end(self, run_context):
        args = run_context.original_args()
        self.waited += isinstance(args.net_outputs, SunkLoss) and args.net_outputs.output is None
        if args.cur_step_num == self.step:
            raise KeyboardInterrupt


def test_logs_evaluations_and_checkpoint_are_those_of_single_steps(tiny_data, tmp_path):
    """Though none of the steps between them is a multiple of a launch's; and so when it is stopped and goes on."""
    one, many = tmp_path / "one", tmp_path / "many"
    for folder in (one, many):
        folder.mkdir()
    train_small(tiny_data, one, **HARD)
    stops = StopsAt(30)
    with pytest.raises(KeyboardInterrupt):
        train_small(tiny_data, many, sink_steps=3, callbacks=[stops], **HARD)
    assert stops.waited > 10
    counts = StopsAt(0)
    train_small(tiny_data, many, sink_steps=2, callbacks=[counts], **HARD)
    assert counts.waited >= 10
    assert rows_of(many / "metrics.jsonl", "resume")[0]["step"] == 28
    assert losses_of(many) == losses_of(one)
    evaluations = [{row["step"]: row["auc"] for row in rows_of(folder / "metrics.jsonl", "eval")}
                   for folder in (one, many)]  # fmt: skip
    assert evaluations[0] == evaluations[1]
    assert bits(many / "dlrm.ckpt") == bits(one / "dlrm.ckpt")


def test_compiled_operators_are_refused():
    """A graph of two steps of theirs computes the second one with values from before the first."""
    step = make_step(make_model(operators=operators_for("CPU", True)))
    with pytest.raises(ValueError, match="compiled operators can't do several steps in a graph"):
        SunkSteps(step, 2)
    with pytest.raises(InputError, match="sink_steps 2 has no effect with the CPU's compiled operators: drop it, or"):
        resolve(TrainOptions, ["--device_target=CPU", "--sink_steps=2"])
