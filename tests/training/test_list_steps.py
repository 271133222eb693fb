"""Fields of several values and shared tables in a training step, against plain loops in float64."""

import numpy as np
import pytest
from mindspore import Parameter, Tensor, nn, ops
from runs import StopAt, bits, train_small

from src.data.layout import PADDING, Layout
from src.data.manifest import find
from src.dlrm import DLRM
from src.network.embedding import initial_values, whole_tables
from src.network.mixed_dims import Projections, widths_of
from src.network.pooling import Pooling
from src.network.primitives import PRIMITIVES
from src.rows.cells.lists import POOLS
from src.training.optimizers import TableOptimizer
from src.training.rules import rule_of
from tests.lists import lists_data
from tests.networks import make_step, network_spec, plain_gradients, plain_loss, plain_values
from tests.training.test_optimizers import RATE, plain_update

ROWS = (9, 14, 6)
# Two fields of one value, and a list with each pool; the last two share tables with the others, a list among them.
LAYOUT = Layout((0, 1, 2, 0, 2), (1, 1, 3, 4, 3), ("", "", "sum", "mean", "max"))
# Maxima of lists of two sizes, one of which has a table for itself, and a field of one value behind lists.
MAXIMA = Layout((0, 1, 2, 0), (3, 1, 4, 2), ("mean", "", "max", "max"))
BATCH, DENSE = 12, 4


def make_lists_model(operators, layout=LAYOUT, **network):
    spec = network_spec((4,), (8, 1), **network)
    widths = widths_of(ROWS, spec)
    tables = whole_tables(widths.packed_rows, spec.emb_dim, initial_values(ROWS, 3), operators, layout)
    return DLRM(DENSE, tables, spec, seed=3, widths=widths)


def make_batch(seed=0, batch=BATCH, layout=LAYOUT):
    """Lists of all lengths, empty ones among them, whose values often come twice."""
    rng = np.random.default_rng(seed)
    tables = layout.of_ids(layout.tables)
    ids = np.stack([rng.integers(0, ROWS[table] - 2, batch) for table in tables], 1).astype(np.int32)
    for start, size, pool in zip(layout.starts, layout.sizes, layout.pools):
        if pool:
            lengths = rng.integers(0, size + 1, batch)
            lengths[:2] = 0, size
            ids[:, start : start + size][np.arange(size) >= lengths[:, None]] = PADDING
    dense = rng.exponential(1.0, (batch, DENSE)).astype(np.float32)
    return dense, ids, rng.integers(0, 2, (batch, 1)).astype(np.float32)


def lists_of(ids, layout):
    """The ids of each field of each row, and each field's pool."""
    for row, own in enumerate(ids):
        for field, (start, size, pool) in enumerate(zip(layout.starts, layout.sizes, layout.pools)):
            yield row, field, [int(one) for one in own[start : start + size] if one != PADDING], pool


def plain_pooled(tables, ids, layout):
    """Vectors [F, B, D] of ids [B, L], from the tables."""
    found = np.zeros((layout.fields, len(ids), tables[0].shape[1]))
    for row, field, own, pool in lists_of(ids, layout):
        vectors = [tables[layout.tables[field]][one] for one in own]
        if vectors:
            found[field, row] = {"max": np.max, "mean": np.mean}.get(pool, np.sum)(vectors, axis=0)
    return found


def plain_table_gradients(tables, ids, of_vectors, layout):
    """Dense gradients of the tables, of gradients [F, B, D] of the pooled vectors."""
    found = [np.zeros_like(table) for table in tables]
    for row, field, own, pool in lists_of(ids, layout):
        gradient, table = of_vectors[field][row], layout.tables[field]
        for place, one in enumerate(own):
            if pool == "max":
                for k in range(len(gradient)):
                    column = [tables[table][other][k] for other in own]
                    found[table][one][k] += gradient[k] * (column.index(max(column)) == place)
            else:
                found[table][one] += gradient / (len(own) if pool == "mean" else 1)
    return found


def on_pooled(values, pooled):
    """The oracle's values of a network whose field f looks row b up in the pooled vectors [F, B, D]."""
    values.tables = list(pooled)
    return values


def joint(model):
    """The tables' values, and apart from these the rows of padding."""
    parts = np.split(model.tables.table.asnumpy().copy(), np.cumsum([rows + 1 for rows in ROWS])[:-1])
    return [part[:-1] for part in parts], np.stack([part[-1] for part in parts])


