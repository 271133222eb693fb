"""The crosses of DLRM-DCNv2 against plain NumPy in float64, with their gradients, alone and within the network."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops
from networks import (
    make_batch,
    make_model,
    make_step,
    plain_mlp,
    plain_values,
    values_by_name,
)

from src.network.interactions.dcnv2 import CrossNetwork
from src.network.stock import STOCK


def plain_layers(cross):
    """(V [R, W], U [W, R], b [W]) of each layer."""
    return [
        tuple(value.asnumpy().astype(np.float64) for value in (down.weight, up.weight, up.bias))
        for down, up in zip(cross.down, cross.up)
    ]


def plain_cross(layers, first):
    """x of each layer, the first before it: values [B, W]."""
    xs = [first]
    for v, u, b in layers:
        xs.append(first * (xs[-1] @ v.T @ u.T + b) + xs[-1])
    return xs


def plain_cross_gradients(layers, first, back):
    """Of sum(back * result): of the input, and (V, U, b) of each layer."""
    xs, to_first, found = plain_cross(layers, first), np.zeros_like(first), []
    for (v, u, b), x in zip(reversed(layers), reversed(xs[:-1])):
        to_first += back * (x @ v.T @ u.T + b)
        inner = back * first
        found.append(((inner @ u).T @ x, inner.T @ (x @ v.T), inner.sum(0)))
        back = back + inner @ u @ v
    return to_first + back, found[::-1]


class Gradients(nn.Cell):
    """A result, and the gradients of sum(weight * result) of the input and all parameters."""

    def __init__(self, cross):
        super().__init__()
        self.cross = cross
        parameters = ms.ParameterTuple(cross.trainable_params())
        self.gradients = ops.value_and_grad(self.weighted, 0, parameters, has_aux=True)

    def weighted(self, x, weight):
        result = self.cross(x)
        return (result * weight).sum(), result

    def construct(self, x, weight):
        return self.gradients(x, weight)


@pytest.mark.parametrize(("width", "layers", "rank", "batch"), [(6, 1, 2, 3), (128, 3, 64, 130)])
def test_crosses_and_their_gradients(width, layers, rank, batch, operators):
    """To 1e-5 of the largest value."""
    rng = np.random.default_rng(1)
    cross = CrossNetwork(width, layers, rank, rng, operators=operators)
    for up in cross.up:
        assert not up.bias.asnumpy().any()
        up.bias.set_data(Tensor(rng.normal(size=width).astype(np.float32)))
    x, weight = (rng.normal(size=(batch, width)).astype(np.float32) for _ in range(2))
    (_, result), (x_gradient, gradients) = Gradients(cross)(Tensor(x), Tensor(weight))
    plain = plain_layers(cross)
    to_first, found = plain_cross_gradients(plain, x.astype(np.float64), weight.astype(np.float64))
    by_name = {}
    for number, (v, u, b) in enumerate(found):
        by_name |= {f"down.{number}.weight": v, f"up.{number}.weight": u, f"up.{number}.bias": b}
    pairs = [(result, plain_cross(plain, x.astype(np.float64))[-1]), (x_gradient, to_first)]
    names = [value.name.removeprefix("cross.") for value in cross.trainable_params()]
    assert sorted(names) == sorted(by_name)
    pairs += [(gradient, by_name[name]) for name, gradient in zip(names, gradients)]
    for got, expected in pairs:
        np.testing.assert_allclose(got.asnumpy(), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_initial_weights_have_the_deviation_of_the_paper_s_code():
    cross = CrossNetwork(432, 2, 64, np.random.default_rng(1), STOCK)
    for layer in (*cross.down, *cross.up):
        assert layer.weight.asnumpy().std() == pytest.approx(np.sqrt(2 / (432 + 64)), rel=0.02)


def test_network_crosses_all_vectors(operators):
    model = make_model(interaction="dcnv2", dcn_layers=2, dcn_rank=3, seed=3, operators=operators)
    dense, ids, _ = make_batch(model, 5)
    values, expected = plain_values(model), []
    for features, row in zip(dense, ids):
        bottom = plain_mlp(values.bottom, features.astype(np.float64), True)[-1]
        joint = np.concatenate([bottom, *(table[place] for table, place in zip(values.tables, row))])
        crossed = plain_cross(plain_layers(model.towers[0].interaction.cross), joint[None])[-1][0]
        expected.append(plain_mlp(values.top, crossed, False)[-1])
    np.testing.assert_allclose(model(Tensor(dense), Tensor(ids)).asnumpy(), expected, rtol=1e-5, atol=1e-5)


def test_step_trains_the_crosses_with_both_kinds_of_operators(compiled):
    """The same values after three steps, to 1e-5; all change, and the loss falls."""
    found = []
    for operators in (STOCK, compiled):
        model = make_model(interaction="dcnv2", dcn_rank=4, bottom=(12, 16), seed=2, operators=operators)
        step, batch = make_step(model, 0.05, optimizer="adagrad"), tuple(map(Tensor, make_batch(model, 5, 24)))
        before = [value.asnumpy().copy() for value in model.mlp_parameters()]
        losses = [float(step(*batch).asnumpy()) for _ in range(3)]
        assert losses[2] < losses[0]
        assert all(np.any(value.asnumpy() != old) for value, old in zip(model.mlp_parameters(), before))
        found.append(values_by_name(model) | {value.name: value.asnumpy() for value in model.mlp_parameters()})
    for name, value in found[0].items():
        np.testing.assert_allclose(found[1][name], value, rtol=0, atol=1e-5, err_msg=name)
