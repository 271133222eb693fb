"""What travels within a step, by simulated ranks."""

import numpy as np
import pytest
from mindspore import Tensor, nn

from src.data.layout import PADDING, Layout
from src.network.embedding import initial_values, make_tables
from src.ranks import exchange as exchange_module
from src.ranks.placement import place
from src.ranks.slots import pieces_of


class Wire:
    """Stands for AlltoAll among ranks that are simulated one after the other: keeps what is sent, gives what is due."""

    def __init__(self):
        self.sent, self.due = [], None

    def __call__(self, values):
        self.sent.append(values.asnumpy())
        return values if self.due is None else Tensor(self.due)


def exchanged(exchanges, call, inputs):
    """The result of a method of each rank's exchange, the blocks going from rank to rank as AlltoAll moves them."""
    ranks, results = len(exchanges), []
    for exchange, values in zip(exchanges, inputs):
        exchange.all_to_all = Wire()
        getattr(exchange, call)(Tensor(values))
    blocks = [np.split(exchange.all_to_all.sent[0], ranks) for exchange in exchanges]
    for rank, (exchange, values) in enumerate(zip(exchanges, inputs)):
        exchange.all_to_all.due = np.concatenate([sender[rank] for sender in blocks])
        results.append(getattr(exchange, call)(Tensor(values)).asnumpy())
    return results


@pytest.mark.parametrize("rows", [(30, 10, 10, 10), (10, 10, 10, 10), (100, 3)])
def test_all_ranks_of_a_placement_compile_one_graph(monkeypatch, rows):
    """Whether ids are masked is one value for all, though one rank's pieces may be whole fields."""
    for name in ("AllGather", "AllReduce"):
        monkeypatch.setattr(exchange_module.ops, name, lambda **_: Wire())
    placement = place(rows, "hybrid", 2)
    tables = [make_tables(placement, rank, 4, initial_values(rows, 1))[0] for rank in range(2)]
    cut = any(piece.rows < rows[piece.table] for pieces in placement.pieces for piece in pieces)
    empty = len(placement.pieces[0]) != len(placement.pieces[1])
    assert [one.split.partial for one in tables] == [cut or empty] * 2


def test_padding_of_lists_is_the_row_of_zeros_also_of_tables_that_are_on_one_rank(monkeypatch):
    """And changes nothing, whatever the gradient of its vector."""
    for name in ("AllGather", "AllReduce"):
        monkeypatch.setattr(exchange_module.ops, name, lambda **_: nn.Identity())
    rows, layout = (3, 4), Layout((0, 1), (2, 1), ("sum", ""))
    tables, _ = make_tables(place(rows, "hybrid", 1), 0, 4, initial_values(rows, 1), layout=layout)
    ids = np.array([[2, PADDING, 3], [PADDING, PADDING, 0]], np.int32)
    found, vectors = tables.lookup(Tensor(ids))
    assert found.asnumpy().tolist() == [[2, 3, 7], [3, 3, 4]]
    assert (vectors.asnumpy()[ids == PADDING] == 0).all()
    _, gradients = tables.owned(found, Tensor(np.ones((2, 3, 4), np.float32)))
    np.testing.assert_array_equal(gradients.asnumpy(), np.where(ids == PADDING, 0, 1)[..., None] * np.ones(4))


@pytest.mark.parametrize("ranks", [2, 3])
def test_all_to_all_moves_what_all_gather_does(monkeypatch, ranks):
    """Which only Ascend has: the blocks' order, by simulated ranks."""
    for name in ("AllGather", "AllReduce", "AlltoAll"):
        monkeypatch.setattr(exchange_module.ops, name, lambda **_: Wire())
    rows = (9, 30, 2, 40, 5)
    placement = place(rows, "hybrid", ranks)
    slots = [piece.table for rank in range(ranks) for piece in pieces_of(placement, rank)]
    exchanges = [exchange_module.Exchange(rank, ranks, True) for rank in range(ranks)]
    for exchange in exchanges:
        exchange.set_slots(slots)
    rng = np.random.default_rng(1)
    for shape in ((4, len(rows)), (4, len(rows), 3)):
        samples = [rng.integers(0, 99, shape).astype(np.int32) for _ in range(ranks)]
        for rank, got in enumerate(exchanged(exchanges, "to_owners", samples)):
            own = slots[rank * placement.slots : (rank + 1) * placement.slots]
            np.testing.assert_array_equal(got, np.concatenate(samples)[:, own])
    vectors = [rng.random((4 * ranks, placement.slots, 3), dtype=np.float32) for _ in range(ranks)]
    for rank, got in enumerate(exchanged(exchanges, "to_samples", vectors)):
        np.testing.assert_array_equal(got, np.concatenate([one[4 * rank : 4 * rank + 4] for one in vectors], 1))
