"""The step of weighted samples: a weighted mean of losses, and its gradient."""

import numpy as np
import pytest
from mindspore import Tensor
from networks import changing, make_batch, make_model, plain_loss, plain_values
from test_step import run

from src.network.stock import STOCK
from src.training.options import OptimizationSpec
from src.training.step import TrainStep

TIMES = np.array([2, 1, 0, 3, 0, 1, 0, 1, 2, 1, 1, 0, 0, 0, 4, 0])  # as many in all as there are


def step_of(operators, weighted, optimizer="sgd", loss_scale=None, logit_shift=0.0, **network):
    model = make_model(seed=2, operators=operators, **network)
    options = {"dropout": 0.0, "label_smoothing": 0.05}
    spec = OptimizationSpec(optimizer, "", 0.1, 0.05, **options)
    return model, TrainStep(model, spec, loss_scale=loss_scale, weighted=weighted, logit_shift=logit_shift)


def values(step):
    return {name: value.asnumpy().copy() for name, value in changing(step).items()}


@pytest.mark.parametrize(("optimizer", "more"), [
    ("sgd", {}), ("adagrad", {"bottom": (8,), "towers": 2}),
])  # fmt: skip
def test_whole_weights_are_samples_that_come_so_often(operators, optimizer, more):
    """Whatever all of them are multiplied with."""
    model, step = step_of(operators, True, optimizer, **more)
    batch = make_batch(model, 5, len(TIMES), seed=3)
    _, plain = step_of(operators, False, optimizer, **more)
    for _ in range(3):
        loss = run(step, (*batch, 7.0 * TIMES[:, None].astype(np.float32)))
        expected = run(plain, [np.repeat(column, TIMES, 0) for column in batch])
        assert loss == pytest.approx(expected, rel=1e-5)
    found, wanted = values(step), values(plain)
    for name, value in found.items():
        np.testing.assert_allclose(value, wanted[name], rtol=1e-4, atol=1e-6, err_msg=name)
    assert np.abs(found["embedding"] - values(step_of(operators, True, optimizer, **more)[1])["embedding"]).max() > 1e-3


def test_samples_of_weight_1_are_as_without_weights(operators):
    """To the bit, so that only unequal weights make a difference."""
    model, step = step_of(operators, True)
    _, plain = step_of(operators, False)
    for seed in range(3):
        batch = make_batch(model, 5, 16, seed=seed)
        assert run(step, (*batch, np.ones((16, 1), np.float32))) == run(plain, batch)
    wanted = values(plain)
    assert all(np.array_equal(value, wanted[name]) for name, value in values(step).items())


def test_batch_without_weight_changes_nothing(operators):
    model, step = step_of(operators, True)
    before = values(step)
    assert run(step, (*make_batch(model, 5, 16), np.zeros((16, 1), np.float32))) == 0
    assert all(np.array_equal(value, before[name]) for name, value in values(step).items())


def test_loss_scale_goes_with_weights():
    """With a scale as without one."""
    model, step = step_of(STOCK, True, loss_scale=1024.0)
    _, plain = step_of(STOCK, True)
    batch = (*make_batch(model, 5, len(TIMES), seed=3), TIMES[:, None].astype(np.float32))
    assert run(step, batch) == pytest.approx(run(plain, batch), rel=1e-6)
    wanted = values(plain)
    for name, value in wanted.items():
        np.testing.assert_allclose(values(step)[name], value, rtol=1e-4, atol=1e-6, err_msg=name)


def test_loss_is_of_logits_that_are_shifted_back(operators):
    """Of the kept rows, while the network's logits are of all; the shift of both at once changes nothing."""
    shift = float(np.log(0.1))
    model, step = step_of(operators, False, logit_shift=shift)
    plain_model, plain = step_of(operators, False)
    batch = make_batch(model, 5, 16, seed=3)
    before = model(Tensor(batch[0]), Tensor(batch[1])).asnumpy()
    model.change_logits(1, shift)
    np.testing.assert_allclose(model(Tensor(batch[0]), Tensor(batch[1])).asnumpy(), before + shift, atol=1e-5)
    for _ in range(3):
        assert run(step, batch) == pytest.approx(run(plain, batch), rel=1e-5)
    found, wanted = (one(Tensor(batch[0]), Tensor(batch[1])).asnumpy() for one in (model, plain_model))
    np.testing.assert_allclose(found, wanted + shift, atol=1e-5)


def test_logged_loss_is_the_weighted_mean():
    model = make_model(seed=2)
    step = TrainStep(model, OptimizationSpec("sgd", "", 0.1), weighted=True)
    batch = make_batch(model, 5, len(TIMES), seed=3)
    each = [plain_loss(plain_values(model), *(column[row : row + 1] for column in batch)) for row in range(len(TIMES))]
    weights = 3 * TIMES[:, None].astype(np.float32)  # more in all than there are samples
    assert run(step, (*batch, weights)) == pytest.approx(np.average(each, weights=TIMES), rel=1e-5)
