"""Optimizers against their dense definitions in plain NumPy, float64, by stock operators and by the compiled ones."""

import numpy as np
import pytest
from mindspore import Parameter, Tensor, nn

from src.training.optimizers import DenseOptimizer, TableOptimizer
from src.training.rules import RULES, adam_corrections, rule_of, rule_of_mlps
from src.training.schedule import rate_factors

ROWS, FIELDS, STEPS = 40, 3, 5
RATE = np.float32(0.05)


def plain_update(rule, values, gradient, states, touched=...):
    """One step of a rule on the touched rows, in place; the gradient is dense, states start as zeros."""
    w, g = values[touched], gradient[touched]
    if rule == "adam":
        states[0][touched] = 0.9 * states[0][touched] + 0.1 * g
        states[1][touched] = 0.999 * states[1][touched] + 0.001 * g**2
        change = states[0][touched] / (np.sqrt(states[1][touched]) + 1e-8)
    elif rule == "sgd":
        change = g
    else:
        squares = g**2
        if rule == "rowwise_adagrad":
            squares = np.broadcast_to(squares.mean(1, keepdims=True), squares.shape)
        states[0][touched] += squares
        change = g / (np.sqrt(states[0][touched]) + 1e-10)
    values[touched] = w - RATE * change


def make_table(width):
    return np.random.default_rng(1).normal(size=(ROWS * FIELDS, width)).astype(np.float32)


# Width, decay and batch: any two of their values meet in one of these.
CASES = [(7, 0.0, 1), (16, 0.1, 1), (7, 0.1, 24), (16, 0.0, 24), (7, 0.0, 3000), (16, 0.1, 3000)]


class Together(nn.Cell):
    """Optimizers of several tables in one graph, which is compiled once for all cases of a rule and all steps.

    Inputs: rate; each optimizer's rows; each one's gradients. Not as tuples, which MindSpore takes for constants.
    """

    def __init__(self, optimizers):
        super().__init__()
        self.optimizers = nn.CellList([*optimizers])
        self.count = len(self.optimizers)

    def construct(self, rate, *given):
        done = ()
        for index in range(self.count):
            done = (*done, self.optimizers[index](given[index], given[self.count + index], rate))
        return done


class OfEach(nn.Cell):
    """The optimizer of some parameters, whose inputs are its rates, one or two, and each one's gradient."""

    def __init__(self, optimizer, rates=1):
        super().__init__()
        self.optimizer, self.rates = optimizer, rates

    def construct(self, *given):
        return self.optimizer(given[self.rates :], *given[: self.rates])


