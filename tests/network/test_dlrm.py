"""The network against plain loops in float64, written from the paper (arXiv 1906.00091, section 2).

`plain_forward` and its helpers are the oracle that the tests of training and checkpoints use too.
"""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops
from networks import (
    logits_of,
    make_batch,
    make_model,
    network_spec,
    plain_forward,
    plain_mlp,
    plain_pairs,
    plain_values,
)

from src.dlrm import DLRM, mlp_values
from src.network import embedding
from src.network.embedding import EmbeddingTables, initial_rows, initial_values
from src.network.layers import MLP, Linear
from src.network.options import NetworkSpec
from src.network.pair_dots import PairDots
from src.ranks.placement import Piece

NETWORKS = {
    "criteo": {"dense_dim": 13, "slot_dim": 26, "bottom": (512, 256, 64, 16), "top": (512, 256, 1)},
    "small": {"dense_dim": 5, "slot_dim": 8, "bottom": (12, 7), "top": (9, 1)},
    "self": {"dense_dim": 5, "slot_dim": 8, "bottom": (12, 7), "top": (9, 1), "self_interaction": True},
    "cat": {"dense_dim": 1, "slot_dim": 3, "bottom": (4,), "top": (6, 5, 1), "interaction": "cat"},
    "one field": {"dense_dim": 2, "slot_dim": 1, "bottom": (3,), "top": (1,)},
    "width 16": {"dense_dim": 3, "slot_dim": 1, "bottom": (16,), "top": (1,), "self_interaction": True},
    "width 32": {"dense_dim": 3, "slot_dim": 15, "bottom": (8, 32), "top": (9, 1), "self_interaction": True},
    "width 64": {"dense_dim": 3, "slot_dim": 16, "bottom": (8, 64), "top": (9, 1)},
    "width 128": {"dense_dim": 3, "slot_dim": 18, "bottom": (8, 128), "top": (9, 1), "self_interaction": True},
}


class Gradient(nn.Cell):
    """Gradient of sum(weight * cell(x)) with respect to x."""

    def __init__(self, cell):
        super().__init__()
        self.cell = cell
        self.grad = ops.grad(self.weighted)

    def weighted(self, x, weight):
        return (self.cell(x) * weight).sum()

    def construct(self, x, weight):
        return self.grad(x, weight)


