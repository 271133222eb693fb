"""What tests/graphs.py has tests share is what each would have of its own."""

import graphs
import numpy as np
import pytest
from mindspore import Tensor
from networks import changing, make_batch, make_model, make_step


def trained(operators, seed, steps=3, **options):
    """A step that has trained, its losses, and all its values."""
    model = make_model(slot_dim=2, seed=seed, operators=operators)
    step = make_step(model, optimizer="adagrad", **options)
    losses = [float(step(*map(Tensor, make_batch(model, 5, seed=number))).asnumpy()) for number in range(steps)]
    return step, losses, {name: value.asnumpy().copy() for name, value in changing(step).items()}


def test_a_borrowed_graph_computes_what_an_own_one_does(operators):
    lender, _, before = trained(operators, 1)
    step, losses, values = trained(operators, 2)
    assert graphs.loan_of(step).graph.cell is not step
    with graphs.apart():
        own, expected, own_values = trained(operators, 2)
    assert graphs.loan_of(own) is None
    assert graphs.structure_of(own.model)[0] == graphs.structure_of(step.model)[0], "what they hold shares graphs, too"
    assert losses == expected
    assert all(np.array_equal(value, own_values[name]) for name, value in values.items())
    assert all(np.array_equal(value.asnumpy(), before[name]) for name, value in changing(lender).items())
    assert not np.array_equal(values["embedding"], before["embedding"])


@pytest.mark.parametrize("options", [{"label_smoothing": 0.1}, {"table_weight_decay": 0.1}, {"factors": np.ones(2)}])
def test_cells_that_differ_in_a_constant_share_nothing(options):
    """Nor do those of other shapes, which are told by the parameters'."""
    names = {
        graphs.structure_of(make_step(make_model(slot_dim=2, seed=seed), optimizer="adagrad", **more))[0]
        for seed in (1, 2)
        for more in ({}, options)
    }
    assert len(names) == 2


def test_a_graph_that_fails_is_lent_no_more(compiled):
    step, *_ = trained(compiled, 1, steps=1)
    loan = graphs.loan_of(step)
    owner = loan.graph.cell if loan else step
    dense, ids, labels = make_batch(step.model, 5)
    with pytest.raises(RuntimeError):
        step(*map(Tensor, (dense, np.full_like(ids, 10**6), labels)))
    assert all(graph.cell is not owner for graph in graphs.graphs.values())