def batches_of(batch, width):
    """Rows and gradients of each step: a quarter of the rows is never looked up, the first of each field mostly."""
    for seed in range(STEPS):
        rng = np.random.default_rng(seed)
        ids = np.where(rng.random((batch, FIELDS)) < 0.6, 0, rng.integers(0, ROWS * 3 // 4, (batch, FIELDS)))
        rows = (ids + ROWS * np.arange(FIELDS)).astype(np.int32)
        yield rows, (rng.normal(size=(batch, FIELDS, width)) / batch).astype(np.float32)


@pytest.fixture(scope="module")
def updated():
    """Optimizers after all steps, by width, decay and batch; of each rule and each way to compute, once."""
    made = {}

    def optimizers_of(rule, operators):
        if (rule, operators) not in made:
            cases = {}
            for case in CASES:
                name = "_".join(map(str, case)).replace(".", "_")
                table = Parameter(Tensor(make_table(case[0])), name=f"table_{name}")
                cases[case] = TableOptimizer(table, rule_of(rule), case[1], operators)
                for state in cases[case].states:
                    state.name = f"{state.name}_{name}"
            together = Together(cases.values())
            for steps in zip(*(batches_of(batch, width) for width, _, batch in cases)):
                rows, gradients = zip(*steps)
                together(*map(Tensor, (RATE, *rows, *gradients)))
            made[rule, operators] = cases
        return made[rule, operators]

    return optimizers_of


@pytest.mark.parametrize(("width", "decay", "batch"), CASES)
@pytest.mark.parametrize("rule", RULES)
def test_rows_looked_up_repeatedly_change_as_by_the_dense_definition(rule, width, decay, batch, operators, updated):
    """Within 3e-6, and 2e-5 for large batches, whose sums round more; other rows keep every bit, in states too."""
    optimizer, start = updated(rule, operators)[width, decay, batch], make_table(width)
    values = start.astype(np.float64)
    states = [np.zeros_like(values) for _ in range(2)]
    seen = np.zeros(len(start), bool)
    for rows, gradients in batches_of(batch, width):
        gradient = np.zeros_like(values)
        np.add.at(gradient, rows, gradients.astype(np.float64))
        touched = np.unique(rows)
        seen[touched] = True
        gradient[touched] += np.float32(decay) * values[touched]
        plain_update(rule, values, gradient, states, touched)
    got = optimizer.table.asnumpy()
    np.testing.assert_allclose(got, values, rtol=0, atol=3e-6 if batch < 1000 else 2e-5)
    assert np.abs(values[seen] - start[seen]).max() > 1e-3
    assert got[~seen].tobytes() == start[~seen].tobytes()
    for state, plain in zip(optimizer.states, states):
        mine = np.broadcast_to(state.asnumpy(), plain.shape)
        np.testing.assert_allclose(mine, plain, rtol=1e-4, atol=1e-8)
        assert not mine[~seen].any()


@pytest.mark.parametrize("rule", RULES)
def test_rows_that_end_before_their_tensor_does_change_alone(rule, compiled):
    """In one column, some rows twice: as if the tensor ended there, whatever stands behind; or none at all."""
    rng, used = np.random.default_rng(1), 2000
    rows = rng.integers(0, 90, (used, 1)).astype(np.int32)
    gradients = (rng.normal(size=(used, 1, 16)) / used).astype(np.float32)
    behind = np.array([[-1], [5], [-1]], np.int32), np.full((3, 1, 16), np.nan, np.float32)
    given = [(rows, gradients), (np.concatenate([rows, behind[0]]), np.concatenate([gradients, behind[1]])), behind]
    optimizers = []
    for name in ("whole", "ended", "none"):
        optimizers.append(TableOptimizer(Parameter(Tensor(make_table(16)), name=name), rule_of(rule), 0.0, compiled))
        for state in optimizers[-1].states:
            state.name = f"{state.name}_{name}"
    given_rows, given_gradients = zip(*given)
    Together(optimizers)(*map(Tensor, (RATE, *given_rows, *given_gradients)))
    whole, ended, none = (optimizer.table.asnumpy() for optimizer in optimizers)
    assert ended.tobytes() == whole.tobytes() != none.tobytes() == make_table(16).tobytes()
    for one, other in zip(optimizers[0].states, optimizers[1].states):
        assert one.asnumpy().tobytes() == other.asnumpy().tobytes()


def test_states_of_a_table_are_as_large_as_told():
    """Row-wise Adagrad: one value a row."""
    table = Parameter(Tensor(make_table(16)), name="table")
    shapes = {rule: [state.shape for state in TableOptimizer(table, rule_of(rule)).states] for rule in RULES}
    rows = ROWS * FIELDS
    assert shapes == {"sgd": [], "adagrad": [(rows, 16)], "rowwise_adagrad": [(rows, 1)], "adam": [(rows, 16)] * 2}


@pytest.mark.parametrize("rule", RULES)
def test_dense_parameters_change_as_by_the_definition(rule, operators):
    """Parameters of one value and of more than a thread's share among them."""
    rng = np.random.default_rng(1)
    start = [rng.normal(size=shape).astype(np.float32) for shape in ((1,), (5, 3), (300, 200), (7,))]
    parameters = [Parameter(Tensor(value), name=f"p{index}") for index, value in enumerate(start)]
    optimizer = OfEach(DenseOptimizer(parameters, rule_of_mlps(rule), operators))
    values = [value.astype(np.float64) for value in start]
    states = [[np.zeros_like(value) for _ in range(2)] for value in values]
    for _ in range(STEPS):
        gradients = [rng.normal(size=value.shape).astype(np.float32) for value in values]
        for value, gradient, state in zip(values, gradients, states):
            plain_update("adagrad" if rule == "rowwise_adagrad" else rule, value, gradient.astype(float), state)
        optimizer(*map(Tensor, (RATE, *gradients)))
    for parameter, value in zip(parameters, values):
        np.testing.assert_allclose(parameter.asnumpy(), value, rtol=0, atol=3e-6)


@pytest.mark.parametrize("rule", ["sgd", "adagrad", "adam"])
def test_weight_decay_takes_a_share_of_matrices_apart_from_their_gradients(rule, operators):
    """At a rate of its own; Loshchilov and Hutter 2019, algorithm 2. Within 3e-6."""
    rng = np.random.default_rng(1)
    start = [rng.normal(size=shape).astype(np.float32) for shape in ((5, 3), (300, 200), (7,))]
    parameters = [Parameter(Tensor(value), name=f"p{index}") for index, value in enumerate(start)]
    optimizer = OfEach(DenseOptimizer(parameters, rule_of_mlps(rule), operators, 0.5), rates=2)
    values = [value.astype(np.float64) for value in start]
    states = [[np.zeros_like(value) for _ in range(2)] for value in values]
    for step in range(STEPS):
        gradients = [rng.normal(size=value.shape).astype(np.float32) for value in values]
        decay_rate = np.float32(0.01 * step)
        for value, gradient, state in zip(values, gradients, states):
            lost = decay_rate * 0.5 * value if value.ndim == 2 else 0.0
            plain_update(rule, value, gradient.astype(float), state)
            value -= lost
        optimizer(*map(Tensor, (RATE, decay_rate, *gradients)))
    for parameter, value in zip(parameters, values):
        np.testing.assert_allclose(parameter.asnumpy(), value, rtol=0, atol=3e-6)


def test_adam_corrections_are_those_of_the_paper():
    """Kingma and Ba 2015, section 2: of 1 / (1 - b1^t) for m and 1 / (1 - b2^t) for v, v's under the root."""
    got = adam_corrections()
    for t in (1, 2, 10, 5000):
        assert got[t - 1] == pytest.approx((1 - 0.999**t) ** 0.5 / (1 - 0.9**t), rel=1e-9)
    assert np.float32(got[-1]) == 1


def test_unknown_rule_is_refused():
    with pytest.raises(ValueError, match="optimizer is 'lamb'; it is one of sgd, adagrad, rowwise_adagrad, adam"):
        rule_of("lamb")
    with pytest.raises(ValueError, match="optimizer is 'lamb'"):
        rule_of_mlps("lamb")


def test_constant_schedule_warms_up_and_stays():
    np.testing.assert_allclose(rate_factors("constant", 6, warmup_steps=4), [0.25, 0.5, 0.75, 1, 1, 1])
    np.testing.assert_allclose(rate_factors("constant", 3), [1, 1, 1])


def test_polynomial_schedule_decays_behind_the_warm_up():
    got = rate_factors("polynomial", 9, warmup_steps=2, decay_steps=4, lr_end_factor=0.2, lr_power=2)
    expected = [0.5, 1, *[0.2 + 0.8 * (1 - done / 4) ** 2 for done in range(5)], 0.2, 0.2]
    np.testing.assert_allclose(got, expected)


def test_cosine_schedule_ends_with_the_training():
    got = rate_factors("cosine", 11, warmup_steps=1)
    np.testing.assert_allclose(got[1:], [(1 + np.cos(np.pi * done / 10)) / 2 for done in range(10)])
    assert got[0] == 1


def test_decay_takes_a_share_of_the_steps_at_their_end():
    got = rate_factors("polynomial", 10, warmup_steps=2, lr_power=1, decay_share=0.3, lr_end_factor=0.1)
    np.testing.assert_allclose(got, [0.5, 1, 1, 1, 1, 1, 1, 1, 0.7, 0.4])
    np.testing.assert_allclose(rate_factors("cosine", 11, 1, decay_share=1.0), rate_factors("cosine", 11, 1))
    np.testing.assert_allclose(rate_factors("polynomial", 4, 3, decay_share=0.5), [1 / 3, 2 / 3, 1, 1])


def test_warm_up_as_long_as_the_training():
    np.testing.assert_allclose(rate_factors("cosine", 2, warmup_steps=4), [0.25, 0.5])


def test_unknown_schedule_is_refused():
    with pytest.raises(ValueError, match="lr_schedule is 'step'; it is one of constant, polynomial, cosine"):
        rate_factors("step", 3)


def test_each_cycle_begins_the_schedule_anew():
    got = rate_factors("polynomial", 12, warmup_steps=1, lr_power=1, decay_share=0.5, cycles=3)
    np.testing.assert_allclose(got, [1, 1, 1, 0.5] * 3)
    assert np.array_equal(rate_factors("cosine", 8), rate_factors("cosine", 8, cycles=1))
    with pytest.raises(ValueError, match="10 steps are not a multiple of 3 cycles"):
        rate_factors("cosine", 10, cycles=3)
