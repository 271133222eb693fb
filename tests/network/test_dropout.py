"""Dropout against plain NumPy: which values are dropped, how many, what the others become, and the gradient."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops
from networks import (
    make_batch,
    make_model,
    make_step,
    values_by_name,
)

from src.network.dropout import Dropout
from src.network.layers import MLP
from src.network.stock import STOCK


def mixed(x):
    """lowbias32 of each number, in a loop of Python's own."""
    out = np.empty(x.shape, np.uint32)
    for place, value in enumerate(x.reshape(-1).tolist()):
        value = (value ^ value >> 16) * 0x7FEB352D & 0xFFFFFFFF
        value = (value ^ value >> 15) * 0x846CA68B & 0xFFFFFFFF
        out.flat[place] = value ^ value >> 16
    return out


def kept(dropout, step, samples, outputs):
    """1 / (1 - rate) where a value is kept, [b, O]."""
    step_key = mixed(np.array([step], np.uint32) ^ np.array([dropout.key], np.int32).view(np.uint32))
    places = np.arange(samples * outputs, dtype=np.uint32) + np.uint32(dropout.rank * samples * outputs % 2**32)
    hashes = mixed(places ^ step_key).reshape(samples, outputs) & 0xFFFFFF
    return (hashes >= dropout.limit) * dropout.scale


class Each(nn.Cell):
    """What several dropouts make of a tensor each, in steps of their own: one graph, which compiles sooner than many.

    Inputs: each one's tensor; each one's step.
    """

    def __init__(self, dropouts):
        super().__init__()
        self.dropouts, self.count = nn.CellList(dropouts), len(dropouts)

    def construct(self, *given):
        found = ()
        for index in range(self.count):
            found = (*found, self.dropouts[index](given[index], given[self.count + index]))
        return found


