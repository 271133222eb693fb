"""One training step against dense SGD in plain NumPy, float64, and what a step must leave alone."""

import graphs
import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops
from networks import (
    RATE,
    Steps,
    make_batch,
    make_model,
    make_step,
    plain_gradients,
    plain_loss,
    plain_step,
    plain_values,
    values_by_name,
)

from src.network.stock import STOCK

NARROW = {"bottom": (12, 7)}  # of a width that compiled operators pad
KINDS = {
    "dot": NARROW,
    "self": NARROW | {"self_interaction": True},
    "cat": NARROW | {"interaction": "cat"},
    "width 16": {"bottom": (12, 16)},
    "width 16, self": {"bottom": (12, 16), "self_interaction": True},
}
FACTORS = np.array([0.5, 1.0, 0.0, 0.25])  # of the rates in steps: one array, since it is a constant of the graph
# Losses of golden_losses(), which `PYTHONPATH=. python tests/training/test_step.py` prints again.
GOLDEN = [0.7152985, 0.6835237, 0.7125955, 0.6800426, 0.7046847, 0.6849464, 0.7042753, 0.6810473, 0.6998558, 0.6851205,
          0.7001549, 0.6807953, 0.6969644, 0.6843595, 0.6976005, 0.6798708, 0.6947824, 0.683164, 0.6955996,
          0.6786734]  # fmt: skip


@pytest.fixture(scope="module")
def steps():
    return Steps()


def run(step, batch):
    """The loss of one step on a batch of NumPy arrays."""
    return float(step(*map(Tensor, batch)).asnumpy())


def batch_with_duplicates(model, batch=16):
    """So many rows on so small tables that ids repeat in every field, and one id in all rows of the first."""
    dense, ids, labels = make_batch(model, 5, batch, seed=4)
    ids[:, 0] = 2
    assert all(len(np.unique(column)) < len(column) for column in ids.T)
    return dense, ids, labels


def golden_losses(operators=STOCK, seed=1):
    """The losses of 20 steps on 4 generated batches in turn, at the sizes of Criteo but for the tables' rows."""
    model = make_model(13, 26, (512, 256, 64, 16), (512, 256, 1), seed=seed, operators=operators)
    step = make_step(model, RATE)
    return [float(step(*map(Tensor, make_batch(model, 13, 64, seed=number % 4))).asnumpy()) for number in range(20)]


