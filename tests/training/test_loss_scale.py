"""The loss scale for float16 products, which a CPU computes too, though train.py refuses them there."""

import re

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn
from mindspore.train import Callback
from networks import Steps, make_batch, make_model, make_step, values_by_name
from runs import StopAt, rows_of, train_small

from src.base import events
from src.base.errors import InputError
from src.network.stock import STOCK
from src.training.loss_scale import LossScale


class Behind(nn.Cell):
    """What stands at the end of a step."""

    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def construct(self, applied):
        return self.scale(applied, self.scale.factor())


RULES = ["sgd", "adagrad", "rowwise_adagrad", "adam"]


def all_values(step):
    return {name: value.asnumpy().copy() for name, value in (step.row_values() | step.other_values()).items()}


def half_step(scale, batch_seed=0, **options):
    """The training step of a network with float16 products, and a batch."""
    model = make_model(seed=2, compute_dtype=ms.float16)
    return make_step(model, 0.05, loss_scale=scale, **options), tuple(map(Tensor, make_batch(model, 5, 16, batch_seed)))


def set_scale(step, value):
    step.scale.scale.set_data(Tensor([value], ms.float32))


@pytest.fixture(scope="module")
def steps():
    return Steps()


@pytest.mark.parametrize("scale", [1024.0, 1000.0, 1e-3, "dynamic"])
def test_loss_scale_changes_neither_loss_nor_update(scale, steps):
    """To 1e-6; a power of two is exact. In float32, where nothing overflows."""
    found = []
    for one in (None, scale):
        model, step = steps(STOCK, loss_scale=one)
        loss = float(step(*map(Tensor, make_batch(model, 5, 16))).asnumpy())
        found.append((loss, values_by_name(model)))
    (loss, values), (scaled_loss, scaled) = found
    assert scaled_loss == pytest.approx(loss, rel=1e-6)
    for name, value in values.items():
        np.testing.assert_allclose(scaled[name], value, rtol=0, atol=1e-6, err_msg=name)


def test_loss_scale_reaches_float16_gradients():
    """A gradient below float16's least number, 6e-8, is lost without the scale and kept with it."""
    updates = []
    for scale in (1.0, 2.0**20):
        model = make_model(slot_dim=2, top=(1,), seed=2, compute_dtype=ms.float16)
        dense, ids, _ = make_batch(model, 5, 4)
        logits = model(Tensor(dense), Tensor(ids)).asnumpy()
        model.towers[0].top.layers[0].bias.set_data(Tensor(np.array([-17 - logits.max()], np.float32)))
        before = model.towers[0].top.layers[0].weight.asnumpy().copy()
        step = make_step(model, 1e4, loss_scale=scale)
        step(Tensor(dense), Tensor(ids), Tensor(np.zeros((4, 1), np.float32)))
        updates.append(np.abs(model.towers[0].top.layers[0].weight.asnumpy() - before).max())
    assert updates[0] < updates[1] / 2


@pytest.mark.parametrize(("rule", "decay"), [(rule, 0.1 * (rule != "rowwise_adagrad")) for rule in RULES])
def test_an_update_that_overflows_changes_nothing_and_is_counted(rule, decay):
    """Weight decay, if there is any, and states of optimizers among it; the loss stays right."""
    step, batch = half_step("dynamic", optimizer=rule, mlp_weight_decay=decay)
    set_scale(step, 2.0**40)
    before, loss = all_values(step), float(step(*batch).asnumpy())
    for name, value in all_values(step).items():
        if name not in ("skipped_updates", "steps_done", "loss_scale"):
            np.testing.assert_array_equal(value, before[name], err_msg=name)
    assert step.skipped_updates() == 1
    step(*batch)
    assert step.skipped_updates() == 2
    set_scale(step, 1024.0)
    assert loss == pytest.approx(float(step(*batch).asnumpy()), rel=1e-6)
    assert step.skipped_updates() == 2
    after = all_values(step)
    for name in ("embedding", step.model.mlp_parameters()[0].name):
        assert not np.array_equal(after[name], before[name])


def test_under_a_constant_scale_too_updates_that_overflow_change_nothing():
    step, batch = half_step(2.0**40, mlp_weight_decay=0.1)
    sound, _ = half_step(1024.0, mlp_weight_decay=0.1)
    before, loss = all_values(step), float(step(*batch).asnumpy())
    assert loss == pytest.approx(float(sound(*batch).asnumpy()), rel=1e-6)
    for name, value in all_values(step).items():
        if name not in ("skipped_updates", "steps_done"):
            np.testing.assert_array_equal(value, before[name], err_msg=name)
    assert (step.skipped_updates(), sound.skipped_updates()) == (1, 0)
    step(*batch)
    assert step.skipped_updates() == 2


@pytest.mark.parametrize("layer", [0, -1])
def test_a_forward_pass_that_overflows_changes_nothing_either(layer):
    """Also in the last product, behind which no gradient need be infinite."""
    step, batch = half_step("dynamic", optimizer="adam", mlp_weight_decay=0.1)
    weight = step.model.towers[0].top.layers[layer].weight
    weight.set_data(Tensor(np.full(weight.shape, 6e4, np.float32)))
    before = all_values(step)
    assert not np.isfinite(step(*batch).asnumpy())
    after = all_values(step)
    assert step.skipped_updates() == 1
    for name in step.row_values() | {value.name: value for value in step.dense_optimizer.values}:
        np.testing.assert_array_equal(after[name], before[name], err_msg=name)