# Steps and ranks. 6 times 37 places a rank: the last ones are beyond 31 and 32 bits.
PLACES = [(0, 0), (5, 3), (2**31 - 1, 1), (1, 2**31 // 222), (1, 2**32 // 222)]
RATES = [0.1, 0.5, 0.9]


@pytest.fixture(scope="module")
def by_place():
    """Values, and by step and rank the dropout and what it makes of them."""
    x = np.random.default_rng(1).normal(size=(6, 37)).astype(np.float32)
    dropouts = [Dropout(0.3, (1, 0, 2), rank) for _, rank in PLACES]
    found = Each(dropouts)(*[Tensor(x)] * len(PLACES), *(Tensor([step], ms.int32) for step, _ in PLACES))
    return x, dict(zip(PLACES, zip(dropouts, (one.asnumpy() for one in found))))


@pytest.mark.parametrize(("step", "rank"), PLACES)
def test_choices_are_the_hash_of_the_place(step, rank, by_place):
    x, made = by_place
    dropout, found = made[step, rank]
    np.testing.assert_allclose(found, x * kept(dropout, step, 6, 37), rtol=1e-6)
    assert 0 < (found == 0).sum() < found.size


@pytest.fixture(scope="module")
def by_rate():
    """What dropouts of each rate make of ones."""
    ones, step = Tensor(np.ones((4096, 64), np.float32)), Tensor([7], ms.int32)
    found = Each([Dropout(rate, (1, 0)) for rate in RATES])(*[ones] * len(RATES), *[step] * len(RATES))
    return dict(zip(RATES, (one.asnumpy() for one in found)))


@pytest.mark.parametrize("rate", RATES)
def test_share_that_is_dropped_and_mean(rate, by_rate):
    """In all, in each of 64 columns and rows, and of neighbours at once: within 5 standard errors."""
    found = by_rate[rate]
    assert set(np.unique(found)) == {0, np.float32(1 / (1 - rate))}
    dropped, error = found == 0, 5 * np.sqrt(rate * (1 - rate))
    assert abs(dropped.mean() - rate) < error / np.sqrt(dropped.size)
    assert np.abs(dropped.mean(0) - rate).max() < error / np.sqrt(4096)
    assert np.abs(dropped.mean(1) - rate).max() < error / np.sqrt(64)
    assert found.mean() == pytest.approx(1, abs=10 * error / np.sqrt(dropped.size))
    both = rate * rate
    for one, other in ((dropped[:, 1:], dropped[:, :-1]), (dropped[1:], dropped[:-1])):
        assert abs((one & other).mean() - both) < 5 * np.sqrt(both / one.size)


def test_seeds_layers_and_steps_choose_apart():
    """Two choices agree in a share of 1/2, not in more."""
    seeds, steps = [(1, 0, 0), (1, 0, 1), (1, 1, 0), (2, 0, 0)], [0, 1, 1000]
    found = [kept(Dropout(0.5, seed), step, 64, 64) for seed in seeds for step in steps]
    for index, one in enumerate(found):
        for other in found[:index]:
            assert abs((one == other).mean() - 0.5) < 5 * 0.5 / np.sqrt(one.size)


def test_each_layer_of_each_tower_has_choices_of_its_own():
    model = make_model(towers=3, bottom=(12, 16), top=(9, 4, 1))
    model.set_dropout(0.5, seed=7)
    keys = [cell.key for _, cell in model.cells_and_names() if isinstance(cell, Dropout)]
    assert len(set(keys)) == len(keys) == 3 * 3


def test_ranks_choose_as_one_process():
    each = Each([Dropout(0.4, (1, 0), rank) for rank in (0, 0, 1)])
    x = np.random.default_rng(1).normal(size=(8, 5)).astype(np.float32)
    step = Tensor([3], ms.int32)
    whole, *parts = (one.asnumpy() for one in each(*map(Tensor, (x, x[:4], x[4:])), *[step] * 3))
    np.testing.assert_array_equal(np.concatenate(parts), whole)


class Gradients(nn.Cell):
    """An MLP's result in a step, and the gradients of sum(weight * result) of x and all parameters."""

    def __init__(self, mlp):
        super().__init__()
        self.mlp = mlp
        self.gradients = ops.value_and_grad(self.weighted, 0, ms.ParameterTuple(mlp.trainable_params()), has_aux=True)

    def weighted(self, x, weight, step):
        result = self.mlp(x, step)
        return (result * weight).sum(), result

    def construct(self, x, weight, step):
        return self.gradients(x, weight, step)


@pytest.mark.parametrize("batch", [5, 300])
@pytest.mark.parametrize("sizes", [(6, 128, 3), (256, 5, 1)])
def test_mlp_and_its_gradient_are_of_the_same_choices(sizes, batch, operators):
    """To 1e-4 of the largest value; rows with and without a gap, in one part and several; the last layer keeps all."""
    rng = np.random.default_rng(1)
    mlp = MLP(9, sizes, False, rng, operators=operators)
    mlp.set_dropout(0.3, (1, 0), 1)
    x, weight = (rng.normal(size=(batch, width)).astype(np.float32) for width in (9, sizes[-1]))
    (_, result), (x_gradient, gradients) = Gradients(mlp)(Tensor(x), Tensor(weight), Tensor([4], ms.int32))
    values = [value.asnumpy().astype(np.float64) for value in mlp.trainable_params()]
    layers, results, masks = list(zip(values[::2], values[1::2])), [x.astype(np.float64)], []
    for number, (w, b) in enumerate(layers):
        product = results[-1] @ w.T + b
        masks.append(np.ones_like(product))
        if number < len(layers) - 1:
            masks[-1] = (product > 0) * kept(Dropout(0.3, (1, 0, number), 1), 4, batch, len(b))
        results.append(product * masks[-1])
    back, expected = weight.astype(np.float64), []
    for number in reversed(range(len(layers))):
        back = back * masks[number]
        expected[:0] = [back.T @ results[number], back.sum(0)]
        back = back @ layers[number][0]
    for got, plain in zip([result, x_gradient, *gradients], [results[-1], back, *expected], strict=True):
        np.testing.assert_allclose(got.asnumpy(), plain, rtol=0, atol=1e-4 * np.abs(plain).max() + 1e-12)


def test_steps_with_both_kinds_of_operators_agree_and_scores_keep_all(compiled):
    """Compiled operators drop what MindSpore's do, step by step; scoring between the steps drops nothing."""
    models = [make_model(bottom=(9, 16), top=(9, 8, 1), seed=2, operators=operators) for operators in (STOCK, compiled)]
    dense, ids, labels = make_batch(models[0], 5, 24)
    steps = [make_step(model, 0.1, dropout=0.3, seed=5) for model in models]
    plain = make_step(make_model(bottom=(9, 16), top=(9, 8, 1), seed=2, operators=compiled), 0.1)
    losses = [[float(step(*map(Tensor, (dense, ids, labels))).asnumpy()) for _ in range(3)] for step in (*steps, plain)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
    assert abs(losses[2][0] - losses[1][0]) > 1e-3
    values = [values_by_name(model) for model in models]
    for name, value in values[0].items():
        np.testing.assert_allclose(values[1][name], value, rtol=0, atol=1e-5, err_msg=name)
    scores = [model(Tensor(dense), Tensor(ids)).asnumpy() for model in models for _ in range(2)]
    np.testing.assert_array_equal(scores[0], scores[1])
    np.testing.assert_allclose(scores[2], scores[0], rtol=0, atol=1e-5)
    np.testing.assert_array_equal(scores[2], scores[3])