@pytest.mark.parametrize(("rule", "decay", "layout"), [
    ("sgd", 0.0, MAXIMA), ("adagrad", 0.0, LAYOUT), ("rowwise_adagrad", 0.1, LAYOUT), ("adam", 0.1, MAXIMA),
])  # fmt: skip
def test_step_on_lists_equals_the_dense_definition(rule, decay, layout, operators):
    """Values that come twice in a list, lists that share tables, and empty lists; padding changes and moves nothing."""
    model = make_lists_model(operators, layout)
    step = make_step(model, float(RATE), optimizer=rule, mlp_optimizer="sgd", table_weight_decay=decay)
    start, _ = joint(model)
    tables = [table.astype(np.float64) for table in start]
    states = [[np.zeros_like(table) for _ in range(2)] for table in tables]
    everyone = np.arange(BATCH)[:, None].repeat(layout.fields, 1)
    seen = [np.zeros(rows, bool) for rows in ROWS]
    rates = iter(np.sqrt(1 - 0.999 ** np.arange(1, 9)) / (1 - 0.9 ** np.arange(1, 9)))
    for seed in range(3):
        dense, ids, labels = make_batch(seed, layout=layout)
        values = on_pooled(plain_values(model), plain_pooled(tables, ids, layout))
        loss = step(*map(Tensor, (dense, ids, labels))).asnumpy()
        assert loss == pytest.approx(plain_loss(values, dense, everyone, labels), abs=1e-5)
        of_vectors = plain_gradients(values, dense, everyone, labels)[2]
        gradients = plain_table_gradients(tables, ids, of_vectors, layout)
        corrected = next(rates) if rule == "adam" else 1.0
        for number, (table, gradient) in enumerate(zip(tables, gradients)):
            touched = np.unique([own for place, own in zip(layout.of_ids(layout.tables), ids.T) if place == number])
            touched = touched[touched >= 0]
            seen[number][touched] = True
            gradient[touched] += decay * table[touched]
            before = table[touched].copy()
            plain_update(rule, table, gradient, states[number], touched)
            table[touched] = before + (table[touched] - before) * corrected
    after, padding = joint(model)
    for got, plain, old, mine in zip(after, tables, start, seen):
        np.testing.assert_allclose(got, plain, rtol=0, atol=1e-4 if rule == "adam" else 1e-5)
        assert got[~mine].tobytes() == old[~mine].tobytes()
        assert np.abs(got[mine] - old[mine]).max() > 1e-3
    assert not padding.any()
    for state in step.table_optimizer.states:
        ends = np.cumsum([rows + 1 for rows in ROWS]) - 1
        assert not state.asnumpy()[ends].any()


class Gradient(nn.Cell):
    """The gradient of vectors for a given gradient of what they are pooled to."""

    def __init__(self, layout):
        super().__init__()
        self.pooling = Pooling(layout, PRIMITIVES)
        self.gradient = ops.grad(self.weighted)

    def weighted(self, vectors, ids, of_pooled):
        return (self.pooling(vectors, self.pooling.present(ids)) * of_pooled).sum()

    def construct(self, vectors, ids, of_pooled):
        pooled = self.pooling(vectors, self.pooling.present(ids))
        return pooled, self.gradient(vectors, ids, of_pooled)