class Overflow(StopAt):
    """Lets the forward pass of one step overflow."""

    def on_train_step_begin(self, run_context):
        args = run_context.original_args()
        if args.cur_step_num == self.step:
            self.weight = args.train_network.model.towers[0].top.layers[0].weight
            self.before = self.weight.asnumpy().copy()
            self.weight.set_data(Tensor(np.full(self.before.shape, 6e4, np.float32)))

    def on_train_step_end(self, run_context):
        if run_context.original_args().cur_step_num == self.step:
            self.weight.set_data(Tensor(self.before))


def test_a_run_outlives_a_forward_pass_that_overflows(tiny_data, tmp_path):
    """It is no state to be saved in: behind step 9 one is due."""
    kept = []
    events.listeners.append(lambda moment: kept.append(moment) if moment == "a state is whole" else None)
    try:
        result = train_small(tiny_data, tmp_path, [Overflow(9)], compute_dtype="float16", cpu_kernels=False,
                             save_steps=9, log_steps=1, report=True, importance_rows=0)  # fmt: skip
    finally:
        events.listeners.pop()
    assert result.steps == 26
    rows = rows_of(tmp_path / "metrics.jsonl", "loss")
    assert [row["step"] for row in rows if row["loss"] is None] == [9]
    assert rows[-1]["skipped_updates"] == 1
    assert len(kept) == 2  # behind step 18, and at the end


class Huge(Callback):
    """Lets the forward pass overflow from some step on."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def on_train_step_begin(self, run_context):
        args = run_context.original_args()
        if args.cur_step_num == self.step:
            weight = args.train_network.model.towers[0].top.layers[0].weight
            weight.set_data(Tensor(np.full(weight.shape, 6e4, np.float32)))


@pytest.mark.parametrize(("options", "callbacks", "message"), [
    ({"loss_scale": 2.0**40}, [], "gradients overflow under the loss scale, .*, as in all steps before at step 26"),
    ({}, [Huge(1)], "the loss is (nan|inf), as in all steps before at step 26"),
    ({}, [Huge(20)], "the loss is (nan|inf), as in the 6 steps before the last one at step 26: .* from step 18"),
])  # fmt: skip
def test_a_run_whose_last_updates_were_all_left_out_does_not_end_well(tiny_data, tmp_path, options, callbacks, message):
    with pytest.raises(InputError, match=message):
        train_small(tiny_data, tmp_path, callbacks, compute_dtype="float16", cpu_kernels=False, do_eval=False,
                    save_steps=6, **options)  # fmt: skip
    assert not (tmp_path / "dlrm.ckpt").exists()


def test_a_dynamic_scale_falls_until_nothing_overflows_and_training_goes_on():
    step, batch = half_step("dynamic", optimizer="adam", mlp_weight_decay=0.1)
    set_scale(step, 2.0**30)
    losses = [float(step(*batch).asnumpy()) for _ in range(30)]
    skipped = step.skipped_updates()
    assert 5 < skipped < 25
    assert losses[: skipped + 1] == [losses[0]] * (skipped + 1)
    assert losses[-1] < losses[0]
    assert step.scale.scale.asnumpy()[0] == 2.0 ** (30 - skipped)
    assert all(np.isfinite(value).all() for value in all_values(step).values())


def test_a_dynamic_scale_doubles_behind_so_many_sound_steps_in_a_row():
    ms.set_context(mode=ms.GRAPH_MODE)
    scale, seen = LossScale("dynamic", first=8.0, window=3), []
    behind = Behind(scale)
    for sound in (True, True, False, True, True, True, True, False, False, False, False, False):
        behind(Tensor(sound))
        seen.append(float(scale.scale.asnumpy()[0]))
    assert seen == [8, 8, 4, 4, 4, 8, 8, 4, 2, 1, 1, 1]
    assert scale.skipped.asnumpy()[0] == 6


def test_compiled_operators_refuse_a_loss_scale(compiled):
    with pytest.raises(ValueError, match="a loss scale leaves out updates"):
        make_step(make_model(operators=compiled), loss_scale=8.0)


class HighScale(StopAt):
    """Gives the loss scale a value that overflows, once in the whole training."""

    def on_train_step_begin(self, run_context):
        args = run_context.original_args()
        if args.cur_step_num == 8:
            set_scale(args.train_network, 2.0**28)


def test_scale_and_skipped_updates_outlive_a_stop_and_are_told(tiny_data, tmp_path, capsys, interrupting):
    """A run that is stopped and goes on has the values of one that was not, to the bit."""
    options = {"compute_dtype": "float16", "cpu_kernels": False, "save_steps": 10, "do_eval": False}
    found = []
    for name, stops in (("straight", [99]), ("stopped", [14, 99])):
        folder = tmp_path / name
        folder.mkdir()
        for at in stops:
            try:
                train_small(tiny_data, folder, [HighScale(at)], **options)
            except KeyboardInterrupt:
                assert at == 14
        ended = rows_of(folder / "metrics.jsonl", "loss")[-1]
        found.append((ended["loss"], ended["skipped_updates"]))
        assert ended["skipped_updates"] > 5
    assert found[0] == found[1]
    printed = capsys.readouterr().out
    assert re.search(r"step: 26/26, loss is \d\.\d+, .*, \d+ updates skipped", printed)