def test_linear_is_the_affine_map():
    layer = Linear(4, 3, False, np.random.default_rng(3))
    x = np.random.default_rng(4).normal(size=(5, 4)).astype(np.float32)
    weight, bias = layer.weight.asnumpy(), layer.bias.asnumpy()
    assert (weight.shape, bias.shape) == ((3, 4), (3,))
    assert np.abs(bias).min() > 0
    expected = [[sum(float(weight[o, i]) * float(row[i]) for i in range(4)) + bias[o] for o in range(3)] for row in x]
    np.testing.assert_allclose(layer(Tensor(x)).asnumpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("last_relu", [True, False])
def test_mlp_is_a_chain_of_layers_with_relu_between(last_relu):
    mlp = MLP(4, (6, 5, 3), last_relu, np.random.default_rng(3))
    x = np.random.default_rng(4).normal(size=(20, 4)).astype(np.float32)
    values = [value.asnumpy().astype(np.float64) for value in mlp.get_parameters()]
    layers = list(zip(values[::2], values[1::2]))
    expected = np.array([plain_mlp(layers, row, last_relu)[-1] for row in x.astype(np.float64)])
    assert (expected == 0).any() == last_relu  # so that the two settings differ on these numbers
    np.testing.assert_allclose(mlp(Tensor(x)).asnumpy(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("self_interaction", [False, True])
@pytest.mark.parametrize("vectors", [2, 5])
def test_pair_dots_are_the_dot_products_of_all_pairs(vectors, self_interaction):
    x = np.random.default_rng(1).normal(size=(3, vectors, 4)).astype(np.float32)
    pairs = plain_pairs(vectors, self_interaction)
    expected = [[float(np.dot(e[i].astype(float), e[j].astype(float))) for i, j in pairs] for e in x]
    cell = PairDots(vectors, self_interaction)
    assert cell.pairs == len(pairs) == vectors * (vectors + (1 if self_interaction else -1)) // 2
    np.testing.assert_allclose(cell(Tensor(x)).asnumpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("self_interaction", [False, True])
@pytest.mark.parametrize("vectors", [2, 5])
def test_gradient_of_pair_dots_is_the_derived_one_and_the_finite_difference(vectors, self_interaction):
    """d(e_i . e_j) is e_j for e_i and e_i for e_j, both where i = j."""
    rng = np.random.default_rng(2)
    pairs = plain_pairs(vectors, self_interaction)
    x = rng.normal(size=(3, vectors, 4)).astype(np.float32)
    weight = rng.normal(size=(3, len(pairs))).astype(np.float32)
    exact = x.astype(np.float64)
    derived = np.zeros_like(exact)
    for sample in range(3):
        for p, (i, j) in enumerate(pairs):
            derived[sample, i] += weight[sample, p] * exact[sample, j]
            derived[sample, j] += weight[sample, p] * exact[sample, i]

    def weighted(values):
        return sum(
            float(weight[s, p]) * float(np.dot(values[s, i], values[s, j]))
            for s in range(3)
            for p, (i, j) in enumerate(pairs)
        )

    for place in np.ndindex(exact.shape):
        nudge = np.zeros_like(exact)
        nudge[place] = 1e-4
        assert (weighted(exact + nudge) - weighted(exact - nudge)) / 2e-4 == pytest.approx(derived[place], abs=1e-6)
    got = Gradient(PairDots(vectors, self_interaction))(Tensor(x), Tensor(weight)).asnumpy()
    np.testing.assert_allclose(got, derived, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_whole_forward_pass(name, operators):
    sizes = dict(NETWORKS[name])
    model = make_model(**sizes, seed=3, operators=operators)
    dense, ids, _ = make_batch(model, sizes["dense_dim"])
    kind = {key: sizes[key] for key in ("interaction", "self_interaction") if key in sizes}
    expected = plain_forward(plain_values(model), dense, ids, **kind)
    got = logits_of(model, dense, ids)
    assert got.dtype == np.float32
    assert expected.std() > 0.01
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_float16_products_keep_float32_weights_and_logits():
    model, half = make_model(seed=3), make_model(seed=3, compute_dtype=ms.float16)
    dense, ids, _ = make_batch(model, 5)
    got, expected = logits_of(half, dense, ids), logits_of(model, dense, ids)
    assert got.dtype == np.float32
    assert {value.dtype for value in half.get_parameters()} == {ms.float32}
    assert not np.array_equal(got, expected)
    np.testing.assert_allclose(got, expected, rtol=2e-2, atol=2e-2)


def test_mlps_of_criteo_have_475985_values():
    model = make_model(**NETWORKS["criteo"])
    assert sum(value.size for value in model.mlp_parameters()) == 475_985
    names = [value.name for value in model.get_parameters()]
    assert len(set(names)) == len(names)
    assert sum(value.size for value in model.get_parameters()) == 475_985 + 16 * sum(model.tables.table_rows)


def test_mlp_weights_are_normal_with_the_papers_deviations():
    """Weights have deviation sqrt(2 / (in + out)), biases sqrt(1 / out); 4 standard errors are allowed."""
    model = make_model(**NETWORKS["criteo"], seed=2)
    values = plain_values(model)
    for weight, bias in [*values.bottom, *values.top]:
        outputs, inputs = weight.shape
        for value, deviation in ((weight, np.sqrt(2 / (inputs + outputs))), (bias, np.sqrt(1 / outputs))):
            if value.size > 1:
                assert value.std() == pytest.approx(deviation, rel=4 / np.sqrt(2 * value.size))
                assert abs(value.mean()) < 4 * deviation / np.sqrt(value.size)
    big = values.top[0][0] / np.sqrt(2 / (367 + 512))
    assert np.mean(np.abs(big) > 2) == pytest.approx(0.0455, abs=0.005)  # a uniform one has 0


def test_seed_changes_mlps_and_tables():
    first, same, other = make_model(seed=1), make_model(seed=1), make_model(seed=2)
    for a, b, c in zip(first.get_parameters(), same.get_parameters(), other.get_parameters()):
        assert a.asnumpy().tobytes() == b.asnumpy().tobytes()
        assert not np.array_equal(a.asnumpy(), c.asnumpy())


def test_tables_start_uniform_within_the_bound_of_each_field():
    rows = [4000, 100, 1, 2500]
    values, start = initial_rows(rows, 16, 1), 0
    assert (values.shape, values.dtype) == ((6601, 16), np.float32)
    for count in rows:
        field = values[start : start + count].astype(np.float64) * np.sqrt(count)
        start += count
        assert np.abs(field).max() <= 1 + 1e-6
        if count > 1:
            assert field.min() < -0.98
            assert field.max() > 0.98
            quarters = np.histogram(field, 4, (-1, 1))[0] / field.size
            assert np.abs(quarters - 0.25).max() < 4 * np.sqrt(0.1875 / field.size)
            assert len(np.unique(field)) > 0.99 * field.size


def test_initial_values_of_a_field_follow_from_seed_index_and_rows_alone():
    first, second = initial_rows([30, 40, 50], 4, 7), initial_rows([8, 40, 9, 50], 4, 7)
    np.testing.assert_array_equal(first[30:70], second[8:48])
    assert np.isin(first[70:], second[57:]).mean() < 0.1  # the same rows, but another index
    assert np.abs(first[:30] * np.sqrt(30) - first[30:60] * np.sqrt(40)).mean() > 0.1
    assert not np.array_equal(first, initial_rows([30, 40, 50], 4, 8))


def test_each_epoch_has_initial_values_of_its_own():
    """Of the same distribution; epoch 0 has those of a training without epochs."""
    table_rows, values = [500], np.empty((3, 500, 4), np.float32)
    for epoch, one in enumerate(values):
        initial_values(table_rows, 7, epoch)(Piece(0, 0, 500), one)
        assert np.abs(one).max() == pytest.approx(1 / np.sqrt(500), rel=0.01)
    assert values[0].tobytes() == initial_rows(table_rows, 4, 7).tobytes()
    assert all(abs(np.corrcoef(values[i].ravel(), values[j].ravel())[0, 1]) < 0.1 for i, j in ((0, 1), (0, 2), (1, 2)))


@pytest.mark.parametrize("low", [0, 1, 5, 64, 128])
def test_pieces_get_the_values_of_the_whole(monkeypatch, low):
    """Of odd width, so that a piece may begin in the middle of what the generator draws at a time."""
    whole, piece = initial_rows([9, 129], 3, 5)[9:], np.empty((129 - low, 3), np.float32)
    initial_values([9, 129], 5)(Piece(1, low, 129), piece)
    assert piece.tobytes() == whole[low:].tobytes()


@pytest.mark.parametrize("chunk_rows", [3, 1 << 16])
def test_tables_are_filled_anew_in_place(monkeypatch, chunk_rows, operators):
    """Pieces with a spare row behind each, which keeps its zeros; what the compiled lookup then sees."""
    monkeypatch.setattr(embedding, "_CHUNK_ROWS", chunk_rows)
    rows, pieces = [7, 20], (Piece(0, 0, 7), Piece(1, 5, 13))
    tables = EmbeddingTables(rows, embedding.joint_rows(pieces, 3, initial_values(rows, 1), 1), operators, pieces, 1)
    ids = np.stack([np.arange(8), np.arange(8)], 1).astype(np.int32)
    tables(Tensor(ids))
    tables.refill(tables.table, initial_values(rows, 1, 4))
    expected = embedding.joint_rows(pieces, 3, initial_values(rows, 1, 4), 1)
    np.testing.assert_array_equal(tables.table.asnumpy(), expected)
    np.testing.assert_array_equal(tables(Tensor(ids)).asnumpy()[:, 1], expected[8:16])


def test_mlps_start_the_same_whatever_the_tables_rows():
    spec = network_spec((4,), (1,))
    models = [DLRM(3, EmbeddingTables([n, 5], initial_rows([n, 5], 4, 1)), spec) for n in (10, 20)]
    for a, b in zip(models[0].mlp_parameters(), models[1].mlp_parameters()):
        np.testing.assert_array_equal(a.asnumpy(), b.asnumpy())


@pytest.mark.parametrize("chunk_rows", [1, 3, 64])
def test_chunks_give_the_same_initial_values(monkeypatch, chunk_rows):
    """Width 3: an odd number of draws in a chunk, which a generator's buffer of 32-bit halves could mix up."""
    whole = initial_rows([50, 1, 129], 3, 5)
    monkeypatch.setattr(embedding, "_CHUNK_ROWS", chunk_rows)
    assert initial_rows([50, 1, 129], 3, 5).tobytes() == whole.tobytes()


def test_tables_look_each_field_up_in_its_own_rows(operators):
    rows = [2, 3, 4]
    values = np.arange(18, dtype=np.float32).reshape(9, 2)
    tables = EmbeddingTables(rows, values.copy(), operators)
    ids = np.array([[0, 0, 0], [1, 2, 3]], np.int32)
    expected = [[values[0], values[2], values[5]], [values[1], values[4], values[8]]]
    np.testing.assert_array_equal(tables(Tensor(ids)).asnumpy(), expected)
    for got, expected in zip(
        [view for _, view in tables.views(tables.table.asnumpy())], (values[:2], values[2:5], values[5:])
    ):
        np.testing.assert_array_equal(got, expected)


def test_wrong_sizes_are_refused():
    tables = EmbeddingTables([3], initial_rows([3], 4, 1))
    with pytest.raises(ValueError, match=r"bottom_mlp \[8\] ends with 8, which must equal emb_dim 4"):
        NetworkSpec(4, (8,), (1,))
    with pytest.raises(ValueError, match="the tables have a width of 4, the network 8"):
        DLRM(2, tables, network_spec((8,), (1,)))
    with pytest.raises(ValueError, match=r"top_mlp \[2\] must end with 1"):
        network_spec((4,), (2,))
    with pytest.raises(ValueError, match="interaction is 'sum'; it is one of dot, cat, dcnv2"):
        DLRM(2, tables, network_spec((4,), (1,), interaction="sum"))
    with pytest.raises(ValueError, match="values have 3 rows, the tables 4"):
        EmbeddingTables([4], np.zeros((3, 2), np.float32))
    with pytest.raises(ValueError, match=r"2147483648 rows in all tables; at most 2\*\*31 - 1"):
        EmbeddingTables([1 << 30, 1 << 30], np.zeros((1, 2), np.float32))


@pytest.mark.parametrize(
    ("interaction", "self_interaction"), [("dot", False), ("dot", True), ("cat", False), ("dcnv2", False)]
)
def test_planned_values_of_the_mlps_are_those_of_the_network(interaction, self_interaction):
    tables = EmbeddingTables([5, 3, 9], initial_rows([5, 3, 9], 4, 1))
    spec = network_spec((7, 4), (9, 1), interaction=interaction, self_interaction=self_interaction)
    model, planned = DLRM(6, tables, spec), mlp_values(6, 3, spec)
    assert planned == sum(parameter.size for parameter in model.mlp_parameters())