@pytest.mark.parametrize("kind", KINDS)
def test_plain_gradients_are_the_finite_differences_of_the_plain_loss(kind):
    """The oracle itself: every 7th value of every parameter."""
    model = make_model(**{"slot_dim": 3, "bottom": (6, 4), "top": (5, 1), "seed": 5} | KINDS[kind])
    values, batch = plain_values(model), make_batch(model, 5, 4, seed=1)
    bottom, top, tables = plain_gradients(values, *batch, **KINDS[kind])
    pairs = [*zip(values.tables, tables)]
    for layers, gradients in ((values.bottom, bottom), (values.top, top)):
        pairs += [pair for layer, gradient in zip(layers, gradients) for pair in zip(layer, gradient)]
    for value, gradient in pairs:
        for place in range(0, value.size, 7):
            kept = value.flat[place]
            losses = []
            for nudge in (1e-5, -1e-5):
                value.flat[place] = kept + nudge
                losses.append(plain_loss(values, *batch, **KINDS[kind]))
            value.flat[place] = kept
            assert (losses[0] - losses[1]) / 2e-5 == pytest.approx(gradient.flat[place], abs=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_step_with_duplicate_ids_equals_dense_sgd(kind, operators, steps):
    """Every parameter within 1e-6, where the updates reach 1e-2 and more."""
    model, step = steps(operators, RATE, network=KINDS[kind])
    batch = batch_with_duplicates(model)
    before = values_by_name(model)
    expected = plain_step(plain_values(model), batch, RATE, **KINDS[kind])
    loss = run(step, batch)
    after = values_by_name(model)
    assert after.keys() == expected.keys()
    assert sum(value.size for value in after.values()) == sum(value.size for value in model.get_parameters())
    for name, value in expected.items():
        assert np.abs(value - before[name]).max() > 1e-3, name
        np.testing.assert_allclose(after[name], value, rtol=0, atol=1e-6, err_msg=name)
    assert loss > 0


def test_several_steps_equal_dense_sgd(operators, steps):
    """Within 1e-5 after 5 steps: the graph sees its own updates."""
    model, step = steps(operators, RATE)
    values = plain_values(model)
    for number in range(5):
        batch = make_batch(model, 5, 16, seed=number)
        expected = plain_step(values, batch, RATE)
        starts = np.cumsum(model.tables.table_rows)[:-1]
        values.tables = np.split(expected["tables"], starts)
        for name, layers in (("bottom", values.bottom), ("top", values.top)):
            layers[:] = [(expected[f"{name} weight {i}"], expected[f"{name} bias {i}"]) for i in range(len(layers))]
        step(*map(Tensor, batch))
    for name, value in values_by_name(model).items():
        np.testing.assert_allclose(value, expected[name], rtol=0, atol=1e-5, err_msg=name)


def test_loss_is_the_mean_cross_entropy_before_the_update(steps):
    model, step = steps(STOCK, RATE)
    batch = batch_with_duplicates(model)
    expected = plain_loss(plain_values(model), *batch)
    assert run(step, batch) == pytest.approx(expected, rel=1e-6)


def test_rows_outside_the_batch_keep_their_bits(operators, steps):
    """Batches of 16, whose ids are those of 3 samples."""
    model, step = steps(operators, RATE)
    before = model.tables.table.asnumpy().copy()
    touched = set()
    for seed in range(3):
        dense, ids, labels = make_batch(model, 5, 16, seed=seed)
        ids = np.resize(ids[:3], ids.shape)
        starts = np.cumsum([0, *model.tables.table_rows[:-1]])
        touched |= set((ids + starts).ravel().tolist())
        step(Tensor(dense), Tensor(ids), Tensor(labels))
    after = model.tables.table.asnumpy()
    assert 20 < len(touched) < len(before) - 20
    changed = {row for row in range(len(before)) if before[row].tobytes() != after[row].tobytes()}
    assert changed == touched


def test_step_keeps_no_copy_of_any_value(steps):
    """No optimizer state: the step's values are the model's and the learning rates."""
    model, step = steps(STOCK, RATE)
    run(step, make_batch(model, 5, 16))
    mine = {id(value) for value in model.get_parameters()}
    assert [value.name for value in step.get_parameters() if id(value) not in mine] == [
        "learning_rate",
        "table_learning_rate",
    ]


def test_golden_losses_of_20_seeded_steps(operators):
    """To 1e-5, relative; see GOLDEN on how to make them again."""
    np.testing.assert_allclose(golden_losses(operators), GOLDEN, rtol=1e-5)


def test_one_seed_gives_identical_weights_and_another_does_not(operators, steps):
    def weights(seed):
        model, step = steps(operators, RATE, seed=seed)
        for number in range(5):
            step(*map(Tensor, make_batch(model, 5, 16, seed=number)))
        return {value.name: value.asnumpy().tobytes() for value in model.get_parameters()}

    first, same, other = weights(1), weights(1), weights(2)
    assert first == same
    assert all(first[name] != other[name] for name in first)


def test_step_answers_every_kind_of_batch_in_turn(operators):
    """Batches of two sizes by turns: as by MindSpore's own call, with all its checks, of a cell for each size."""
    model, other = make_model(seed=2, operators=operators), make_model(seed=2, operators=operators)
    step, cells = make_step(model, RATE), {size: make_step(other, RATE) for size in (16, 7)}
    for number, size in enumerate((16, 16, 16, 7, 7, 16, 7)):
        batch = make_batch(model, 5, size, seed=number)
        with graphs.apart():
            loss = run(step, batch)
        assert loss == float(nn.Cell.__call__(cells[size], *map(Tensor, batch)).asnumpy())
    for name, value in values_by_name(model).items():
        np.testing.assert_array_equal(value, values_by_name(other)[name])


def test_step_refuses_a_batch_of_the_wrong_kind(operators, own_graphs):
    model = make_model(seed=2, operators=operators)
    step = make_step(model, RATE)
    dense, ids, labels = map(Tensor, make_batch(model, 5, 8))
    for _ in range(2):
        step(dense, ids, labels)
    with pytest.raises((TypeError, ValueError, RuntimeError)):
        step(dense, ids)
    wrong = [
        (dense[:, :4], ids, labels),
        (ops.concat((dense, dense[:, :1]), 1), ids, labels),
        (dense, ids[:, :7], labels),
        (dense, ops.concat((ids, ids[:, :1]), 1), labels),
    ]
    for batch in wrong:
        with pytest.raises((TypeError, ValueError, RuntimeError)):
            step(*batch)
        assert np.isfinite(float(step(dense, ids, labels)))  # and goes on


def test_compiled_operators_refuse_other_types(compiled, own_graphs):
    model = make_model(seed=2, operators=compiled)
    dense, ids, labels = make_batch(model, 5, 8)
    for batch in ((dense.astype(np.float64), ids, labels), (dense, ids.astype(np.int64), labels),
                  (dense, ids, labels.astype(np.int32))):  # fmt: skip
        with pytest.raises((TypeError, RuntimeError)):
            run(make_step(model, RATE), batch)


@pytest.mark.parametrize("row", [-1, 5, 132])
def test_id_outside_its_table_is_an_error(compiled, own_graphs, row):
    """5 is the second field's first row; MindSpore's operators look such ids up, see DLRM."""
    model = make_model(seed=2, operators=compiled)
    assert sum(model.tables.table_rows) == 124
    dense, ids, labels = make_batch(model, 5, 8)
    ids[3, 0] = row
    step = make_step(model, RATE)  # of its own: MindSpore runs no graph again that failed
    with pytest.raises(RuntimeError):
        run(step, (dense, ids, labels))


def test_rates_of_tables_and_mlps_are_separate(operators, steps):
    """Tables at 0.3, MLPs at 0.15: each as in a step of that rate alone."""
    expected = {}
    for rate in (0.3, 0.15):
        model, step = steps(operators, rate)
        batch = batch_with_duplicates(model)
        run(step, batch)
        for name, value in values_by_name(model).items():
            if (name == "tables") == (rate == 0.3):
                expected[name] = value
    model, step = steps(operators, 0.15, 0.3)
    run(step, batch)
    for name, value in values_by_name(model).items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_factors_of_the_steps_multiply_both_rates(operators, optimizer, steps):
    """And on with the last one: as steps at these rates by hand, but for Adam's state."""
    factors = [*FACTORS, FACTORS[-1]]
    model, step = steps(operators, 0.1, 0.2, optimizer=optimizer, factors=FACTORS)
    by_hand, hand = steps(operators, 0.1, 0.2, optimizer=optimizer)
    for number, factor in enumerate(factors):
        batch = tuple(map(Tensor, make_batch(model, 5, 16, seed=number)))
        before = values_by_name(model)
        step(*batch)
        hand.learning_rate.set_data(Tensor(0.1 * factor, ms.float32))
        hand.table_learning_rate.set_data(Tensor(0.2 * factor, ms.float32))
        hand(*batch)
        for name, value in values_by_name(model).items():
            assert np.array_equal(value, before[name]) == (factor == 0), name
            np.testing.assert_allclose(value, values_by_name(by_hand)[name], rtol=0, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("rules", [("adagrad", "adam"), ("adam", "sgd")])
def test_mlps_have_a_rule_of_their_own(operators, rules, steps):
    """After two steps: each as where both have its rule, in a step of the same values before."""
    values, batches = {}, []
    for kind, pair in {"tables": (rules[0], ""), "mlps": (rules[1], ""), "mixed": rules}.items():
        model, step = steps(operators, 0.01, 0.02, optimizer=pair[0], mlp_optimizer=pair[1], factors=FACTORS)
        batches = [make_batch(model, 5, 16, seed=number) for number in range(2)]
        step(*map(Tensor, batches[0]))
        values[kind] = values_by_name(model)
        if kind == "mixed":
            step(*map(Tensor, batches[1]))
            assert set(step.other_values()) >= {"steps_done"}
            after = values_by_name(model)
    for name, value in values["mixed"].items():
        expected = values["tables" if name == "tables" else "mlps"][name]
        np.testing.assert_array_equal(value, expected, err_msg=name)
        assert not np.array_equal(after[name], value)


def test_adam_of_tables_that_begin_anew_is_that_of_a_fresh_training(operators):
    """The rows' first change behind a reset is that of a first step, and so the second; MLPs' correction goes on."""
    steps, changes = 5, []
    for resets in (True, False):
        model = make_model(seed=2, operators=operators)
        factors = np.array([1.0] * steps + [0.5] * steps)
        step = make_step(model, 0.001, 0.001, "adam", factors=factors, reset_steps=steps if resets else 0)
        batch = tuple(map(Tensor, batch_with_duplicates(model)))
        for number in range(2 * steps):
            if number == steps:
                step.reset_tables(lambda piece, values: values.fill(0.1))
            before = model.tables.table.asnumpy().copy()
            step(*batch)
            changes.append(np.abs(model.tables.table.asnumpy() - before).max())
    fresh, again, without = changes[0], changes[steps], changes[3 * steps]
    assert fresh == pytest.approx(0.001, rel=1e-3)
    assert again == pytest.approx(0.0005, rel=1e-3)
    assert without < 0.0003  # and behind thousands of steps 0.0016


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_mlp_weight_decay_is_at_the_rate_of_the_step(operators, optimizer, steps):
    """Without Adam's correction, which is 0.3 in the first step; biases and tables have none."""
    found = []
    for decay in (0.0, 2.0):
        model, step = steps(operators, 0.1, optimizer=optimizer, mlp_weight_decay=decay, factors=FACTORS)
        before = values_by_name(model)
        step(*map(Tensor, make_batch(model, 5, 16)))
        found.append(values_by_name(model))
    for name, value in found[0].items():
        lost = 0.1 * FACTORS[0] * 2.0 * before[name] if "weight" in name else 0.0
        np.testing.assert_allclose(found[1][name], value - lost, rtol=0, atol=1e-6, err_msg=name)


def test_label_smoothing_moves_labels_towards_a_half(operators, steps):
    """As a step with labels y (1 - e) + e / 2, in loss and update."""
    found = []
    for smoothing in (0.2, 0.0):
        model, step = steps(operators, RATE, **({"label_smoothing": smoothing} if smoothing else {}))
        dense, ids, labels = make_batch(model, 5, 16)
        labels = labels if smoothing else (labels * 0.8 + 0.1).astype(np.float32)
        found.append((run(step, (dense, ids, labels)), values_by_name(model)))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    for name, value in found[0][1].items():
        np.testing.assert_allclose(value, found[1][1][name], rtol=0, atol=1e-7, err_msg=name)


def test_average_is_the_mean_of_the_weights_after_the_steps_from_one_on(operators, steps):
    """Steps 2, 3 and 4 of 0 to 4; training goes on from its own weights, to the bit."""
    (model, step), (plain, other) = steps(operators, 0.1, average_from=2), steps(operators, 0.1)
    after = []
    for number in range(5):
        batch = make_batch(model, 5, 16, seed=number)
        step(*map(Tensor, batch))
        other(*map(Tensor, batch))
        after.append(values_by_name(plain))
        rows = tuple(map(Tensor, batch[:2]))
        shown, logits = step.with_average(lambda rows=rows: (values_by_name(model), model(*rows).asnumpy()))
        for name, value in shown.items():
            mean = np.mean([one[name] for one in after[2:]], 0) if number > 1 and name != "tables" else after[-1][name]
            np.testing.assert_allclose(value, mean, rtol=0, atol=1e-7 if number > 1 else 0, err_msg=name)
        assert np.array_equal(logits, model(*rows).asnumpy()) == (number < 3)
        for name, value in values_by_name(model).items():
            np.testing.assert_array_equal(value, after[-1][name], err_msg=name)


if __name__ == "__main__":
    print([round(loss, 7) for loss in golden_losses()])