@pytest.mark.parametrize("layout", [LAYOUT, MAXIMA])
def test_pooling_and_its_gradient_are_those_of_plain_loops(layout):
    """Ties in a maximum go to the first; padding has vectors of its own, which count for nothing."""
    _, ids, _ = make_batch(7, layout=layout)
    rng = np.random.default_rng(1)
    vectors = rng.integers(-3, 3, (BATCH, layout.ids, 5)).astype(np.float32)  # few values, so that many are equal
    vectors[ids == PADDING] = 50.0
    of_pooled = rng.normal(size=(BATCH, layout.fields, 5)).astype(np.float32)
    pooled, gradient = (one.asnumpy() for one in Gradient(layout)(*map(Tensor, (vectors, ids, of_pooled))))
    places = [vectors.reshape(-1, 5).astype(np.float64)] * len(ROWS)  # each place of a row is a row of its own
    own = np.where(ids == PADDING, PADDING, np.arange(ids.size).reshape(ids.shape))
    expected = plain_pooled(places, own, layout)
    np.testing.assert_allclose(pooled, expected.swapaxes(0, 1), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(layout.pool(vectors, ids), expected.swapaxes(0, 1), rtol=1e-6, atol=1e-6)
    plain = sum(plain_table_gradients(places, own, of_pooled.swapaxes(0, 1).astype(np.float64), layout))
    np.testing.assert_allclose(gradient.reshape(-1, 5), plain, rtol=1e-6, atol=1e-6)
    assert {pool for pool in LAYOUT.pools if pool} == set(POOLS)


def test_rows_that_come_across_columns_are_updated_by_all(operators):
    """A batch that several threads share, in columns of one table: no update of a row is lost."""
    rng = np.random.default_rng(1)
    table = Parameter(Tensor(rng.normal(size=(20, 16)).astype(np.float32)))
    start = table.asnumpy().astype(np.float64)
    rows = rng.integers(0, 20, (3000, 8)).astype(np.int32)
    gradients = (rng.normal(size=(3000, 8, 16)) / 3000).astype(np.float32)
    TableOptimizer(table, rule_of("sgd"), 0.0, operators, across=True)(*map(Tensor, (rows, gradients, RATE)))
    np.add.at(start, rows, -float(RATE) * gradients.astype(np.float64))
    np.testing.assert_allclose(table.asnumpy(), start, rtol=0, atol=1e-5)


def test_towers_and_narrow_vectors_take_lists(compiled):
    """Scores are those of the pooled vectors, as wide as all; padding rows stay, and the loss falls."""
    shape = network_spec((4,), (8, 1), towers=2, mixed_dims=1.5)
    model = make_lists_model(compiled, towers=2, mixed_dims=1.5)
    dense, ids, labels = make_batch(1)
    logits = model(Tensor(dense), Tensor(ids)).asnumpy()
    wide = model.projections(model.look_up(Tensor(ids))[1]).asnumpy()
    one_each = DLRM(DENSE, whole_tables([1] * LAYOUT.fields, 8, lambda *_: None), shape)
    for mine, given in zip(one_each.mlp_parameters(), model.mlp_parameters()):
        mine.set_data(given)
    expected = one_each.score(Tensor(dense), Tensor(LAYOUT.pool(wide, ids))).asnumpy()
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5)
    step = make_step(model, 0.5, optimizer="adagrad", table_weight_decay=0.01)
    losses = [float(step(*map(Tensor, (dense, ids, labels))).asnumpy()) for _ in range(30)]
    assert losses[-1] < losses[0] - 0.1
    ends = np.cumsum([rows + 1 for rows in widths_of(ROWS, shape).packed_rows]) - 1
    assert not model.tables.table.asnumpy()[ends].any()


def test_stopped_training_on_lists_goes_on_to_the_same_bits(made_once, tmp_path):
    """Padding rows stand in no file, and are zeros again."""
    data = find(str(made_once("lists", lists_data) / "dataset"))
    options = {"save_steps": 5, "optimizer": "adam", "lr": 0.01, "batch_size": 32}
    train_small(data, tmp_path / "whole", **options)
    with pytest.raises(KeyboardInterrupt):
        train_small(data, tmp_path / "stopped", callbacks=[StopAt(17)], **options)
    train_small(data, tmp_path / "stopped", **options)
    assert bits(tmp_path / "stopped/dlrm.ckpt") == bits(tmp_path / "whole/dlrm.ckpt")


def test_fields_of_one_value_leave_the_graph_as_it_was(operators):
    """There is nothing that pools, no row of padding, and all columns may be shared out."""
    plain = Layout.plain(3)
    tables = whole_tables(ROWS, 4, initial_values(ROWS, 1), operators, plain)
    model = DLRM(DENSE, tables, network_spec((4,), (8, 1)))
    assert (model.pooling, model.present(Tensor([[0, 1, 2]])), tables.pads) == (None, (), False)
    assert tables.table.shape == (sum(ROWS), 4)
    assert plain.is_plain


def test_matrices_of_narrow_tables_get_the_gradients_of_all_their_ids():
    """As many times as a row has ids of the table; plain sums over these."""
    widths = widths_of((64, 2, 64), network_spec((4,), (8, 1), mixed_dims=0.2))
    tables = (0, 2, 1, 2, 2)
    cell = Projections(widths, np.random.default_rng(1), tables).of_ids
    assert widths.shares[0] == widths.shares[2] > widths.shares[1] == 1
    rng = np.random.default_rng(2)
    matrices, weights = (rng.normal(size=(count, 4, 4)).astype(np.float32) for count in (3, len(tables)))
    found = cell.bprop(Tensor(matrices), None, Tensor(weights))[0].asnumpy()
    places = [{1: 0, 0: 1, 2: 2}[table] for table in tables]
    np.testing.assert_array_equal(cell(Tensor(matrices)).asnumpy(), matrices[places])
    expected = np.zeros_like(matrices)
    np.add.at(expected, places, weights)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
